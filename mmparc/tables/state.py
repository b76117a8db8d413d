"""How far a run has come, from its work directory: last_checkpoint and the logs.

mmengine saves the last checkpoint before it validates for the last time, so that a run can end with
the one and without the other. Then what is left is tools/test.py.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from .logs import final_metrics

UNITS = {'epochs': 'epoch', 'iterations': 'iter'}  # as checkpoints are called


@dataclass(frozen=True)
class State:
    """How far a run has come.

    Attributes:
        name: 'missing': there is no checkpoint; 'partial': one to go on from; 'untested': the last
            one, without its metrics; 'done'.
        step: epochs or iterations behind the last checkpoint.
        metrics: {key in the log: value} at the end; {} unless done.
    """

    name: str
    step: int
    metrics: dict[str, float]


def last_checkpoint(work_dir: Path, schedule: str) -> Path:
    """The checkpoint that a run of this length, such as '300 epochs', ends with."""
    length, unit = schedule.split()
    return work_dir / f'{UNITS[unit]}_{length}.pth'


def state_of(work_dir: Path, schedule: str) -> State:
    """How far the run in a work directory has come, which may not exist.

    Args:
        work_dir: the run's.
        schedule: its whole length, such as '300 epochs'.

    Raises:
        ValueError: in one line, if what is there is not of such a run, or damaged.
    """
    file = work_dir / 'last_checkpoint'
    if not file.is_file():
        return State('missing', 0, {})
    saved = Path(file.read_text().strip()).name  # the folder may have moved since
    length, unit = schedule.split()
    found = re.fullmatch(rf'{UNITS[unit]}_(\d+)\.pth', saved)
    if not found:
        raise ValueError(f"'{file}' names '{saved}', which is no checkpoint after some {unit}")
    step = int(found[1])
    if step > int(length):
        raise ValueError(f"'{file}' names '{saved}': the run there is longer than {schedule}")
    if step < int(length):
        if not (work_dir / saved).exists():
            raise ValueError(
                f"'{file}' names '{saved}', which is gone: put it back, or remove '{work_dir}' "
                'to start over'
            )
        return State('partial', step, {})
    metrics = final_metrics(work_dir, step, saved)
    if metrics:
        return State('done', step, metrics)
    return State('untested', step, {})
