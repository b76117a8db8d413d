"""What is shown of a table: its rows beside their results, claims, and the page's pictures."""

import base64
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from .plan import Table
from .results import Line, Paired, Result, Results, compare, compare_by, left_out, lines_of

# Arms; one of another name is set beside ParC.
PARC, PLAIN, NO_POS = 'parc', 'plain', 'no-pos'
# A claim, and the arm that ParC has to be above; all were written down before any arm had run.
CLAIMS = {'ParC beats its plain twin': PLAIN, 'The position embedding matters': NO_POS}
FIELD_CLAIM = 'The receptive field is larger'
# Compared is the smallest set of pixels that holds so many percent of the contribution. It moves
# pixel by pixel, and of a cross it counts the arms. At first it was the smallest rectangle about
# the middle, which moves by whole rows and columns: too coarse on 64 to tell seeds apart.
FIELD_PERCENTS = (50, 99)
FIELD_COLUMN = 'pixels %'
KINDS = ('predictions', 'figures')
MEDIA = {'.png': 'image/png', '.jpg': 'image/jpeg', '.svg': 'image/svg+xml'}


@dataclass(frozen=True)
class Figure:
    """A picture of the page.

    Attributes:
        source: a data URI.
        kind: 'predictions' or 'figures'.
        command: what draws it, and ``commit`` what drew it; '' where it is not known.
    """

    source: str
    kind: str
    title: str
    caption: str
    command: str = ''
    commit: str = ''


@dataclass(frozen=True)
class Claim:
    """What was claimed, and what the pairs of runs say of one task by one measure.

    Attributes:
        what: is compared.
        pairs: {group: its pairs}; each group has a verdict of its own.
    """

    text: str
    task: str
    what: str
    pairs: dict[str, Paired]


@dataclass(frozen=True)
class Part:
    """Lines that have the same metrics."""

    task: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    decimals: dict[str, int]

    @property
    def published(self) -> bool:
        return any(c in line.row.published for line in self.lines for c in self.columns)

    @property
    def arms(self) -> list[str]:
        """Those compared, where each line is an arm of a group and has one metric; else none."""
        arms = [line.row.arm for line in self.lines if line.row.group and line.row.arm]
        compared = len(arms) == len(self.lines) and len(self.columns) == 1 and not self.published
        return list(dict.fromkeys(arms)) if compared else []

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(line.row.group for line in self.lines))

    def line(self, group: str, arm: str) -> Line | None:
        found = [x for x in self.lines if (x.row.group, x.row.arm) == (group, arm)]
        return found[0] if found else None


@dataclass(frozen=True)
class View:
    """A table as it is shown."""

    table: Table
    lines: tuple[Line, ...]
    claims: tuple[Claim, ...]
    pairs: tuple[Paired, ...]
    unused: tuple[Result, ...]

    @property
    def name(self) -> str:
        return self.table.name

    @property
    def parts(self) -> list[Part]:
        by_metrics: dict[tuple, list[Line]] = {}
        for line in self.lines:
            by_metrics.setdefault((line.row.task, *line.row.metrics), []).append(line)
        return [
            Part(task, columns, tuple(lines), {c: _decimals(lines, c) for c in columns})
            for (task, *columns), lines in by_metrics.items()
        ]

    @property
    def claimed_of(self) -> list[str]:
        """The groups that the claims are about."""
        return list(dict.fromkeys(group for claim in self.claims for group in claim.pairs))

    @property
    def command(self) -> str:
        return f'python tools/reproduce.py {self.name}'

    @property
    def finished(self) -> int:
        return sum(len(line.runs) == line.wanted for line in self.lines)

    @property
    def has_latency(self) -> bool:
        return any(key.startswith('latency ') for x in self.lines for key in x.row.published)

    @property
    def started(self) -> bool:
        return any(line.runs for line in self.lines)


def view_of(table: Table, results: Results, figures: Path) -> View:
    """Set a table beside its results and, where arms are compared, its receptive fields.

    Raises:
        ValueError: if the file of receptive fields is damaged.
    """
    lines = lines_of(table, results)
    arms = list(dict.fromkeys(line.row.arm for line in lines if line.row.arm))
    others = [arm for arm in arms if arm not in (PARC, PLAIN, NO_POS)]
    pairs = [
        pair
        for arm, against in [(PARC, PLAIN), (PARC, NO_POS), *((arm, PARC) for arm in others)]
        for pair in compare(lines, arm, against)
    ]
    fields = _read_fields(figures / 'erf.csv')
    by_field = [
        pair
        for percent in FIELD_PERCENTS
        for pair in compare_by(
            lines, PARC, PLAIN, _field_of(fields, percent), f'area for {percent} %'
        )
    ]
    claims = [
        *(
            claim
            for text, arm in CLAIMS.items()
            for claim in _claims(text, [p for p in pairs if (p.arm, p.against) == (PARC, arm)])
        ),
        *_claims(FIELD_CLAIM, by_field),
    ]
    unused = tuple(left_out(results, table))
    return View(table, tuple(lines), tuple(claims), tuple(pairs), unused)


def _claims(text: str, pairs: Sequence[Paired]) -> list[Claim]:
    found: dict[tuple[str, str], dict[str, Paired]] = {}
    for pair in pairs:
        found.setdefault((pair.task, pair.what), {})[pair.group] = pair
    return [Claim(text, *key, by_group) for key, by_group in found.items()]


Fields = dict[tuple[str, int], float]


def _read_fields(path: Path) -> Fields:
    """{(folder of the checkpoint, percent): share of the area in %}, from tools/analysis/erf.py."""
    if not path.exists():
        return {}
    lines = [line for line in path.read_text().splitlines() if not line.startswith('#')]
    try:
        return {
            (Path(row['checkpoint']).parent.as_posix(), int(row['percent'])): float(
                row[FIELD_COLUMN]
            )
            for row in csv.DictReader(lines)
        }
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"'{path}' is no erf.csv of tools/analysis/erf.py: {error!r}") from None


def _field_of(fields: Fields, percent: int) -> Callable[[Line, int | None], float | None]:
    def value(line: Line, seed: int | None) -> float | None:
        (run,) = (run for run in line.row.runs(Path()) if run.seed == seed)
        ending = f'/{run.work_dir.as_posix()}'
        found = [v for (folder, p), v in fields.items() if p == percent and folder.endswith(ending)]
        return found[0] if found else None

    return value


def read_figures(folder: Path) -> list[Figure]:
    """The pictures that captions.yaml lists, in its order.

    Raises:
        ValueError: if it lists one that is not there, or leaves one out.
    """
    path = folder / 'captions.yaml'
    content = (yaml.safe_load(path.read_text()) if path.exists() else None) or []
    pictures = {p.name for p in folder.glob('*') if p.suffix in MEDIA}
    known = {'file', 'kind', 'title', 'caption', 'command', 'commit'}
    figures = []
    for item in content:
        if not isinstance(item, dict) or not {'file', 'kind', 'title', 'caption'} <= set(item):
            raise ValueError(f"'{path}': each picture has file, kind, title and caption: {item!r}")
        if set(item) - known or item['kind'] not in KINDS:
            raise ValueError(f"'{path}': {item['file']} has an unknown key or kind: {item!r}")
        if item['file'] not in pictures:
            raise ValueError(f"'{path}' lists '{item['file']}', which is not beside it")
        file = folder / item['file']
        data = base64.b64encode(file.read_bytes()).decode()
        rest = {key: str(value) for key, value in item.items() if key != 'file'}
        figures.append(Figure(f'data:{MEDIA[file.suffix]};base64,{data}', **rest))
    extra = sorted(pictures - {item['file'] for item in content})
    if extra:
        raise ValueError(f"'{path}' says nothing of '{extra[0]}': list it there, or remove it")
    return figures


def _decimals(lines: Sequence[Line], column: str) -> int:
    """As many as the paper gives anywhere in the column."""
    published = [repr(line.row.published.get(column, 0)) for line in lines]
    return max(len(text.partition('.')[2]) for text in published)
