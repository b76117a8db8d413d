"""A resumed run goes on as the one that was never cut.

mmengine saves no state of random generators, its data loaders' workers begin anew in a resumed
process, and an evaluation that was cut off is not made up for. Here the random numbers of a step
follow from (seed, iteration, rank), those of a sample from (seed, epoch, draw, rank), in whichever
process it is loaded; and what a checkpoint's evaluation was due to say is said first.
"""

import functools
import itertools
import logging
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, find_latest_checkpoint
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from .checkpoint import load_weights_only
from .errors import UserError, first_line
from .samples import CheckedRunner


def seed_generators(seed: int | None, *key: int) -> None:
    """Let Python's, numpy's and torch's random numbers follow from a seed and a key.

    Args:
        seed: of the run; None for numbers that nothing repeats.
        key: of what the numbers are for, none of it negative; no two keys share their numbers.
    """
    words = np.random.SeedSequence(seed, spawn_key=key).generate_state(3).tolist()
    random.seed(words[0])
    np.random.seed(words[1])
    # not torch.manual_seed, which takes half a millisecond as long as CUDA is not in use
    torch.default_generator.manual_seed(words[2])
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(words[2])


# Samples


class KeyedBatches:
    """A batch sampler whose indices come with the key of their random numbers; all else is its own.

    The key is (epoch, draw, rank): a sample that several ranks draw, or that comes again, is
    another one each time, as in RepeatAugSampler.
    """

    def __init__(self, batches: Sampler) -> None:
        self._batches = batches
        self.passes = 0  # stands in for the epoch of a sampler that knows none

    def __iter__(self) -> Iterator[list]:
        sampler = getattr(self._batches, 'sampler', None)
        epoch, rank = getattr(sampler, 'epoch', self.passes), get_rank()
        self.passes += 1
        draws = itertools.count()
        for batch in self._batches:
            yield [((epoch, next(draws), rank), index) for index in batch]

    def __len__(self) -> int:
        return len(self._batches)

    def __getattr__(self, name: str) -> Any:
        if name == '_batches':  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self._batches, name)


def seed_samples(loader: DataLoader, seed: int | None) -> None:
    """Have a data loader's samples follow from the seed and their draws, wherever they are loaded.

    The data set stays the object that it is: torch asks it for the samples of a batch through
    ``__getitems__`` where it has that. Samples without an index stay as they are, and the log says
    so.
    """
    if loader.batch_sampler is None or isinstance(loader.dataset, IterableDataset):
        name = type(loader.dataset).__name__
        text = f'{name} gives no samples by index: a resumed run has other random numbers in them'
        print_log(text, 'current', logging.WARNING)
        return
    # a DataLoader lets nobody set it
    object.__setattr__(loader, 'batch_sampler', KeyedBatches(loader.batch_sampler))
    loader.dataset.__getitems__ = functools.partial(_load, loader.dataset, seed)


def _load(dataset: Dataset, seed: int | None, draws: list[tuple[tuple[int, ...], Any]]) -> list:
    samples = []
    for key, index in draws:
        seed_generators(seed, *key)
        samples.append(dataset[index])
    return samples


# Steps and evaluations


class SeedHook(Hook):
    """Begins each training step and each evaluation with random numbers of its own."""

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Runner) -> None:
        batches = runner.train_dataloader.batch_sampler
        if isinstance(batches, KeyedBatches) and isinstance(runner.train_loop, EpochBasedTrainLoop):
            batches.passes = runner.epoch  # this process may have begun later

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        seed_generators(runner.seed, runner.iter, runner.rank)

    def before_val_epoch(self, runner: Runner) -> None:
        seed_generators(runner.seed, runner.iter, runner.rank)


class EvaluationHook(Hook):
    """Evaluates what a run is resumed from where that was due, as the run may have been cut in it.

    Without it such a run has no metrics of that step, the last one's for one, and may keep another
    best checkpoint.
    """

    priority = 'LOWEST'  # after what makes the other hooks ready

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        known = isinstance(loop, EpochBasedTrainLoop | IterBasedTrainLoop)
        if runner.iter == 0 or runner.val_loop is None or not known:
            return
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        done, end = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
        loop._decide_current_val_interval()
        if done >= loop.val_begin and (done % loop.val_interval == 0 or done == end):
            runner.val_loop.run()


class ResumableRunner(CheckedRunner):
    """A Runner with random numbers that a resumed run repeats."""

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        loader = CheckedRunner.build_dataloader(dataloader, seed, diff_rank_seed)
        seed_samples(loader, seed)
        return loader

    def save_checkpoint(self, *args: Any, save_optimizer: bool = True, **options: Any) -> None:
        """As mmengine's, which only the main process does.

        The others have their shares of ZeroRedundancyOptimizer's state, and without them it would
        wait for ever.
        """
        if save_optimizer and self.rank > 0:
            self.optim_wrapper.state_dict()
        super().save_checkpoint(*args, save_optimizer=save_optimizer, **options)

    def load_checkpoint(self, filename: str, *args: Any, **options: Any) -> dict:
        """As mmengine's, without the config in it, which mmengine's resume would run as Python."""
        checkpoint = super().load_checkpoint(filename, *args, **options)
        checkpoint.get('meta', {}).pop('config', None)
        return checkpoint

    def train(self) -> nn.Module:
        self.register_hook(SeedHook())
        self.register_hook(EvaluationHook())
        return super().train()


# Where to go on


def take_up_seed(cfg: Config) -> None:
    """Give a config that is resumed its checkpoint's seed, which samplers take when they are built.

    Raises:
        UserError: if the checkpoint is missing or damaged, holds code, or has no run to resume.
    """
    path = cfg.get('load_from') or find_latest_checkpoint(cfg.work_dir)
    if path is None:
        return
    if '://' in path:
        print_log(
            f'the seed of {path} is not looked at before it is loaded: unless randomness.seed '
            'is the same, samples come in another order',
            'current',
            logging.WARNING,
        )
        return
    seed = _read_meta(path).get('seed')
    given = (cfg.get('randomness') or {}).get('seed')
    if seed is not None and seed != given:
        if given is not None:
            print_log(f'the seed is {seed}, that of {path}, not {given}', 'current')
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)


def _read_meta(path: str) -> dict:
    """What a checkpoint says of its run; all of it is checked against its sums on the way."""
    another = 'name another one with --resume FILE, or leave --resume out to start anew'
    if not Path(path).is_file():
        raise UserError(f"there is no checkpoint '{path}' to resume: {another}")
    try:
        zipped = zipfile.is_zipfile(path)  # all but those of torch before 1.6
        if zipped and zipfile.ZipFile(path).testzip():
            raise ValueError('a check sum does not fit')
        meta = load_weights_only(path, mmap=zipped)['meta']
        _ = meta['epoch'], meta['iter']
    except UserError:
        raise
    except Exception as error:  # whatever pickle, zipfile and torch make of a damaged file
        raise UserError(
            f"the checkpoint '{path}' is damaged, or no run of ours wrote it "
            f'({first_line(error).partition(". ")[0]}): {another}'
        ) from error
    return meta
