"""tools/reproduce.py: which runs, in which order, and what becomes of those that are cut off.

Most runs are stand-ins that leave what mmengine leaves; one test trains, is killed and goes on.
"""

import ast
import functools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT, run_tool, tool_environment
from mmengine.config import Config, DictAction

from mmparc import engine
from mmparc.engine.config import load_config
from mmparc.tables import load_table
from mmparc.tables.jobs import Job, as_option, is_locked, make_jobs, take_lock, train_command
from mmparc.tables.local import Runner
from mmparc.tables.slurm import job_name, submit

# The published detection table, written down from the papers and the configs' names.
DETECTION = [
    *(
        f'cls/{folder}/{name}_32xb128_in1k'
        for folder, plain in (
            ('convnext', 'convnext-xt'),
            ('resnet', 'resnet50'),
            ('mobilenet_v2', 'mobilenet-v2'),
        )
        for name in (plain, f'parc-{plain}')
    ),
    *(
        f'det/{folder}/cascade-mask-rcnn_{name}_fpn_4conv1fc-giou_amp-ms-crop-3x_coco'
        for folder, plain in (
            ('convnext', 'convnext-xt'),
            ('resnet', 'resnet50'),
            ('mobilenet_v2', 'mobilenet-v2'),
        )
        for name in (plain, f'parc-{plain}')
    ),
]
COMMAND = re.compile(
    r'^ +python (?:tools/train\.py|-m mmparc train) (?:configs/|mmparc::)(\S+)\.py '
)


def dry_run(*args: str, cwd: Path = ROOT) -> str:
    result = run_tool('tools/reproduce.py', *args, '--dry-run', cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


def configs(said: str) -> list[str]:
    return [found[1] for line in said.splitlines() if (found := COMMAND.match(line))]


def test_dry_run_lists_the_published_table(tmp_path: Path) -> None:
    said = dry_run('detection', '--work-dirs', str(tmp_path))
    assert configs(said) == DETECTION
    assert len(set(DETECTION)) == 12 and said.startswith('detection: 12 runs, 0 of them done\n')
    assert list(tmp_path.iterdir()) == []
    for line in said.splitlines():
        if '/det/' in line and 'train' in line:  # starts from what was trained before
            stem = re.search(r'cascade-mask-rcnn_(.*?)_fpn', line)[1]
            assert f'init_cfg.checkpoint={tmp_path}/cls/{stem}_32xb128_in1k/epoch_300.pth' in line

    # rows alone, with what one of them needs; its other half as a control
    elsewhere = dry_run('detection', '--rows', 'ParC-ResNet50', cwd=tmp_path)
    assert configs(elsewhere) == [name for name in DETECTION if 'parc-resnet50' in name]
    assert 'python -m mmparc train mmparc::cls/' in elsewhere
    assert 'checkpoint=' not in elsewhere  # work_dirs, as the config says
    roots = re.findall(r"^not here: there is no data root '(\S+)'", elsewhere, re.MULTILINE)
    assert roots == ['data/imagenet', 'data/coco/']
    assert 'not here' not in dry_run('small', cwd=tmp_path)  # makes its data itself


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['detektion'], "there is no table 'detektion': did you mean 'detection'?"),
        (['detection', '--rows', 'ResNet5'], "has no row 'ResNet5': did you mean 'ResNet50'?"),
        (['detection', '--gpus', '8'], '--gpus needs --launcher pytorch or slurm'),
        (['detection', '--launcher', 'slurm'], '--launcher slurm and --partition NAME go together'),
        (['detection', '--launcher', 'pytorch'], 'finds no GPU here: pass --gpus N'),
        (['detection', '--jobs', '0'], '--jobs and --gpus must be at least 1'),
        (['segmentation_voc'], "there is no data root 'data/"),
    ],
)
def test_mistakes(args: list[str], words: str, tmp_path: Path) -> None:
    result = run_tool('tools/reproduce.py', *args, cwd=tmp_path)
    assert result.returncode == 1 and words in result.stderr
    assert result.stderr.startswith('error: ') and result.stderr.count('\n') == 1
    assert list(tmp_path.iterdir()) == []


# Runs by stand-ins

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
  - {name: C, config: cls/convnext/convnext-micro_toy.py, batch: 64, schedule: 20 epochs}
"""
TRAIN = """
import json, pathlib, sys, time
folder, length, validate, seconds = sys.argv[1:]
folder = pathlib.Path(folder)
with (folder.parent / 'order').open('a') as file:
    file.write(f'{folder.name}\\n')
time.sleep(float(seconds))
logs = folder / '20260101_000000' / 'vis_data'
logs.mkdir(parents=True, exist_ok=True)
(folder / 'last_checkpoint').write_text(f'epoch_{length}.pth')
(folder / f'epoch_{length}.pth').touch()
if validate == 'True':
    (logs / 'scalars.json').write_text(json.dumps({'accuracy/top1': 1.0, 'step': int(length)}))
"""
TEST = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1]) / '20260102_000000'
(folder / 'vis_data').mkdir(parents=True)
(folder / 'vis_data/config.py').write_text("load_from = 'epoch_20.pth'\\n")
(folder / '20260102_000000.json').write_text('{"accuracy/top1": 2.0}')
"""
FAIL = """
print("one")
print("[rank0]: ValueError: this is why")
for number in range(5):
    print(number)
print("error: said at last")
raise SystemExit(3)
"""
# The stand-ins end at once; none of them reads what the test's own interpreter did.
PYTHON = [sys.executable, '-S', '-c']


@functools.cache
def loaded(name: str, options: str) -> Config:
    return load_config(name, ast.literal_eval(options))


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    monkeypatch.setattr(engine, 'load_config', lambda name, options: loaded(name, repr(options)))
    path = tmp_path / 'mine.yaml'
    path.write_text(TABLE)
    return make_jobs(load_table(str(path)).rows, str(path), tmp_path / 'runs', {})


def trains(job: Job, validate: bool = True, seconds: float = 0) -> list[str]:
    return [*PYTHON, TRAIN, str(job.work_dir), '20', str(validate), str(seconds)]


def run(jobs: list[Job], command: Callable[[Job], list[str]] = trains, at_once: int = 1) -> dict:
    return {job.label: why for job, why in Runner(command, at_once, node=0).run(jobs).items()}


def no_start(job: Job) -> list[str]:
    raise AssertionError(f'{job.label} was started')


def test_order_and_skipping(jobs: list[Job], tmp_path: Path) -> None:
    assert [job.label for job in jobs] == ['mine: A', 'mine: B', 'mine: C']
    first, second, other = jobs
    assert second.needs is first and second.schedule == '20 epochs'
    checkpoint = f'model.backbone.init_cfg.checkpoint={first.work_dir}/epoch_20.pth'
    assert checkpoint in second.train_arguments()
    assert '--auto-scale-lr' not in first.train_arguments() and first.remark() == ''
    assert '--auto-scale-lr' in other.train_arguments()
    assert (
        other.remark() == 'the batch is 32 instead of 64, and the learning rate is scaled with it'
    )

    assert run(jobs) == {job.label: '' for job in jobs}
    order = tmp_path / 'runs/cls/order'
    assert order.read_text().split() == ['resnet-micro_toy', 'convnext-micro_toy']
    assert (tmp_path / 'runs/mine/cls/order').read_text() == 'b\n'
    assert run(jobs, no_start) == {job.label: '' for job in jobs}  # all done
    with pytest.raises(AssertionError):
        (first.work_dir / 'last_checkpoint').unlink()
        run(jobs, no_start)


def test_what_does_not_depend_on_a_failure_goes_on(
    jobs: list[Job], capfd: pytest.CaptureFixture
) -> None:
    first, second, other = jobs
    outcomes = run(jobs, lambda job: [*PYTHON, FAIL] if job is first else trains(job))
    assert outcomes[first.label].startswith('ended with exit status 3')
    assert outcomes[second.label] == 'needs mine: A, which is not done'
    assert outcomes[other.label] == ''
    said = capfd.readouterr().err
    assert '    [rank0]: ValueError: this is why\n    0\n    1\n' in said
    assert '    error: said at last\n' in said and '    one\n' not in said
    assert 'error: said at last' in (first.work_dir / 'stdout.txt').read_text()
    assert not second.work_dir.exists()
    # one that ends well without its results is no success
    outcomes = run(jobs, lambda job: [*PYTHON, ''])
    assert outcomes[first.label].startswith('ended well, but')


def test_a_missing_last_validation_is_made_up_for(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, other = jobs
    words = first.test_command()
    assert words[1:] == [
        'tools/test.py' if Path.cwd() == ROOT else '-m',
        *words[2:],
    ]
    assert f'{first.work_dir}/epoch_20.pth' in words and str(first.work_dir) in words
    monkeypatch.setattr(Job, 'test_command', lambda job: [*PYTHON, TEST, str(job.work_dir)])
    outcomes = run([first, other], lambda job: trains(job, validate=job is other))
    assert set(outcomes.values()) == {''}
    assert first.state().metrics == {'accuracy/top1': 2.0}
    assert other.state().metrics == {'accuracy/top1': 1.0}
    # killed there, it is not trained again
    (first.work_dir / '20260102_000000/20260102_000000.json').unlink()
    (first.work_dir / '20260102_000000/vis_data/config.py').unlink()
    (first.work_dir / '20260102_000000/vis_data').rmdir()
    (first.work_dir / '20260102_000000').rmdir()
    assert run([first], no_start) == {first.label: ''}


def test_runs_at_once_share_the_cores(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(7)))
    threads = 'import os; print(os.environ.get("OMP_NUM_THREADS")); '
    first, _, other = jobs

    def command(job: Job) -> list[str]:
        words = trains(job, seconds=1.0)
        return [*words[:3], threads + words[3], *words[4:]]

    begin = time.monotonic()
    assert set(run([first, other], command, at_once=3).values()) == {''}
    assert time.monotonic() - begin < 1.9
    assert (first.work_dir / 'stdout.txt').read_text().splitlines()[-1] == '2'
    (first.work_dir / 'last_checkpoint').unlink()
    run([first], command)
    assert (first.work_dir / 'stdout.txt').read_text().splitlines()[-1] == 'None'


def test_a_run_is_not_started_twice(jobs: list[Job]) -> None:
    first, second, other = jobs
    lock = take_lock(first.work_dir)
    assert is_locked(first.work_dir) and not is_locked(other.work_dir)
    outcomes = run(jobs)
    assert outcomes[first.label] == f"another process is at work in '{first.work_dir}'"
    assert 'which is not done' in outcomes[second.label] and outcomes[other.label] == ''
    os.close(lock)
    assert set(run(jobs).values()) == {''}


def test_a_run_keeps_its_lock_when_it_is_left_alone(jobs: list[Job]) -> None:
    """As after a SIGKILL to the process that started it."""
    job = jobs[0]
    lock = take_lock(job.work_dir)
    child = subprocess.Popen([*PYTHON, 'import sys; sys.stdin.read()'], stdin=-1, pass_fds=(lock,))
    os.close(lock)
    assert is_locked(job.work_dir)
    child.communicate()
    assert not is_locked(job.work_dir)


@pytest.fixture
def interruptible():
    """A shell has what it runs in its background ignore SIGINT, these tests too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures('interruptible')
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_stopping_ends_the_runs(jobs: list[Job], number: int) -> None:
    first, _, other = jobs
    threading.Timer(1.0, os.kill, (os.getpid(), number)).start()
    runner = Runner(lambda job: trains(job, seconds=100), 2, node=0)
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        runner.run([first, other])
    assert time.monotonic() - begin < 30
    assert not is_locked(first.work_dir) and not is_locked(other.work_dir)
    assert (first.state().name, other.state().name) == ('missing', 'missing')


def test_a_second_machine_leaves_files_alone(jobs: list[Job]) -> None:
    first = jobs[0]
    runner = Runner(lambda job: [*PYTHON, ''], 1, node=1)
    assert runner.run([first]) == {first: ''}
    assert [path.name for path in first.work_dir.iterdir()] == ['stdout-node1.txt']


@pytest.mark.parametrize(
    'value', [True, None, 3, 1e-4, 'epoch_3.pth', [1, 2.5, 'a'], [True, [1, 2]]]
)
def test_options_arrive_as_they_are(value: object) -> None:
    namespace = type('Namespace', (), {})()
    action = DictAction(option_strings=['--cfg-options'], dest='options', nargs='+')
    action(None, namespace, [as_option('a.b', value)])
    assert namespace.options == {'a.b': value}
    assert type(namespace.options['a.b']) is type(value)


# Slurm


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins that write their arguments down: sbatch numbers jobs, squeue knows one name."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    write = f'printf "%s\\n" "$(basename $0)" "$@" >> {tmp_path}/called\n'
    for name, says in (
        ('sbatch', f'n=$(grep -c ^sbatch {tmp_path}/called); echo "$((40 + n));cluster"'),
        ('squeue', f'case "$*" in *"$(cat {tmp_path}/queued)") echo 7;; esac'),
        ('srun', f'echo $MASTER_PORT > {tmp_path}/port'),
    ):
        (folder / name).write_text(f'#!/bin/sh\n{write}{says}\n')
        (folder / name).chmod(0o755)
    (tmp_path / 'queued').write_text('nothing')
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
    return tmp_path


def calls(slurm: Path, name: str) -> list[list[str]]:
    """The arguments of each call of a stand-in since the last question."""
    text = (slurm / 'called').read_text()
    (slurm / 'called').unlink()
    found = re.findall(r'^(sbatch|squeue|srun)\n((?:(?!(?:sbatch|squeue|srun)$).*\n)*)', text, re.M)
    return [arguments.splitlines() for called, arguments in found if called == name]


def test_slurm_submits_each_after_what_it_needs(slurm: Path, jobs: list[Job]) -> None:
    first, second, other = jobs
    first.gpus, second.gpus, other.gpus = 1, 16, 2
    assert submit(jobs, 'gpu') == {first: '41', second: '42', other: '43'}
    one, two, three = calls(slurm, 'sbatch')
    assert not [word for word in one + three if 'dependency' in word]
    assert '--dependency=afterok:41' in two
    assert {'--gres=gpu:8', '--ntasks=16', '--ntasks-per-node=8', '--partition=gpu'} < set(two)
    assert {'--gres=gpu:2', '--ntasks=2'} < set(three)
    assert len({job_name(job) for job in jobs}) == 3 and f'--job-name={job_name(first)}' in one

    # the script in it asks srun for the same and hands the rest to tools/train.py
    wrapped = two[-1].removeprefix('--wrap=')
    assert '--auto-scale-lr' in wrapped  # 16 times 32 images
    environment = {**tool_environment(), 'SRUN_ARGS': '--exclusive --time=1'}
    environment['SLURM_JOB_ID'] = '123456'
    subprocess.run(wrapped, shell=True, cwd=ROOT, env=environment, check=True)
    (words,) = calls(slurm, 'srun')
    assert (slurm / 'port').read_text() == '23456\n'
    assert {'--partition=gpu', '--gres=gpu:8', '--ntasks=16', '--ntasks-per-node=8'} < set(words)
    assert {'--exclusive', '--time=1', '--cpus-per-task=5'} < set(words)
    script = words.index('python')
    assert words[script : script + 2] == ['python', '-u'] and words[script + 2].endswith('train.py')
    arguments = words[words.index('slurm') + 1 :]
    assert words[script + 3 : script + 6] == [second.train_arguments()[0], '--launcher', 'slurm']
    assert arguments == second.train_arguments()[1:]


def test_slurm_submits_nothing_twice(slurm: Path, jobs: list[Job]) -> None:
    first, second, _ = jobs
    (slurm / 'queued').write_text(f'--name={job_name(first)}')
    assert submit([first, second], 'gpu') == {first: '7', second: '41'}
    (only,) = calls(slurm, 'sbatch')
    assert '--dependency=afterok:7' in only
    # what is done is neither asked for nor waited for; what lacks its metrics alone is tested
    (slurm / 'queued').write_text('nothing')
    run([first], lambda job: trains(job))
    assert submit([first, second], 'gpu') == {second: '41'}
    assert not [word for word in calls(slurm, 'sbatch')[0] if 'dependency' in word]
    (first.work_dir / '20260101_000000/vis_data/scalars.json').unlink()
    submit([first], 'gpu')
    (only,) = calls(slurm, 'sbatch')
    assert '--ntasks=1' in only and re.match(r'--wrap=srun python .*test', only[-1])
    # a refusal is said
    (slurm / 'bin/sbatch').write_text('#!/bin/sh\necho "no such partition" >&2\nexit 1\n')
    with pytest.raises(engine.UserError, match='sbatch ended with exit status 1: no such partiti'):
        submit([first], 'gpux')


def test_slurm_script_says_how_it_is_used() -> None:
    command = ['bash', 'tools/slurm_train.sh', 'gpu', 'name']
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith('error: usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG')


def test_several_gpus_go_through_torchrun(
    slurm: Path, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines of eight; a torchrun that writes its arguments down stands in for the real."""
    torchrun, called = slurm / 'bin/torchrun', slurm / 'torchrun'
    torchrun.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {called}\n')
    torchrun.chmod(0o755)
    for key, value in {'NNODES': '2', 'NODE_RANK': '1', 'MASTER_ADDR': '10.0.0.1'}.items():
        monkeypatch.setenv(key, value)
    job = jobs[0]
    job.gpus = 16
    assert 'the batch is 512 instead of 32, and the learning rate is scaled' in job.remark()
    monkeypatch.chdir(ROOT)
    subprocess.run(train_command(job, 'pytorch', nodes=2), check=True)
    words = called.read_text().splitlines()
    expected = ['--nnodes=2', '--node_rank=1', '--nproc_per_node=8', '--master_addr=10.0.0.1']
    assert words[:4] == expected
    script = words.index('tools/train.py')
    assert words[script + 2 : script + 4] == ['--launcher', 'pytorch']
    rest = [words[script + 1], *words[script + 4 :]]
    assert rest == job.train_arguments() and rest[-1] == '--auto-scale-lr'
    one = train_command(job, 'none', nodes=1)
    assert one == [sys.executable, 'tools/train.py', *job.train_arguments()]


# Training

SMALL = """
title: A table
task: cls
metrics: {top1: accuracy/top1}
seeds: [3]
data: [{make_toy_data: [--out, OUT, --tasks, cls, --train, 16, --val, 8]}]
rows:
  - name: A
    config: cls/resnet/resnet-micro_toy.py
    batch: 8
    schedule: 4 epochs
    options:
      data_root: OUT/cls
      train_cfg.max_epochs: 4
      train_cfg.val_interval: 1
      default_hooks.checkpoint.interval: 1
      train_dataloader.batch_size: 8
      train_dataloader.num_workers: 0
      train_dataloader.persistent_workers: false
      val_dataloader.num_workers: 0
      val_dataloader.persistent_workers: false
"""


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'mine.yaml'
    path.write_text(SMALL.replace('OUT', str(tmp_path / 'data')))
    for key, value in tool_environment().items():
        monkeypatch.setenv(key, value)
    monkeypatch.chdir(tmp_path)
    result = run_tool('tools/reproduce.py', path, '--dry-run', cwd=tmp_path)
    (data,) = re.findall(r'^data: python -m mmparc (.*)$', result.stdout, re.M)
    run_tool('tools/make_toy_data.py', *shlex.split(data)[1:], cwd=tmp_path)
    (job,) = make_jobs(load_table(str(path)).rows, str(path), Path('runs'), {})
    runner = Runner(lambda job: train_command(job, 'none', nodes=1), 1, node=0)

    def kill() -> None:
        while not (job.work_dir / 'last_checkpoint').exists():
            time.sleep(0.01)
        runner.running[0].popen.kill()

    threading.Thread(target=kill, daemon=True).start()
    (why,) = runner.run([job]).values()
    assert why.startswith('ended with SIGKILL')
    assert job.state().name == 'partial'
    step = job.state().step

    # the same command again, as a user gives it
    result = run_tool('tools/reproduce.py', path, '--work-dirs', 'runs', cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith('mine: 1 of 1 runs are done\n')
    assert job.state().name == 'done' and 'accuracy/top1' in job.state().metrics
    logs = sorted(job.work_dir.glob('*/vis_data/scalars.json'))
    epochs = [
        [line['step'] for line in map(json.loads, log.read_text().splitlines()) if 'lr' not in line]
        for log in logs
    ]
    # first what the killed run may not have come to evaluate
    assert epochs[-1] == list(range(step, 5)) and len(logs) == 2
    assert {2, 3, 4} <= {step for steps in epochs for step in steps}
    config = (job.work_dir / 'resnet-micro_toy.py').read_text()
    assert 'seed=3' in config

    # and once more: nothing is left to do
    result = run_tool('tools/reproduce.py', path, '--work-dirs', 'runs', cwd=tmp_path)
    assert result.returncode == 0 and sorted(job.work_dir.glob('*/vis_data/scalars.json')) == logs
