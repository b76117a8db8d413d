"""What a run logs of its batch and learning rate, and what it records.

tools/test_train.py compares the records of whole runs with their optimizers.
"""

import json
import subprocess
from pathlib import Path

import pytest
from helpers import ROOT, run_tool
from mmengine.config import Config

from mmparc.engine import provenance

IMAGENET = Config.fromfile(ROOT / 'configs/cls/convnext/convnext-xt_32xb128_in1k.py')  # 4e-3, 4096


def test_batch_and_rate() -> None:
    """One warns where the rate is not the one that follows from the config's by its batch."""
    for batch, lr, follows, resumed in (
        (4096, 4e-3, 4e-3, False),
        (1024, 1e-3, 1e-3, False),
        (1024, 4e-3, 1e-3, False),
        (64, 4e-3, 6.25e-5, False),
        (512, 1e-3, 5e-4, True),
    ):
        said = provenance.advice(IMAGENET, 4e-3, batch, lr, resumed)
        if lr == follows:
            assert said is None
            continue
        assert '\n' not in said and all(f'{n:g}' in said for n in (lr, batch, follows))
        # a resumed run keeps its rate
        assert ('--auto-scale-lr' in said) == (f'lr={follows:.4g}' in said) == (not resumed)
        assert not resumed or '1024' in said
    cfg = Config(dict(IMAGENET.to_dict(), auto_scale_lr=None))
    assert provenance.advice(cfg, 4e-3, 64, 1.0, resumed=False) is None  # nothing to judge it by
    cfg.optim_wrapper.accumulative_counts = 4
    assert provenance.effective_batch(cfg, 8) == 4096
    assert provenance.base_lr(cfg) == 4e-3
    cfg.optim_wrapper = dict(generator=dict(optimizer=dict(lr=1)))
    assert provenance.base_lr(cfg) is None


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
    git(tmp_path, 'tag', 'v1')
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
    agent = ['--standalone', '--nproc_per_node=2', ROOT / 'tools/train.py']
    command = [config, '--launcher', 'pytorch', '--work-dir', 'out', '--cfg-options', *options]
    for scale in ([], ['--auto-scale-lr']):
        result = run_tool('tests/torchrun.py', *agent, *command, *scale, cwd=tmp_path)
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
        said = result.stdout + result.stderr
        lr = 0.0005 if scale else 0.002
        line = f'(samples x processes x accumulated steps: 2 x 2 x 2), peak learning rate {lr}'
        assert said.count('effective batch') == said.count(f'effective batch 8 {line}') == 1
        assert said.count('from which 0.0005 follows') == (not scale)
    record, scaled = map(json.loads, (tmp_path / 'out/starts.jsonl').read_text().splitlines())
    assert (record['world_size'], record['batch_size']) == (2, 8)
    assert (record['base_batch_size'], record['lr'], record['seed']) == (32, 0.002, 3)
    assert scaled['lr'] == 0.0005
    assert record['command'].startswith('python tools/train.py configs/cls/convnext/convnext-')
    assert {*record} == {
        *('time', 'command', 'commit', 'modified', 'mmparc', 'torch', 'device', 'world_size'),
        *('batch_size', 'base_batch_size', 'lr', 'seed', 'resumed'),
    }
