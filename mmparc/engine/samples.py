"""Seeds each sample by its draw, whichever process loads it, and names its file if it fails.

mmengine's loader is made again from its parts, with wrappers of its data set and batch sampler.
"""

import itertools
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

from mmengine.dist import get_rank
from mmengine.logging import print_log
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from . import resuming
from .data_checks import MaskCheck, size_problem
from .errors import SampleError, cause_of


class Draw(NamedTuple):
    """A sample's index with the key of its random numbers, (epoch, draw, rank).

    A sample that is drawn again, as by RepeatAugSampler, has other numbers.
    """

    key: tuple[int, int, int]
    index: Any


class SeededDataset(Dataset):
    """A data set that seeds each :class:`Draw`, and raises SampleError if it cannot be loaded.

    All other attributes are read from, and set on, the data set inside.
    """

    def __init__(self, inside: Dataset, seed: int | None) -> None:
        self.__dict__.update(inside=inside, seed=seed, masks=MaskCheck(inside))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, Draw):
            resuming.seed_generators(self.seed, *index.key)
            index = index.index
        try:
            sample = self.inside[index]
        except Exception as error:  # decoders and transforms raise all types
            raise SampleError(self._problem(index, error)) from error
        self.masks.check(sample)
        return sample

    def __getitems__(self, indices: list) -> list:
        return [self[index] for index in indices]

    def __len__(self) -> int:
        return len(self.inside)

    def __getattr__(self, name: str) -> Any:
        if name == 'inside':  # while a copy is made
            raise AttributeError(name)
        return getattr(self.inside, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.inside, name, value)

    def _problem(self, index: Any, error: Exception) -> str:
        try:
            info = self.inside.get_data_info(index)
        except Exception:  # not an mmengine data set
            return f'cannot load sample {index}: {cause_of(error)}'
        files = [info[key] for key in ('img_path', 'seg_map_path') if info.get(key)]
        for file in files:
            try:
                Image.open(file).load()
            except Exception as broken:  # decoders raise all types
                fix = 'replace it, or remove it from the data set'
                return f"cannot read '{file}' ({cause_of(broken)}): {fix}"
        problem = size_problem(*files) if len(files) == 2 else None
        return problem or f"cannot prepare '{(files or [index])[0]}': {cause_of(error)}"


class KeyedBatches(Sampler):
    """A batch sampler that gives :class:`Draw`; all other attributes are those of the one inside.

    Attributes:
        passes: how often it was used, in place of the epoch of a sampler that has none.
        skip: how many batches the next pass leaves out, to resume within an epoch.
    """

    def __init__(self, inside: Sampler) -> None:
        self.inside = inside
        self.passes = self.skip = 0

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch = getattr(getattr(self.inside, 'sampler', None), 'epoch', self.passes)
        rank, draws, skip = get_rank(), itertools.count(), self.skip
        self.passes += 1
        self.skip = 0
        for number, batch in enumerate(self.inside):
            keyed = [Draw((epoch, next(draws), rank), index) for index in batch]
            if number >= skip:
                yield keyed

    def __len__(self) -> int:
        return len(self.inside)

    def __getattr__(self, name: str) -> Any:
        if name == 'inside':  # while a copy is made
            raise AttributeError(name)
        return getattr(self.inside, name)


def seeded(loader: DataLoader, seed: int | None) -> DataLoader:
    """The loader with both wrappers; one without indices stays as it is, with a warning."""
    if loader.batch_sampler is None or isinstance(loader.dataset, IterableDataset):
        name = type(loader.dataset).__name__
        text = f'{name} has no indices: a resumed run has other random numbers in its samples'
        print_log(text, 'current', logging.WARNING)
        return loader
    same = ('num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn')
    same += ('multiprocessing_context', 'generator', 'prefetch_factor', 'persistent_workers')
    return DataLoader(
        SeededDataset(loader.dataset, seed),
        batch_sampler=KeyedBatches(loader.batch_sampler),
        **{name: getattr(loader, name) for name in same},
    )
