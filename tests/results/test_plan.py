"""The tables of experiments say what the configs say and what was published; mistakes are named."""

import re
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, read_metafiles_once

from mmparc import engine
from mmparc.engine.config import TASKS, named_nodes
from mmparc.results.collect import last_checkpoint
from mmparc.results.plan import load_table, plain_row, schedule_of, table_names

SHARED = ROOT.parent / 'shared/paper_tables.yaml'


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
    del published['recipes']
    assert set(published) == {name for name in table_names() if load_table(name).source}
    for name, lines in published.items():
        expected = {line['model']: flat(line) for line in lines}
        assert {row.name: row.published for row in load_table(name).rows} == expected
    assert flat({'model': 'A', 'box': {'AP': 1.5}}) == {'box AP': 1.5}  # the control


def test_rows_are_what_their_configs_say() -> None:
    read_metafiles_once()
    rows = [row for name in table_names() for row in load_table(name).rows]
    configs = {(row.config, repr(row.options)): row.options for row in rows}
    configs = {key: engine.load_config(f'mmparc::{key[0]}', o) for key, o in configs.items()}
    for row in rows:
        cfg = configs[row.config, repr(row.options)]
        assert TASKS[cfg.default_scope] == row.task
        assert schedule_of(cfg) == row.schedule, row

        # the batch: that of the learning rate, or of the number of GPUs in the name
        gpus = re.search(r'_(\d+)xb(\d+)', row.config)
        base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
        size = cfg.train_dataloader.batch_size * cfg.optim_wrapper.get('accumulative_counts', 1)
        if gpus and '_coco' not in row.config:
            size *= int(gpus[1])
        assert row.batch == (base or size), row

        # the checkpoint to start from
        nodes = [node for _, node in named_nodes('model', cfg.model)]
        starts = {n['checkpoint'] for n in nodes if 'work_dirs/' in str(n.get('checkpoint'))}
        needed = row.needs and plain_row(row.needs, row.table)
        folders = [run.work_dir for run in needed.runs(Path('work_dirs'))] if needed else []
        assert starts == {str(last_checkpoint(f, needed.schedule)) for f in folders}
    assert len(rows) > 70 and len(configs) > 50


GOOD = """
title: A table
task: cls
metrics: {top1: accuracy/top1}
seeds: [0, 1]
data: [make_toy_data --train 8]
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
MISTAKES = (  # what is replaced, by what, what the error names
    ('title: A table\n', '', 'title'),
    ('seeds: [0', 'sedes: [0', "'sedes'.*'seeds'"),
    ('seeds: [0, 1]', 'seeds: [0, 0]', r'seeds \[0, 0\]'),
    ('batch: 32, ', '', "'A, plain'.*'batch'"),
    ('batch: 16', 'batch: 16 images', "'batch'.*'16 images'"),
    ('9 epochs', '9 Epochs', "'9 Epochs'"),
    ('task: cls', 'task: classification', "'classification'.*cls"),
    ('resnet-micro_toy.py, ', 'no_such.py, ', "'cls/resnet/no_such.py'"),
    ('pos_embed: false', 'pos_embed: {a: 1}', 'model.backbone.pos_embed'),
    ('top5: 90', 'top1: 90', "published.*'top1'"),
    ('name: B', "name: 'A, plain'", "name 'A, plain'"),
    ('make_toy_data', 'make_data', "'make_data --train 8'"),
    ('title: A', 'title: [A', 'YAML'),
    (
        '    options: {model.backbone.pos_embed: false}\n    seeds: []',
        '    seeds: []\n    note: &config cls/resnet/parc-resnet-micro_toy.py\n    needs: *config',
        'cls/resnet/parc-resnet-micro_toy.py',  # needs itself
    ),
)


def test_a_table_of_ones_own_and_its_mistakes(tmp_path: Path) -> None:
    path = tmp_path / 'mine.yaml'
    path.write_text(GOOD)
    table = load_table(str(path))
    plain, other = table.rows
    folders = [str(run.work_dir) for run in plain.runs(Path('w'))]
    assert folders == ['w/mine/cls/a-plain/seed-0', 'w/mine/cls/a-plain/seed-1']
    assert plain.runs()[1].options == {'randomness.seed': 1}
    (run,) = other.runs(Path('w'))
    assert str(run.work_dir) == 'w/mine/cls/b' and run.seed is None
    assert run.options == {'model.backbone.pos_embed': False}
    assert (plain.metrics, other.metrics) == ({'top1': 'accuracy/top1'}, {'top5': 'accuracy/top5'})
    assert (plain.scale, other.scale) == (1, 100)
    assert table.select(['B']) == [other] and table.select(None) == [plain, other]
    with pytest.raises(ValueError, match=r"'C'.*known are A, plain, B"):
        table.select(['C'])
    for number, (old, new, named) in enumerate(MISTAKES):
        assert GOOD.count(old) == 1
        path = tmp_path / f'{number}.yaml'
        path.write_text(GOOD.replace(old, new))
        with pytest.raises(ValueError) as caught:
            load_table(str(path))
        said = str(caught.value)
        assert re.search(named, said) and str(path) in said and '\n' not in said, said
    for name, named in (('detections', "'detection'"), ('no/such.yaml', "'no/such.yaml'")):
        with pytest.raises(ValueError, match=named):
            load_table(name)
