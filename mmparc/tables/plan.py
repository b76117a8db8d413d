"""The tables of experiments, configs/tables/*.yaml: their rows, and the runs that these need.

A file says::

    title: Cascade Mask R-CNN on COCO val2017
    task: det                                # cls | det | seg
    source: arXiv 2210.04020 ...             # of the published numbers; none without them
    note: of the whole table                 # optional, as all below but metrics and rows
    metrics: {box AP: coco/bbox_mAP}         # column: key in mmengine's log
    scale: 100                               # logged value times this is the shown one (1)
    seeds: [0, 1, 2]                         # a run of each row for each
    data: [{make_toy_data: [--out, DIR]}]   # tools to run before the rows, with arguments
    rows:
      - name: ParC-ConvNeXt-XT
        config: det/convnext/....py          # below configs/
        needs: cls/convnext/....py           # optional: the config of a row, trained before
        batch: 16                            # images a step, all GPUs
        schedule: 36 epochs                  # or '160000 iterations'
        published: {box AP: 47.7}            # by column, besides params (M), madds (G) and
                                             # 'latency DEVICE' (ms); absent: not published
        options: {model.backbone.pos_embed: false}   # optional --cfg-options
        note, group, arm                     # optional texts; equal groups are compared by arm

A row may have task, metrics, scale and seeds of its own instead of the table's.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmparc.home import home

TASKS = ('cls', 'det', 'seg')
OF_BOTH = {'task': str, 'metrics': dict, 'scale': int | float, 'seeds': list}
OF_TABLE = {'title': str, 'source': str, 'note': str, 'data': list, 'rows': list, **OF_BOTH}
OF_ROW = {
    **{key: str for key in ('name', 'config', 'needs', 'schedule', 'note', 'group', 'arm')},
    'batch': int,
    'published': dict,
    'options': dict,
    **OF_BOTH,
}
LOADER = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)  # in C where PyYAML was built so
SCHEDULE = re.compile(r'([1-9]\d*) (epochs|iterations)')


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        config: below configs/.
        task: 'cls', 'det' or 'seg'.
        options: what is overridden in the config, its seed among it.
        seed: None where the config's own, or none, is used.
        work_dir: where its logs and checkpoints are.
    """

    config: str
    task: str
    options: dict[str, Any]
    seed: int | None
    work_dir: Path


@dataclass(frozen=True)
class Row:
    """A line of a table; the module says what the attributes mean.

    Attributes:
        table: the name of its table.
    """

    table: str
    name: str
    config: str
    task: str
    needs: str | None
    batch: int
    schedule: str
    published: dict[str, float]
    note: str | None
    options: dict[str, Any]
    seeds: tuple[int, ...]
    metrics: dict[str, str]
    scale: float
    group: str | None
    arm: str | None

    def runs(self, work_dirs: Path) -> list[Run]:
        """One for each seed, or one.

        A plain run lies where tools/train.py puts it, work_dirs/<task>/<config stem>, and where
        the configs that start from it look for it. What has seeds or options lies apart:
        work_dirs/<table>/<task>/<name>[/seed-<n>].
        """
        if not self.seeds and not self.options:
            folder = Path(work_dirs, self.task, Path(self.config).stem)
            return [Run(self.config, self.task, {}, None, folder)]
        folder = Path(work_dirs, self.table, self.task, slug(self.name))
        if not self.seeds:
            return [Run(self.config, self.task, self.options, None, folder)]
        return [
            Run(
                self.config,
                self.task,
                {**self.options, 'randomness.seed': seed},
                seed,
                folder / f'seed-{seed}',
            )
            for seed in self.seeds
        ]


@dataclass(frozen=True)
class Table:
    """Rows to be shown together; the module says what the attributes mean."""

    name: str
    title: str
    source: str | None
    note: str | None
    data: tuple[tuple[str, tuple[str, ...]], ...]
    rows: tuple[Row, ...]


def slug(name: str) -> str:
    """A name as a folder's: 'ParC-ResNet50, no PE' is 'parc-resnet50-no-pe'."""
    return re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')


def schedule_of(cfg: Mapping) -> str:
    """The length of a config's training, as rows say it."""
    epochs = cfg['train_cfg'].get('max_epochs')
    return f'{epochs} epochs' if epochs else f'{cfg["train_cfg"]["max_iters"]} iterations'


def table_names() -> list[str]:
    return sorted(path.stem for path in _folder().glob('*.yaml'))


def load_table(name: str) -> Table:
    """The table of that name, or of that file if it ends with .yaml, checked.

    Raises:
        ValueError: in one line, if there is none or its file has a mistake.
    """
    path = _path(name)
    content = _read(path)
    rows = tuple(_row(path, content, number) for number in range(len(content['rows'])))
    for values, what in (
        ([row.name for row in rows], 'name'),
        ([run.work_dir for row in rows for run in row.runs(Path())], 'work directory'),
    ):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice:
            raise ValueError(f"{_shown(path)}: two rows have the {what} '{twice}'")
    for row in rows:
        _check_needs(f"{_shown(path)}: row '{row.name}'", row, name)
    data = tuple(_step(_shown(path), step) for step in content.get('data', []))
    return Table(
        path.stem, content['title'], content.get('source'), content.get('note'), data, rows
    )


def plain_row(config: str, table: str) -> Row:
    """The row whose one run is that of a config as it is, without options or seeds.

    Args:
        config: below configs/.
        table: where to look first, before all other tables.

    Raises:
        ValueError: in one line, if there is none, or a file has a mistake.
    """
    for path in dict.fromkeys(map(_path, (table, *table_names()))):
        content = _read(path)
        for number, row in enumerate(content['rows']):
            if isinstance(row, dict) and row.get('config') == config:
                found = _row(path, content, number)
                if not found.seeds and not found.options:
                    return found
    raise ValueError(f"no table has '{config}' as a row without options and seeds")


def _folder() -> Path:
    return home() / 'configs' / 'tables'


def _path(name: str) -> Path:
    if name.endswith('.yaml'):
        if not Path(name).is_file():
            raise ValueError(f"there is no file '{name}'")
        return Path(name)
    if name not in table_names():
        close = difflib.get_close_matches(name, table_names(), n=1)
        hint = f"did you mean '{close[0]}'?" if close else f'there are {", ".join(table_names())}'
        raise ValueError(f"there is no table '{name}': {hint}")
    return _folder() / f'{name}.yaml'


def _shown(path: Path) -> str:
    return str(path.relative_to(home()) if path.is_relative_to(home()) else path)


def _read(path: Path) -> dict:
    try:
        content = yaml.load(path.read_text(encoding='utf-8'), LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'{_shown(path)} is no YAML: {" ".join(str(error).split())}') from None
    _check_keys(_shown(path), content, OF_TABLE, {'title', 'rows'})
    if not content['rows']:
        raise ValueError(f'{_shown(path)} has no rows')
    return content


def _check_keys(where: str, content: Any, known: Mapping, required: Collection[str]) -> None:
    if not isinstance(content, dict):
        raise ValueError(f'{where} must hold keys and values, as mmparc/tables/plan.py says')
    for key, value in content.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f'known are {", ".join(known)}'
            raise ValueError(f"{where} has the unknown key '{key}': {hint}")
        if not isinstance(value, known[key]) or isinstance(value, bool):
            raise ValueError(f"{where} has a '{key}' of the wrong kind: {value!r}")
    for key in sorted(set(required) - set(content)):
        raise ValueError(f"{where} lacks '{key}'")


def _row(path: Path, content: dict, number: int) -> Row:
    where = f'{_shown(path)}: row {number + 1}'
    own = content['rows'][number]
    if isinstance(own, dict) and 'name' in own:
        where += f" '{own['name']}'"
    _check_keys(where, own, OF_ROW, {'name', 'config', 'batch', 'schedule'})
    row = {**{key: content[key] for key in OF_BOTH if key in content}, **own}
    _check_keys(where, row, OF_ROW, {'task', 'metrics'})
    if row['task'] not in TASKS:
        raise ValueError(f"{where} has the task '{row['task']}': known are {', '.join(TASKS)}")
    if not (home() / 'configs' / row['config']).is_file():
        raise ValueError(f"{where}: there is no config '{row['config']}' below configs/")
    if row['batch'] < 1:
        raise ValueError(f'{where} has the batch {row["batch"]}: it must be positive')
    if not SCHEDULE.fullmatch(row['schedule']):
        raise ValueError(
            f"{where} has the schedule '{row['schedule']}': "
            "write it as '300 epochs' or '160000 iterations'"
        )
    published = row.get('published', {})
    for column, value in published.items():
        known = column in (*row['metrics'], 'params', 'madds') or column.startswith('latency ')
        if not known:
            raise ValueError(f"{where} has '{column}' published, which is none of its metrics")
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"{where} has '{column}' published as {value!r}, which is no number")
    for key, value in row.get('options', {}).items():
        if isinstance(value, dict):
            raise ValueError(f"{where} has the option '{key}' with keys of its own: write them out")
    seeds = tuple(row.get('seeds', ()))
    if len(set(seeds)) < len(seeds) or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ValueError(f'{where} has the seeds {list(seeds)}: they must be different integers')
    return Row(
        table=path.stem,
        name=row['name'],
        config=row['config'],
        task=row['task'],
        needs=row.get('needs'),
        batch=row['batch'],
        schedule=row['schedule'],
        published=published,
        note=row.get('note'),
        options=row.get('options', {}),
        seeds=seeds,
        metrics=row['metrics'],
        scale=row.get('scale', 1),
        group=row.get('group'),
        arm=row.get('arm'),
    )


def _check_needs(where: str, row: Row, table: str) -> None:
    chain = [row.config]
    while row.needs:
        if row.needs in chain:
            raise ValueError(f"{where} needs '{row.needs}', which needs itself")
        chain.append(row.needs)
        try:
            row = plain_row(row.needs, table)
        except ValueError as error:
            raise ValueError(f"{where} needs '{row.needs}': {error}") from None


def _step(file: str, step: Any) -> tuple[str, tuple[str, ...]]:
    if not (isinstance(step, dict) and len(step) == 1):
        raise ValueError(f"{file}: a step of 'data' is {{TOOL: [ARGUMENTS]}}, not {step!r}")
    ((tool, args),) = step.items()
    if not (home() / 'tools' / f'{tool}.py').is_file():
        raise ValueError(f"{file}: 'data' asks for the tool '{tool}', which is not in tools/")
    if not isinstance(args, list):
        raise ValueError(f"{file}: the arguments of '{tool}' in 'data' must be a list")
    return tool, tuple(map(str, args))
