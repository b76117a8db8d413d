"""Work directories as mmengine and tools/train.py leave them, without a training."""

import json
from collections.abc import Iterable
from pathlib import Path

from mmparc.tables import Row, Table

START = dict(
    time='2026-01-02T03:04:05+00:00',
    command='python tools/train.py configs/x.py',
    commit='0123456789abcdef0123456789abcdef01234567',
    modified=False,
    mmparc='0.1.0',
    torch='2.12.1',
    device='NVIDIA H100 80GB HBM3',
    world_size=8,
    batch_size=16,
    base_batch_size=16,
    lr=0.0002,
    seed=0,
    resumed=False,
)


def write_process(
    work_dir: Path, time: str, steps: Iterable[int], val: dict[int, dict], per_epoch: int = 0
) -> Path:
    """What a process of training logged: a record each iteration and each validation.

    Args:
        time: its folder's name.
        steps: the iterations.
        val: {epoch or iteration: metrics}
        per_epoch: iterations of an epoch; 0 for a run by iterations.
    """
    lines = []
    for step in steps:
        record = dict(base_lr=1e-3, lr=1e-3, data_time=0.1, loss=10 / step, loss_cls=5 / step)
        record |= dict(time=0.2, **(dict(epoch=1 + (step - 1) // per_epoch) if per_epoch else {}))
        lines.append({**record, 'iter': step, 'step': step})
        done = step // per_epoch if per_epoch and step % per_epoch == 0 else step
        if done in val and (not per_epoch or step % per_epoch == 0):
            lines.append({**val[done], 'data_time': 0.1, 'time': 0.2, 'step': done})
    path = work_dir / time / 'vis_data/scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return path


def write_test(work_dir: Path, time: str, checkpoint: str, metrics: dict) -> Path:
    """What tools/test.py left."""
    path = work_dir / time / f'{time}.json'
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**metrics, 'data_time': 0.1, 'time': 0.2}))
    said = f'... - mmengine - INFO - Config:\nload_from = {checkpoint!r}\nresume = False\n'
    path.with_suffix('.log').write_text(said)
    return path


def write_end(work_dir: Path, checkpoint: str, *starts: dict) -> None:
    """The checkpoint that was saved last, and the starts that led there."""
    (work_dir / checkpoint).touch()
    (work_dir / 'last_checkpoint').write_text(f'/elsewhere/{work_dir.name}/{checkpoint}')
    records = (json.dumps({**START, **start}) + '\n' for start in starts or [{}])
    (work_dir / 'starts.jsonl').write_text(''.join(records))


def write_run(work_dir: Path, schedule: str, final: dict[str, float], **start: object) -> None:
    """A finished run with four validations that rise to the last one's metrics."""
    length, unit = schedule.split()
    length, by_epoch = int(length), unit == 'epochs'
    stride = 1 if by_epoch else max(1, length // 200)
    steps = [*range(stride, length, stride), length]
    validated = [steps[len(steps) * i // 4 - 1] for i in range(1, 5)]
    val = {at: {k: v * (0.4 + 0.6 * at / length) for k, v in final.items()} for at in validated}
    write_process(work_dir, '20260102_030405', steps, val, int(by_epoch))
    write_end(work_dir, f'{"epoch" if by_epoch else "iter"}_{length}.pth', start)


def make_row(name: str = 'a', **changes: object) -> Row:
    values = dict(
        table='t',
        name=name,
        config=f'cls/{name.split()[0].strip("<>")[:3]}.py',
        task='cls',
        needs=None,
        batch=32,
        schedule='20 epochs',
        published={},
        note=None,
        options={},
        seeds=(),
        metrics={'m': 'm'},
        scale=1,
        group=None,
        arm=None,
    )
    return Row(**{**values, **changes})


def make_table(*rows: Row, name: str = 't', title: str = 'A table') -> Table:
    return Table(name, title, None, None, (), rows)


ARMS = {'plain': 'plain', 'parc': 'ParC', 'no-pos': 'ParC, no embedding'}
# Like the small tier: two groups, three arms, three seeds.
SMALL = make_table(
    *(
        make_row(
            f'{group}, {ARMS[arm]}',
            table='small',
            config=f'cls/{group}-{arm}.py',
            seeds=(0, 1, 2),
            metrics={'top1': 'accuracy/top1'},
            group=group,
            arm=arm,
        )
        for group in ('ConvNeXt', 'ResNet')
        for arm in ARMS
    ),
    name='small',
    title='A small tier',
)
