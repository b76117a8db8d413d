"""Charts of results as SVG for the page: drawn by matplotlib, in the colours that the page has.

What is ink takes the text's colour, so that a chart is read on light and on dark; there is no
background. Each chart's ids are its own, since several stand in one document.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import matplotlib
from matplotlib.figure import Figure

from .results import Curve, Paired

INK = '#010203'  # stands for the text's colour until the SVG is written
STYLE = {
    'svg.fonttype': 'none',  # text stays text
    'font.family': 'sans-serif',
    'font.size': 11,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.edgecolor': INK,
    'axes.labelcolor': INK,
    'axes.titlecolor': INK,
    'axes.titlesize': 12,
    'axes.titleweight': 'bold',
    'text.color': INK,
    'xtick.color': INK,
    'ytick.color': INK,
    'grid.color': INK,
    'grid.alpha': 0.15,
    'legend.frameon': False,
    'text.parse_math': False,  # names are not formulas
}
# Like Okabe and Ito's, in tones that are seen on white and on black.
COLOURS = ('#2a86c9', '#d9661f', '#0f9d77', '#c2679a', '#b58900', '#7a6fd0')
DASHES = ('-', '--', ':', '-.')


@dataclass(frozen=True)
class Series:
    """A line of a chart, and how it looks.

    Attributes:
        curves: one a run.
        colour, dash: numbers into COLOURS and DASHES.
    """

    label: str
    curves: Sequence[Curve]
    colour: int
    dash: int = 0


def draw_curves(name: str, title: str, x: str, y: str, series: Sequence[Series], band: bool) -> str:
    """An SVG of values over a run.

    Args:
        name: of the chart, its own in the document: letters and digits.
        band: draw of several runs the mean and their range, not each.
    """
    with matplotlib.rc_context({**STYLE, 'svg.hashsalt': name}):
        figure = Figure(figsize=(6.4, 4.0 + 0.24 * len(series)), layout='constrained')
        axes = figure.subplots()
        for line in series:
            count, label = len(line.curves), line.label
            colour, dash = COLOURS[line.colour % len(COLOURS)], DASHES[line.dash % len(DASHES)]
            look = dict(color=colour, linestyle=dash, lw=2 if band else 1.4)
            if band and count > 1:
                steps, values = _together(line.curves)
                low, high = [min(v) for v in values], [max(v) for v in values]
                axes.fill_between(steps, low, high, alpha=0.18, lw=0, color=colour)
                curves = [list(zip(steps, map(fmean, values)))]
                label += f', mean and range of {count} runs'
            else:
                curves = line.curves
                label += f', {count} runs' if count > 1 else ''
            for curve in curves:
                marker = 'o' if len(curve) < 25 else None
                axes.plot(*zip(*curve), label=label, marker=marker, ms=4, **look)
                label = None
        axes.set(title=title, xlabel=x, ylabel=y)
        axes.margins(x=0.02)
        axes.grid(True)
        figure.legend(loc='outside lower left')
        return _svg(figure, name)


def draw_paired(name: str, title: str, x: str, pairs: Sequence[Paired]) -> str:
    """An SVG of paired differences: a dot each, the mean, and its 95 % interval, about 0."""
    with matplotlib.rc_context({**STYLE, 'svg.hashsalt': name}):
        figure = Figure(figsize=(6.4, 1.6 + 0.5 * len(pairs)), layout='constrained')
        axes = figure.subplots()
        axes.axvline(0, color=INK, lw=1)
        for place, pair in enumerate(pairs):
            look = dict(color=COLOURS[0])
            axes.plot(pair.values, [place] * len(pair.values), 'o', alpha=0.55, ms=6, **look)
            if pair.interval:
                axes.plot(pair.interval, [place] * 2, '-', lw=2, **look)
            if pair.mean is not None:
                axes.plot(pair.mean, place, 'D', ms=7, **look)
        axes.set_yticks(range(len(pairs)), [pair.group for pair in pairs])
        axes.set(title=title, xlabel=x, ylim=(len(pairs) - 0.5, -0.5))
        axes.grid(True, axis='x')
        return _svg(figure, name)


def _together(curves: Sequence[Curve]) -> tuple[list[int], list[list[float]]]:
    """The steps that all curves have, and the values of each there."""
    found = [dict(curve) for curve in curves]
    steps = sorted(set.intersection(*map(set, found)))
    return steps, [[values[step] for values in found] for step in steps]


def _svg(figure: Figure, name: str) -> str:
    """The figure as an element to be put into a page."""
    file = io.StringIO()
    figure.savefig(file, format='svg', transparent=True, metadata={'Date': None})
    text = file.getvalue()
    text = text[text.index('<svg') :].replace(INK, 'currentColor')
    text = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r'\1', text, count=1)
    text = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r'\1', text, count=1)
    # matplotlib's style would be the whole page's; the page has it for charts alone
    text = re.sub(r'<(metadata|style)\b.*?</\1>', '', text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    return re.sub(r'(url\(#|href="#)', rf'\1{name}-', text)
