"""The tables of experiments, configs/tables/*.yaml: their rows, and the runs that these need.

configs/tables/README.md explains the files.
"""

import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from mmparc.home import home

TASKS = {'cls': 'classification', 'det': 'detection', 'seg': 'segmentation'}
SHARED = ('task', 'metrics', 'scale', 'seeds')  # of a table, for rows without their own
SCHEDULES = "such as '300 epochs' or '160000 iterations'"
LOADER = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)


@dataclass(frozen=True)
class Run:
    """One training: the overrides of its config with the seed, and where it logs and saves."""

    options: dict[str, Any]
    seed: int | None
    work_dir: Path


@dataclass(frozen=True)
class Row:
    """A row of a table; configs/tables/README.md explains the fields."""

    table: str
    name: str
    config: str
    task: str
    batch: int
    schedule: str
    metrics: dict
    needs: str = ''
    published: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    seeds: list = field(default_factory=list)
    scale: int | float = 1
    note: str = ''
    group: str = ''
    arm: str = ''

    def runs(self, work_dirs: Path = Path()) -> list[Run]:
        """One run per seed, or a single one.

        A run without seeds and options lies where tools/train.py puts it and where other configs
        look for its checkpoint: <task>/<config>. Others: <table>/<task>/<name>[/seed-<n>].
        """
        if not self.seeds and not self.options:
            return [Run({}, None, Path(work_dirs, self.task, Path(self.config).stem))]
        slug = re.sub('[^a-z0-9]+', '-', self.name.lower()).strip('-')
        folder = Path(work_dirs, self.table, self.task, slug)
        if not self.seeds:
            return [Run(self.options, None, folder)]
        return [
            Run({**self.options, 'randomness.seed': seed}, seed, folder / f'seed-{seed}')
            for seed in self.seeds
        ]


@dataclass(frozen=True)
class Table:
    """Rows that are shown together; configs/tables/README.md explains the fields."""

    name: str
    title: str
    rows: tuple
    source: str = ''
    note: str = ''
    data: list = field(default_factory=list)

    def select(self, names: Iterable[str] | None) -> list[Row]:
        """The rows of these names, in the table's order; all rows for None."""
        known = [row.name for row in self.rows]
        for name in set(names or known) - {*known}:
            raise ValueError(f"table '{self.name}' has no row '{name}': {hint(name, known)}")
        return [row for row in self.rows if not names or row.name in names]


def schedule_of(cfg: Mapping) -> str:
    """The length of a config's training, as rows write it."""
    epochs = cfg['train_cfg'].get('max_epochs')
    return f'{epochs} epochs' if epochs else f'{cfg["train_cfg"]["max_iters"]} iterations'


def table_names() -> list[str]:
    return sorted(path.stem for path in (home() / 'configs/tables').glob('*.yaml'))


def load_table(name: str) -> Table:
    """Read and check the table of that name, or in that file if it ends with .yaml.

    Raises:
        ValueError: one line, if the table does not exist or its file has a mistake.
    """
    where, content = _read(_path(name))
    rows = _rows(where, content)
    own = {key: value for key, value in content.items() if key not in SHARED}
    table = _make(where, Table, {**own, 'name': Path(where).stem, 'rows': rows})
    names = [row.name for row in rows]
    folders = [run.work_dir for row in rows for run in row.runs()]
    arms = [(row.task, row.group, row.arm) for row in rows if row.group]
    for what, values in (('name', names), ('work directory', folders), ('arm', arms)):
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"{where}: two rows have the {what} '{value}'")
    for row in rows:
        needed, chain = row, []
        while needed.needs:
            needed = plain_row(needed.needs, name)
            if needed in chain:
                raise ValueError(f"{where}: '{row.name}' needs '{row.needs}', which needs itself")
            chain.append(needed)
    for step in table.data:
        tool = home() / 'tools' / f'{str(step).partition(" ")[0]}.py'
        if not tool.is_file():
            raise ValueError(f"{where}: 'data' has '{step}', but there is no tool '{tool}'")
    return table


def plain_row(config: str, table: str) -> Row:
    """The row that trains a config as it is, of this table or of any other."""
    for path in map(_path, (table, *table_names())):
        for row in _rows(*_read(path)):
            if row.config == config and not row.seeds and not row.options:
                return row
    raise ValueError(
        f"no table has a row of '{config}' without options and seeds, which '{table}' needs"
    )


def hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f'known are {", ".join(known)}'


def _path(name: str) -> Path:
    if not name.endswith('.yaml') and name not in table_names():
        raise ValueError(f"there is no table '{name}': {hint(name, table_names())}")
    return Path(name) if name.endswith('.yaml') else home() / 'configs/tables' / f'{name}.yaml'


@functools.cache
def _read(path: Path) -> tuple[str, dict]:
    """How messages name the file, and its content."""
    where = str(path.relative_to(home()) if path.is_relative_to(home()) else path)
    try:
        content = yaml.load(path.read_text(encoding='utf-8'), LOADER)
    except FileNotFoundError:
        raise ValueError(f"there is no file '{path}'") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'{where} is not valid YAML: {" ".join(str(error).split())}') from None
    rows = content.get('rows') if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{where} must have 'rows', a list of keys and values for each")
    return where, content


def _rows(where: str, content: dict) -> tuple[Row, ...]:
    rows = []
    shared = {key: content[key] for key in SHARED if key in content}
    for number, own in enumerate(content['rows'], 1):
        label = f"{where}: row {number} '{own.get('name', '')}'"
        rows.append(_make(label, Row, {**shared, **own, 'table': Path(where).stem}))
        _check(label, rows[-1])
    return tuple(rows)


def _make(where: str, kind: type, content: dict[str, Any]) -> Any:
    """A Row or Table of these fields; a mistake in their names or types is a ValueError."""
    types = {item.name: item.type for item in fields(kind)}
    for key, value in content.items():
        if key not in types:
            known = hint(str(key), [*types, *SHARED])
            raise ValueError(f"{where} has the unknown key '{key}': {known}")
        if not isinstance(value, types[key]) or isinstance(value, bool):
            raise ValueError(f"{where} has a '{key}' of the wrong type: {value!r}")
    try:
        return kind(**content)
    except TypeError as error:
        raise ValueError(f'{where} lacks {str(error).partition("missing ")[2]}') from None


def _check(where: str, row: Row) -> None:
    seeds = {seed for seed in row.seeds if type(seed) is int and seed >= 0}
    columns = {column for column in row.published if not column.startswith('latency ')}
    numbers = all(type(value) in (int, float) for value in row.published.values())
    numbers = numbers and columns <= {*row.metrics, 'params', 'madds'}
    nested = any(isinstance(value, dict) for value in row.options.values())
    for key, valid, rule in (
        ('task', row.task in TASKS, f'one of {", ".join(TASKS)}'),
        ('config', (home() / 'configs' / row.config).is_file(), 'a file below configs/'),
        ('batch', row.batch > 0, 'positive'),
        ('schedule', re.fullmatch(r'[1-9]\d* (epochs|iterations)', row.schedule), SCHEDULES),
        ('published', numbers, 'numbers of its metrics, params, madds or latency'),
        ('options', not nested, 'single values: write nested keys with dots'),
        ('seeds', len(seeds) == len(row.seeds), 'different integers from 0 on'),
    ):
        if not valid:
            raise ValueError(f'{where} has the {key} {getattr(row, key)!r}: it must be {rule}')
