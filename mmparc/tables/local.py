"""Makes runs as processes of this machine, and goes on where one fails.

Each run's output goes to <work_dir>/stdout.txt. A run holds its work directory's lock for as long
as it lives, also where the process that started it was killed.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from .jobs import Job, shown, take_lock

OUTPUT = 'stdout.txt'
SECONDS_TO_STOP = 45  # torchrun gives its own children 30
# of Python, of our tools, or of torchrun's processes
ERROR = re.compile(r'(\[rank\d+\]: )?([\w.]*(Error|Exception)|error): ')
STEP = re.compile(r'(?:Epoch|Iter)\(\w+\)\s+\[\s*\d+(?:/\d+)?\](?:\[\s*\d+/\d+\])?')


@dataclass
class Process:
    """A run that is being made."""

    job: Job
    popen: subprocess.Popen
    lock: int | None
    output: Path
    begin: int  # of its own output in the file, in bytes
    testing: bool

    def said(self) -> list[str]:
        """The last lines of its output."""
        with self.output.open('rb') as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self.begin, size - 4096))
            text = file.read().decode(errors='replace')
        return [line.rstrip() for line in text.splitlines() if line.strip()]

    def last_words(self) -> list[str]:
        """What to show of a run that failed: its last error, which torchrun buries, and lines."""
        lines = self.said()
        errors = [line for line in lines[:-6] if ERROR.match(line)]
        return [*errors[-1:], *lines[-6:]]


class Runner:
    """Runs of one table.

    Args:
        command: gives the command that trains a job.
        at_once: how many runs at the same time.
        node: 0 on the machine that writes; others take part in its runs and leave files alone.
    """

    def __init__(self, command: Callable[[Job], list[str]], at_once: int, node: int) -> None:
        self.command = command
        self.at_once = at_once
        self.node = node
        self.running: list[Process] = []
        # why a job is not done, '' where it is
        self.outcomes: dict[Job, str] = {}
        self.progress = Progress(
            '{task.description}',
            BarColumn(20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )

    def run(self, jobs: Sequence[Job]) -> dict[Job, str]:
        """Make the runs in order, as far as what they need is done.

        Returns:
            for each job why it is not done, '' where it is.

        Raises:
            KeyboardInterrupt: after all processes were ended, at Ctrl-C and SIGTERM.
        """
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with self.progress:
                bar = self.progress.add_task('', total=len(jobs))
                while len(self.outcomes) < len(jobs):
                    self._start_what_can(jobs)
                    for process in [p for p in self.running if p.popen.poll() is not None]:
                        self._finish(process)
                    description = '; '.join(map(self._describe, self.running))
                    self.progress.update(bar, completed=len(self.outcomes), description=description)
                    if self.running:
                        time.sleep(0.2)
        finally:
            self._stop()
            signal.signal(signal.SIGTERM, before)
        return self.outcomes

    def _start_what_can(self, jobs: Sequence[Job]) -> None:
        busy = [process.job for process in self.running]
        for job in jobs:
            if job in self.outcomes or job in busy:
                continue
            if job.needs and self.outcomes.get(job.needs):
                self._conclude(job, f'needs {job.needs.label}, which is not done')
            elif job.needs and job.needs not in self.outcomes:
                continue
            elif len(self.running) < self.at_once:
                self._start(job)

    def _start(self, job: Job) -> None:
        lock = None
        if self.node == 0:
            lock = take_lock(job.work_dir)
            if lock is None:
                self._conclude(job, f"another process is at work in '{job.work_dir}'")
                return
        try:
            state = job.state()
        except ValueError as error:
            self._conclude(job, str(error), lock)
            return
        if state.name == 'done' or (state.name == 'untested' and self.node > 0):
            self._conclude(job, '', lock)
        else:
            self._launch(job, lock, testing=state.name == 'untested')

    def _launch(self, job: Job, lock: int | None, testing: bool) -> None:
        command = job.test_command() if testing else self.command(job)
        name = OUTPUT if self.node == 0 else f'stdout-node{self.node}.txt'
        job.work_dir.mkdir(parents=True, exist_ok=True)
        output = job.work_dir / name
        self._say(f'{job.label}: {shown(command)}')
        with output.open('ab') as file:
            file.write(f'$ {shown(command)}\n'.encode())
            begin = file.tell()
            file.flush()
            popen = subprocess.Popen(
                command,
                env=environment(self.at_once),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that all of its processes can be ended together
                pass_fds=() if lock is None else (lock,),
            )
        self.running.append(Process(job, popen, lock, output, begin, testing))

    def _finish(self, process: Process) -> None:
        self.running.remove(process)
        job, status = process.job, process.popen.returncode
        if status != 0:
            how = f'exit status {status}' if status > 0 else signal.Signals(-status).name
            said = '\n'.join(f'    {line}' for line in process.last_words())
            self._conclude(job, f"ended with {how}, see '{process.output}'", process.lock, said)
            return
        if self.node > 0:
            self._conclude(job, '')
            return
        try:
            state = job.state()
        except ValueError as error:
            self._conclude(job, str(error), process.lock)
            return
        if state.name == 'untested' and not process.testing:
            self._launch(job, process.lock, testing=True)
        elif state.name == 'done':
            self._conclude(job, '', process.lock)
        else:
            why = f"ended well, but '{job.work_dir}' lacks the metrics after {job.schedule}"
            self._conclude(job, why, process.lock)

    def _conclude(self, job: Job, why: str, lock: int | None = None, said: str = '') -> None:
        if lock is not None:
            os.close(lock)
        self.outcomes[job] = why
        self._say(f'{job.label}: {f"not done: {why}" if why else "done"}')
        if said:
            self._say(said)

    def _stop(self) -> None:
        """End what still runs, and wait for it."""
        for process in self.running:
            end(process.popen, signal.SIGTERM)
        deadline = time.monotonic() + SECONDS_TO_STOP
        for process in self.running:
            try:
                process.popen.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                end(process.popen, signal.SIGKILL)
                process.popen.wait()
            if process.lock is not None:
                os.close(process.lock)
        self.running.clear()

    def _describe(self, process: Process) -> str:
        steps = [step[0] for line in process.said() for step in STEP.finditer(line)]
        return ' '.join([process.job.label, *steps[-1:]])

    def _say(self, text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


def end(popen: subprocess.Popen, number: int) -> None:
    """Send a signal to a process and its children."""
    try:
        os.killpg(popen.pid, number)
    except ProcessLookupError:
        pass  # it has ended meanwhile


def environment(at_once: int) -> dict[str, str]:
    """A run's: its share of the cores, and this Python's own programs for shell scripts."""
    own = {**os.environ, 'PYTHONUNBUFFERED': '1'}
    own['PATH'] = os.pathsep.join(
        [os.environ.get('PATH', os.defpath), str(Path(sys.executable).parent)]
    )
    if at_once > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
        own.setdefault('OMP_NUM_THREADS', str(max(1, cores // at_once)))
    return own
