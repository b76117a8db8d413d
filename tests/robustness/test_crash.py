"""Trainings that are killed, interrupted, or cannot write: what they leave, and how they resume.

A killed run is resumed in a new process and compared with one that was never cut: weights, buffers,
optimizer, schedulers, the best score and the last metrics, to the last bit, on one thread of a CPU.
"""

import contextlib
import functools
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
from helpers import ROOT, run_python, run_tool

# Classification and detection go by epochs, segmentation by iterations; none loads its samples as
# another one does; beside flipped samples, mixup, nothing, and dropout draw random numbers.
BY_EPOCH = (
    'train_cfg.max_epochs=3',
    'train_cfg.val_interval=1',
    'default_hooks.checkpoint.interval=1',
)
TASKS = {
    'cls': (
        'configs/cls/resnet/parc-resnet-micro_toy.py',
        'train_dataloader.num_workers=2',
        *BY_EPOCH,
        'model.train_cfg._delete_=True',
        'model.train_cfg.augments.type=Mixup',
        'model.train_cfg.augments.alpha=0.8',
    ),
    'det': ('configs/det/resnet/centernet-update_parc-resnet-micro_hrfpn_toy.py', *BY_EPOCH),
    'seg': (
        'configs/seg/resnet/parc-resnet-micro_upernet_toy.py',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'train_cfg.max_iters=6',
        'train_cfg.val_interval=2',
        'default_hooks.checkpoint.interval=2',
    ),
}
CHECKPOINTS = {'cls': (1, 2, 3), 'det': (1, 2, 3), 'seg': (2, 4, 6)}
METRICS = {'cls': 'accuracy/top1', 'det': 'coco/bbox_mAP', 'seg': 'mIoU'}
COMMON = (
    'train_dataloader.batch_size=8',  # of 16 images: two steps an epoch
    'default_hooks.checkpoint.max_keep_ckpts=1',
    'default_hooks.logger.interval=1',
)
SEED = 'randomness.seed=1'


@dataclass(frozen=True)
class Training:
    """tools/train.py on a task's small config, in a work directory of its own."""

    task: str
    root: Path
    work_dir: Path

    def command(self, *options: str, resume: bool = False) -> list[str]:
        config, *own = TASKS[self.task]
        best = f'default_hooks.checkpoint.save_best={METRICS[self.task]}'
        return [
            str(ROOT / config),
            f'--work-dir={self.work_dir}',
            *(['--resume'] if resume else []),
            *('--cfg-options', f'data_root={self.root}', *COMMON, *own, best, *options),
        ]

    def run(self, *options: str, resume: bool = False, **how) -> subprocess.CompletedProcess[str]:
        command = self.command(*options, resume=resume)
        return run_tool('tools/train.py', *command, cwd=self.work_dir.parent, **how)

    def finish(self, *options: str, resume: bool = False) -> 'Training':
        done = self.run(*options, resume=resume)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return self

    def last(self) -> Path:
        return Path((self.work_dir / 'last_checkpoint').read_text())

    def step(self) -> int:
        """Epochs or iterations behind the last checkpoint; 0 where there is none."""
        begun = (self.work_dir / 'last_checkpoint').exists()
        return int(self.last().stem.split('_')[1]) if begun else 0

    def parts(self, name: str = '') -> list[Path]:
        """Files that are, or were, being written."""
        return list(self.work_dir.glob(f'.*{name}.part'))

    def is_writing(self, step: int) -> bool:
        return bool(self.parts(f'_{step}.pth'))

    def has_saved(self, step: int) -> bool:
        """Its evaluation begins then, and takes some tenths of a second."""
        return self.step() == step

    def logs(self) -> set[Path]:
        return set(self.work_dir.glob('*/vis_data/scalars.json'))

    def trains(self, before: set[Path]) -> bool:
        """Whether a process with a new log has trained a step."""
        return any('"loss"' in path.read_text() for path in self.logs() - before)

    def outcome(self) -> dict:
        """What must not depend on whether the run was cut."""
        checkpoint = torch.load(self.last(), weights_only=False)  # written a moment ago
        info = checkpoint['message_hub']['runtime_info']
        records = max(self.logs()).read_text().splitlines()
        metrics = json.loads(records[-1])
        assert METRICS[self.task] in metrics and metrics['step'] == self.step()
        return dict(
            checkpoint=self.last().name,
            weights=digest(checkpoint['state_dict']),
            optimizer=digest(checkpoint['optimizer']),
            schedulers=digest(checkpoint['param_schedulers']),
            at={key: checkpoint['meta'][key] for key in ('epoch', 'iter', 'seed')},
            best=(Path(info['best_ckpt']).name, info['best_score']),
            metrics={key: v for key, v in metrics.items() if 'time' not in key},
            left=self.parts(),
            kept=sorted(path.name for path in self.work_dir.glob('[ei]*_*.pth')),
        )


def digest(value: object) -> str:
    """SHA-256 of nested containers of tensors and numbers."""

    def plain(leaf: object) -> str:
        if not isinstance(leaf, torch.Tensor):
            return repr(leaf)
        content = leaf.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return f'{leaf.dtype} {tuple(leaf.shape)} {hashlib.sha256(content).hexdigest()}'

    return hashlib.sha256(json.dumps(value, default=plain).encode()).hexdigest()


@pytest.fixture(scope='session')
def uncut(data, tmp_path_factory) -> Callable[[str], tuple[dict, float]]:
    """Gives the outcome of a task's run that was never cut, and the seconds that it took."""

    @functools.cache
    def train(task: str) -> tuple[dict, float]:
        run = Training(task, data(task), tmp_path_factory.mktemp(task) / 'uncut')
        begin = time.monotonic()
        run.finish(SEED)
        return run.outcome(), time.monotonic() - begin

    return train


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a run that did not end well had to say beside its log."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


# Signals


def send(
    number: int, to_all: bool = False, children: list[psutil.Process] | None = None
) -> Callable[[int], None]:
    """A signal to a process, or, as a terminal does it, to its children too, which are noted."""

    def act(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):  # it has just ended
            found = psutil.Process(pid).children(recursive=True)
            if children is not None:
                children.extend(found)
            for each in (pid, *(child.pid for child in found if to_all)):
                os.kill(each, number)

    return act


def when(
    happens: Callable[[], bool], act: Callable[[int], None], delay: float = 0
) -> Callable[[int], None]:
    """Act on a process some seconds after something happens, or when the process has ended."""

    def meanwhile(pid: int) -> None:
        while psutil.pid_exists(pid) and not happens():
            time.sleep(2e-4)
        end = time.monotonic() + delay
        while psutil.pid_exists(pid) and time.monotonic() < end:
            time.sleep(2e-4)
        act(pid)

    return meanwhile


def test_a_run_that_is_killed_and_damaged_ends_as_one_that_is_not(
    uncut, data, tmp_path: Path
) -> None:
    for trial in range(4):  # writing is over within milliseconds, which a busy machine may miss
        run = Training('cls', data('cls'), tmp_path / str(trial))
        writing = when(functools.partial(run.is_writing, 2), send(signal.SIGKILL))
        killed = run.run(SEED, meanwhile=writing)
        if killed.returncode:
            break
    assert killed.returncode == -signal.SIGKILL and run.parts()
    first = run.last()
    assert first.name == 'epoch_1.pth'  # mmengine has removed it by then: it keeps one
    weights = first.read_bytes()

    # a checkpoint that something else has damaged
    flipped = bytearray(weights)
    saved = torch.load(first, weights_only=False)['state_dict'].values()
    largest = max(saved, key=torch.Tensor.numel).contiguous().numpy().tobytes()
    flipped[weights.index(largest) + len(largest) // 2] ^= 1  # elsewhere may be padding
    first.write_bytes(flipped)
    damaged = run.run(resume=True)
    assert damaged.returncode == 1 and str(first) in one_line(damaged)
    first.write_bytes(weights)

    assert run.finish(resume=True).outcome() == uncut('cls')[0]
    other = Training('cls', data('cls'), tmp_path / 'other').finish('randomness.seed=2').outcome()
    assert other['weights'] != uncut('cls')[0]['weights'], 'the control'


def assert_stopped(
    run: Training, done: subprocess.CompletedProcess[str], number: int, began: bool = True
) -> None:
    """A signal ended the run with its status and one line, and left no half-written file."""
    assert done.returncode == 128 + number, done.stderr
    line = one_line(done)
    assert signal.Signals(number).name in line
    assert (str(run.last()) in line) if began else (str(run.work_dir) in line)
    assert not run.parts()


def test_stopped_and_resumed(uncut, data, tmp_path: Path) -> None:
    """Ctrl-C, then a cluster's signal, while samples are loaded by other processes."""
    run = Training('cls', data('cls'), tmp_path / 'run')
    for number, to_all in ((signal.SIGINT, True), (signal.SIGTERM, False)):
        before, workers = run.logs(), []
        trains = when(lambda: run.trains(before), send(number, to_all, workers))  # noqa: B023
        done = run.run(SEED, resume=number == signal.SIGTERM, meanwhile=trains)
        assert_stopped(run, done, number, began=bool(run.step()))
        assert workers, 'samples were loaded by the process itself'
        assert not psutil.wait_procs(workers, timeout=1)[1]
    assert run.finish(SEED, resume=True).outcome() == uncut('cls')[0]


# In full


@pytest.mark.full
@pytest.mark.parametrize('task', TASKS)
def test_killed_anywhere(task: str, uncut, data, tmp_path: Path, record) -> None:
    """32 kills: 24 at random moments of the whole run, 4 as it writes, 4 as it evaluates."""
    expected, seconds = uncut(task)
    draw = random.Random(task)
    tried = held = 0
    workers = []
    while tried < 32:
        run = Training(task, data(task), tmp_path / str(tried))
        step, kill = draw.choice(CHECKPOINTS[task]), send(signal.SIGKILL, children=workers)
        if tried % 8 == 6:
            meanwhile = when(functools.partial(run.is_writing, step), kill)
        elif tried % 8 == 7:
            meanwhile = when(functools.partial(run.has_saved, step), kill, draw.uniform(0, 0.2))
        else:
            meanwhile = when(lambda: True, kill, draw.uniform(0, seconds))
        killed = run.run(SEED, meanwhile=meanwhile)
        if killed.returncode == -signal.SIGKILL:  # and had not ended before
            at = run.step()
            run.finish(*([] if at else [SEED]), resume=True)  # a checkpoint has its seed
            equal = run.outcome() == expected
            print(f'{task}: killed after checkpoint {at}: {equal}', flush=True)
            tried += 1
            held += equal
        shutil.rmtree(run.work_dir, ignore_errors=True)
    assert not psutil.wait_procs(workers, timeout=30)[1]
    record(f'{task}, killed', tried, held)
    assert held == tried


@pytest.mark.full
@pytest.mark.parametrize('number, to_all', [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_stopped_anywhere(number: int, to_all: bool, uncut, data, tmp_path: Path, record) -> None:
    """At random moments after the run has a work directory."""
    _, seconds = uncut('cls')
    draw = random.Random(number)
    tried = held = 0
    while tried < 10:
        run, workers = Training('cls', data('cls'), tmp_path / str(tried)), []
        stop = send(number, to_all, workers)
        done = run.run(SEED, meanwhile=when(run.work_dir.exists, stop, draw.uniform(0, seconds)))
        if done.returncode and run.step() < CHECKPOINTS['cls'][-1]:  # and had not ended before
            tried += 1
            try:
                assert_stopped(run, done, number, began=bool(run.step()))
                assert not psutil.wait_procs(workers, timeout=1)[1]
                held += 1
            except AssertionError as error:
                print(error)
        shutil.rmtree(run.work_dir, ignore_errors=True)
    record(f'stopped by {signal.Signals(number).name}', tried, held)
    assert held == tried


# As torch.save does; freed by Python at its end, the writer would abort the process.
INTERRUPTED = """
import io, os, signal, torch
from mmparc.engine import stops_in_one_line

def save():
    with io.BytesIO() as file:
        writer = torch._C.PyTorchFileWriter(file)
        os.kill(os.getpid(), signal.SIGTERM)

with stops_in_one_line('nowhere'):
    save()
"""


@pytest.mark.full
def test_stopped_while_saving() -> None:
    done = run_python(INTERRUPTED)
    assert done.returncode == 128 + signal.SIGTERM and 'nowhere' in one_line(done)
