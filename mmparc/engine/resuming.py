"""A resumed run ends as an uninterrupted one, to the last bit.

mmengine saves no state of random generators, its loaders' workers begin anew in a resumed process,
an epoch begins again, and an evaluation that was interrupted is left out. Here the random numbers
of a step follow from (seed, iteration, rank), those of a sample from (seed, epoch, draw, rank); an
epoch continues where it was; and the evaluation of a checkpoint is made up for.
"""

import bisect
import logging
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, find_latest_checkpoint

from .checkpoint import load_weights_only
from .errors import UserError, first_line


def seed_generators(seed: int | None, *key: int) -> None:
    """Seed Python's, numpy's and torch's random numbers.

    ``seed`` is the run's, None for numbers that cannot be repeated. No keys share their numbers.
    """
    words = np.random.SeedSequence(seed, spawn_key=key).generate_state(3).tolist()
    random.seed(words[0])
    np.random.seed(words[1])
    # not torch.manual_seed, which takes half a millisecond where CUDA is not in use
    torch.default_generator.manual_seed(words[2])
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(words[2])


class SeedHook(Hook):
    """Seeds each training step and each evaluation; a resumed epoch skips the batches it had."""

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Runner) -> None:
        batches = runner.train_dataloader.batch_sampler
        if hasattr(batches, 'skip') and isinstance(runner.train_loop, EpochBasedTrainLoop):
            batches.passes = runner.epoch  # this process may have begun later
            batches.skip = steps_of_epoch(runner)

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        seed_generators(runner.seed, runner.iter, runner.rank)

    def before_val_epoch(self, runner: Runner) -> None:
        seed_generators(runner.seed, runner.iter, runner.rank)


def steps_of_epoch(runner: Runner) -> int:
    """How many steps of the current epoch were done before."""
    return runner.iter - runner.epoch * len(runner.train_dataloader)


class EvaluationHook(Hook):
    """Evaluates the checkpoint that a run resumes from, if due: the run may have ended in that.

    Without it metrics are missing, and another checkpoint may be kept as the best one. Only for
    mmengine's two training loops.
    """

    priority = 'LOWEST'  # after the other hooks are ready

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        known = isinstance(loop, EpochBasedTrainLoop | IterBasedTrainLoop)
        if runner.iter == 0 or runner.val_loop is None or not known:
            return
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        if by_epoch and steps_of_epoch(runner):
            return
        done, end = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
        interval = loop.dynamic_intervals[bisect.bisect(loop.dynamic_milestones, done + 1) - 1]
        if done >= loop.val_begin and (done % interval == 0 or done == end):
            runner.val_loop.run()


def take_up_seed(cfg: Config) -> None:
    """Set a resumed config's seed to its checkpoint's, which samplers need when they are built.

    UserError if the checkpoint is missing or damaged, holds code, or has no run to resume.
    """
    path = cfg.get('load_from') or find_latest_checkpoint(cfg.work_dir)
    if path is None:
        return
    if '://' in path:
        print_log(
            f'the seed in {path} is not read before loading: set the same randomness.seed, or '
            'samples come in another order',
            'current',
            logging.WARNING,
        )
        return
    seed = _read_meta(path).get('seed')
    given = (cfg.get('randomness') or {}).get('seed')
    if seed is not None and seed != given:
        if given is not None:
            print_log(f'the seed is {seed}, from {path}, not {given}', 'current')
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)


def _read_meta(path: str) -> dict:
    """A checkpoint's information on its run; the whole file is compared with its checksums."""
    another = 'name another one with --resume FILE, or omit --resume to start a new run'
    if not Path(path).is_file():
        raise UserError(f"there is no checkpoint '{path}' to resume: {another}")
    try:
        zipped = zipfile.is_zipfile(path)  # all but those of torch before 1.6
        if zipped and zipfile.ZipFile(path).testzip():
            raise ValueError('a checksum is wrong')
        meta = load_weights_only(path, mmap=zipped)['meta']
        _ = meta['epoch'], meta['iter']
    except UserError as error:
        raise UserError(f'{error}, or omit --resume to start a new run') from error
    except Exception as error:  # pickle, zipfile and torch raise all types for a damaged file
        raise UserError(
            f"the checkpoint '{path}' is damaged, or was not written by a training run "
            f'({first_line(error).partition(". ")[0]}): {another}'
        ) from error
    return meta
