"""Trainings of two and four processes on one machine, on CPUs: equal to one, or ended by an error.

`make test` runs one of two processes. Most are started by torchrun, forked to spare the imports
(tests/torchrun.py), some by tools/dist_train.sh, and by tools/slurm_train.sh with stand-ins for
srun and scontrol.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from helpers import ROOT, relative_error, run_tool, tool_environment

IMAGES, BATCH = 24, 2  # the least that gives four processes three steps an epoch
FAMILIES = {
    'cls': ['convnext', 'deit', 'mobilenet_v2', 'mobilevit', 'parcnet', 'resnet', 'swin'],
    'det': ['resnet'],
    'seg': ['resnet'],
}
LEAVES = [(task, family) for task, families in FAMILIES.items() for family in families]
SECONDS = 60  # within which a run ends of which one process has died
OPTIONS = (
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.max_keep_ckpts=1',
    'randomness.seed=1',
)
CONFIG = """
_base_ = [{base!r}]
custom_imports = dict(imports=['ranks'])
custom_hooks = [dict(type='mmengine.NoteHook', **{note})]
"""
# Nothing random, and no batch statistics: its drop path is 0 anyway.
EXACT = """
model = dict(type='Double')
train_dataloader = dict(
    dataset=dict(pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')])
)
"""


def leaf(task: str, family: str) -> Path:
    paths = ROOT.glob(f'configs/{task}/{family}/*parc*_toy.py')
    (path,) = (path for path in paths if 'relations' not in path.name)
    return path


def forked(processes: int, config: Path, *args: object, **how: Any) -> subprocess.CompletedProcess:
    """One process is started so too, but knows of no other."""
    launcher = ['--launcher', 'pytorch'] if processes > 1 else []
    agent = ('--standalone', f'--nproc_per_node={processes}', ROOT / 'tools/train.py')
    return run_tool('tests/torchrun.py', *agent, config, *launcher, *args, cwd=config.parent, **how)


def by_script(processes: int, config: Path, *args: object) -> subprocess.CompletedProcess:
    """As a user starts it, with the real torchrun and new interpreters."""
    return call(config.parent, ROOT / 'tools/dist_train.sh', config, processes, *args)


# Starts the tasks of a job on this machine, as srun does.
SRUN = """#!{python}
import itertools, os, subprocess, sys

options = list(itertools.takewhile(lambda word: word.startswith('--'), sys.argv[1:]))
count = dict(word.split('=') for word in options)['--ntasks']
tasks = []
for rank in range(int(count)):
    slurm = dict(PROCID=rank, LOCALID=rank, NTASKS=count, NODELIST='node[1]', JOB_ID=7)
    slurm = {{f'SLURM_{{name}}': str(value) for name, value in slurm.items()}}
    tasks.append(subprocess.Popen(sys.argv[1 + len(options):], env=os.environ | slurm))
sys.exit(max(abs(task.wait()) for task in tasks))
"""
SCONTROL = """#!/bin/sh
test "$*" = "show hostname node[1]" && echo 127.0.0.1
"""


def by_slurm(processes: int, config: Path, *args: object) -> subprocess.CompletedProcess:
    """tools/slurm_train.sh, whose srun and scontrol are ours."""
    commands = config.parent / 'bin'
    commands.mkdir(exist_ok=True)
    for name, text in (('srun', SRUN.format(python=sys.executable)), ('scontrol', SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    tool = ('tools/slurm_train.sh', 'partition', 'job', config)
    return call(config.parent, ROOT / tool[0], *tool[1:], *args, GPUS=processes)


def call(folder: Path, *command: object, **variables: object) -> subprocess.CompletedProcess:
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        port = one.getsockname()[1]
    env = tool_environment()
    env['PYTHONPATH'] += f'{os.pathsep}{ROOT / "tests"}'
    first = [str(folder / 'bin'), str(Path(sys.executable).parent)]
    env['PATH'] = os.pathsep.join([*first, env['PATH']])
    env |= {name: str(value) for name, value in {'MASTER_PORT': port, **variables}.items()}
    words = list(map(str, command))
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=600)


class Training:
    """A training in a folder of its own.

    Args:
        folder: which is made.
        root: the data's.
        task, family: which ParC leaf it is.
        more: of the config.
        note: what NoteHook is told.
    """

    def __init__(
        self,
        folder: Path,
        root: Path,
        task: str = 'cls',
        family: str = 'convnext',
        more: str = '',
        **note: Any,
    ) -> None:
        folder.mkdir()
        self.task, self.root, self.out = task, root, folder / 'out'
        self.config = folder / 'config.py'
        base = str(leaf(task, family))
        self.config.write_text(CONFIG.format(base=base, note=note) + more)

    def run(
        self,
        processes: int,
        *options: str,
        batch: int = BATCH,
        epochs: int = 1,
        resume: bool = False,
        start: Callable[..., subprocess.CompletedProcess] = forked,
        **how: Any,
    ) -> subprocess.CompletedProcess:
        steps = IMAGES // (processes * batch)
        length, unit = ('max_iters', steps) if self.task == 'seg' else ('max_epochs', 1)
        options = (
            f'data_root={self.root}',
            f'train_dataloader.batch_size={batch}',
            f'train_cfg.{length}={epochs * unit}',
            'train_cfg.val_interval=99',
            f'default_hooks.checkpoint.interval={unit}',
            *OPTIONS,
            *options,
        )
        args = [*(['--resume'] if resume else []), '--work-dir', self.out]
        return start(processes, self.config, *args, '--cfg-options', *options, **how)

    def finish(self, processes: int, *options: str, **how: Any) -> list[dict]:
        """What each process noted, by rank."""
        done = self.run(processes, *options, **how)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return [torch.load(self.out / f'rank-{rank}.pt') for rank in range(processes)]

    def pids(self) -> set[int]:
        """Processes, and their workers, that have begun a step."""
        return {int(n) for path in self.out.glob('pids-*') for n in path.read_text().split()}


def largest_error(actual: dict, expected: dict) -> float:
    """The largest relative error of tensors by name."""
    assert actual.keys() == expected.keys() and expected
    return max(relative_error(actual[name], value) for name, value in expected.items())


def equal(notes: list[dict], what: str) -> bool:
    """Whether all ranks have the same tensors, to the last bit."""
    first = notes[0][what]
    return all(
        note[what].keys() == first.keys()
        and all(torch.equal(note[what][name], value) for name, value in first.items())
        for note in notes
    )


def sharded(notes: list[dict], files: set[str]) -> bool:
    """Whether the ranks had all files of an epoch, each of them once."""
    seen = [path for note in notes for step in note['samples'] for path in step]
    return len(seen) == len(set(seen)) and set(seen) == files


# Gradients


BATCH_OF_ALL = 12
STARTS = {'torchrun': forked, 'dist_train.sh': by_script, 'slurm_train.sh': by_slurm}
MORE = [(4, 'torchrun'), (2, 'dist_train.sh'), (2, 'slurm_train.sh')]
CASES = [[(2, 'torchrun')], pytest.param(MORE, marks=pytest.mark.full)]


@pytest.mark.parametrize('cases', CASES, ids=['two', 'more'])
def test_gradients_are_those_of_one_process(cases, data, tmp_path: Path, record) -> None:
    """In float64; the controls are a step of unsynchronised gradients and another batch."""
    note = dict(more=EXACT, gradients=True, alone=1)

    def train(name: str, processes: int, **how: Any) -> list[dict]:
        run = Training(tmp_path / name, data('cls', IMAGES), **note)
        notes = run.finish(processes, **how)
        record = json.loads((run.out / 'starts.jsonl').read_text())  # one line, of rank 0
        assert record['world_size'] == processes
        assert record['batch_size'] == processes * how['batch']
        return notes

    (one,) = train('one', 1, batch=BATCH_OF_ALL)
    for processes, name in cases:
        share = BATCH_OF_ALL // processes
        notes = train(f'{name}-{processes}', processes, batch=share, start=STARTS[name])
        errors = [largest_error(n['gradients'][0], one['gradients'][0]) for n in notes]
        print(f'{name}, {processes} processes: relative error {max(errors):.2g}')
        assert max(errors) < 1e-6
        assert not equal(notes, 'parameters')
        assert min(largest_error(n['gradients'][1], one['gradients'][1]) for n in notes) > 0.1
        record(f'gradients of {processes} processes by {name} equal to those of one', 1, 1)
    if cases is MORE:
        (other,) = train('other', 1, batch=BATCH_OF_ALL // 2)
        assert largest_error(other['gradients'][0], one['gradients'][0]) > 0.1


# Shards, parameters, weights


@pytest.mark.full
@pytest.mark.parametrize('task, family', LEAVES)
def test_shards_and_weights(task: str, family: str, data, tmp_path: Path, record) -> None:
    """DDP refuses the second step where a parameter was not used in the first one.

    Statistics of BatchNorm are each process's own, as mmengine leaves them; rank 0's are saved.
    """
    root = data(task, IMAGES)
    images = [path for path in root.rglob('*.*') if path.suffix in ('.jpg', '.JPEG')]
    files = {str(path) for path in images if 'train' in str(path.relative_to(root))}
    assert len(files) == IMAGES
    for processes in (2, 4):
        notes = Training(tmp_path / str(processes), root, task, family).finish(processes)
        assert sharded(notes, files) and not sharded([notes[0]] * processes, files)
        assert equal(notes, 'parameters')
        own = ('running_mean', 'running_var')
        for note in notes:
            buffers = note['buffers'].items()
            note['shared'] = {name: t for name, t in buffers if not name.endswith(own)}
        assert equal(notes, 'shared')
        record(f'{task}, {family}, {processes} processes: shards and weights', 1, 1)


@pytest.mark.full
def test_an_unused_parameter_is_found(data, tmp_path: Path) -> None:
    """The control of the test above; mmengine's setting for such models is heeded."""
    run = Training(tmp_path / 'run', data('cls', IMAGES), more="model = dict(type='Unused')")
    done = run.run(2)
    assert done.returncode == 1 and 'Expected to have finished reduction' in done.stderr
    assert equal(run.finish(2, 'find_unused_parameters=True'), 'parameters')


# A process that dies


@pytest.mark.full
def test_a_process_that_dies_ends_the_run(data, tmp_path: Path, record) -> None:
    """With an error and in time, and none of the processes and their workers is left."""
    # Of two errors within a second torchrun shows one: that of a process or of its connection.
    said = 'asked to die', 'SIGKILL', 'SIGTERM', 'Connection closed by peer', 'Connection reset'
    cases = [(2, 0, 'SIGKILL', forked), (2, 1, 'exception', forked), (4, 2, 'SIGKILL', forked)]
    cases += [(2, 1, how, by_script) for how in ('SIGKILL', 'exception')]
    for i, (processes, rank, how, start) in enumerate(cases):
        run = Training(tmp_path / str(i), data('cls', IMAGES), die=(rank, 1, how))
        done = run.run(processes, start=start)
        assert time.time() - float((run.out / 'died').read_text()) < SECONDS
        assert done.returncode > 0 and any(t in done.stderr for t in said), done.stderr[-3000:]
        left = [process for process in psutil.process_iter() if process.pid in run.pids()]
        assert not psutil.wait_procs(left, timeout=30)[1]  # a killed one's worker looks every 5 s
    record('runs that end when one process has died in a step', len(cases), len(cases))


@pytest.mark.full
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_stopped(number: int, data, tmp_path: Path) -> None:
    """torchrun passes it on, and the line that says how to go on comes once."""
    run = Training(tmp_path / 'run', data('cls', IMAGES))

    def stop(pid: int) -> None:
        while not (run.out / 'pids-1').exists():
            time.sleep(0.05)
        os.kill(pid, number)

    done = run.run(2, epochs=500, meanwhile=stop)
    assert done.returncode and done.stderr.count('stopped by SIG') == 1, done.stderr[-3000:]
    assert not [pid for pid in run.pids() if psutil.pid_exists(pid)]


# Resumed, sharded optimizers


@pytest.mark.full
def test_a_resumed_run_ends_as_the_uncut_one(data, tmp_path: Path, record) -> None:
    uncut = Training(tmp_path / 'uncut', data('cls', IMAGES), 'cls', 'deit')
    expected = uncut.finish(2, epochs=2)
    cut = Training(tmp_path / 'cut', data('cls', IMAGES), 'cls', 'deit', die=(1, 9, 'SIGKILL'))
    assert cut.run(2, epochs=2).returncode == 1
    assert (cut.out / 'last_checkpoint').read_text().endswith('epoch_1.pth')
    notes = cut.finish(2, epochs=2, resume=True)
    for rank in range(2):
        assert equal([notes[rank], expected[rank]], 'parameters')
    record('resumed runs of two processes equal to the uncut one', 1, 1)


ZERO = """
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True,
        type='ZeroRedundancyOptimizer',
        optimizer_type='AdamW',
        lr=2e-3,
        weight_decay=0.05,
        betas=(0.9, 0.999),
        eps=1e-8,
    )
)
"""


@pytest.mark.full
def test_zero_redundancy_optimizer(data, tmp_path: Path, record) -> None:
    """It takes AdamW's steps, and a run of it that is resumed ends as the uncut one."""
    root = data('cls', IMAGES)
    plain = ZERO.replace('ZeroRedundancyOptimizer', 'AdamW').replace("optimizer_type='AdamW',", '')
    expected = Training(tmp_path / 'adamw', root, more=plain).finish(2, epochs=2)
    notes = Training(tmp_path / 'zero', root, more=ZERO).finish(2, epochs=2)
    assert equal(notes, 'parameters')
    assert largest_error(notes[0]['parameters'], expected[0]['parameters']) < 1e-6
    cut = Training(tmp_path / 'cut', root, more=ZERO, die=(1, 9, 'SIGKILL'))
    assert cut.run(2, epochs=2).returncode == 1
    resumed = cut.finish(2, epochs=2, resume=True)
    assert equal([*resumed, notes[0]], 'parameters')
    record('ZeroRedundancyOptimizer: equal to AdamW, and resumed', 1, 1)
