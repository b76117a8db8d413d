"""What the runs of a table came to: read from their logs, kept as data, and set beside each other.

A table's results are one JSON file that outlives the work directories: for each run its final
metrics, its validation curve, its training loss and how it was started; for each row what its model
has and costs. Values are as logged; a row's ``scale`` makes them those that are shown.
"""

import itertools
import json
import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .logs import metrics_of, read_scalars, read_starts
from .plan import Row, Run, Table
from .state import state_of

LOSSES = 100  # so many points at most are kept of a training loss
DIGITS = 6  # significant ones that are kept
SAME = 1e-9  # differences that are no further apart are the same but for their rounding

Curve = list[tuple[int, float | None]]


@dataclass(frozen=True)
class Result:
    """What one finished run came to.

    Attributes:
        row: the row's name.
        config: below configs/.
        options: what the run overrode in it, its seed among it.
        seed: None where the config's own, or none, was used.
        metrics: {key in the log: value} at the run's end.
        curves: {key: [(epoch or iteration, value)]}, the validations' of the row's metrics.
        loss: [(iteration, value)], thinned.
        starts: the records of tools/train.py, the latest last; [] where it wrote none.
    """

    row: str
    config: str
    options: dict[str, Any]
    seed: int | None
    metrics: dict[str, float | None]
    curves: dict[str, Curve]
    loss: Curve
    starts: list[dict[str, Any]]


@dataclass(frozen=True)
class Counted:
    """What a row's model has and costs for one image of ``size`` (H, W).

    Attributes:
        madds: multiply-adds by ParC's backend; without ParC one number, under ''.
        unknown: operations that were not counted.
    """

    row: str
    config: str
    options: dict[str, Any]
    size: tuple[int, int]
    params: int
    madds: dict[str, int]
    unknown: list[str]


@dataclass
class Results:
    """What is known of a table."""

    table: str
    counted: list[Counted] = field(default_factory=list)
    runs: list[Result] = field(default_factory=list)

    def count(self, row: Row) -> Counted | None:
        found = [c for c in self.counted if (c.row, c.config, c.options) == _model(row)]
        return found[0] if found else None

    def of(self, row: Row, run: Run) -> Result | None:
        """The result of a row's run, unless it is of another config or other options."""
        found = [r for r in self.runs if _key(r) == (row.name, run.config, run.options)]
        return found[0] if found else None


# The data


def load_results(table: str, folder: Path) -> Results:
    """The committed results of a table; empty where there are none yet.

    Raises:
        ValueError: if the file is damaged.
    """
    path = folder / f'{table}.json'
    if not path.exists():
        return Results(table)
    try:
        data = json.loads(path.read_text())
        counted = [Counted(**{**item, 'size': tuple(item['size'])}) for item in data['counted']]
        runs = [Result(**item) for item in data['runs']]
        return Results(data['table'], counted, runs)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"'{path}' holds no results of a table: {error!r}: mend it, or remove it and read the "
            'runs anew'
        ) from None


def dump_results(results: Results) -> str:
    """As JSON, with a list of numbers on one line."""
    text = json.dumps(_plain(asdict(results)), indent=1, allow_nan=False)
    pair = re.compile(r'\[\s+([^\s\[\]{}]+),\s+([^\s\[\]{}]+)\s+\]')
    text = pair.sub(r'[\1, \2]', text)
    return re.sub(r'(\[-?\d[^\[\]]*\],)\s+(?=\[)', r'\1 ', text) + '\n'


def _plain(value: Any) -> Any:
    """For JSON: rounded; None where a value is not finite, as that of a run that diverged."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f'{value:.{DIGITS}g}') if math.isfinite(value) else None
    return value


def read_run(row: Row, run: Run) -> Result | None:
    """What a run logged; None unless it is finished.

    Raises:
        ValueError: if its work directory is of another run, or damaged.
    """
    state = state_of(run.work_dir, row.schedule)
    if state.name != 'done':
        return None
    train, val = read_scalars(run.work_dir)
    curves = {
        key: [(r['step'], metrics_of(r)[key]) for r in val if key in metrics_of(r)]
        for key in row.metrics.values()
    }
    loss = _thinned([(r['iter'], r['loss']) for r in train if 'loss' in r])
    starts = read_starts(run.work_dir)
    return Result(row.name, run.config, run.options, run.seed, state.metrics, curves, loss, starts)


def merge(results: Results, table: Table, found: Sequence[Result]) -> list[str]:
    """Put results of runs on disk in the place of those that were kept; the others stay.

    Returns:
        What changed, in words.
    """
    told = []
    for result in found:
        old = [r for r in results.runs if _key(r) == _key(result)]
        if old and _plain(asdict(old[0])) == _plain(asdict(result)):
            continue
        results.runs = [r for r in results.runs if r not in old] + [result]
        seed = '' if result.seed is None else f', seed {result.seed}'
        told.append(f'{result.row}{seed}: {"replaced" if old else "new"}')
    order = {row.name: number for number, row in enumerate(table.rows)}
    results.runs.sort(key=lambda r: (order.get(r.row, len(order)), r.row, r.seed or 0))
    return told


def count_rows(results: Results, table: Table, count: Callable[[Row], Counted]) -> None:
    """Count the models of the rows that have not been counted as they are now."""
    results.counted = [results.count(row) or count(row) for row in table.rows]


def left_out(results: Results, table: Table) -> list[Result]:
    """Results that are kept and belong to no run of the table as it is now."""
    shown = [results.of(row, run) for row in table.rows for run in row.runs(Path())]
    return [result for result in results.runs if result not in shown]


def _key(result: Result) -> tuple[str, str, dict]:
    return result.row, result.config, result.options


def _model(row: Row) -> tuple[str, str, dict]:
    return row.name, row.config, row.options


def _thinned(curve: Curve) -> Curve:
    """At most LOSSES points; each is the mean of the values around it, the last step is kept."""
    parts = min(LOSSES, len(curve))
    edges = [len(curve) * i // parts for i in range(parts + 1)] if parts else []
    chunks = [curve[a:b] for a, b in itertools.pairwise(edges)]
    return [(chunk[-1][0], statistics.fmean(v for _, v in chunk)) for chunk in chunks]


# What they say


class _Values:
    """Statistics of ``values``, one a run or one a pair of runs."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """The sample standard deviation; None for fewer than two values."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Measured(_Values):
    """A metric of a row, in the units that are shown.

    Attributes:
        published: None where it is not.
        values: ours, one a run; empty where none is finished.
    """

    published: float | None
    values: tuple[float, ...]

    @property
    def difference(self) -> float | None:
        """Ours minus the published."""
        if self.published is None or self.mean is None:
            return None
        return self.mean - self.published


@dataclass(frozen=True)
class Line:
    """A row with what its runs came to.

    Attributes:
        runs: those finished, in the order of the seeds.
        wanted: how many there are to be.
    """

    row: Row
    counted: Counted | None
    runs: tuple[Result, ...]
    wanted: int

    @property
    def main(self) -> str:
        """The first of its columns."""
        return next(iter(self.row.metrics))

    def by_seed(self, column: str) -> dict[int | None, float]:
        found = {run.seed: run.metrics.get(self.row.metrics[column]) for run in self.runs}
        return {s: value * self.row.scale for s, value in found.items() if value is not None}

    def measured(self, column: str) -> Measured:
        values = tuple(self.by_seed(column).values())
        return Measured(self.row.published.get(column), values)

    def curves(self, column: str) -> list[Curve]:
        """The validations', a curve a run."""
        found = [run.curves.get(self.row.metrics[column], []) for run in self.runs]
        scale = self.row.scale
        return [[(step, v * scale) for step, v in c if v is not None] for c in found if c]


def lines_of(table: Table, results: Results) -> list[Line]:
    found = []
    for row in table.rows:
        runs = row.runs(Path())
        done = tuple(filter(None, (results.of(row, run) for run in runs)))
        found.append(Line(row, results.count(row), done, len(runs)))
    return found


# Arms compared seed by seed


@dataclass(frozen=True)
class Paired(_Values):
    """Differences between two arms of a group, one a pair of runs of the same seed.

    A group's pairs differ by the seed alone. Those of several groups are never put together: one
    network can gain what another loses, and a mean of both would be a statement of neither.

    Attributes:
        what: is compared, a metric for one.
        task: 'cls', 'det' or 'seg'.
        values: ``arm`` minus ``against``, in the units that are shown.
        wanted: how many there are to be.
    """

    what: str
    task: str
    group: str
    arm: str
    against: str
    values: tuple[float, ...]
    wanted: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % confidence interval of the mean, by Student's t.

        None for fewer than two values, and where all are the same: how far others would lie from
        these is not known then.
        """
        if self.half_width is None:
            return None
        return self.mean - self.half_width, self.mean + self.half_width

    @property
    def half_width(self) -> float | None:
        from scipy.stats import t  # takes a second to import

        if self.spread is None or self.spread < SAME:
            return None
        count = len(self.values)
        return float(t.ppf(0.975, count - 1)) * self.spread / math.sqrt(count)

    @property
    def verdict(self) -> str:
        """'not run', 'unfinished', 'higher', 'lower' or 'undecided'.

        Undecided where the interval holds 0, or is not known though all pairs are there.
        """
        if not self.values:
            return 'not run'
        if len(self.values) < max(self.wanted, 2):
            return 'unfinished'
        if self.interval is None:
            return 'undecided'
        low, high = self.interval
        return 'higher' if low > 0 else 'lower' if high < 0 else 'undecided'


Value = Callable[[Line, int | None], float | None]


def compare(lines: Sequence[Line], arm: str, against: str) -> list[Paired]:
    """By the first metric of the rows, group by group."""

    def value(line: Line, seed: int | None) -> float | None:
        return line.by_seed(line.main).get(seed)

    return compare_by(lines, arm, against, value)


def compare_by(
    lines: Sequence[Line], arm: str, against: str, value: Value, what: str | None = None
) -> list[Paired]:
    """By any value of a line and a seed; one that is missing is None."""
    found = []
    by_arm = {(line.row.task, line.row.group, line.row.arm): line for line in lines}
    for task in dict.fromkeys(line.row.task for line in lines):
        for group in dict.fromkeys(line.row.group for line in lines if line.row.task == task):
            pair = [by_arm.get((task, group, name)) for name in (arm, against)]
            if None in pair or group is None:
                continue
            seeds = [seed for seed in _seeds(pair[0]) if seed in _seeds(pair[1])]
            both = [(value(pair[0], seed), value(pair[1], seed)) for seed in seeds]
            values = tuple(a - b for a, b in both if a is not None and b is not None)
            what_of = what or pair[0].main
            found.append(Paired(what_of, task, group, arm, against, values, len(seeds)))
    return found


def _seeds(line: Line) -> tuple[int | None, ...]:
    return line.row.seeds or (None,)
