"""Results in numbers, as pandas frames, and written: as CSV, Markdown and a picture.

Of several seeds the mean and the sample standard deviation are shown. Arms of a group (plain, ParC,
ParC without position embedding) are compared by the differences of runs with the same seed, group
by group: one network can gain what another loses. Published numbers are called the paper's.
"""

import html
import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import t as student

from .collect import find
from .plan import TASKS, Row, Table

ARMS = {'plain': 'plain', 'parc': 'ParC', 'no-pos': 'ParC without embedding'}
AREAS = {50: 'area for 50 %', 99: 'area for 99 %'}  # metrics of receptive fields
# What is claimed of ParC against another arm.
CLAIMS = {'plain': 'ParC beats its plain twin', 'no-pos': 'The position embedding matters'}
FIELD_CLAIM = 'The receptive field is larger'
ROW = ('task', 'name', 'config', 'group', 'arm', 'schedule', 'batch')
SAME = 1e-9  # a smaller spread is rounding
MARK = 'written by tools/paper_tables.py'  # in every file: others are not overwritten
COLUMNS = ('paper', 'ours', 'spread', 'difference')
COSTS = ('name', 'schedule', 'batch', 'params, paper', 'params, counted', 'madds, paper')
COSTS += ('madds, counted', 'madds, direct', 'madds, matmul', 'madds, fft')
COSTS += ('our batch', 'learning rate', 'devices', 'seeds', 'commit')
NOTE = (
    "Counted are all parameters, and the multiply-adds of one image of the test's size, with ParC "
    'by each of its backends (direct and matmul compute a convolution, fft is Fast-ParC); a '
    "two-stage detector's heads see as many proposals as its test_cfg allows."
)
CLAIMS_NOTE = (
    'A pair is two runs of one network with the same seed. A cell holds the mean over its pairs of '
    "ParC minus the other ± half of the mean's 95 % interval (Student's t), and whether the claim "
    'holds for this network: yes where the interval lies above 0, no where it lies below, '
    'undecided where it holds 0, or where all pairs are the same, so that their spread is not '
    'known. Area for 50 % (99 %) is the smallest set of pixels that holds so much of what '
    'contributes to the middle of the last map, in percent of the image.'
)


def values_of(table: Table, kept: dict[str, Any], fields: Path) -> pd.DataFrame:
    """One line for each run and metric of a table; the value is NaN where it did not run.

    Args:
        fields: the erf.csv of `tools/analysis/plot.py erf`, whose areas become metrics.
    """
    areas = _areas(fields)
    lines = []
    for row in table.rows:
        for run in row.runs():
            result = find(kept['runs'], row, run.options) or {'metrics': {}}
            logged = {metric: result['metrics'].get(key) for metric, key in row.metrics.items()}
            found = {m: v if v is None else v * row.scale for m, v in logged.items()}
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
        raise ValueError(f"'{path}' is not from tools/analysis/plot.py: {error!r}") from None


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
    known = {key: [str(v) for v in values if v is not None] for key, values in made.items()}
    return {key: ', '.join(dict.fromkeys(values)) for key, values in known.items()}


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


def to_csv(table: Table, summary: pd.DataFrame) -> str:
    head = [MARK, table.title, table.source and f"'paper' is as published: {table.source}"]
    return ''.join(f'# {line}\n' for line in head if line) + summary.to_csv(index=False)


def to_markdown(table: Table, summary: pd.DataFrame, pairs: pd.DataFrame, picture: str) -> str:
    """A table's page; ``picture`` is the path of its curves, '' without any."""
    source = table.source and f'Columns called *paper* are as published: {table.source}.'
    blocks = [f'<!-- {MARK} -->\n# {_escaped(table.title)}', _escaped(source), _escaped(table.note)]
    blocks.append(f'Ours: `python tools/reproduce.py {table.name}`')
    parts = pd.Series([(row.task, *row.metrics) for row in table.rows])
    for (task, *metrics), lines in summary.groupby(parts, sort=False):
        blocks.append(f'## {TASKS[task].capitalize()}: {_escaped(", ".join(metrics))}')
        blocks += [to_table(results_of(lines, metrics)), to_table(_costs_of(lines))]
    blocks.append(NOTE)
    if len(pairs):
        each = pairs[['difference', 'task', 'metric', 'group']].assign(
            pairs=[', '.join(map(signed, found)) for found in pairs.pairs],
            mean=pairs['mean'].map(signed),
            spread=pairs['spread'].map(number),
        )
        blocks += ['## Pairs of runs', claims_to_markdown(pairs), to_table(each)]
    if picture:
        blocks.append(f'![Validation and training loss]({picture})')
    blocks.append('\n'.join(f'- {_escaped(f"{r.name}: {r.note}")}' for r in table.rows if r.note))
    return '\n\n'.join(filter(None, blocks)) + '\n'


def results_of(lines: pd.DataFrame, metrics: Iterable[str]) -> pd.DataFrame:
    """The rows with each metric: the paper's and the difference if any is published, and ours."""
    shown = {'name': lines['name']}
    for metric in metrics:
        paper, ours, spread, difference = (f'{metric}, {of}' for of in COLUMNS)
        if lines[paper].notna().any():
            digits = max(len(str(value).partition('.')[2]) for value in lines[paper].dropna())
            shown[paper] = [v if pd.isna(v) else f'{v:.{digits}f}' for v in lines[paper]]
        texts = [f'{number(m)}{plus_minus(s)}' for m, s in zip(lines[ours], lines[spread])]
        shown[ours] = pd.Series(texts, lines.index).replace('', '*not run*')
        if lines[paper].notna().any():
            shown[difference] = lines[difference].map(signed)
    return pd.DataFrame(shown)


def _costs_of(lines: pd.DataFrame) -> pd.DataFrame:
    costs = lines.reindex(columns=list(COSTS)).dropna(axis=1, how='all')
    for name in costs.filter(regex='madds, (?!paper)'):
        costs[name] = costs[name].map(lambda madds: f'{madds / 1e9:.4g}', na_action='ignore')
    units = {'params, paper': 'params, paper (M)'}
    units |= {name: f'{name} (G)' for name in costs if name.startswith('madds')}
    return costs.rename(columns=units)


def claims_to_markdown(pairs: pd.DataFrame) -> str:
    """A verdict for each claim, metric and group, and how to read it; '' without claims."""
    cells = pairs[pairs.claim != ''].copy()
    if cells.empty:
        return ''
    cells['verdict'] = [_verdict(pair) for pair in cells.itertuples()]
    index = ['claim', 'task', 'metric']
    wide = cells.pivot_table('verdict', index, 'group', aggfunc='first', sort=False)
    return f'{to_table(wide.reset_index())}\n\n{CLAIMS_NOTE}'


def _verdict(pair: Any) -> str:
    if not pair.pairs:
        return pair.verdict
    some = len(pair.pairs) < pair.wanted
    of = f', {len(pair.pairs)} of {pair.wanted} pairs' if some else ''
    return f'{signed(pair.mean)}{plus_minus(pair.half)}{of}, {pair.verdict}'


def to_table(frame: pd.DataFrame) -> str:
    """A frame as GitHub shows it, with - for what is missing."""
    lines = [[*frame], ['---'] * frame.shape[1], *frame.astype(object).values.tolist()]
    return '\n'.join(f'| {" | ".join(map(_cell, line))} |' for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return _escaped(value) or '-'
    if pd.isna(value):
        return '-'
    return f'{value:,}' if isinstance(value, int) and value >= 10_000 else str(value)


def _escaped(text: str) -> str:
    return html.escape(' '.join(text.split()), quote=False).replace('|', '\\|')


def number(value: float, sign: str = '') -> str:
    return '' if pd.isna(value) else f'{value:{sign}.2f}'.replace('-', '−')


def signed(value: float) -> str:
    return '±0.00' if abs(value) < 0.005 else number(value, '+')


def plus_minus(spread: float) -> str:
    return '' if pd.isna(spread) else f' ± {number(spread)}'


def draw_curves(table: Table, kept: dict[str, Any], path: Path) -> None:
    """A picture of the validations (mean and range of several runs) and the losses of all runs."""
    panels: dict[str, list[Row]] = {}
    for row in table.rows:
        panels.setdefault(f'{TASKS[row.task]} {row.group}', []).append(row)
    figure = Figure(figsize=(12, 3.6 * len(panels)), layout='constrained')
    axes = figure.subplots(len(panels), 2, squeeze=False)
    for (title, rows), (left, right) in zip(panels.items(), axes):
        metric = next(iter(rows[0].metrics))
        left.set(title=title, xlabel=rows[0].schedule.split()[1], ylabel=f'{metric}, validation')
        right.set(title=title, xlabel='iterations', ylabel='loss, training')
        for row, color in zip(rows, itertools.cycle(f'C{n}' for n in range(10))):
            runs = [find(kept['runs'], row, run.options) for run in row.runs()]
            points = [p for run in runs if run for p in run['curves'].get(row.metrics[metric], [])]
            curve = pd.DataFrame(points, columns=['step', 'value'], dtype=float).groupby('step')
            curve = curve['value'].agg(['mean', 'min', 'max']) * row.scale
            left.plot(curve.index, curve['mean'], 'o-', markersize=3, color=color, label=row.name)
            left.fill_between(curve.index, curve['min'], curve['max'], alpha=0.2, color=color)
            for run in filter(None, runs):
                right.plot(*zip(*run['loss']), color=color)
        left.legend(fontsize='small')
    figure.savefig(path, dpi=72)
