"""The tables of experiments say what the configs say, and what was published; mistakes are named.

And how far a run has come, as its work directory tells: on files as mmengine leaves them.
"""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from helpers import BLOCK, ROOT, run_python

from mmparc import engine
from mmparc.engine.config import TASKS, named_nodes
from mmparc.tables import (
    last_checkpoint,
    load_table,
    plain_row,
    schedule_of,
    state_of,
    table_names,
)

SHARED = ROOT.parent / 'shared/paper_tables.yaml'
PUBLISHED = (
    'classification',
    'detection',
    'detection_ssdlite',
    'segmentation',
    'segmentation_voc',
)
ROWS = [row for name in table_names() for row in load_table(name).rows]


def flat(published: dict) -> dict:
    """A line of the published tables by our columns."""
    columns = {}
    for key, value in published.items():
        if isinstance(value, dict):
            word = 'latency' if key == 'latency_ms' else key
            columns.update({f'{word} {column}': v for column, v in value.items()})
        elif key != 'model':
            columns[key] = value
    return columns


@pytest.mark.skipif(not SHARED.is_file(), reason='the published tables are not beside the checkout')
def test_every_published_number_is_there() -> None:
    published = yaml.safe_load(SHARED.read_text())
    assert set(published) - {'recipes'} == set(PUBLISHED)
    for name in PUBLISHED:
        expected = {line['model']: flat(line) for line in published[name]}
        table = load_table(name)
        assert {row.name: row.published for row in table.rows} == expected
        assert 'December 2022' in table.source
    assert expected and flat({'model': 'A', 'box': {'AP': 1.5}}) == {'box AP': 1.5}  # control
    # what the file's comments say
    notes = {row.name: row.note for row in load_table('classification').rows}
    assert '78.63' in notes['ParC-Net-S'] and '4.1 G' in notes['ResNet50']
    recipe = re.sub(r'\s+', ' ', load_table('classification').note)
    for words in published['recipes'].values():
        assert words.split('(')[-1].rstrip(')') in recipe


@pytest.mark.parametrize('row', ROWS, ids=lambda row: f'{row.table}:{row.name}')
def test_a_row_is_what_its_config_says(row) -> None:
    (run, *others) = row.runs(Path('work_dirs'))
    cfg = engine.load_config(str(ROOT / 'configs' / row.config), run.options)
    assert TASKS[cfg.default_scope] == row.task
    assert schedule_of(cfg) == row.schedule
    assert all(run.options['randomness.seed'] is not None for run in others)

    # the batch: from the number of GPUs in the name, and from the rate's own
    gpus = re.search(r'_(\d+)xb(\d+)', row.config)
    count = int(gpus[1]) if gpus else None
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    size = cfg.train_dataloader.batch_size * cfg.optim_wrapper.get('accumulative_counts', 1)
    if count and '_coco' not in row.config:
        assert row.batch == count * size
    if base:
        assert row.batch == base
    if not (count or base):
        assert row.batch == size

    # what comes first
    nodes = [node for _, node in named_nodes('model', cfg.model)]
    starts = {n['checkpoint'] for n in nodes if str(n.get('checkpoint')).startswith('work_dirs/')}
    if row.needs is None:
        assert starts == set()
    else:
        first = plain_row(row.needs, row.table)
        (needed,) = first.runs(Path('work_dirs'))
        assert starts == {str(last_checkpoint(needed.work_dir, first.schedule))}


def test_work_directories_differ() -> None:
    runs = [run for row in ROWS for run in row.runs(Path('work_dirs'))]
    assert len({run.work_dir for run in runs}) == len(runs) >= 22


def test_needs_no_package_of_openmmlab() -> None:
    """The report of a finished table is made where nothing can be trained."""
    code = 'import mmparc.tables as t; print(len(t.load_table("detection").rows), *refused)'
    result = run_python(BLOCK + code, 'yaml', '_yaml', 'mmparc')
    jython = 'org' if sys.version_info < (3, 12) else ''  # for which pickle looked
    assert result.stdout.split() == ['6', *jython.split()], result.stderr


# Mistakes

GOOD = """
title: A table
task: cls
metrics: {top1: accuracy/top1}
seeds: [0, 1]
data: [{make_toy_data: [--train, 8]}]
rows:
  - {name: 'A, plain', config: cls/resnet/resnet-micro_toy.py, batch: 32, schedule: 9 epochs}
  - name: B
    config: cls/resnet/parc-resnet-micro_toy.py
    needs: cls/resnet/resnet50_32xb128_in1k.py
    batch: 16
    schedule: 40 iterations
    options: {model.backbone.pos_embed: false}
    seeds: []
    metrics: {top5: accuracy/top5}
    scale: 100
    published: {top5: 90, params: 1.5, latency phone: 3}
"""


def test_table(tmp_path: Path) -> None:
    path = tmp_path / 'mine.yaml'
    path.write_text(GOOD)
    table = load_table(str(path))
    assert table.data == (('make_toy_data', ('--train', '8')),)
    plain, other = table.rows
    assert [str(run.work_dir) for run in plain.runs(Path('w'))] == [
        'w/mine/cls/a-plain/seed-0',
        'w/mine/cls/a-plain/seed-1',
    ]
    assert plain.runs(Path('w'))[1].options == {'randomness.seed': 1}
    (run,) = other.runs(Path('w'))
    assert str(run.work_dir) == 'w/mine/cls/b' and run.seed is None
    assert run.options == {'model.backbone.pos_embed': False}
    assert (plain.metrics, other.metrics) == ({'top1': 'accuracy/top1'}, {'top5': 'accuracy/top5'})
    assert (plain.scale, other.scale) == (1, 100)
    assert plain_row(other.needs, str(path)).table == 'classification'


MISTAKES = {
    'title: A table\n': ('', "lacks 'title'"),
    'seeds: [0': ('sedes: [0', "the unknown key 'sedes': did you mean 'seeds'?"),
    'seeds: []\n': ('seed: 1\n', "row 2 'B' has the unknown key 'seed': did you mean 'seeds'?"),
    'seeds: [0, 1]': ('seeds: [0, 0]', 'they must be different integers'),
    'batch: 32, ': ('', "row 1 'A, plain' lacks 'batch'"),
    'batch: 16': ('batch: 16 images', "a 'batch' of the wrong kind: '16 images'"),
    'batch: 32': ('batch: 0', 'it must be positive'),
    '9 epochs': ('9 Epochs', "has the schedule '9 Epochs'"),
    'task: cls': ('task: classification', "has the task 'classification'"),
    'resnet-micro_toy.py, ': ('no_such.py, ', "there is no config 'cls/resnet/no_such.py'"),
    'needs: cls/resnet/resnet50_32xb128_in1k.py': (
        'needs: cls/resnet/parc-resnet-micro_toy.py',
        "needs 'cls/resnet/parc-resnet-micro_toy.py', which needs itself",
    ),
    'resnet50_32xb128': ('resnet-micro', "no table has 'cls/resnet/resnet-micro_in1k.py'"),
    'pos_embed: false': ('pos_embed: {a: 1}', "the option 'model.backbone.pos_embed' with keys"),
    'top5: 90': ('top1: 90', "has 'top1' published, which is none of its metrics"),
    'params: 1.5': ('params: null', "has 'params' published as None"),
    'name: B': ("name: 'A, plain'", "two rows have the name 'A, plain'"),
    "name: 'A, plain'": ("name: 'B'", "two rows have the name 'B'"),
    'make_toy_data': ('make_data', "'data' asks for the tool 'make_data'"),
    '[--train, 8]': ('--train', "the arguments of 'make_toy_data' in 'data' must be a list"),
    'title: A': ('title: [A', 'is no YAML'),
    'rows:\n': ('rows: []\ndata:\n', 'has no rows'),
    'rows:': ('rows: 5\nrest:', "has a 'rows' of the wrong kind: 5"),
}


@pytest.mark.parametrize('old', MISTAKES)
def test_a_mistake_is_named_in_one_line(old: str, tmp_path: Path) -> None:
    new, words = MISTAKES[old]
    assert GOOD.count(old) == 1
    path = tmp_path / 'mine.yaml'
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError) as caught:
        load_table(str(path))
    said = str(caught.value)
    assert words in said and str(path) in said and '\n' not in said


def test_an_unknown_table_is_named() -> None:
    with pytest.raises(ValueError, match=r"^there is no table 'detections': did you mean 'det"):
        load_table('detections')
    with pytest.raises(ValueError, match=r"^there is no file 'no/such.yaml'$"):
        load_table('no/such.yaml')


# States


def leave(work_dir: Path, last: str, validated: int | None, time: str = '20260101_000000') -> None:
    """What a run leaves: its last checkpoint, and a validation at that step."""
    logs = work_dir / time / 'vis_data'
    logs.mkdir(parents=True)
    (work_dir / last).touch()
    (work_dir / 'last_checkpoint').write_text(f'/elsewhere/{last}')
    lines = [dict(lr=0.1, loss=2.0, iter=5, step=5)]
    if validated:
        lines.append({'accuracy/top1': 50.0, 'time': 0.1, 'step': validated})
    (logs / 'scalars.json').write_text(''.join(f'{json.dumps(line)}\n' for line in lines))


def test_states(tmp_path: Path) -> None:
    assert state_of(tmp_path / 'nothing', '3 epochs').name == 'missing'
    (tmp_path / 'begun/20260101_000000').mkdir(parents=True)
    assert state_of(tmp_path / 'begun', '3 epochs').name == 'missing'

    leave(tmp_path / 'a', 'epoch_2.pth', validated=2)
    state = state_of(tmp_path / 'a', '3 epochs')
    assert (state.name, state.step, state.metrics) == ('partial', 2, {})
    assert state_of(tmp_path / 'a', '2 epochs').metrics == {'accuracy/top1': 50.0}

    leave(tmp_path / 'b', 'iter_40.pth', validated=20)
    assert state_of(tmp_path / 'b', '40 iterations').name == 'untested'
    leave(tmp_path / 'c', 'iter_40.pth', validated=40)
    assert state_of(tmp_path / 'c', '40 iterations').name == 'done'


def test_a_test_completes_a_run_whose_last_validation_is_missing(tmp_path: Path) -> None:
    leave(tmp_path, 'epoch_3.pth', validated=None, time='20260102_000000')

    def tested(time: str, checkpoint: str) -> None:
        folder = tmp_path / time / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'config.py').write_text(f'load_from = {checkpoint!r}\n')
        (folder.parent / f'{time}.json').write_text('{"accuracy/top1": 70.0, "time": 1.0}')

    tested('20260101_000000', 'epoch_3.pth')  # before it was trained anew
    tested('20260103_000000', 'epoch_2.pth')
    assert state_of(tmp_path, '3 epochs').name == 'untested'
    tested('20260104_000000', 'w/epoch_3.pth')
    state = state_of(tmp_path, '3 epochs')
    assert (state.name, state.metrics) == ('done', {'accuracy/top1': 70.0})


@pytest.mark.parametrize(
    ('schedule', 'words'),
    [
        ('1 epochs', "names 'epoch_2.pth': the run there is longer than 1 epochs"),
        ('9 iterations', "names 'epoch_2.pth', which is no checkpoint after some iterations"),
        ('3 epochs', "names 'epoch_2.pth', which is gone: put it back, or remove"),
    ],
)
def test_what_is_no_such_run_is_left_alone(schedule: str, words: str, tmp_path: Path) -> None:
    leave(tmp_path, 'epoch_2.pth', validated=2)
    if 'gone' in words:
        (tmp_path / 'epoch_2.pth').unlink()
    with pytest.raises(ValueError, match=re.escape(words)):
        state_of(tmp_path, schedule)
