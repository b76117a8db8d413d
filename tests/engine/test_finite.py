"""A training whose numbers are NaN or infinite stops, and its last good checkpoint stays."""

import math
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from toys import loader_of, toy_runner

from mmparc import engine
from mmparc.engine.finite import image_files


class Spoiled(BaseModel):
    """Its loss in iteration ``bad`` is of the given kind."""

    def __init__(self, kind: str, bad: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.kind, self.bad, self.iteration = kind, bad, 0

    def forward(self, data_samples, mode='tensor'):
        self.iteration += 1
        loss = self.weight.square().sum()
        if self.iteration == self.bad:
            zero = (self.weight * 0).sum()
            assert self.kind != 'assertion' or torch.isfinite(zero / 0)
            # sqrt(0) is 0, and its gradient infinite: times 0 that is NaN
            kinds = {'nan': zero + math.nan, 'inf': zero + math.inf, 'gradient': zero.sqrt()}
            loss = loss + kinds.get(self.kind, zero)
        return dict(loss_toy=loss, loss_other=torch.ones(()), accuracy=loss * math.nan)


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return dict(data_samples=BaseDataElement(metainfo=dict(img_path=f'/images/{i}.jpg')))


def runner_in(folder: Path, kind: str, by_epoch: bool) -> Runner:
    """mmengine's Runner, which meets the kind in its second checkpoint's iterations."""
    bad, loop = (8, dict(max_epochs=3)) if by_epoch else (2, dict(max_iters=3))
    checkpoint = dict(interval=1, by_epoch=by_epoch, max_keep_ckpts=1)
    return toy_runner(
        folder,
        model=Spoiled(kind, bad),
        train_dataloader=loader_of(Images(), batch_size=1),
        train_cfg=dict(by_epoch=by_epoch, **loop),
        default_hooks=dict(checkpoint=dict(type='mmparc.AtomicCheckpointHook', **checkpoint)),
        custom_hooks=[dict(type='mmparc.StopOnNonFiniteHook')],
    )


@pytest.mark.parametrize('by_epoch', [True, False])
def test_no_checkpoint_of_what_is_not_finite(by_epoch: bool, tmp_path: Path) -> None:
    unit, bad = ('epoch', 8) if by_epoch else ('iter', 2)
    image = f'/images/{(bad - 1) % 4}.jpg'
    seen = {
        'nan': ('loss_toy is nan', f'iteration {bad} '),
        'inf': ('loss_toy is inf', f'iteration {bad} '),
        'gradient': ('weight is not finite', f'iteration {bad} '),  # the loss was finite
        'assertion': (),  # the model's own: it keeps its trace
        'neither': (),
    }
    for kind, parts in seen.items():
        runner, last = runner_in(tmp_path / kind, kind, by_epoch), 1
        if parts:
            with pytest.raises(engine.UserError, match=r'^[^\n]+$') as error:
                runner.train()
            assert all(part in str(error.value) for part in (*parts, image)), error.value
            assert 'other' not in str(error.value) and 'accuracy' not in str(error.value)
        elif kind == 'assertion':
            with pytest.raises(AssertionError):
                runner.train()
        else:
            runner.train()
            last = 3
        kept = tmp_path / kind / f'{unit}_{last}.pth'
        assert list(kept.parent.glob('*.pth')) == [kept]
        assert torch.load(kept, weights_only=False)['state_dict']['weight'].isfinite().all()


def test_files_of_any_batch() -> None:
    samples = [BaseDataElement(metainfo=dict(img_path=f'{i}.jpg')) for i in range(3)]
    nested = dict(inputs=torch.ones(2), data_samples=dict(a=samples[:2], b=(samples[2], None, 3)))
    assert list(image_files(nested)) == ['0.jpg', '1.jpg', '2.jpg']
    assert list(image_files([torch.ones(2), BaseDataElement()])) == []
