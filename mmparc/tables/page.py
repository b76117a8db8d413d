"""Tables of results as one HTML page that needs nothing but itself: no network, no script."""

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from . import texts
from .charts import Series, draw_curves, draw_paired
from .results import Curve, Line
from .view import KINDS, Figure, View


def to_html(views: Sequence[View], figures: Sequence[Figure]) -> str:
    """The page; all that is not markup of its own is escaped."""
    environment = Environment(
        loader=PackageLoader('mmparc.tables', '.'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    kinds = [kind for kind in KINDS if any(figure.kind == kind for figure in figures)]
    template = environment.get_template('page.html.j2')
    text = template.render(views=views, figures=figures, kinds=kinds, charts=charts, t=texts)
    return text.rstrip() + '\n'


def charts(view: View) -> dict[str, list[Markup]]:
    """{heading: what there is to draw of a table}"""
    return {
        'Differences, seed by seed': _differences(view),
        'Over the training': _curves(view),
    }


def _differences(view: View) -> list[Markup]:
    drawn = []
    for task, arm, against in dict.fromkeys((p.task, p.arm, p.against) for p in view.pairs):
        pairs = [p for p in view.pairs if (p.task, p.arm, p.against) == (task, arm, against)]
        if any(pair.values for pair in pairs):
            arms = f'{texts.arm_name(arm)} minus {texts.arm_name(against)}'
            title = f'{texts.TASKS[task].capitalize()}: {arms}'
            name = f'{_id(view)}p{len(drawn)}'
            drawn.append(draw_paired(name, title, f'difference in {pairs[0].what}', pairs))
    return [Markup(svg) for svg in drawn]


def _curves(view: View) -> list[Markup]:
    drawn = []
    for title, lines in _panels(view).items():
        column = lines[0].main
        unit = lines[0].row.schedule.split()[1].removesuffix('s')
        curves = [line.curves(column) for line in lines]
        losses = [[_finite(run.loss) for run in line.runs] for line in lines]
        for each, x, y, band in (
            (curves, unit, f'{column}, validation', True),
            (losses, 'iteration', 'training loss', False),
        ):
            series = [
                Series(label, drawable, *look)
                for (label, look), found in zip(_looks(lines), each)
                if (drawable := [curve for curve in found if curve])
            ]
            if series:
                name = f'{_id(view)}c{len(drawn)}'
                drawn.append(draw_curves(name, title, x, y, series, band))
    return [Markup(svg) for svg in drawn]


def _id(view: View) -> str:
    return ''.join(filter(str.isalnum, view.name))


def _finite(curve: Curve) -> Curve:
    return [(step, value) for step, value in curve if value is not None]


def _panels(view: View) -> dict[str, list[Line]]:
    """{title: the lines that share a chart}, those of a group, else those of the same metrics."""
    panels: dict[str, list[Line]] = {}
    for part in view.parts:
        task = texts.TASKS[part.task].capitalize()
        whole = f'{task}, {view.table.title}' if len(view.parts) > 1 else view.table.title
        for line in part.lines:
            title = f'{task}, {line.row.group}' if line.row.group else whole
            panels.setdefault(title, []).append(line)
    return panels


def _looks(lines: Sequence[Line]) -> list[tuple[str, tuple[int, int]]]:
    """(label, (colour, dash)) of each: an arm has its own of both, twins share a colour."""
    if all(line.row.arm for line in lines):
        return [(texts.arm_name(line.row.arm), (i, i)) for i, line in enumerate(lines)]
    names = [line.row.name for line in lines]
    families = list(dict.fromkeys(name.removeprefix('ParC-') for name in names))
    return [
        (name, (families.index(name.removeprefix('ParC-')), int(not name.startswith('ParC-'))))
        for name in names
    ]
