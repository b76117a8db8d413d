"""Samples whose random numbers depend on the draw alone, and runs that resume within an epoch.

Whole runs that were killed and resumed are in tests/robustness/test_crash.py.
"""

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mmparc import engine
from mmparc.engine import resuming, samples


class Numbers(Dataset):
    """A sample is its index and a random number."""

    metainfo = dict(classes=('a', 'b'))

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index):
        return index, random.random()


def loader_of(workers: int = 0, seed: int = 1, **options) -> DataLoader:
    options = options or dict(batch_size=4)
    loader = DataLoader(Numbers(), num_workers=workers, collate_fn=list, **options)
    return samples.seeded(loader, seed)


def drawn(loader: DataLoader) -> list:
    return [sample for batch in loader for sample in batch]


def test_samples_follow_from_seed_pass_and_rank(monkeypatch) -> None:
    loader = loader_of()
    first, second = drawn(loader), drawn(loader)
    assert [index for index, _ in first] == list(range(10))
    assert len({number for _, number in first + second}) == 20, 'each pass has its own'
    assert drawn(loader_of(workers=2)) == first, 'a worker loads the same'
    assert drawn(loader_of(seed=2)) != first
    loader = loader_of()
    loader.batch_sampler.passes = loader.batch_sampler.skip = 1
    assert drawn(loader) == second[4:], 'a resumed epoch'
    monkeypatch.setattr(samples, 'get_rank', lambda: 1)
    other = drawn(loader_of())
    assert not {number for _, number in other} & {number for _, number in first}


class AtOnce:
    """A batch sampler without a sampler, whose batches were made before."""

    batch_size = 4

    def __iter__(self):
        return iter([[0, 3], [5]])

    def __len__(self) -> int:
        return 2


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


def test_any_sampler_and_data_set() -> None:
    loader = loader_of(batch_sampler=AtOnce())
    assert [index for index, _ in drawn(loader)] == [0, 3, 5] and len(loader) == 2
    assert loader.batch_sampler.batch_size == 4  # any other attribute is the original's
    assert len(copy.deepcopy(loader).batch_sampler) == 2
    data = loader.dataset
    assert data.metainfo is Numbers.metainfo and len(data) == 10 and data[3][0] == 3
    data.pipeline = 'new'  # as mmdet's PipelineSwitchHook sets it
    assert data.inside.pipeline == 'new' and not hasattr(data, 'get_cat_ids')
    for options in (dict(dataset=Stream()), dict(dataset=Numbers(), batch_size=None)):
        loader = DataLoader(**options)
        assert samples.seeded(loader, 1) is loader  # it has no indices


# What fails


class Masks(Dataset):
    """One image and its mask, as mmseg's data sets return them."""

    metainfo = dict(classes=('a', 'b'))
    reduce_zero_label = False

    def __init__(self, folder: Path, shape=(6, 8), values=(0, 1, 255), fail: bool = False) -> None:
        self.image, self.mask, self.fail = folder / 'a.png', folder / 'm.png', fail
        Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(self.image)
        self.values = np.resize(np.array(values, np.uint8), shape)
        Image.fromarray(self.values).save(self.mask)

    def __len__(self) -> int:
        return 1

    def get_data_info(self, index: int) -> dict:
        return dict(img_path=str(self.image), seg_map_path=str(self.mask))

    def __getitem__(self, index: int) -> dict:
        if self.fail:
            raise RuntimeError('a transform failed')
        info = self.get_data_info(index)
        sample = SegDataSample(metainfo=dict(**info, ori_shape=(6, 8)))
        sample.gt_sem_seg = PixelData(data=torch.as_tensor(self.values)[None].long())
        return dict(inputs=torch.zeros(3), data_samples=sample)


def test_a_sample_that_fails_is_named(tmp_path: Path) -> None:
    def said(dataset: Dataset, workers: int = 0) -> str:
        loader = DataLoader(dataset, num_workers=workers, collate_fn=list)
        with pytest.raises(engine.UserError) as caught:
            drawn(samples.seeded(loader, 1))
        assert '\n' not in str(caught.value)
        return str(caught.value)

    loader = DataLoader(Masks(tmp_path), collate_fn=list)
    assert len(drawn(samples.seeded(loader, 1))) == 1
    message = said(Masks(tmp_path, shape=(3, 8)))
    assert 'm.png' in message and '3 x 8' in message and '6 x 8' in message
    assert '3 x 8' in said(Masks(tmp_path, shape=(3, 8), fail=True), workers=1)
    message = said(Masks(tmp_path, values=(0, 7)))
    assert 'm.png' in message and '7' in message
    message = said(Masks(tmp_path, fail=True))
    assert 'a.png' in message and 'a transform failed' in message
    for content in (b'', b'text'):
        data = Masks(tmp_path, fail=True)
        data.mask.write_bytes(content)
        assert 'm.png' in said(data)
        data.image.write_bytes(content)
        assert 'a.png' in said(data)
    data.image.unlink()
    assert 'a.png' in said(data)

    class Broken(Numbers):
        def __getitem__(self, index):
            raise KeyError('what')

    assert "'what'" in said(Broken())


# A run that resumes within an epoch


@MODELS.register_module()
class DropoutModel(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(2, 1))

    def forward(self, *values, mode='loss'):
        inputs = torch.stack([torch.as_tensor(v, dtype=torch.float) for v in values], 1)
        return dict(loss=self.layers(inputs).square().mean())


def train(folder: Path, *, resume: Path | None = None, epochs: int = 3) -> dict:
    """The weights after some epochs of five steps, a checkpoint each two steps."""
    loader = dict(
        dataset=Numbers(),
        batch_size=2,
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
    )
    runner = engine.ResumableRunner(
        dict(type='DropoutModel'),
        work_dir=str(folder),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)),
        load_from=str(resume) if resume else None,
        resume=resume is not None,
        randomness=dict(seed=3),
        experiment_name=folder.name,
        log_level='ERROR',
    )
    runner.register_hook(resuming.SeedHook())
    runner.train()
    assert runner.iter == 5 * epochs
    return runner.model.state_dict()


def test_resumed_within_an_epoch(tmp_path: Path, allowed: None) -> None:
    uncut = train(tmp_path / 'uncut')
    for step in (6, 10, 14):  # in the second epoch, at its end, in the last one
        weights = train(tmp_path / str(step), resume=tmp_path / f'uncut/iter_{step}.pth')
        assert all(torch.equal(weights[name], value) for name, value in uncut.items())
    other = train(tmp_path / 'control', resume=tmp_path / 'uncut/iter_6.pth', epochs=2)
    assert not torch.equal(other['layers.1.weight'], uncut['layers.1.weight'])
