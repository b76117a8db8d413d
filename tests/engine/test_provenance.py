"""What a run logs of its batch and learning rate, and what it records.

tests/tools/test_train.py and tests/robustness/test_processes.py compare the records of whole runs.
"""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import ROOT
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


def test_accumulated_steps_count_where_the_rate_is_scaled() -> None:
    cfg = Config(IMAGENET.to_dict())
    cfg.optim_wrapper.accumulative_counts = 4
    group = dict(lr=4e-3)
    runner = SimpleNamespace(cfg=cfg, optim_wrapper=SimpleNamespace(param_groups=[group]))
    runner.auto_scale_lr = dict(enable=True, base_batch_size=4096)
    provenance.StartHook(runner, IMAGENET)
    assert runner.auto_scale_lr == dict(enable=True, base_batch_size=1024)
