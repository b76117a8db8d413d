"""Checkpoints that are written whole, before the previous ones are removed.

mmengine's own hook is the control. Processes that are killed are in tests/robustness/test_crash.py.
"""

import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from torch.utils.data import TensorDataset
from toys import loader_of, toy_runner

from mmparc import engine
from mmparc.engine.saving import AtomicCheckpointHook, write_atomically

pytestmark = pytest.mark.usefixtures('allowed')
HOOK = 'mmparc.AtomicCheckpointHook'


class Score(BaseMetric):
    """Gives what it is told, one value an evaluation."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores = list(scores)

    def process(self, data_batch, data_samples) -> None:
        self.results.append(0)

    def compute_metrics(self, results) -> dict:
        score = self.scores.pop(0)
        return dict(acc=score, loss=-score)


def runner_in(
    folder: Path,
    hook: str,
    epochs: int,
    scores: list[float],
    checkpoint: dict | None = None,
    **more,
) -> Runner:
    """mmengine's own Runner; it keeps one checkpoint, and evaluates each epoch."""
    own = dict(type=hook, interval=1, max_keep_ckpts=1, save_best='acc') | (checkpoint or {})
    return toy_runner(
        folder,
        val_dataloader=loader_of(TensorDataset(torch.ones(2, 2)), batch_size=2),
        val_evaluator=Evaluator(Score(scores)),
        val_cfg=dict(),
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
        default_hooks=dict(checkpoint=own),
        **more,
    )


def names(folder: Path) -> list[str]:
    found = [p.name for p in folder.iterdir() if p.suffix == '.pth' or p.name.startswith('.')]
    return sorted(found)


def last(folder: Path) -> str:
    return Path((folder / 'last_checkpoint').read_text()).name


def test_the_same_checkpoints_as_mmengine(tmp_path: Path) -> None:
    """One metric and several, of which some get worse; the files, and what the run knows."""
    best = dict(save_best=['acc', 'loss'], rule=['greater', 'less'])
    for i, options in enumerate([{}, dict(max_keep_ckpts=2), best, dict(save_best=None)]):
        kept = []
        for hook in ('CheckpointHook', HOOK):
            folder = tmp_path / hook / str(i)
            runner = runner_in(folder, hook, 4, [1, 3, 2, 2.5], checkpoint=options)
            runner.train()
            saved = torch.load(folder / last(folder), weights_only=False)['message_hub']
            info = saved['runtime_info']
            best = {k: Path(str(v)).name for k, v in info.items() if k.startswith('best')}
            kept.append((names(folder), last(folder), best))
        assert kept[0] == kept[1], options
        assert last(tmp_path / HOOK / str(i)) == 'epoch_4.pth'


def test_the_previous_checkpoint_stays_until_the_next_is_there(tmp_path: Path, monkeypatch) -> None:
    """The disk refuses the second epoch's checkpoint, or its best one."""
    refused = []
    flush = os.fsync

    def refuse(handle: int) -> None:
        if any(part in os.readlink(f'/proc/self/fd/{handle}') for part in refused):
            raise OSError(28, 'No space left on device')
        flush(handle)

    monkeypatch.setattr(os, 'fsync', refuse)
    for name in ('epoch_2.pth', 'best_acc_epoch_2.pth', 'last_checkpoint'):
        folder = tmp_path / name
        runner_in(folder, HOOK, 1, [1]).train()
        before = {path: path.read_bytes() for path in folder.glob('*.pth')}
        refused[:] = [f'/.{name}.part']
        resumed = runner_in(folder, HOOK, 2, [2], resume=True)
        with pytest.raises(engine.UserError, match=r'^[^\n]*No space left on device[^\n]*$') as e:
            resumed.train()
        refused.clear()
        assert name in str(e.value) and '--resume' in str(e.value)
        whole = torch.load(folder / last(folder), weights_only=False)
        assert whole['meta']['epoch'] == (2 if name.startswith('best') else 1)
        assert not list(folder.glob('.*'))
        if name == 'epoch_2.pth':
            assert {p: p.read_bytes() for p in folder.glob('*.pth')} == before
        assert (folder / 'best_acc_epoch_1.pth').is_file()
        runner_in(folder, HOOK, 2, [2, 2], resume=True).train()
        assert 'epoch_2.pth' in names(folder) and last(folder) == 'epoch_2.pth'


def test_no_other_run_loses_its_checkpoints(tmp_path: Path) -> None:
    """A checkpoint names the best one by its path, which may be another run's."""
    for hook, lost in (('CheckpointHook', True), (HOOK, False)):
        first, second = tmp_path / hook / 'first', tmp_path / hook / 'second'
        runner_in(first, hook, 1, [1]).train()
        resume = dict(load_from=str(first / 'epoch_1.pth'), resume=True)
        runner_in(second, hook, 2, [2], **resume).train()
        assert names(second) == ['best_acc_epoch_2.pth', 'epoch_2.pth']
        assert (names(first) == ['epoch_1.pth']) == lost, 'control: mmengine removes the best one'


def test_write_atomically(tmp_path: Path) -> None:
    path = tmp_path / 'new' / 'file'
    for content in (b'one', b'two'):
        write_atomically(path, content)
        assert path.read_bytes() == content and [*path.parent.iterdir()] == [path]
    (tmp_path / 'folder').mkdir()
    with pytest.raises(engine.UserError, match='folder'):
        write_atomically(tmp_path / 'folder', b'three')


def test_which_hooks_of_a_config_are_replaced() -> None:
    class Own(CheckpointHook):
        pass

    for kind in ('CheckpointHook', 'mmengine.hooks.CheckpointHook', CheckpointHook):
        cfg = Config(dict(default_hooks=dict(checkpoint=dict(type=kind, interval=7))))
        engine.use_atomic_checkpoints(cfg)
        assert cfg.default_hooks.checkpoint == dict(type=HOOK, interval=7)
    empty, none = Config(dict()), Config(dict(default_hooks=dict(checkpoint=None)))
    other = Config(dict(custom_hooks=[dict(type='CheckpointHook'), dict(type=Own)]))
    for cfg in (empty, none, other):
        engine.use_atomic_checkpoints(cfg)
    assert empty.default_hooks.checkpoint == dict(type=HOOK, interval=1)  # as mmengine's Runner
    assert none.default_hooks.checkpoint is None
    assert [hook['type'] for hook in other.custom_hooks] == [HOOK, Own]


def test_another_storage_writes_its_files_itself() -> None:
    for options in (dict(backend_args=dict(backend='petrel')), dict(out_dir='s3://bucket')):
        assert AtomicCheckpointHook(**options).backend_args == options.get('backend_args')
