"""Reads the logs of trainings.

mmengine makes a folder <work_dir>/<time>/ for each process of a training, with its log in
vis_data/scalars.json, one record a line. A run that was interrupted and resumed has several of them
and is one curve here.
"""

import json
from pathlib import Path

# Logged beside the metrics and the losses.
TIMINGS = {'time', 'data_time', 'memory', 'epoch', 'iter', 'step', 'lr', 'base_lr', 'grad_norm'}


def read_scalars(work_dir: Path) -> tuple[list[dict], list[dict]]:
    """The records of training steps and of validations, in the order of their steps.

    A later process replaces what was logged from its first step on: a resumed run repeats the steps
    after its checkpoint, a restarted one begins at the first.

    Raises:
        ValueError: if a log is damaged.
    """
    train: list[dict] = []
    val: dict[int, dict] = {}  # by step; the later one, where a validation was repeated
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        records = _read_lines(path)
        steps = [record for record in records if _is_train(record)]
        if steps:
            first = steps[0]['iter']
            # validations count in epochs where training steps have an epoch
            unit = steps[0].get('epoch', first)
            train = [record for record in train if record['iter'] < first] + steps
            val = {step: record for step, record in val.items() if step < unit}
        val |= {record['step']: record for record in records if not _is_train(record)}
    return train, [val[step] for step in sorted(val)]


def metrics_of(record: dict) -> dict[str, float]:
    """The metrics in a validation's record: its numbers, without the timings."""
    return {
        key: value
        for key, value in record.items()
        if key not in TIMINGS and isinstance(value, int | float) and not isinstance(value, bool)
    }


def read_starts(work_dir: Path) -> list[dict]:
    """The records of tools/train.py, one for each start, the latest last."""
    path = work_dir / 'starts.jsonl'
    return _read_lines(path) if path.is_file() else []


def _is_train(record: dict) -> bool:
    return 'iter' in record and 'lr' in record


def _read_lines(path: Path) -> list[dict]:
    """The JSON records of a file; the last line may be cut off, as by a kill.

    Raises:
        ValueError: if another line is damaged.
    """
    lines = path.read_text().split('\n')  # '' follows a complete last line
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records += [json.loads(line)] if line else []
        except ValueError as error:
            if number < len(lines):
                raise ValueError(f"'{path}' is damaged in line {number}: {error}") from None
    return records
