"""Numbers that are none stop a training; mixed precision on a CPU; runs that repeat."""

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from helpers import ROOT, run_tool
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from mmparc import engine
from mmparc.engine.finite import image_files
from mmparc.ops import resize_taps
from mmparc.ops.backends import exported

CONFIGS = {
    'cls': ROOT / 'configs/cls/convnext/parc-convnext-micro_toy.py',
    'det': ROOT / 'configs/det/convnext/centernet-update_parc-convnext-micro_hrfpn_toy.py',
    'seg': ROOT / 'configs/seg/convnext/parc-convnext-micro_upernet_toy.py',
}
AMP = ROOT / 'configs/seg/convnext/parc-convnext-xt_upernet_8xb2-amp-160k_ade20k-512x512.py'
FAMILIES = sorted(path.name for path in ROOT.glob('configs/cls/*/'))
TRAIN = 16  # images
BATCH = 2


def train(config: Path, work_dir: Path, *args: object, options: list[str], expected: int = 0):
    args = (config, '--work-dir', work_dir, *args, '--cfg-options', *options)
    result = run_tool('tools/train.py', *args, cwd=work_dir.parent)
    assert result.returncode == expected, result.stdout[-2000:] + result.stderr[-3000:]
    return result


def short(task: str, root: Path, epochs: int) -> list[str]:
    """Options that train for as many epochs, and log and save accordingly."""
    steps = TRAIN // BATCH
    length = f'max_iters={epochs * steps}' if task == 'seg' else f'max_epochs={epochs}'
    period = steps if task == 'seg' else 1
    return [
        f'data_root={root}',
        f'train_dataloader.batch_size={BATCH}',
        f'train_cfg.{length}',
        f'train_cfg.val_interval={100 * period}',
        f'default_hooks.checkpoint.interval={period}',
        'default_hooks.checkpoint.max_keep_ckpts=1',
        'default_hooks.logger.interval=1',
    ]


def error_of(result) -> str:
    errors = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
    assert 'Traceback' not in result.stderr and len(errors) == 1, result.stderr[-2000:]
    return errors[0]


def logged(work_dir: Path) -> list[int]:
    """The iterations that the latest run logged."""
    latest = max(work_dir.glob('*/vis_data/scalars.json'))
    records = [json.loads(line) for line in latest.read_text().splitlines()]
    return [record['iter'] for record in records if 'loss' in record]


# A loss that is no number

# One image's values, once it is packed, become what is given; the other images stay.
SPOIL = """
_base_ = [{base!r}]


def register():
    from mmengine.registry import TRANSFORMS

    @TRANSFORMS.register_module(force=True)
    class Spoil:
        def __call__(self, results):
            results['inputs'] = results['inputs'].float()
            if results['data_samples'].img_path.endswith({name!r}):
                results['inputs'] = results['inputs'].fill_(float({value!r}))
            return results


register()
del register
pipeline = [*_base_.train_dataloader.dataset.pipeline, dict(type='mmengine.Spoil')]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
"""


def spoiled(config: Path, name: str, value: str, folder: Path) -> Path:
    """A config whose training images are those of another, but for one that is all ``value``."""
    path = folder / 'spoiled.py'
    path.write_text(SPOIL.format(base=str(config), name=name, value=value))
    return path


def check_stop(task: str, value: str, folder: Path, root: Path) -> str:
    """Fail unless the second epoch stops at the image, the first one's checkpoint as it was."""
    images = [p for p in root.rglob('*') if p.suffix in ('.jpg', '.png', '.JPEG')]
    images = sorted(p for p in images if 'train' in str(p.parent) and 'ann' not in str(p.parent))
    work_dir, name = folder / 'run', images[len(images) // 2].name
    train(CONFIGS[task], work_dir, options=short(task, root, 1))
    before = {p: p.read_bytes() for p in (*work_dir.glob('*.pth'), work_dir / 'last_checkpoint')}
    assert len(before) == 2, 'the control: without that image it trains and saves'
    config = spoiled(CONFIGS[task], name, value, folder)
    result = train(config, work_dir, '--resume', options=short(task, root, 2), expected=1)
    line = error_of(result)
    done = logged(work_dir)
    assert TRAIN // BATCH <= done[-1] + 1 and f'in iteration {done[-1] + 1}, ' in line
    assert name in line and line.count(str(root)) == BATCH
    assert 'is nan' in line or 'is inf' in line or 'error: not finite: assert ' in line
    assert {p: p.read_bytes() for p in before} == before
    assert set(work_dir.glob('*.pth')) | {work_dir / 'last_checkpoint'} == set(before)
    return line


def test_a_loss_that_is_no_number_stops(full, record, data, tmp_path):
    cases = [(task, value) for task in CONFIGS for value in ('nan', 'inf')]
    cases = cases if full else [('cls', 'nan')]
    for i, (task, value) in enumerate(cases):
        (folder := tmp_path / str(i)).mkdir()
        print(f'{task}, {value}: {check_stop(task, value, folder, data(task))}')
    record('spoiled images that stop a training', len(cases), len(cases))


class Toy(BaseModel):
    """Its loss in iteration ``bad`` is of the given kind."""

    def __init__(self, kind: str, bad: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.kind, self.bad, self.iteration = kind, bad, 0

    def forward(self, data_samples, mode='tensor'):
        if mode != 'loss':
            return [BaseDataElement()]
        self.iteration += 1
        loss = self.weight.square().sum()
        if self.iteration == self.bad:
            # sqrt(0) is 0, and its gradient infinite: times 0 that is NaN
            zero = (self.weight * 0).sum()
            assert self.kind != 'assertion' or torch.isfinite(zero / 0)
            kinds = {'loss': zero + math.nan, 'gradient': zero.sqrt(), 'neither': zero}
            assert self.kind != 'other', 'of another kind'
            loss = loss + kinds[self.kind]
        return dict(loss_toy=loss)


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return dict(data_samples=BaseDataElement(metainfo=dict(img_path=f'/images/{i}.jpg')))


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('kind', ['loss', 'gradient', 'assertion', 'other', 'neither'])
def test_no_checkpoint_of_what_is_no_number(kind, by_epoch, tmp_path):
    """The one that is kept stays."""
    loop = dict(max_epochs=3) if by_epoch else dict(max_iters=3)
    runner = Runner(
        model=Toy(kind, bad=8 if by_epoch else 2),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=Images(),
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=by_epoch, **loop),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=by_epoch, max_keep_ckpts=1)
        ),
        experiment_name=f'{kind}-{by_epoch}',
        log_level='CRITICAL',
    )
    engine.keep_checkpoints_whole(runner)
    engine.stop_unless_finite(runner)
    unit = 'epoch' if by_epoch else 'iter'
    if kind == 'neither':
        runner.train()
        kept = tmp_path / f'{unit}_3.pth'
    elif kind == 'other':
        with pytest.raises(AssertionError, match='of another kind'):
            runner.train()
        kept = tmp_path / f'{unit}_1.pth'
    else:
        seen = {
            'loss': 'loss_toy is nan',
            'gradient': 'weight is not finite',
            'assertion': r'not finite: assert .*isfinite\(zero / 0\)',
        }[kind]
        where = r'iteration 8, whose images are /images/3\.jpg'
        if not by_epoch:
            where = r'iteration 2, whose images are /images/1\.jpg'
        with pytest.raises(engine.UserError, match=f'{seen}.* in {where}: look'):
            runner.train()
        kept = tmp_path / f'{unit}_1.pth'
    assert list(tmp_path.glob('*.pth')) == [kept]
    assert torch.load(kept, weights_only=False)['state_dict']['weight'].isfinite().all()


def test_files_of_any_batch():
    samples = [BaseDataElement(metainfo=dict(img_path=f'{i}.jpg')) for i in range(3)]
    nested = dict(inputs=torch.ones(2), data_samples=dict(a=samples[:2], b=(samples[2],)))
    assert list(image_files(nested)) == ['0.jpg', '1.jpg', '2.jpg']
    assert list(image_files([samples, None, 3, BaseDataElement()])) == ['0.jpg', '1.jpg', '2.jpg']
    assert list(image_files(torch.ones(2))) == []


# Mixed precision


def test_amp_on_a_cpu_is_one_line(full, record, data, tmp_path):
    """Asked for on the command line, and by the config; tests/test_tools.py has one for CI."""
    cases = [[config, '--amp'] for config in CONFIGS.values()] + [[AMP]] if full else []
    for args in cases:
        result = run_tool('tools/train.py', *args, cwd=tmp_path)
        assert result.returncode == 1 and not list(tmp_path.iterdir())
        assert error_of(result) == result.stderr.strip() and '--no-amp' in result.stderr
    record('trainings in mixed precision on a CPU that are one line', len(cases), len(cases))


# Runs that repeat


def weights_after(config: Path, work_dir: Path, root: Path, seed: int) -> str:
    """The hash of the weights that a short training ends with."""
    options = [
        f'data_root={root}',
        'train_dataloader.batch_size=8',
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=9',
        f'randomness.seed={seed}',
        'randomness.deterministic=True',
    ]
    train(config, work_dir, options=options)
    saved = torch.load(work_dir / 'epoch_1.pth', weights_only=False)
    assert saved['meta']['seed'] == seed
    digest = hashlib.sha256()
    for name, value in saved['state_dict'].items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def test_deterministic_runs_are_equal(full, record, data, tmp_path):
    families = FAMILIES if full else ['resnet']
    for family in families:
        leaves = ROOT.glob(f'configs/cls/{family}/parc*_toy.py')
        (config,) = (path for path in leaves if 'relations' not in path.name)
        first, again, other = (
            weights_after(config, tmp_path / f'{family}-{i}', data('cls'), seed)
            for i, seed in enumerate((3, 3, 4))
        )
        assert first == again, family
        assert first != other, f'{family}: the control, another seed'
    record('backbones whose deterministic runs are equal', len(families), len(families))


def test_deterministic_gradients_of_resizing(monkeypatch):
    """On other devices than a CPU, where torch has none of F.interpolate, they are a product's."""
    t = torch.randn(3, 7, dtype=torch.float64)
    assert torch.allclose(exported.resize_taps(t, 12), resize_taps(t, 12, 'interpolate'))
    used = []
    run = exported.resize_taps
    monkeypatch.setattr(exported, 'resize_taps', lambda *args: used.append(args) or run(*args))
    for deterministic in (False, True):
        monkeypatch.setattr(
            torch, 'are_deterministic_algorithms_enabled', lambda on=deterministic: on
        )
        assert resize_taps(t.to('meta'), 12, 'interpolate_sum').shape == (3, 12)
        resize_taps(t, 12, 'interpolate')
        assert len(used) == deterministic
