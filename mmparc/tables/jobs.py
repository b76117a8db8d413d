"""What a table needs to be run, in order, and the command of each run.

A run is a process of tools/train.py, which goes on from its work directory's last checkpoint if
there is one. What lacks its last metrics alone is a process of tools/test.py.
"""

import fcntl
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmparc import engine
from mmparc.engine.config import named_nodes
from mmparc.engine.errors import suggest
from mmparc.home import home

from .plan import Row, Run, Table, plain_row, schedule_of
from .state import State, last_checkpoint, state_of

LOCK = '.lock'


@dataclass(eq=False)
class Job:
    """A run with what it takes to make it.

    Attributes:
        label: the row's table and name, and the seed.
        run: where it lies.
        batch: the effective one that the row asks for.
        cfg: its config, all options applied.
        options: what is overridden in the config's file.
        needs: a run that must be done before.
        gpus: processes, one a GPU; on a CPU 1.
    """

    label: str
    run: Run
    batch: int
    cfg: Config
    options: dict[str, Any]
    needs: 'Job | None' = None
    gpus: int = 1
    schedule: str = field(init=False)

    def __post_init__(self) -> None:
        self.schedule = schedule_of(self.cfg)

    @property
    def work_dir(self) -> Path:
        return self.run.work_dir

    @property
    def images_per_gpu(self) -> int:
        """Images of one process behind a step of the optimizer."""
        accumulated = self.cfg.optim_wrapper.get('accumulative_counts', 1)
        return self.cfg.train_dataloader.batch_size * accumulated

    def state(self) -> State:
        """How far it has come.

        Raises:
            ValueError: if what lies there is not of such a run.
        """
        return state_of(self.work_dir, self.schedule)

    def remark(self) -> str:
        """What is to be said of its batch and learning rate; '' where they are the row's."""
        batch = self.gpus * self.images_per_gpu
        if batch == self.batch:
            return ''
        said = f'the batch is {batch} instead of {self.batch}'
        if self.scales_lr:
            return f'{said}, and the learning rate is scaled with it'
        return f'{said}, and the learning rate stays: the config does not say its batch size'

    @property
    def scales_lr(self) -> bool:
        base = (self.cfg.get('auto_scale_lr') or {}).get('base_batch_size')
        return bool(base) and self.gpus * self.images_per_gpu != self.batch

    def train_arguments(self) -> list[str]:
        """The arguments of tools/train.py."""
        args = [config_name(self.run.config), '--work-dir', str(self.work_dir), '--resume']
        if self.scales_lr:
            args.append('--auto-scale-lr')
        return args + self._options()

    def test_command(self) -> list[str]:
        checkpoint = last_checkpoint(self.work_dir, self.schedule)
        args = [config_name(self.run.config), str(checkpoint), '--work-dir', str(self.work_dir)]
        return [sys.executable, *script('test'), *args, *self._options()]

    def _options(self) -> list[str]:
        if not self.options:
            return []
        return ['--cfg-options', *(as_option(*item) for item in self.options.items())]


def select_rows(table: Table, names: Sequence[str] | None) -> list[Row]:
    """The rows of these names, in the table's order; all where none are given.

    Raises:
        UserError: if there is no such row.
    """
    known = [row.name for row in table.rows]
    for name in names or ():
        if name not in known:
            hint = suggest(name, known) or f'its rows are {", ".join(known)}'
            raise engine.UserError(f"table '{table.name}' has no row '{name}': {hint}")
    return [row for row in table.rows if not names or row.name in names]


def make_jobs(
    rows: Iterable[Row], table: str, work_dirs: Path, options: dict[str, Any]
) -> list[Job]:
    """The runs that rows need, in the order in which they are to be made.

    First what others need, each once, then the rows: all with their first seed, all with their
    second, so that a table that is cut off has whole comparisons.

    Args:
        rows: of one table.
        table: its name, or its file.
        work_dirs: below which all runs lie.
        options: overridden in every config, as by ``--cfg-options``.

    Raises:
        UserError: if a config cannot be loaded, or does not start from what its row needs.
        ValueError: if a table has a mistake.
    """
    configs: dict[str, Config] = {}
    needed: dict[str, Job] = {}

    def make(row: Row, run: Run) -> Job:
        first = need(row.needs) if row.needs else None
        own = {**run.options, **options}
        key = repr((run.config, {k: v for k, v in own.items() if k != 'randomness.seed'}))
        if key not in configs:
            configs[key] = engine.load_config(config_name(run.config), own)
        cfg = configs[key]
        if first:
            own |= _start_from(row, cfg, first)
        seed = '' if run.seed is None else f', seed {run.seed}'
        return Job(f'{row.table}: {row.name}{seed}', run, row.batch, cfg, own, first)

    def need(config: str) -> Job:
        if config not in needed:
            row = plain_row(config, table)
            (run,) = row.runs(work_dirs)
            job = make(row, run)
            needed[config] = job
        return needed[config]

    rows = list(rows)
    for row in rows:
        if row.needs:
            need(row.needs)
    by_folder = {job.work_dir: job for job in needed.values()}
    of_rows = [row.runs(work_dirs) for row in rows]
    for turn in range(max(map(len, of_rows))):
        for row, runs in zip(rows, of_rows):
            if turn < len(runs) and runs[turn].work_dir not in by_folder:
                by_folder[runs[turn].work_dir] = make(row, runs[turn])
    return list(by_folder.values())


def _start_from(row: Row, cfg: Config, first: Job) -> dict[str, str]:
    """The options that make a config start where ``first`` ends; none where it does already."""
    checkpoint = str(last_checkpoint(first.work_dir, first.schedule))
    nodes = {
        key: node['checkpoint']
        for key, node in named_nodes('model', cfg.model)
        if node.get('type') == 'Pretrained'
        and Path(node['checkpoint']).parent.name == first.work_dir.name
    }
    if not nodes:
        raise engine.UserError(
            f"row '{row.name}' needs '{row.needs}', but '{row.config}' does not start from it"
        )
    return {f'{key}.checkpoint': checkpoint for key, path in nodes.items() if path != checkpoint}


def train_command(job: Job, launcher: str, nodes: int) -> list[str]:
    """The command that trains here: one process, or by torchrun this one's share of several.

    Args:
        job: the run.
        launcher: 'none' or 'pytorch'.
        nodes: machines that take part.
    """
    config, *rest = job.train_arguments()
    if launcher == 'pytorch':
        return ['bash', shell_script('dist_train'), config, str(job.gpus // nodes), *rest]
    return [sys.executable, *script('train'), config, *rest]


def script(name: str) -> list[str]:
    """How Python starts a tool: by its path in a checkout, else through mmparc."""
    return [f'tools/{name}.py'] if in_checkout() else ['-m', 'mmparc', name]


def shell_script(name: str) -> str:
    return f'tools/{name}.sh' if in_checkout() else str(home() / 'tools' / f'{name}.sh')


def config_name(config: str) -> str:
    return f'configs/{config}' if in_checkout() else f'mmparc::{config}'


def in_checkout() -> bool:
    return Path.cwd() == home()


def as_option(key: str, value: Any) -> str:
    """As ``--cfg-options`` takes it: lists without spaces, which mmengine's DictAction reads."""
    if isinstance(value, list | tuple):
        return f'{key}=[{",".join(map(str, value))}]'
    return f'{key}={value}'


def shown(command: Sequence[str]) -> str:
    """A command as one would type it."""
    return shlex.join('python' if word == sys.executable else word for word in command)


def take_lock(work_dir: Path) -> int | None:
    """Make a run one's own for as long as the file descriptor, or a child's copy of it, is open.

    Returns:
        None if another process holds it.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(work_dir / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_locked(work_dir: Path) -> bool:
    """Whether a process is at work on a run."""
    if not (work_dir / LOCK).exists():
        return False
    descriptor = take_lock(work_dir)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None
