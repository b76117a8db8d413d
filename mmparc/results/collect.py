"""How far runs have come, and their results as data: TABLE.json, which outlives their folders.

``runs``: row, config, options, seed, metrics at the end, curves of the validations {key: [(step,
value)]}, the training loss, and the records of the starts. ``counted``: the parameters and the
multiply-adds {backend: number} of each row's model. Values are as logged, without ``scale``.
"""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmparc.analysis.logs import metrics_of, read_scalars, read_starts

from .plan import Row, Run, Table

LOSS_POINTS = 100  # at most, of a training loss
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
    """How far the run in a work directory has come; ValueError if another run lies there."""
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


def load_kept(table: str, folder: Path) -> dict[str, Any]:
    """The content of a table's JSON file, if there is one; ValueError if it is damaged."""
    path = folder / f'{table}.json'
    if not path.exists():
        return dict(table=table, counted=[], runs=[])
    try:
        kept = json.loads(path.read_text())
        return dict(table=table, counted=kept['counted'], runs=kept['runs'])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"'{path}' is damaged ({error!r}): restore it, or remove it and collect the runs again"
        ) from None


def dump_kept(kept: dict[str, Any]) -> str:
    """As JSON, with a list of numbers on one line."""
    text = json.dumps(_plain(kept), indent=1, allow_nan=False)
    pair = re.compile(r'\[\s+([^\s\[\]{}]+),\s+([^\s\[\]{}]+)\s+\]')
    text = pair.sub(r'[\1, \2]', text)
    return re.sub(r'(\[-?\d[^\[\]]*\],)\s+(?=\[)', r'\1 ', text) + '\n'


def find(items: list[dict], row: Row, options: dict[str, Any]) -> dict | None:
    """What is kept of a row's run or model with these options."""
    wanted = (row.name, row.config, options)
    found = [item for item in items if (item['row'], item['config'], item['options']) == wanted]
    return found[0] if found else None


def read_run(row: Row, run: Run) -> dict[str, Any] | None:
    """What a run logged; None unless it is finished."""
    state = state_of(run.work_dir, row.schedule)
    if state.name != 'done':
        return None
    train, val = read_scalars(run.work_dir)
    loss = [(record['iter'], record['loss']) for record in train if 'loss' in record]
    chunks = np.array_split(np.array(loss), min(LOSS_POINTS, len(loss))) if loss else []
    result = dict(row=row.name, config=row.config, options=run.options, seed=run.seed)
    result['metrics'] = state.metrics
    result['curves'] = {
        key: [(r['step'], metrics_of(r)[key]) for r in val if key in metrics_of(r)]
        for key in row.metrics.values()
    }
    result['loss'] = [(int(chunk[-1, 0]), float(chunk[:, 1].mean())) for chunk in chunks]
    return _plain({**result, 'starts': read_starts(run.work_dir)})


def collect(
    table: Table, kept: dict[str, Any], work_dirs: Path, count: Callable[[Row], dict | None]
) -> list[str]:
    """Add the finished runs, and the models' counts where there are any, to what is kept.

    A finished run on disk replaces what was kept of it; what is kept of other runs stays.

    Returns:
        what is new, in words.
    """
    news = []
    for row in table.rows:
        for run in row.runs(work_dirs):
            result, old = read_run(row, run), find(kept['runs'], row, run.options)
            if result and result != old:
                kept['runs'] = [item for item in kept['runs'] if item is not old] + [result]
                seed = '' if run.seed is None else f', seed {run.seed}'
                news.append(f'{row.name}{seed}: {"replaced" if old else "new"}')
    order = [row.name for row in table.rows]
    kept['runs'].sort(key=lambda r: (*(r['row'] != name for name in order), r['seed'] or 0))
    counted = [find(kept['counted'], row, row.options) or count(row) for row in table.rows]
    kept['counted'] = [item for item in counted if item]
    return news


def _plain(value: Any) -> Any:
    """For JSON: six digits; None for what is not finite, as of a run that diverged."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f'{value:.6g}') if math.isfinite(value) else None
    return value
