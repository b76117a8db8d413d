"""tools/reproduce.py: which runs, in which order, and what becomes of interrupted ones.

Runs are stand-ins that leave what mmengine leaves.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT
from mmengine.config import DictAction
from runs import call, write_run

from mmparc.errors import UserError
from mmparc.results.plan import load_table
from mmparc.results.run import Job, as_option, is_running, locked, make_jobs, run_jobs

# The published detection table, from the papers and the configs' names.
NAMES = [p + name for name in ('convnext-xt', 'resnet50', 'mobilenet-v2') for p in ('', 'parc-')]
DETECTION = [f'{name}_32xb128_in1k' for name in NAMES]
DETECTION += [f'cascade-mask-rcnn_{n}_fpn_4conv1fc-giou_amp-ms-crop-3x_coco' for n in NAMES]


def test_dry_run_lists_the_published_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for args, expected in (
        ([], DETECTION),
        (['--rows', 'ParC-ResNet50'], [name for name in DETECTION if 'parc-resnet50' in name]),
    ):
        call('reproduce', 'detection', '--work-dirs', 'w', '--dry-run', *args)
        said = capsys.readouterr().out
        assert re.findall(r'train mmparc::\S+/(\S+)\.py ', said) == expected
        assert f'detection: {len(expected)} runs, 0 of them done' in said
        missing = re.findall("^not here: .*'(data/[^']*)'", said, re.M)
        assert missing == ['data/imagenet', 'data/coco/']
        for line in said.splitlines():
            if 'train mmparc::det/' in line:  # starts from the classifier trained before
                stem = re.search(r'cascade-mask-rcnn_(.*?)_fpn', line)[1]
                assert f'init_cfg.checkpoint=w/cls/{stem}_32xb128_in1k/epoch_300.pth' in line
    for args, named in (
        (['detektion'], "'detection'"),
        (['detection', '--rows', 'ResNet5'], "'ResNet50'"),
        (['detection', '--gpus', '8'], '--gpus.*--launcher pytorch'),
        (['detection', '--launcher', 'pytorch', '--gpus', '0'], 'at least 1'),
        (['segmentation_voc'], "'data/"),
    ):
        with pytest.raises(UserError, match=named) as caught:
            call('reproduce', *args)
        assert '\n' not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


TABLE = """
title: A table
task: cls
metrics: {top1: accuracy/top1}
rows:
  - {name: A, config: cls/resnet/resnet-micro_toy.py, batch: 32, schedule: 20 epochs}
  - name: B
    config: cls/resnet/parc-resnet-micro_toy.py
    needs: cls/resnet/resnet-micro_toy.py
    options:
      model.backbone.init_cfg.type: Pretrained
      model.backbone.init_cfg.checkpoint: work_dirs/cls/resnet-micro_toy/epoch_20.pth
    batch: 32
    schedule: 20 epochs
  - name: C
    config: cls/convnext/convnext-micro_toy.py
    batch: 64
    schedule: 20 epochs
    seeds: [0, 1]
"""
TRAIN = """
import json, pathlib, sys, time
folder, seconds = pathlib.Path(sys.argv[1]), float(sys.argv[2])
print('started', flush=True)
time.sleep(seconds)
logs = folder / '20260101_000000/vis_data'
logs.mkdir(parents=True)
(folder / 'last_checkpoint').write_text('epoch_20.pth')
(logs / 'scalars.json').write_text(json.dumps({'accuracy/top1': 1.0, 'step': 20}))
"""
PYTHON = [sys.executable, '-S', '-c']  # starts at once


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    path = tmp_path / 'mine.yaml'
    path.write_text(TABLE)
    return make_jobs(load_table(str(path)).rows, str(path), tmp_path / 'runs', {})


def trains(job: Job, seconds: float = 0) -> list[str]:
    return [*PYTHON, TRAIN, str(job.work_dir), str(seconds)]


def fails(job: Job) -> list[str]:
    return [*PYTHON, 'print("ValueError: this is why"); raise SystemExit(3)']


def run(jobs: list[Job], command: Callable[[Job], list[str]] = trains) -> list[str]:
    return list(run_jobs(jobs, command).values())


def test_order_commands_and_skipping(jobs: list[Job]) -> None:
    labels = ['mine: A', 'mine: B', 'mine: C, seed 0', 'mine: C, seed 1']
    assert [job.label for job in jobs] == labels
    first, second, other, _ = jobs
    assert second.needs is first and second.schedule == '20 epochs'
    checkpoint = f'model.backbone.init_cfg.checkpoint={first.work_dir}/epoch_20.pth'
    assert checkpoint in second.train_arguments()
    assert '--auto-scale-lr' not in first.train_arguments()
    assert '--auto-scale-lr' in other.train_arguments()  # 32 images instead of 64
    assert other.train_arguments()[-1] == 'randomness.seed=0'
    assert first.command() == [sys.executable, '-m', 'mmparc', 'train', *first.train_arguments()]

    assert run(jobs) == [''] * 4
    assert run(jobs, fails) == [''] * 4  # all are done: nothing starts
    (first.work_dir / 'last_checkpoint').unlink()
    assert run(jobs, fails)[0] != ''  # the control


def test_a_failure_stops_only_what_needs_it(jobs: list[Job], capfd: pytest.CaptureFixture) -> None:
    first, second, *_ = jobs
    whys = run(jobs, lambda job: fails(job) if job is first else trains(job))
    assert '3' in whys[0] and 'stdout.txt' in whys[0]
    assert first.label in whys[1] and not second.work_dir.exists()
    assert whys[2:] == ['', '']
    assert 'ValueError: this is why' in capfd.readouterr().err
    # exit code 0 without results is not a success
    assert str(first.work_dir) in run([first], lambda job: [*PYTHON, ''])[0]
    # a run of another length is left alone
    write_run(first.work_dir, '30 epochs', {'accuracy/top1': 1.0})
    assert 'epoch_30.pth' in run([first])[0]


def test_two_processes_share_a_table(jobs: list[Job]) -> None:
    first, _, other, _ = jobs
    with locked(first.work_dir) as lock:
        assert lock is not None and is_running(first.work_dir) and not is_running(other.work_dir)
        whys = run(jobs)
        assert str(first.work_dir) in whys[0] and first.label in whys[1] and whys[2] == ''
        # a run keeps the lock when its parent is killed
        child = subprocess.Popen([*PYTHON, 'input()'], stdin=subprocess.PIPE, pass_fds=(lock,))
    assert is_running(first.work_dir)
    child.communicate(b'\n')
    assert not is_running(first.work_dir)
    assert run(jobs) == [''] * 4


def test_stopping_ends_the_run(jobs: list[Job]) -> None:
    # a shell makes its background processes ignore SIGINT
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
            with pytest.raises(KeyboardInterrupt):
                run(jobs, lambda job: trains(job, seconds=100))
            assert not is_running(jobs[0].work_dir) and not jobs[1].work_dir.exists()
    finally:
        signal.signal(signal.SIGINT, before)
    assert (jobs[0].work_dir / 'stdout.txt').read_text().count('\nstarted') == 2


def test_options_arrive_as_they_are() -> None:
    for value in (True, None, 3, 1e-4, 'epoch_3.pth', [1, 2.5, 'a'], [True, [1, 2]]):
        parser = argparse.ArgumentParser()
        parser.add_argument('--options', nargs='+', action=DictAction)
        args = parser.parse_args(['--options', as_option('a.b', value)])
        assert repr(args.options) == repr({'a.b': value})


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where stand-ins of programs write their arguments: sbatch numbers jobs, squeue knows one."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    for name, says in (
        ('sbatch', f'echo "$((40 + $(ls {tmp_path} | grep -c sbatch)));cluster"'),
        ('squeue', f'case "$*" in *"$(cat {tmp_path}/queued)") echo 7;; esac'),
        ('srun', 'true'),
        ('python', f'cat {tmp_path}/plan'),
    ):
        write = f'printf "%s\\n" "$@" > {tmp_path}/{name}-$$'
        (folder / name).write_text(f'#!/bin/sh\n{write}\n{says}\n')
        (folder / name).chmod(0o755)
    (tmp_path / 'queued').write_text('nothing')
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
    return tmp_path


def calls(folder: Path, name: str) -> list[list[str]]:
    """The arguments of each call of a stand-in since the last question."""
    files = sorted(folder.glob(f'{name}-*'), key=lambda file: file.stat().st_mtime_ns)
    found = [file.read_text().splitlines() for file in files]
    for file in files:
        file.unlink()
    return found


def test_slurm_submits_each_run_once_and_after_what_it_needs(
    programs: Path, jobs: list[Job], capsys: pytest.CaptureFixture
) -> None:
    arguments = [str(programs / 'mine.yaml'), '--work-dirs', str(programs / 'runs')]
    script = ['bash', ROOT / 'tools/slurm_reproduce.sh', 'gpu', *arguments]

    def submit() -> list[list[str]]:
        call('reproduce', *arguments, '--plan')  # what the script asks Python for
        (programs / 'plan').write_text(capsys.readouterr().out)
        subprocess.run(script, check=True, cwd=programs, stdout=subprocess.DEVNULL)
        assert calls(programs, 'python') == [['-m', 'mmparc', 'reproduce', *arguments, '--plan']]
        return calls(programs, 'sbatch')

    one, two, three, four = submit()
    assert not [word for word in one + three + four if 'dependency' in word]
    assert '--dependency=afterok:41' in two
    assert {'--partition=gpu', '--gres=gpu:1', '--ntasks=1'} < set(one)
    assert {'--gres=gpu:2', '--ntasks=2', '--ntasks-per-node=2'} < set(three)  # 64 images
    assert len({w for words in (one, two, three, four) for w in words if '--job-name' in w}) == 4
    # the script in it gives srun the arguments of tools/train.py
    wrapped = '\n'.join(two).partition('--wrap=')[2]
    subprocess.run(wrapped, shell=True, check=True, env={**os.environ, 'SLURM_JOB_ID': '5'})
    (words,) = calls(programs, 'srun')
    start = words.index('train')
    assert words[start : start + 3] == ['train', '--launcher', 'slurm']
    assert words[start + 3 :] == jobs[1].train_arguments()

    jobs[0].gpus = 16  # through torchrun
    assert jobs[0].batch == 512 and jobs[0].scales_lr
    assert jobs[0].command('pytorch')[2:4] == [jobs[0].train_arguments()[0], '16']
    # what is queued is waited for, what is done is left out
    (programs / 'queued').write_text(re.search('--job-name=(.*)', '\n'.join(one))[1])
    assert '--dependency=afterok:7' in submit()[0]
    assert run(jobs[:1]) == ['']
    assert len(submit()) == 3 and 'dependency' not in ' '.join(submit()[0])
    # a refusal ends it
    (programs / 'bin/sbatch').write_text('#!/bin/sh\necho no such partition >&2\nexit 1\n')
    result = subprocess.run(script, cwd=programs, capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr == 'no such partition\n'
    assert subprocess.run(script[:3], capture_output=True).returncode == 2
