"""Run what a table needs, in order, as processes of this machine.

A run is a process of tools/train.py, which resumes from the last checkpoint in its work directory.
tools/slurm_reproduce.sh submits the same runs to slurm.
"""

import fcntl
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmparc import engine
from mmparc.analysis import report
from mmparc.engine.config import named_nodes
from mmparc.engine.provenance import effective_batch
from mmparc.home import home

from .collect import State, last_checkpoint, state_of
from .plan import Row, plain_row, schedule_of

SECONDS_TO_STOP = 45  # torchrun gives its own processes 30


@dataclass(eq=False)
class Job:
    """A run with all that it takes to make it.

    Attributes:
        cfg: the config with all options applied.
        options: the overrides of the config's file.
        needs: the job that must be done before.
        gpus: processes, one per GPU; 1 on a CPU.
    """

    row: Row
    seed: int | None
    work_dir: Path
    cfg: Config
    options: dict[str, Any]
    needs: 'Job | None' = None
    gpus: int = 1

    @property
    def label(self) -> str:
        seed = '' if self.seed is None else f', seed {self.seed}'
        return f'{self.row.table}: {self.row.name}{seed}'

    @property
    def schedule(self) -> str:
        return schedule_of(self.cfg)

    @property
    def batch(self) -> int:
        """Images per optimizer step on these GPUs; the row's may differ."""
        return effective_batch(self.cfg, self.gpus)

    @property
    def scales_lr(self) -> bool:
        base = (self.cfg.get('auto_scale_lr') or {}).get('base_batch_size')
        return bool(base) and self.batch != self.row.batch

    def state(self) -> State:
        return state_of(self.work_dir, self.schedule)

    def train_arguments(self) -> list[str]:
        """The arguments of tools/train.py."""
        args = [f'mmparc::{self.row.config}', '--work-dir', str(self.work_dir), '--resume']
        args += ['--auto-scale-lr'] * self.scales_lr
        options = [as_option(key, value) for key, value in self.options.items()]
        return args + ['--cfg-options', *options] * bool(options)

    def command(self, launcher: str = 'none') -> list[str]:
        """Train on this machine: one process, or with torchrun one per GPU."""
        config, *rest = self.train_arguments()
        if launcher == 'none':
            return [sys.executable, '-m', 'mmparc', 'train', config, *rest]
        return ['bash', f'{home()}/tools/dist_train.sh', config, str(self.gpus), *rest]


def as_option(key: str, value: Any) -> str:
    """KEY=VALUE as --cfg-options takes it: lists without spaces."""
    if isinstance(value, list | tuple):
        return f'{key}=[{",".join(map(str, value))}]'
    return f'{key}={value}'


def shown(command: Sequence[str]) -> str:
    """A command as one would type it."""
    return shlex.join('python' if word == sys.executable else word for word in command)


def make_jobs(
    rows: Sequence[Row], table: str, work_dirs: Path, options: dict, gpus: int | None = 1
) -> list[Job]:
    """The jobs that rows of a table need, in the order in which to run them.

    First what others need; then all rows with their first seed, all with their second, and so on:
    a table that is stopped early has complete comparisons.

    Args:
        options: override every config.
        gpus: of each run; None: as many as its row's batch asks for.
    """
    needed: dict[str, Job] = {}  # by config

    def jobs_of(row: Row) -> list[Job]:
        cfg = engine.load_config(f'mmparc::{row.config}', {**row.options, **options})
        own, first = dict(options), None
        per_gpu = effective_batch(cfg, 1)
        if not gpus and row.batch % per_gpu:
            what = f"row '{row.name}': the batch {row.batch} is not a multiple of {per_gpu} per GPU"
            raise engine.UserError(f'{what}: pass --gpus N')
        count = gpus or row.batch // per_gpu
        if row.needs:
            if row.needs not in needed:
                (needed[row.needs],) = jobs_of(plain_row(row.needs, table))
            first = needed[row.needs]
            own |= _start_from(row, cfg, first)
        return [
            Job(row, run.seed, run.work_dir, cfg, {**run.options, **own}, first, count)
            for run in row.runs(work_dirs)
        ]

    of_rows = [jobs_of(row) for row in rows]
    jobs: dict[Path, Job] = {}
    for job in chain(needed.values(), *zip_longest(*of_rows)):
        if job:
            jobs.setdefault(job.work_dir, job)
    return list(jobs.values())


def _start_from(row: Row, cfg: Config, first: Job) -> dict[str, str]:
    """The options that make a config start from the checkpoint that ends ``first``."""
    nodes = [
        key
        for key, node in named_nodes('model', cfg.model)
        if Path(str(node.get('checkpoint'))).parent.name == first.work_dir.name
    ]
    if not nodes:
        raise engine.UserError(f"row '{row.name}' does not start from '{row.needs}', its 'needs'")
    checkpoint = str(last_checkpoint(first.work_dir, first.schedule))
    return {f'{key}.checkpoint': checkpoint for key in nodes}


def run_jobs(jobs: Sequence[Job], command: Callable[[Job], list[str]]) -> dict[Job, str]:
    """Make jobs in order with the commands that train them, and continue if one fails.

    Ctrl-C and SIGTERM are a KeyboardInterrupt, after the run's processes have ended.

    Returns:
        for each job why it is not done; '' where it is.
    """
    outcomes: dict[Job, str] = {}
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for job in report.track(jobs):
            if job.needs and outcomes[job.needs]:
                why = f'needs {job.needs.label}, which is not done'
            else:
                with locked(job.work_dir) as lock:
                    why = _make(job, command(job), lock)
            outcomes[job] = why
            print(f'{job.label}: {f"not done: {why}" if why else "done"}', file=sys.stderr)
    finally:
        signal.signal(signal.SIGTERM, before)
    return outcomes


def _make(job: Job, command: list[str], lock: int | None) -> str:
    """Train one job; why it is not done, or ''."""
    if lock is None:
        return f"another process works in '{job.work_dir}'"
    try:
        if job.state().name == 'done':
            return ''
        output = job.work_dir / 'stdout.txt'
        print(f'{job.label}: {shown(command)} >> {output}', file=sys.stderr)
        status = _execute(command, output, lock)
        if status != 0:
            lines = output.read_text(errors='replace').splitlines()
            print(*lines[-25:], sep='\n', file=sys.stderr)  # torchrun's own follow the error
            how = f'exit status {status}' if status > 0 else signal.Signals(-status).name
            return f"{how}, see '{output}'"
        if job.state().name != 'done':
            return f"exit status 0, but '{job.work_dir}' lacks the metrics after {job.schedule}"
        return ''
    except ValueError as error:  # another run lies there, or a damaged one
        return str(error)


def _execute(command: list[str], output: Path, lock: int) -> int:
    """The exit status of a process that holds the lock and ends with this one."""
    path = f'{os.environ.get("PATH", os.defpath)}{os.pathsep}{Path(sys.executable).parent}'
    with output.open('a') as file:
        print(f'$ {shown(command)}', file=file, flush=True)
        process = subprocess.Popen(
            command,
            env={**os.environ, 'PATH': path, 'PYTHONUNBUFFERED': '1'},  # PATH: for torchrun
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # to end it with its children
            pass_fds=(lock,),
        )
    try:
        return process.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(SECONDS_TO_STOP)


@contextmanager
def locked(work_dir: Path) -> Iterator[int | None]:
    """Hold a run's lock; gives the file descriptor, or None if another process holds it.

    A child with a copy of the descriptor holds it, too: a run whose parent was killed, for example.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    with (work_dir / '.lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file.fileno()


def is_running(work_dir: Path) -> bool:
    """Whether a process holds a run's lock."""
    if not (work_dir / '.lock').exists():
        return False
    with locked(work_dir) as lock:
        return lock is None
