"""Results as data: TABLE.json holds what the runs of a table logged, and outlives their folders.

``runs``: row, config, options, seed, metrics at the end, curves of the validations {key: [(step,
value)]}, the training loss, and the records of the starts. ``counted``: the parameters and the
multiply-adds {backend: number} of each row's model. Values are as logged, without ``scale``.
"""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmparc.analysis.logs import metrics_of, read_scalars, read_starts

from .plan import Row, Run, Table
from .state import state_of

LOSS_POINTS = 100  # at most, of a training loss


def load_kept(table: str, folder: Path) -> dict[str, Any]:
    """The content of a table's JSON file; empty lists if there is none yet.

    Raises:
        ValueError: if the file is damaged.
    """
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
    """What a run logged; None unless it is finished.

    Raises:
        ValueError: if its work directory holds another run, or is damaged.
    """
    state = state_of(run.work_dir, row.schedule)
    if state.name != 'done':
        return None
    train, val = read_scalars(run.work_dir)
    loss = [(record['iter'], record['loss']) for record in train if 'loss' in record]
    chunks = np.array_split(np.array(loss), min(LOSS_POINTS, len(loss))) if loss else []
    return _plain(
        dict(
            row=row.name,
            config=row.config,
            options=run.options,
            seed=run.seed,
            metrics=state.metrics,
            curves={
                key: [(r['step'], metrics_of(r)[key]) for r in val if key in metrics_of(r)]
                for key in row.metrics.values()
            },
            loss=[(int(chunk[-1, 0]), float(chunk[:, 1].mean())) for chunk in chunks],
            starts=read_starts(run.work_dir),
        )
    )


def collect(
    table: Table, kept: dict[str, Any], work_dirs: Path, count: Callable[[Row], dict | None]
) -> list[str]:
    """Add the finished runs and the models' counts to what is kept.

    A finished run on disk replaces what was kept of it; what is kept of other runs stays.

    Args:
        count: what is to be kept of a row's model; None where it cannot be counted.

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
