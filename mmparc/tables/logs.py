"""What a run left in its work directory: mmengine's logs, and how it was started.

mmengine makes a folder <work_dir>/<time>/ for each process: a training's has vis_data/scalars.json,
a record a line; a test's has <time>.json, its metrics alone, and vis_data/config.py, which says
what was tested. A run that was cut off and resumed has several such folders and is one curve here.
"""

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path

STARTS = 'starts.jsonl'  # written by tools/train.py
# Logged beside the metrics and the losses.
TIMINGS = {'time', 'data_time', 'memory', 'epoch', 'iter', 'step', 'lr', 'base_lr', 'grad_norm'}


@dataclass(frozen=True)
class Tested:
    """One evaluation by tools/test.py.

    Attributes:
        time: the name of its folder, which sorts by time.
        checkpoint: the path as it was given; '' for a model without one.
        metrics: {key in the log: value}
    """

    time: str
    checkpoint: str
    metrics: dict[str, float]


def read_scalars(work_dir: Path) -> tuple[list[dict], list[dict]]:
    """The records of training steps and of validations, in the order of their steps.

    What was logged beyond the step at which a later process began is not part of the run: a resumed
    one repeats the steps that were lost, and one that was started anew begins at the first.

    Raises:
        ValueError: if a log is damaged.
    """
    train: list[dict] = []
    val: list[dict] = []
    for path in _scalar_files(work_dir):
        records = _read_lines(path)
        steps = [r for r in records if _is_step(r)]
        if steps:
            first = steps[0]['iter']
            # the unit of a validation's step is the epoch where training steps have one
            epoch = steps[0].get('epoch', first)
            train = [r for r in train if r['iter'] < first]
            val = [r for r in val if r['step'] < epoch]
        train += steps
        val += [r for r in records if not _is_step(r)]
    by_step = {r['step']: r for r in val}  # the later one, where a validation was made again
    return train, [by_step[step] for step in sorted(by_step)]


def read_tests(work_dir: Path) -> list[Tested]:
    """The evaluations by tools/test.py in a work directory, the latest last.

    Raises:
        ValueError: if one's files are damaged.
    """
    return [_read_test(path) for path in sorted(work_dir.glob('*/*.json')) if _is_test(path)]


def read_starts(work_dir: Path) -> list[dict]:
    """What tools/train.py wrote down at each of its starts, the latest last; [] for older runs.

    Raises:
        ValueError: if the file is damaged.
    """
    path = work_dir / STARTS
    return _read_lines(path) if path.is_file() else []


def final_metrics(work_dir: Path, step: int, checkpoint: str) -> dict[str, float]:
    """The metrics at a run's end; {} if there are none.

    Those of the validation at that step, else of the last test of that checkpoint since the run was
    last trained, as where it was killed in the last validation.

    Args:
        work_dir: the run's.
        step: epochs or iterations, in the unit in which the run is validated.
        checkpoint: the file's name.

    Raises:
        ValueError: if a log is damaged.
    """
    for record in read_scalars(work_dir)[1]:
        if record['step'] == step and metrics_of(record):
            return metrics_of(record)
    trained = max((path.parts[-3] for path in _scalar_files(work_dir)), default='')
    for test in reversed(read_tests(work_dir)):
        if Path(test.checkpoint).name == checkpoint and test.time > trained and test.metrics:
            return test.metrics
    return {}


def metrics_of(record: dict) -> dict[str, float]:
    """The metrics of a validation's record: its numbers, without the timings."""
    return {
        key: value
        for key, value in record.items()
        if key not in TIMINGS and isinstance(value, int | float) and not isinstance(value, bool)
    }


def _scalar_files(work_dir: Path) -> list[Path]:
    return sorted(work_dir.glob('*/vis_data/scalars.json'))


def _is_step(record: dict) -> bool:
    return 'iter' in record and 'lr' in record


def _is_test(path: Path) -> bool:
    return path.stem == path.parent.name


def _read_test(path: Path) -> Tested:
    try:
        metrics = metrics_of(json.loads(path.read_text()))
    except ValueError as error:
        raise ValueError(f"'{path}' is no result of a test: {error}") from None
    config = path.parent / 'vis_data' / 'config.py'
    found = re.search(r'^load_from = (.+)$', config.read_text(), re.M) if config.is_file() else None
    if not found:
        raise ValueError(f"'{path}' has no '{config.relative_to(path.parent)}' that says of what")
    return Tested(path.stem, ast.literal_eval(found[1]) or '', metrics)


def _read_lines(path: Path) -> list[dict]:
    """The records of a file that has one a line, without a last one that a killed process cut off.

    Only that can lack the end of its line, which is written after the record.
    """
    *lines, rest = path.read_text().split('\n')
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"'{path}' is damaged in line {number}: {error}") from None
    try:
        return [*records, json.loads(rest)] if rest else records
    except ValueError:
        return records
