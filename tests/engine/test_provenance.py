"""What a run logs of its batch and learning rate, and what it records.

tools/test_train.py compares the records of whole runs with their optimizers.
"""

import copy
import functools
import json
import subprocess
from pathlib import Path

import pytest
from helpers import ROOT, run_tool
from mmengine.config import Config

from mmparc.engine import provenance

IMAGENET = 'configs/cls/convnext/convnext-xt_32xb128_in1k.py'  # 4e-3 at 4096
FEW_GPUS = 'configs/cls/convnext/convnext-xt_8xb128-100e_in1k.py'
MASK_RCNN = 'configs/det/convnext/mask-rcnn_convnext-xt_fpn_1x_coco.py'  # 1e-4 at 16
ADE = 'configs/seg/convnext/convnext-xt_upernet_8xb2-amp-160k_ade20k-512x512.py'  # 1e-4 at 16
BATCH, STEPS = 'train_dataloader.batch_size', 'optim_wrapper.accumulative_counts'
LR, BASE = 'optim_wrapper.optimizer.lr', 'auto_scale_lr.base_batch_size'
SCALED = {'auto_scale_lr.enable': True}


def configs(name: str, **options: object) -> tuple[Config, Config]:
    """A config with options, and as its file has it."""
    cfg = copy.deepcopy(parsed(name))
    cfg.merge_from_dict(options)
    return cfg, parsed(name)


@functools.cache
def parsed(name: str) -> Config:
    return Config.fromfile(ROOT / name)


def named(tmp_path: Path, name: str, lr: float = 0.01, **more: object) -> Config:
    """A config of a name, which states no batch in itself."""
    wrapper = dict(optimizer=dict(type='SGD', lr=lr), **more)
    path = tmp_path / name
    path.write_text(f'optim_wrapper = {wrapper}\ntrain_dataloader = dict(batch_size=2)\n')
    return Config.fromfile(path)


# Expected: batch, rate, and the rate that follows from the config's own by its batch; one warns
# where the last two are not the same.
@pytest.mark.parametrize(
    'name, processes, options, batch, lr, follows',
    [
        (IMAGENET, 32, {}, 4096, 4e-3, 4e-3),
        (IMAGENET, 8, {}, 1024, 4e-3, 1e-3),
        (IMAGENET, 8, SCALED, 1024, 1e-3, 1e-3),
        (IMAGENET, 8, {STEPS: 4}, 4096, 4e-3, 4e-3),
        (IMAGENET, 8, {STEPS: 2, **SCALED}, 2048, 2e-3, 2e-3),
        (IMAGENET, 1, {BATCH: 64, LR: 6.25e-5}, 64, 6.25e-5, 6.25e-5),
        (IMAGENET, 32, {LR: 1e-3}, 4096, 1e-3, 4e-3),
        (IMAGENET, 32, {LR: 1e-3, **SCALED}, 4096, 1e-3, 4e-3),
        (IMAGENET, 32, {BASE: 2048}, 4096, 4e-3, 8e-3),
        # what docs/guide/few_gpus.md says of 100 epochs, by GPUs
        (FEW_GPUS, 8, {}, 1024, 1e-3, 1e-3),
        (FEW_GPUS, 4, SCALED, 512, 5e-4, 5e-4),
        (FEW_GPUS, 2, SCALED, 256, 2.5e-4, 2.5e-4),
        (FEW_GPUS, 1, SCALED, 128, 1.25e-4, 1.25e-4),
        (MASK_RCNN, 8, {}, 16, 1e-4, 1e-4),
        (MASK_RCNN, 1, {}, 2, 1e-4, 1.25e-5),
        (MASK_RCNN, 2, {BATCH: 4}, 8, 1e-4, 5e-5),
        (MASK_RCNN, 2, {BATCH: 4, STEPS: 2}, 16, 1e-4, 1e-4),
        (ADE, 4, {BATCH: 4}, 16, 1e-4, 1e-4),
        (ADE, 4, SCALED, 8, 5e-5, 5e-5),
    ],
)
def test_batch_and_rate(
    name: str, processes: int, options: dict, batch: int, lr: float, follows: float
) -> None:
    cfg, made_for = configs(name, **options)
    assert provenance.effective_batch(cfg, processes) == batch
    assert provenance.peak_lr(cfg, processes) == pytest.approx(lr)
    said = provenance.advice(cfg, made_for, batch, lr, resumed=False)
    if lr == follows:
        assert said is None
        return
    assert '\n' not in said and '--auto-scale-lr' in said
    for number in (lr, batch, follows):
        assert f'{number:g}' in said
    # with a rate of the user's own, scaling does not help
    assert (f'{LR}={follows:.4g}' in said) == (LR not in options)


def test_a_resumed_run_keeps_its_rate() -> None:
    cfg, made_for = configs(IMAGENET, **SCALED)
    said = provenance.advice(cfg, made_for, 512, 1e-3, resumed=True)
    assert '0.0005' in said and '1024' in said
    assert '--auto' not in said and '--cfg-options' not in said
    assert provenance.advice(cfg, made_for, 1024, 1e-3, resumed=True) is None


@pytest.mark.parametrize(
    'name, batch',
    [
        ('deeplabv3_r50-d8_4xb4-80k_ade20k-512x512.py', 16),
        ('rtmdet_l_8xb32-300e_coco.py', 256),
        ('fcn_4xb2.py', 8),
        ('retinanet_r50_fpn_1x_coco.py', None),
        ('resnet_8xb_in1k.py', None),
        ('model_v4xb4.py', None),
        ('model_4xb4k.py', None),
    ],
)
def test_batch_in_a_name(name: str, batch: int | None, tmp_path: Path) -> None:
    cfg = named(tmp_path, name)
    assert provenance.base_batch_size(cfg) == batch
    said = provenance.advice(cfg, cfg, 2, 0.01, resumed=False)
    if batch is None:
        assert said is None  # and the rate cannot be judged
        return
    assert '--auto-scale-lr' in said and f'{BASE}={batch}' in said
    assert float(said.rpartition(f'{LR}=')[2]) == pytest.approx(0.02 / batch, rel=1e-3)
    # what it states itself precedes its name
    cfg.auto_scale_lr = dict(base_batch_size=2)
    assert provenance.advice(cfg, cfg, 2, 0.01, resumed=False) is None


def test_a_name_tells_of_processes_not_of_accumulated_steps(tmp_path: Path) -> None:
    made_for = named(tmp_path, 'beit_8xb2.py', accumulative_counts=2)
    assert provenance.base_batch_size(made_for) == 32
    assert provenance.advice(made_for, made_for, 32, 0.01, resumed=False) is None
    cfg = named(tmp_path, 'beit_8xb2.py', accumulative_counts=4)
    assert provenance.batch_made_for(cfg, made_for) == 32
    assert '0.02' in provenance.advice(cfg, made_for, 64, 0.01, resumed=False)


def test_an_optimizer_without_a_rate(tmp_path: Path) -> None:
    cfg = named(tmp_path, 'x_8xb2.py')
    del cfg.optim_wrapper.optimizer['lr']
    assert provenance.peak_lr(cfg, 8) is None
    cfg.optim_wrapper = dict(generator=dict(optimizer=dict(lr=1)))
    assert provenance.peak_lr(cfg, 8) is None


# The commit


def git(folder: Path, *args: str) -> str:
    who = ['-c', 'user.name=a', '-c', 'user.email=a@example.org']
    return subprocess.check_output(['git', '-C', folder, *who, *args], text=True).strip()


def test_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert provenance.commit_of(tmp_path) == (None, None)
    git(tmp_path, 'init', '-q')
    assert provenance.commit_of(tmp_path) == (None, None)  # of which there is none yet
    (tmp_path / 'file').write_text('a')
    git(tmp_path, 'add', 'file')
    git(tmp_path, 'commit', '-qm', 'first')
    commit = git(tmp_path, 'log', '-1', '--format=%H')
    (tmp_path / 'untracked').touch()
    assert provenance.commit_of(tmp_path) == (commit, False) and len(commit) == 40
    (tmp_path / 'file').write_text('b')
    assert provenance.commit_of(tmp_path) == (commit, True)
    # a folder within someone's checkout, as that of an environment is
    (tmp_path / 'site-packages').mkdir()
    assert provenance.commit_of(tmp_path / 'site-packages') == (None, None)
    monkeypatch.setenv('PATH', '')
    assert provenance.commit_of(tmp_path) == (None, None)


@pytest.mark.full
def test_two_processes(tmp_path: Path) -> None:
    run_tool('tools/make_toy_data.py', '--tasks', 'cls', '--train', 16, '--val', 8, cwd=tmp_path)
    config = ROOT / 'configs/cls/convnext/convnext-micro_toy.py'  # made for 32
    options = [
        'train_dataloader.batch_size=2',
        'optim_wrapper.accumulative_counts=2',
        'train_cfg.max_epochs=1',
        'train_cfg.val_begin=9',
        'randomness.seed=3',
    ]
    for loader in ('train_dataloader', 'val_dataloader'):
        options += [f'{loader}.num_workers=0', f'{loader}.persistent_workers=False']
    agent = ['--standalone', '--nproc_per_node=2', ROOT / 'tools/train.py']
    command = [config, '--launcher', 'pytorch', '--work-dir', 'out', '--cfg-options', *options]
    result = run_tool('tests/torchrun.py', *agent, *command, cwd=tmp_path)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    said = result.stdout + result.stderr
    line = '(samples x processes x accumulated steps: 2 x 2 x 2), peak learning rate 0.002'
    assert said.count('effective batch') == said.count(f'effective batch 8 {line}') == 1
    assert said.count('from which 0.0005 follows') == 1
    (record,) = map(json.loads, (tmp_path / 'out/starts.jsonl').read_text().splitlines())
    assert (record['world_size'], record['batch_size']) == (2, 8)
    assert (record['base_batch_size'], record['lr'], record['seed']) == (32, 0.002, 3)
    assert record['command'].startswith('python tools/train.py configs/cls/convnext/convnext-')
    assert {*record} == {
        *('time', 'command', 'commit', 'modified', 'mmparc', 'torch', 'device', 'world_size'),
        *('batch_size', 'base_batch_size', 'lr', 'seed', 'resumed'),
    }
