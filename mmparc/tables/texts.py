"""Tables of results as text: numbers, markdown, CSV, and the table of README.md.

A published number is always called the paper's, with its source; where nothing ran stands
'not run'.
"""

import csv
import html
import io
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from mmparc.analysis.report import markdown

from .plan import Row
from .results import Counted, Line, Measured, Paired, Result
from .view import Part, View

TOOL = 'tools/paper_tables.py'
MARK = f'written by {TOOL}'  # in every file, so that none of another's is overwritten
NOT_RUN, NONE, UNKNOWN = 'not run', '-', 'not recorded'
TASKS = dict(cls='classification', det='detection', seg='segmentation')
ARMS = {'plain': 'plain', 'parc': 'ParC', 'no-pos': 'ParC without embedding'}
VERDICTS = dict(higher='yes', lower='no, the opposite')
CLAIMS_NOTE = (
    'A pair is two runs of one network with the same seed. A cell holds the mean over its pairs of '
    "ParC minus the other ± half of the mean's 95 % interval (Student's t; it grows with the "
    'spread, the sample standard deviation of the pairs), and whether the claim holds for this '
    'network: yes where the interval lies above 0, no where it lies below, undecided where it '
    'holds 0, or where all pairs are the same, so that their spread is not known.'
)
FIELD_NOTE = (
    'Area for 50 % (99 %) is the smallest set of pixels that holds so much of what contributes to '
    'the middle of the last map, in percent of the image.'
)


def number(value: float, decimals: int) -> str:
    return f'{value:.{decimals}f}'.replace('-', '−')


def signed(value: float, decimals: int = 2) -> str:
    text = f'{value:+.{decimals}f}'
    return ('±' + text[1:] if float(text) == 0 else text).replace('-', '−')


def signed_list(values: Iterable[float]) -> str:
    return ', '.join(map(signed, values))


def paper_text(measured: Measured, decimals: int) -> str:
    return NONE if measured.published is None else number(measured.published, decimals)


def our_text(measured: Measured, decimals: int = 2) -> str:
    """The mean, with its spread if there are several runs."""
    if measured.mean is None:
        return NOT_RUN
    spread = '' if measured.spread is None else f' ± {number(measured.spread, decimals)}'
    return number(measured.mean, decimals) + spread


def difference_text(measured: Measured) -> str:
    return NONE if measured.difference is None else signed(measured.difference)


def params_text(counted: Counted | None) -> str:
    return 'not counted' if counted is None else f'{counted.params:,}'


def madds_text(counted: Counted | None) -> str:
    """In G; with ParC by each backend, those of the same number together."""
    if counted is None:
        return 'not counted'
    names: dict[str, list[str]] = {}
    for backend, madds in counted.madds.items():
        names.setdefault(f'{madds / 1e9:.4g}', []).append(backend)
    return ' / '.join(f'{value} {", ".join(found)}'.strip() for value, found in names.items())


def counting_text(view: View) -> str:
    """What was counted, and what of these models was not."""
    unknown = sorted({op for line in view.lines if line.counted for op in line.counted.unknown})
    text = (
        "Counted: all parameters, and the multiply-adds of one image of the test's size, with ParC "
        'by each of its backends (direct and matmul compute a convolution, fft is Fast-ParC); '
        "a two-stage detector's heads see as many proposals as its test_cfg allows"
    )
    return f'{text}; without {", ".join(unknown)}.' if unknown else f'{text}.'


def latency_text(row: Row) -> str:
    found = {k.partition(' ')[2]: v for k, v in row.published.items() if k.startswith('latency ')}
    return ', '.join(f'{device} {value}' for device, value in found.items()) or NONE


def paper_value(row: Row, key: str) -> str:
    return str(row.published.get(key, NONE))


def verdict_text(pair: Paired | None) -> str:
    """The mean, half of its interval, and whether the first arm is above the other, as claimed."""
    if pair is None:
        return NONE
    if pair.mean is None:
        return NOT_RUN
    half = '' if pair.half_width is None else f' ± {number(pair.half_width, 2)}'
    some = len(pair.values) < pair.wanted
    of = f', {len(pair.values)} of {pair.wanted} pairs' if some else ''
    return f'{signed(pair.mean)}{half}{of}, {VERDICTS.get(pair.verdict, pair.verdict)}'


def _distinct(values: Iterable[Any]) -> str:
    found = list(dict.fromkeys(str(value) for value in values if value not in (None, '')))
    return ', '.join(found) or UNKNOWN


def commit_of(start: dict) -> str:
    commit = start.get('commit')
    if not commit:
        return ''
    return commit[:10] + (' with changes' if start.get('modified') else '')


def made_of(starts: Sequence[dict]) -> dict[str, str]:
    """How runs were started: commit, devices, batch, rate; what differs is listed."""
    devices = (f'{s["world_size"]} x {s["device"]}' for s in starts if 'device' in s)
    rates = (f'{s["lr"]:.4g}' for s in starts if s.get('lr') is not None)
    return dict(
        commit=_distinct(map(commit_of, starts)),
        devices=_distinct(devices),
        batch=_distinct(s.get('batch_size') for s in starts),
        rate=_distinct(rates),
        torch=_distinct(s.get('torch') for s in starts),
    )


def made(line: Line) -> dict[str, str]:
    if not line.runs:
        return dict.fromkeys(('commit', 'devices', 'batch', 'rate', 'torch', 'seeds'), NOT_RUN)
    seeds = [start.get('seed') for run in line.runs for start in run.starts[-1:]]
    seeds = [run.seed for run in line.runs if run.seed is not None] or seeds
    return {
        **made_of([start for run in line.runs for start in run.starts]),
        'seeds': _distinct(seeds) + (f' of {line.wanted}' if len(line.runs) < line.wanted else ''),
    }


def row_command(row: Row) -> str:
    return f'python tools/reproduce.py {row.table} --rows {shlex.quote(row.name)}'


def run_metrics(line: Line, run: Result) -> str:
    found = ((c, run.metrics.get(key)) for c, key in line.row.metrics.items())
    scale = line.row.scale
    return ', '.join(f'{c} {v * scale:.2f}' for c, v in found if v is not None) or NONE


# Markdown


def _md(text: str) -> str:
    return html.escape(' '.join(text.split()), quote=False).replace('|', '\\|')


def to_markdown(view: View) -> str:
    """A table's page; numbers that nobody measured here are called the paper's."""
    table = view.table
    lines = [f'<!-- {MARK} -->', f'# {_md(table.title)}', '']
    if table.source:
        lines += [f'Columns called *paper* are as published: {_md(table.source)}.', '']
    if table.note:
        lines += [_md(table.note), '']
    lines += [f'Ours: `{view.command}`', '']
    for part in view.parts:
        if len(view.parts) > 1:
            lines += [f'## {TASKS[part.task].capitalize()}: {_md(", ".join(part.columns))}', '']
        lines += [_results_markdown(part), '', _costs_markdown(part), '']
    lines += [counting_text(view), '']
    if view.claims:
        lines += ['## Claims', '', claims_markdown(view), '', CLAIMS_NOTE, FIELD_NOTE, '']
    if view.pairs:
        lines += ['## Pairs of runs', '', _pairs_markdown(view.pairs), '']
    notes = [f'- {_md(x.row.name)}: {_md(x.row.note)}' for x in view.lines if x.row.note]
    lines += [*notes, ''] if notes else []
    return '\n'.join(lines)


def _results_markdown(part: Part) -> str:
    header = ['model']
    for column in part.columns:
        name = _md(column)
        header += [f'{name}, paper', 'ours', 'difference'] if part.published else [f'{name}, ours']
    rows = []
    for line in part.lines:
        cells = [_md(line.row.name)]
        for column in part.columns:
            value = line.measured(column)
            ours = our_text(value)
            ours = f'*{ours}*' if ours == NOT_RUN else ours
            if part.published:
                cells += [paper_text(value, part.decimals[column]), ours, difference_text(value)]
            else:
                cells.append(ours)
        rows.append(cells)
    return markdown(header, rows, 1)


def _costs_markdown(part: Part) -> str:
    header = ['model', 'schedule', 'batch', 'parameters, paper (M)', 'counted']
    header += ['multiply-adds, paper (G)', 'counted (G)']
    header += ['our batch', 'learning rate', 'devices', 'seeds', 'commit']
    rows = []
    for line in part.lines:
        row, how = line.row, made(line)
        cells = [_md(row.name), row.schedule, row.batch, paper_value(row, 'params')]
        cells += [params_text(line.counted), paper_value(row, 'madds'), madds_text(line.counted)]
        cells += [_md(how[key]) for key in ('batch', 'rate', 'devices', 'seeds', 'commit')]
        rows.append(cells)
    return markdown(header, rows, 2)


def claims_markdown(view: View) -> str:
    rows = [
        [
            _md(claim.text),
            f'{TASKS[claim.task]}, {_md(claim.what)}',
            *(verdict_text(claim.pairs.get(group)) for group in view.claimed_of),
        ]
        for claim in view.claims
    ]
    header = ['claim', 'task and measure', *map(_md, view.claimed_of)]
    return markdown(header, rows, len(header))


def _pairs_markdown(pairs: Sequence[Paired]) -> str:
    rows = [
        [
            TASKS[pair.task],
            _md(pair.group),
            _md(f'{arm_name(pair.arm)} − {arm_name(pair.against)}'),
            _md(pair.what),
            signed_list(pair.values) or f'*{NOT_RUN}*',
            NONE if pair.mean is None else signed(pair.mean),
            NONE if pair.spread is None else f'{pair.spread:.2f}',
        ]
        for pair in pairs
    ]
    header = ['task', 'group', 'difference', 'of', 'each pair', 'mean', 'spread']
    return markdown(header, rows, 4)


def arm_name(arm: str) -> str:
    return ARMS.get(arm, arm)


def to_readme(views: Sequence[View], folder: str) -> str:
    """What README.md shows: the claims, then, folded, the first metric of each published row."""
    text = []
    for view in views:
        if view.claims and view.started:
            title = f'[{_md(view.table.title)}]({folder}/{view.name}.md)'
            text += [f'{title}:', '', claims_markdown(view), '', CLAIMS_NOTE, FIELD_NOTE, '']
    rows = []
    for view in views:
        for part in view.parts if view.table.source else []:
            column = part.columns[0]
            for line in part.lines:
                value = line.measured(column)
                ours = our_text(value)
                link = f'[{_md(view.table.title)}]({folder}/{view.name}.md)'
                cells = [link if line is view.lines[0] else '', _md(line.row.name)]
                cells += [_md(column), paper_text(value, part.decimals[column])]
                cells += [f'*{ours}*' if ours == NOT_RUN else ours, difference_text(value)]
                rows.append(cells)
    if rows:
        ran = sum(view.finished for view in views if view.table.source)
        summary = f'Published beside ours: {ran} of {len(rows)} models have been trained here'
        header = ['table', 'model', 'metric', 'paper', 'ours', 'difference']
        text += ['<details>', f'<summary>{summary}</summary>', '', markdown(header, rows, 3), '']
        text += ['</details>', '']
    for view in views:
        if view.claims and not view.started:
            text += [f'[{_md(view.table.title)}]({folder}/{view.name}.md): *{NOT_RUN}*', '']
    return '\n'.join(text[:-1])


# CSV


def to_csv(view: View) -> str:
    """A line a row with plain numbers; what was not published or not run is empty."""
    rows = [_csv_row(line) for line in view.lines]
    header = list(dict.fromkeys(key for row in rows for key in row))
    file = io.StringIO()
    file.write(f'# {MARK}\n# {" ".join(view.table.title.split())}\n')
    if view.table.source:
        file.write(f"# 'paper' is as published: {' '.join(view.table.source.split())}\n")
    writer = csv.DictWriter(file, header, restval='', lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _csv_row(line: Line) -> dict[str, object]:
    row, counted = line.row, line.counted
    cells: dict[str, object] = dict(model=row.name, config=row.config)
    if row.group or row.arm:
        cells |= dict(group=row.group, arm=row.arm)
    cells |= dict(schedule=row.schedule, batch=row.batch)
    for column in row.metrics:
        value = line.measured(column)
        for what in ('published', 'mean', 'spread', 'difference'):
            found = getattr(value, what)
            name = dict(published='paper', mean='ours').get(what, what)
            text = f'{found:.6g}' if found is not None and what != 'published' else found
            cells[f'{column}, {name}'] = text
    cells |= {f'{k}, paper': v for k, v in row.published.items() if k not in row.metrics}
    if counted:
        cells['params, counted'] = counted.params
        cells |= {f'madds, {k or "counted"}': v for k, v in counted.madds.items()}
    cells |= {'runs': len(line.runs), 'runs wanted': line.wanted}
    if line.runs:
        cells |= made(line)
    return cells
