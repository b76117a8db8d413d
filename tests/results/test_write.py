"""Results: collected from logs, kept as data, compared by statistics, and written."""

import json
import math
import re
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from mmengine.fileio import load
from runs import call, make_row, make_table, write_run
from scipy import stats

from mmparc.errors import UserError
from mmparc.results.collect import collect, dump_kept, find, load_kept
from mmparc.results.plan import Table, load_table, table_names
from mmparc.results.write import (
    claims_to_markdown,
    compared,
    pairs_of,
    summary_of,
    to_csv,
    to_markdown,
    values_of,
)

RESULTS = ROOT / 'docs/results'
NOWHERE = Path('no/erf.csv')
EVIL = '<script>alert("x")</script> & $a|b$'
# Like the small tier: two groups, three arms, three seeds.
SMALL = make_table(
    *(
        make_row(f'{group}, {arm}', seeds=[0, 1, 2], group=group, arm=arm)
        for group in ('ConvNeXt', 'ResNet')
        for arm in ('plain', 'parc', 'no-pos')
    )
)


def rows_of(markdown: str) -> list[list[str]]:
    """The cells of all tables."""
    lines = [line for line in markdown.splitlines() if line.startswith('| ')]
    return [re.split(r'(?<!\\) \| ', line[2:-2]) for line in lines]


def count(row) -> dict | None:
    """No model of the row named b can be counted."""
    same = dict(row=row.name, config=row.config, options=row.options, size=[4, 6], unknown=[])
    return None if row.name == 'b' else {**same, 'params': 7, 'madds': {'': 8}}


def page_of(table: Table, work_dirs: Path) -> tuple[str, str]:
    """The Markdown and the CSV of the runs in a folder."""
    kept = load_kept(table.name, work_dirs)
    collect(table, kept, work_dirs, count)
    values = values_of(table, kept, NOWHERE)
    summary = summary_of(table, kept, values)
    page = to_markdown(table, summary, pairs_of(values), 'figures/t.png')
    return page, to_csv(table, summary)


def test_results_outlive_the_work_directories(tmp_path: Path) -> None:
    table = make_table(make_row('a', seeds=[0, 1]), make_row('b', schedule='300 epochs'))
    runs = [(row, run) for row in table.rows for run in row.runs(tmp_path)]
    for number, (row, run) in enumerate(runs):
        metrics = {'m': 10.0 + number, 'other': math.nan}
        write_run(run.work_dir, row.schedule, metrics, seed=run.seed)
    kept = load_kept('t', tmp_path)
    news = collect(table, kept, tmp_path, count)
    assert news == ['a, seed 0: new', 'a, seed 1: new', 'b: new']
    first, _, other = kept['runs']
    assert first['metrics'] == {'m': 10.0, 'other': None}
    assert first['curves'] == {'m': [[10, 5.0], [20, 10.0]]}
    assert first['starts'][0]['command'] == 'python tools/train.py configs/x.py'
    # 300 losses become 100 means of three
    assert [step for step, _ in other['loss']] == [*range(3, 301, 3)]
    assert other['loss'][1][1] == pytest.approx(statistics.fmean([10 / 4, 10 / 5, 10 / 6]), 1e-5)
    assert kept['counted'] == [count(table.rows[0])]

    text = dump_kept(kept)
    with pytest.raises(ZeroDivisionError):
        json.loads('[NaN]', parse_constant=lambda _: 1 / 0)  # the control
    json.loads(text, parse_constant=lambda _: 1 / 0)
    (tmp_path / 't.json').write_text(text)
    again = load_kept('t', tmp_path)
    # the same once more: no news; nothing on disk: all stays; another result: replaced
    for work_dirs in (tmp_path, tmp_path / 'nothing'):
        assert collect(table, again, work_dirs, count) == [] and dump_kept(again) == text
    shutil.rmtree(runs[1][1].work_dir)
    write_run(runs[1][1].work_dir, '20 epochs', {'m': 5.0}, seed=1)
    assert collect(table, again, tmp_path, count) == ['a, seed 1: replaced']
    # a row whose options have changed has no result yet
    changed = make_table(replace(table.rows[1], options={'a': 1}))
    assert values_of(changed, again, NOWHERE)['value'].isna().all()

    (tmp_path / 't.json').write_text(text.replace('"runs"', '"walks"'))
    with pytest.raises(ValueError, match=r"t.json'.*runs"):
        load_kept('t', tmp_path)


def test_verdicts() -> None:
    t1, t2 = 12.7062, 4.3027  # a table of Student's t: 97.5 %, one and two degrees of freedom
    nan = math.nan
    for pairs, half, verdict in (
        ([nan, nan, nan], nan, 'not run'),
        ([1.0], nan, 'unfinished'),
        ([1.0, 3.0], t1, 'undecided'),
        ([1.0, nan, 3.0], t1, 'unfinished'),
        ([7.0, 10.0, 13.0], t2 * 3 / 3**0.5, 'yes'),
        ([-7.0, -10.0, -13.0], t2 * 3 / 3**0.5, 'no, the opposite'),
        ([5.0, 10.0, 15.0], t2 * 5 / 3**0.5, 'undecided'),
        ([0.3 - 0.2, 0.2 - 0.1, 0.1], nan, 'undecided'),  # the same but for rounding
    ):
        found = compared(pairs)
        assert found['half'] == pytest.approx(half, rel=1e-4, nan_ok=True), pairs
        assert found['verdict'] == verdict and found['wanted'] == len(pairs)
    values = [1.5, -0.25, 2.0, 0.75]
    found = compared(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found['mean'], found['half']) == pytest.approx(((low + high) / 2, (high - low) / 2))
    assert found['spread'] == pytest.approx(np.std(values, ddof=1)) != np.std(values)


def test_pairs_have_the_same_seed_and_groups_are_not_pooled(tmp_path: Path) -> None:
    """Seeds differ by 10, arms by about 2: ParC is above ResNet and below ConvNeXt."""
    for row in SMALL.rows:
        for run in row.runs(tmp_path):
            gain = (row.arm != 'plain') * 2 + (row.arm == 'parc') * 0.1 * run.seed
            value = 50 + 10 * run.seed + (-gain if row.group == 'ConvNeXt' else gain)
            if (row.name, run.seed) != ('ResNet, no-pos', 1):
                write_run(run.work_dir, row.schedule, {'m': value})
    kept = load_kept('t', tmp_path)
    collect(SMALL, kept, tmp_path, count)
    lines = ['# a comment', 'checkpoint,percent,pixels %']
    for row in SMALL.rows:
        for run in row.runs(Path('anywhere/work_dirs')):
            area = (5 + run.seed) * (row.arm == 'parc')
            lines += [f'{run.work_dir}/epoch_20.pth,{p},{p + area}' for p in (20, 50, 99)]
    fields = tmp_path / 'erf.csv'
    fields.write_text('\n'.join(lines))
    pairs = pairs_of(values_of(SMALL, kept, fields))
    first, second, third, fourth, *areas = pairs.itertuples()
    assert first.pairs == pytest.approx([-2.0, -2.1, -2.2])
    assert second.pairs == pytest.approx([2.0, 2.1, 2.2])
    assert third.pairs == pytest.approx([0.0, -0.1, -0.2])
    assert fourth.pairs == pytest.approx([0.0, 0.2]) and fourth.verdict == 'unfinished'
    assert [area.pairs for area in areas] == [[5.0, 6.0, 7.0]] * 4
    # the control: all pairs together would say nothing
    assert compared([*first.pairs, *second.pairs])['verdict'] == 'undecided'

    header, _, beats, matters, field, _ = rows_of(claims_to_markdown(pairs))
    assert header[-2:] == ['ConvNeXt', 'ResNet']
    assert beats[-2:] == ['−2.10 ± 0.25, no, the opposite', '+2.10 ± 0.25, yes']
    assert matters[-1] == '+0.10 ± 1.27, 2 of 3 pairs, unfinished'
    assert field[-2:] == ['+6.00 ± 2.48, yes'] * 2
    fields.write_text('a,b\n1,2\n')
    with pytest.raises(ValueError, match=r'erf.csv'):
        values_of(SMALL, kept, fields)


def test_published_beside_ours(tmp_path: Path) -> None:
    rows = (
        make_row('A', published={'AP': 47.0, 'params': 5.0}, metrics={'AP': 'x'}, scale=100),
        make_row('B', published={'AP': 41.25}, metrics={'AP': 'x'}, seeds=[3, 4]),
        make_row('C', config='cls/c.py', metrics={'AP': 'x'}, note='a note'),
    )
    for row, values in zip(rows, ([0.4625], [40.0, 42.0], [])):
        for run, value in zip(row.runs(tmp_path), values):
            write_run(run.work_dir, '20 epochs', {'x': value}, seed=run.seed or 9)
    page, text = page_of(make_table(*rows, source='A paper'), tmp_path)
    header, _, *lines = rows_of(page)
    assert header == ['name', 'AP, paper', 'AP, ours', 'AP, difference']
    assert lines[:3] == [
        ['A', '47.00', '46.25', '−0.75'],
        ['B', '41.25', '41.00 ± 1.41', '−0.25'],
        ['C', '-', '*not run*', '-'],
    ]
    assert lines[-2][-5:] == ['16', '0.0002', '8 x NVIDIA H200', '3, 4', '0123456789']
    assert lines[-1][-5:] == ['-'] * 5
    assert 'A paper' in page and 'a note' in page and '(figures/t.png)' in page

    (tmp_path / 'x.csv').write_text(text)
    frame = pd.read_csv(tmp_path / 'x.csv', comment='#').set_index('name')
    assert frame['AP, ours'].tolist()[:2] == [46.25, 41.0] and math.isnan(frame['AP, ours']['C'])
    assert frame['AP, spread']['B'] == pytest.approx(2**0.5, 1e-5)
    assert frame['AP, difference']['A'] == -0.75 and frame['params, paper']['A'] == 5
    assert [*frame['runs']] == [1, 2, 0] and [*frame['runs wanted']] == [1, 2, 1]


def test_names_and_notes_are_text(tmp_path: Path) -> None:
    row = make_row(EVIL, group=EVIL, note=EVIL)
    write_run(row.runs(tmp_path)[0].work_dir, row.schedule, {'m': 2.0}, device=EVIL)
    page, _ = page_of(make_table(row, title=EVIL, note=EVIL, source=EVIL), tmp_path)
    assert '<script' not in page and page.count('&lt;script&gt;') > 5
    assert '$a\\|b$' in page and '$a|b$' not in page
    assert [len(row) for row in rows_of(page)][:3] == [2] * 3  # no cell was split


def test_committed_pages_are_up_to_date_and_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    call('paper_tables', '--check', '--readme', 'README.md')
    models = [m for f in load(ROOT / 'model-index.yml')['Import'] for m in load(ROOT / f)['Models']]
    known = {model['Config']: model['Metadata'] for model in models}
    compared_with = 0
    for name in table_names():
        table, kept = load_table(name), load_kept(name, RESULTS)
        assert dump_kept(kept) == (RESULTS / f'{name}.json').read_text()
        assert (RESULTS / f'figures/{name}.png').is_file() == bool(kept['runs'])
        shown = [find(kept['runs'], row, run.options) for row in table.rows for run in row.runs()]
        assert [run for run in shown if run] == kept['runs']  # none is left over
        for start in (start for run in kept['runs'] for start in run['starts'] or [{}]):
            assert re.fullmatch('[0-9a-f]{40}', start['commit']) and start['modified'] is False
            assert start['command'].startswith('python tools/train.py ')
        for row in table.rows:
            counted = find(kept['counted'], row, row.options)
            metadata = known.get(f'configs/{row.config}')
            if metadata and not row.options:
                assert counted['params'] == metadata['Parameters']
                madds = counted['madds'].get('direct', counted['madds'].get(''))
                assert madds == metadata.get('FLOPs', madds)
                compared_with += 1
    assert compared_with >= 20


def test_from_work_directories_to_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RESULTS, 'out')  # no model has to be counted
    row = load_table('segmentation_voc').rows[0]
    (run,) = row.runs(Path('work_dirs'))
    write_run(run.work_dir, row.schedule, {'mIoU': 41.5})
    Path('my.md').write_text('<!-- begin: written by tools/paper_tables.py -->\n<!-- end -->\nmine')
    call('paper_tables', '--out', 'out', '--readme', 'my.md')
    page = Path('out/segmentation_voc.md')
    for path in (page, Path('my.md')):
        assert ['ParC-Net-S', '79.7', '41.50', '−38.20'] in rows_of(path.read_text())
    assert Path('my.md').read_text().endswith('\nmine')
    assert Path('out/figures/segmentation_voc.png').stat().st_size > 1000

    args = ['segmentation_voc', '--out', 'out']
    shutil.rmtree('work_dirs')  # the result stays
    call('paper_tables', *args)
    call('paper_tables', '--check', *args)
    # a number changed by hand is found, and other people's files stay
    page.write_text(page.read_text().replace('41.50', '43.50'))
    with pytest.raises(UserError, match=r'segmentation_voc.md'):
        call('paper_tables', '--check', *args)
    page.write_text('mine')
    with pytest.raises(UserError, match=r'segmentation_voc.md.*--out'):
        call('paper_tables', '--render-only', *args)
    assert page.read_text() == 'mine'
    write_run(run.work_dir, '9999 iterations', {'mIoU': 1.0})
    for wrong in (['segmentation_voc'], ['detectoin'], ['--render-only', '--readme', 'no.md']):
        with pytest.raises(UserError) as caught:
            call('paper_tables', *wrong, '--out', 'out')
        assert '\n' not in str(caught.value)
