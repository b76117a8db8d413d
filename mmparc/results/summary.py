"""Results in numbers: a pandas frame of all values, one of the rows, one of compared arms.

Of several seeds the mean and the sample standard deviation are shown. Arms of a group (plain, ParC,
ParC without position embedding) are compared by the differences of runs with the same seed, group
by group: one network can gain what another loses.
"""

import math
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import t as student

from .collect import find
from .plan import TASKS, Table

ARMS = {'plain': 'plain', 'parc': 'ParC', 'no-pos': 'ParC without embedding'}
AREAS = {50: 'area for 50 %', 99: 'area for 99 %'}  # metrics of receptive fields
# What is claimed of ParC against another arm.
CLAIMS = {'plain': 'ParC beats its plain twin', 'no-pos': 'The position embedding matters'}
FIELD_CLAIM = 'The receptive field is larger'
ROW = ('task', 'name', 'config', 'group', 'arm', 'schedule', 'batch')
SAME = 1e-9  # a smaller spread is rounding


def values_of(table: Table, kept: dict[str, Any], fields: Path) -> pd.DataFrame:
    """One line for each run and metric of a table; the value is NaN where it did not run.

    Args:
        fields: the erf.csv of tools/analysis/erf.py, whose areas become metrics.
    """
    areas = _areas(fields)
    lines = []
    for row in table.rows:
        for run in row.runs():
            result = find(kept['runs'], row, run.options) or {'metrics': {}}
            logged = {metric: result['metrics'].get(key) for metric, key in row.metrics.items()}
            found = {
                m: value if value is None else value * row.scale for m, value in logged.items()
            }
            found |= {area: areas.get((run.work_dir.as_posix(), p)) for p, area in AREAS.items()}
            for metric, value in found.items():
                line = dict(name=row.name, task=row.task, group=row.group, arm=row.arm)
                main = metric == next(iter(row.metrics))
                lines.append(line | dict(seed=run.seed, metric=metric, value=value, main=main))
    return pd.DataFrame(lines).astype({'value': float})


def _areas(path: Path) -> dict[tuple[str, int], float]:
    """{(work directory, percent): pixels %}"""
    if not path.exists():
        return {}
    try:
        frame = pd.read_csv(path, comment='#')
        folders = frame['checkpoint'].str.extract(r'(?:.*/)?work_dirs/(.*)/')[0]
        return dict(zip(zip(folders, frame['percent']), frame['pixels %']))
    except (KeyError, ValueError) as error:
        raise ValueError(f"'{path}' is not from tools/analysis/erf.py: {error!r}") from None


def summary_of(table: Table, kept: dict[str, Any], values: pd.DataFrame) -> pd.DataFrame:
    """One line for each row: published and ours, what the model costs, how the runs were made."""
    lines = []
    for row in table.rows:
        cells = {key: getattr(row, key) for key in ROW}
        for metric in row.metrics:
            ours = values.loc[(values.name == row.name) & (values.metric == metric), 'value']
            paper = row.published.get(metric, math.nan)
            cells[f'{metric}, paper'] = paper
            cells[f'{metric}, ours'] = ours.mean()
            cells[f'{metric}, spread'] = ours.std()
            cells[f'{metric}, difference'] = ours.mean() - paper
        cells |= {f'{k}, paper': v for k, v in row.published.items() if k not in row.metrics}
        counted = find(kept['counted'], row, row.options) or dict(params=math.nan, madds={})
        cells['params, counted'] = counted['params']
        cells |= {f'madds, {k or "counted"}': v for k, v in counted['madds'].items()}
        runs = row.runs()
        done = [result for run in runs if (result := find(kept['runs'], row, run.options))]
        lines.append({**cells, 'runs': len(done), 'runs wanted': len(runs), **_made(done)})
    rounded = [
        {k: float(f'{v:.6g}') if isinstance(v, float) else v for k, v in cells.items()}
        for cells in lines
    ]
    return pd.DataFrame(rounded, dtype=object)


def _made(results: list[dict]) -> dict[str, str]:
    """How runs were started; what differs between them is listed."""
    starts = [start for result in results for start in result['starts']]
    dirty = {True: ' with changes', False: '', None: ''}
    made = {
        'our batch': [s.get('batch_size') for s in starts],
        'learning rate': [s.get('lr') and f'{s["lr"]:.4g}' for s in starts],
        'devices': [f'{s.get("world_size")} x {s.get("device")}' for s in starts],
        'seeds': [s.get('seed') for s in starts],
        'commit': [(s.get('commit') or '?')[:10] + dirty[s.get('modified')] for s in starts],
        'torch': [s.get('torch') for s in starts],
    }
    return {key: ', '.join(dict.fromkeys(map(str, values))) for key, values in made.items()}


def pairs_of(values: pd.DataFrame) -> pd.DataFrame:
    """One line for each comparison of two arms in a group: differences by seed and a verdict.

    ParC is compared with plain and without embedding, other arms with ParC, by the rows' first
    metric; ParC with plain by the receptive field, too.
    """
    values = values[values.group != '']
    others = [arm for arm in values.arm.unique() if arm and arm not in ARMS]
    arms = [('parc', 'plain'), ('parc', 'no-pos'), *((arm, 'parc') for arm in others)]
    comparisons = [(*pair, values[values.main]) for pair in arms]
    comparisons += [('parc', 'plain', values[values.metric == area]) for area in AREAS.values()]
    lines, same = [], ['task', 'metric', 'group']
    for arm, against, of in comparisons:
        both = of[of.arm == arm].merge(of[of.arm == against], on=[*same, 'seed'])
        for (task, metric, group), pairs in both.groupby(same, sort=False):
            line = compared((pairs.value_x - pairs.value_y).tolist())
            line['claim'] = FIELD_CLAIM if metric in AREAS.values() else CLAIMS.get(against, '')
            line['difference'] = f'{ARMS.get(arm, arm)} − {ARMS.get(against, against)}'
            lines.append(dict(task=TASKS[task], metric=metric, group=group, **line))
    return pd.DataFrame(lines)


def compared(differences: list[float]) -> dict[str, Any]:
    """Mean, sample standard deviation and verdict of pairs; NaN where a pair is incomplete.

    ``half`` is half of the mean's 95 % interval by Student's t. It is not known (NaN) for one pair,
    nor where all pairs are the same.
    """
    pairs = pd.Series(differences, dtype=float).dropna()
    mean, spread, half = pairs.mean(), pairs.std(), math.nan
    if spread > SAME:
        half = float(student.ppf(0.975, len(pairs) - 1)) * spread / math.sqrt(len(pairs))
    verdict = 'yes' if mean > half else 'no, the opposite' if mean < -half else 'undecided'
    if len(pairs) < max(2, len(differences)):
        verdict = 'unfinished' if len(pairs) else 'not run'
    found = dict(pairs=[*pairs], wanted=len(differences), mean=mean, spread=spread)
    return found | dict(half=half, verdict=verdict)
