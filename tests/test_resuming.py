"""Samples whose random numbers follow from what they are, whichever sampler draws them.

That whole runs go on as if they had not been cut is in tests/robustness/test_crash.py.
"""

import copy
import random
from types import SimpleNamespace

import pytest
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler

from mmparc.engine import resuming


class Numbers(Dataset):
    """A sample is its index and a random number."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index):
        return index, random.random()


def loader_of(workers: int = 0, seed: int = 1, **options) -> DataLoader:
    options = options or dict(batch_size=4)
    loader = DataLoader(Numbers(), num_workers=workers, collate_fn=list, **options)
    resuming.seed_samples(loader, seed)
    return loader


def drawn(loader: DataLoader) -> list:
    return [sample for batch in loader for sample in batch]


def test_samples_follow_from_seed_pass_and_rank(monkeypatch) -> None:
    loader = loader_of()
    first, second = drawn(loader), drawn(loader)
    assert [index for index, _ in first] == list(range(6))
    assert len({number for _, number in first + second}) == 12, 'each pass has its own'
    assert drawn(loader_of(workers=2)) == first, 'a worker loads the same'
    assert drawn(loader_of(seed=2)) != first
    monkeypatch.setattr(resuming, 'get_rank', lambda: 1)
    other = drawn(loader_of())
    assert not {number for _, number in other} & {number for _, number in first}


def test_a_resumed_epoch_has_its_own_numbers() -> None:
    uncut, resumed = loader_of(), loader_of()
    drawn(uncut)
    loop = object.__new__(EpochBasedTrainLoop)
    runner = SimpleNamespace(train_dataloader=resumed, train_loop=loop, epoch=1)
    assert drawn(loader_of()) != (second := drawn(uncut))
    resuming.SeedHook().before_train_epoch(runner)
    assert drawn(resumed) == second


class InTuples(SequentialSampler):
    """As those of videos, which draw (video, frame)."""

    def __iter__(self):
        return iter([(0, i) for i in super().__iter__()])


class AtOnce:
    """A batch sampler without a sampler, whose batches were made before."""

    def __iter__(self):
        return iter([[0, 3], [5]])

    def __len__(self) -> int:
        return 2


def test_samplers_of_any_kind() -> None:
    tuples = drawn(loader_of(sampler=InTuples(range(6)), batch_size=4))
    assert [index for index, _ in tuples] == [(0, i) for i in range(6)]
    loader = loader_of(batch_sampler=AtOnce())
    assert [index for index, _ in drawn(loader)] == [0, 3, 5] and len(loader) == 2
    ours = loader_of(batch_sampler=BatchSampler(SequentialSampler(range(6)), 4, drop_last=True))
    assert ours.batch_sampler.batch_size == 4  # as all else, the batch sampler's own
    assert list(copy.deepcopy(ours.batch_sampler)) == list(
        resuming.KeyedBatches(ours.batch_sampler._batches)
    )


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


@pytest.mark.parametrize(
    'options', [dict(dataset=Stream()), dict(dataset=Numbers(), batch_size=None)]
)
def test_what_has_no_index_stays(options) -> None:
    loader = DataLoader(**options)
    before = loader.batch_sampler
    resuming.seed_samples(loader, 1)
    assert loader.batch_sampler is before and not hasattr(loader.dataset, '__getitems__')
    assert len(list(loader)) in (3, 6)
