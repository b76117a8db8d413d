"""Spoiled images that stop a training; runs that repeat.

What the hook stops at, loss by loss, is in tests/engine/test_finite.py.
"""

from pathlib import Path

import pytest
import torch
from helpers import ROOT, run_tool

from mmparc.ops import resize_taps
from mmparc.ops.backends import exported

CONFIGS = {
    'cls': ROOT / 'configs/cls/convnext/parc-convnext-micro_toy.py',
    'det': ROOT / 'configs/det/convnext/centernet-update_parc-convnext-micro_hrfpn_toy.py',
    'seg': ROOT / 'configs/seg/convnext/parc-convnext-micro_upernet_toy.py',
}
FAMILIES = sorted(path.name for path in ROOT.glob('configs/cls/*/'))
STEPS, BATCH = 8, 2  # 16 images


def train(config: Path, work_dir: Path, *args: object, options: list[str], expected: int = 0):
    args = (config, '--work-dir', work_dir, *args, '--cfg-options', *options)
    result = run_tool('tools/train.py', *args, cwd=work_dir.parent)
    assert result.returncode == expected, result.stdout[-2000:] + result.stderr[-3000:]
    return result


# A loss that is not finite

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
                results['inputs'] = results['inputs'].fill_(float('nan'))
            return results


register()
del register
pipeline = [*_base_.train_dataloader.dataset.pipeline, dict(type='mmengine.Spoil')]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
"""


def check_stop(task: str, folder: Path, root: Path) -> None:
    """Fail unless the second epoch stops at the image, with the first one's checkpoint intact."""

    def options(epochs: int) -> list[str]:
        length = f'max_iters={epochs * STEPS}' if task == 'seg' else f'max_epochs={epochs}'
        period = STEPS if task == 'seg' else 1
        return [
            f'data_root={root}',
            f'train_dataloader.batch_size={BATCH}',
            f'train_cfg.{length}',
            f'train_cfg.val_interval={100 * period}',
            f'default_hooks.checkpoint.interval={period}',
            'default_hooks.checkpoint.max_keep_ckpts=1',
        ]

    images = [p for p in root.rglob('*') if p.suffix in ('.jpg', '.png', '.JPEG')]
    images = sorted(p for p in images if 'train' in str(p.parent) and 'ann' not in str(p.parent))
    work_dir, name = folder / 'run', images[len(images) // 2].name
    train(CONFIGS[task], work_dir, options=options(1))
    before = {p: p.read_bytes() for p in (*work_dir.glob('*.pth'), work_dir / 'last_checkpoint')}
    assert len(before) == 2, 'control: without that image it trains and saves'
    config = folder / 'spoiled.py'
    config.write_text(SPOIL.format(base=str(CONFIGS[task]), name=name))
    result = train(config, work_dir, '--resume', options=options(2), expected=1)
    if task == 'det':  # CenterNetUpdate asserts it itself
        assert 'isfinite' in result.stderr
    else:
        (line,) = (line for line in result.stderr.splitlines() if line.startswith('error: '))
        assert 'Traceback' not in result.stderr
        iterations = [f'iteration {i} ' for i in range(STEPS + 1, 2 * STEPS + 1)]
        assert sum(iteration in line for iteration in iterations) == 1
        assert name in line and line.count(str(root)) == BATCH
        assert 'loss is nan' in line
    assert {p: p.read_bytes() for p in before} == before
    assert set(work_dir.glob('*.pth')) | {work_dir / 'last_checkpoint'} == set(before)


CASES = ['cls'], pytest.param(['cls', 'det', 'seg'], marks=pytest.mark.full)


@pytest.mark.parametrize('tasks', CASES, ids=['cls', 'all'])
def test_a_loss_that_is_not_finite_stops(tasks, record, data, tmp_path):
    for task in tasks:
        (folder := tmp_path / task).mkdir()
        check_stop(task, folder, data(task))
    record('spoiled images that stop a training', len(tasks), len(tasks))


# Runs that repeat


@pytest.mark.full
def test_deterministic_runs_are_equal(record, data, tmp_path):
    """tests/robustness/test_crash.py compares runs without that setting."""

    def weights_after(config: Path, work_dir: Path, seed: int) -> dict[str, torch.Tensor]:
        options = [
            f'data_root={data("cls")}',
            'train_dataloader.batch_size=8',
            'train_cfg.max_epochs=1',
            'train_cfg.val_interval=9',
            f'randomness.seed={seed}',
            'randomness.deterministic=True',
        ]
        train(config, work_dir, options=options)
        return torch.load(work_dir / 'epoch_1.pth', weights_only=False)['state_dict']

    for family in FAMILIES:
        leaves = ROOT.glob(f'configs/cls/{family}/parc*_toy.py')
        (config,) = (path for path in leaves if 'relations' not in path.name)
        first, again, other = (
            weights_after(config, tmp_path / f'{family}-{i}', seed)
            for i, seed in enumerate((3, 3, 4))
        )
        assert all(torch.equal(value, again[name]) for name, value in first.items()), family
        assert any(not torch.equal(v, other[name]) for name, v in first.items()), 'another seed'
    record('backbones whose deterministic runs are equal', len(FAMILIES), len(FAMILIES))


def test_deterministic_gradients_of_resizing(monkeypatch):
    """On other devices than a CPU torch has none for F.interpolate: there a product is used."""
    used = []
    run = exported.resize_taps
    monkeypatch.setattr(exported, 'resize_taps', lambda *args: used.append(args) or run(*args))
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        try:
            resize_taps(torch.randn(3, 7, device='meta'), 12, 'interpolate_sum')
        finally:
            torch.use_deterministic_algorithms(False)
        assert len(used) == deterministic
