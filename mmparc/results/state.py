"""How far a run has come: from the last checkpoint and the logs in its work directory."""

import re
from pathlib import Path
from typing import NamedTuple

from mmparc.analysis.logs import metrics_of, read_scalars

PREFIXES = {'epochs': 'epoch', 'iterations': 'iter'}  # of checkpoints


class State(NamedTuple):
    """How far a run has come.

    Attributes:
        name: 'missing': no checkpoint; 'partial': a checkpoint to resume from; 'done': the last
            checkpoint and its metrics. A run that was killed in its last validation is partial:
            tools/train.py --resume validates first.
        metrics: {key in the log: value} at the end; {} unless done.
        saved: the name of the last checkpoint.
    """

    name: str
    metrics: dict[str, float]
    saved: str = ''


def last_checkpoint(work_dir: Path, schedule: str) -> Path:
    """The checkpoint that ends a run of this length, such as '300 epochs'."""
    length, unit = schedule.split()
    return work_dir / f'{PREFIXES[unit]}_{length}.pth'


def state_of(work_dir: Path, schedule: str) -> State:
    """How far the run in a work directory has come, which may not exist.

    Raises:
        ValueError: one line, if the directory holds another run or is damaged.
    """
    file = work_dir / 'last_checkpoint'
    if not file.is_file():
        return State('missing', {})
    saved = Path(file.read_text().strip()).name  # the directory may have been moved
    length, unit = schedule.split()
    found = re.fullmatch(rf'{PREFIXES[unit]}_(\d+)\.pth', saved)
    if not found or int(found[1]) > int(length):
        raise ValueError(f"'{file}' names '{saved}': that is not from a run of {schedule}")
    metrics = final_metrics(work_dir, int(length)) if found[1] == length else {}
    if not metrics and not (work_dir / saved).exists():
        raise ValueError(
            f"'{file}' names '{saved}', which does not exist: restore it, or remove '{work_dir}' "
            'to start over'
        )
    return State('done' if metrics else 'partial', metrics, saved)


def final_metrics(work_dir: Path, step: int) -> dict[str, float]:
    """The metrics of the validation after the last epoch or iteration; {} if there are none."""
    found = [metrics_of(record) for record in read_scalars(work_dir)[1] if record['step'] == step]
    return found[0] if found else {}
