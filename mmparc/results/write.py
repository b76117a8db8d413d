"""Results as CSV, Markdown and a picture; published numbers are called the paper's."""

import html
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from .collect import find
from .plan import TASKS, Row, Table

MARK = 'written by tools/paper_tables.py'  # in every file: others are not overwritten
COLUMNS = ('paper', 'ours', 'spread', 'difference')
COSTS = ('name', 'schedule', 'batch', 'params, paper', 'params, counted', 'madds, paper')
COSTS += ('madds, counted', 'madds, direct', 'madds, matmul', 'madds, fft')
COSTS += ('our batch', 'learning rate', 'devices', 'seeds', 'commit')
UNITS = {name: f'{name} (G)' for name in COSTS if name.startswith('madds')}
UNITS['params, paper'] = 'params, paper (M)'
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
        costs = lines[
            [name for name in COSTS if name in lines and lines[name].notna().any()]
        ].copy()
        for name in costs.filter(regex='madds, (?!paper)'):
            costs[name] = costs[name].map(lambda madds: f'{madds / 1e9:.4g}', na_action='ignore')
        costs = costs.rename(columns=UNITS)
        blocks.append(f'## {TASKS[task].capitalize()}: {_escaped(", ".join(metrics))}')
        blocks += [to_table(results_of(lines, metrics)), to_table(costs)]
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
