"""Work directories as mmengine and tools/train.py leave them, without a training."""

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path

from helpers import ROOT

from mmparc.results.plan import Row, Table

START = dict(
    command='python tools/train.py configs/x.py',
    commit='0123456789abcdef0123456789abcdef01234567',
    modified=False,
    torch='2.12.1',
    device='NVIDIA H200',
    world_size=8,
    batch_size=16,
    lr=0.0002,
    seed=0,
)


def write_process(
    work_dir: Path, time: str, steps: Iterable[int], val: dict[int, dict], per_epoch: int = 0
) -> Path:
    """What a process of training logged.

    Args:
        time: its folder's name.
        steps: the iterations.
        val: {epoch or iteration: metrics}
        per_epoch: iterations of an epoch; 0 for a run by iterations.
    """
    lines = []
    for step in steps:
        record = dict(base_lr=1e-3, lr=1e-3, loss=10 / step, time=0.2, iter=step, step=step)
        lines.append(record | (dict(epoch=1 + (step - 1) // per_epoch) if per_epoch else {}))
        done = step // per_epoch if per_epoch else step
        if done in val and (not per_epoch or step % per_epoch == 0):
            lines.append({**val[done], 'data_time': 0.1, 'time': 0.2, 'step': done})
    path = work_dir / time / 'vis_data/scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return path


def write_run(work_dir: Path, schedule: str, final: dict[str, float], **start: object) -> None:
    """A finished run with two validations."""
    length, unit = schedule.split()
    length, prefix = int(length), {'epochs': 'epoch', 'iterations': 'iter'}[unit]
    half = {key: value / 2 for key, value in final.items()}
    val = {length // 2: half, length: final}
    write_process(work_dir, '20260102_030405', range(1, length + 1), val, int(prefix == 'epoch'))
    (work_dir / f'{prefix}_{length}.pth').touch()
    (work_dir / 'last_checkpoint').write_text(f'/elsewhere/{prefix}_{length}.pth')
    (work_dir / 'starts.jsonl').write_text(json.dumps({**START, **start}) + '\n')


def make_row(name: str = 'a', **changes: object) -> Row:
    values = dict(table='t', config='cls/x.py', task='cls', batch=32, schedule='20 epochs')
    return Row(**{'name': name, 'metrics': {'m': 'm'}, **values, **changes})


def make_table(*rows: Row, **texts: str) -> Table:
    return Table('t', texts.pop('title', 'A table'), rows, **texts)


def call(name: str, *args: object) -> None:
    """Run tools/NAME.py in the test's own process."""
    spec = importlib.util.spec_from_file_location(name, ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(module.make_parser().parse_args(list(map(str, args))))
