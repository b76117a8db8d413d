"""Results of the tables' runs: read from logs, kept as data, compared, and written.

On work directories as mmengine leaves them (tests/runs.py); test_tools.py reads those of trainings.
The page in a browser is tests/browser's.
"""

import csv
import json
import math
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, run_tool
from mmengine.fileio import load
from runs import SMALL, make_row, make_table, write_end, write_process, write_run, write_test
from scipy import stats

from mmparc.tables import load_table, table_names
from mmparc.tables.logs import final_metrics, read_scalars, read_starts, read_tests
from mmparc.tables.page import to_html
from mmparc.tables.results import (
    LOSSES,
    Counted,
    Measured,
    Paired,
    Results,
    dump_results,
    left_out,
    lines_of,
    load_results,
    merge,
    read_run,
)
from mmparc.tables.texts import made, our_text, to_markdown, to_readme, verdict_text
from mmparc.tables.view import FIELD_CLAIM, read_figures, view_of

TOOL = 'tools/paper_tables.py'
RESULTS = ROOT / 'docs/results'
EVIL = '<script>alert("x")</script> & $a|b$'


def steps_of(work_dir: Path) -> tuple[list[int], list[int]]:
    train, val = read_scalars(work_dir)
    return [r['iter'] for r in train], [r['step'] for r in val]


# Logs


def test_a_resumed_run_is_one_curve(tmp_path: Path) -> None:
    write_process(tmp_path, '20260101_000001', range(1, 7), {1: {'m': 1}, 2: {'m': 2}}, 2)
    assert steps_of(tmp_path) == ([1, 2, 3, 4, 5, 6], [1, 2])
    # killed in its third epoch, it goes on after the second
    write_process(tmp_path, '20260101_000002', range(5, 9), {3: {'m': 3}, 4: {'m': 4}}, 2)
    assert steps_of(tmp_path) == ([*range(1, 9)], [1, 2, 3, 4])
    # from the first epoch once more: what came of the others is gone
    write_process(tmp_path, '20260101_000003', range(3, 5), {2: {'m': 20}}, 2)
    assert steps_of(tmp_path) == ([1, 2, 3, 4], [1, 2])
    assert [r['m'] for r in read_scalars(tmp_path)[1]] == [1, 20]


def test_a_run_begun_anew_has_nothing_of_the_old_one(tmp_path: Path) -> None:
    write_process(tmp_path, '20260101_000001', range(10, 50, 10), {20: {'m': 1}, 40: {'m': 2}})
    write_process(tmp_path, '20260101_000002', range(10, 30, 10), {20: {'m': 3}})
    assert steps_of(tmp_path) == ([10, 20], [20])
    assert final_metrics(tmp_path, 20, 'iter_20.pth') == {'m': 3}
    assert final_metrics(tmp_path, 40, 'iter_40.pth') == {}


def test_a_line_that_was_cut_off_is_left_out_and_damage_is_not(tmp_path: Path) -> None:
    path = write_process(tmp_path, '20260101_000001', range(1, 4), {})
    whole = path.read_text()
    path.write_text(whole + '{"lr": 1, "it')
    assert steps_of(tmp_path) == ([1, 2, 3], [])
    path.write_text(whole.rstrip())  # all of it but the end of the line
    assert steps_of(tmp_path) == ([1, 2, 3], [])
    path.write_text(whole.replace('{', '', 1))
    with pytest.raises(ValueError, match=r'scalars.json. is damaged in line 1: '):
        read_scalars(tmp_path)


def test_metrics_of_a_test_stand_in_for_a_validation_that_was_cut_off(tmp_path: Path) -> None:
    write_process(tmp_path, '20260101_000002', range(1, 4), {1: {'m': 0.25}}, 1)
    write_test(tmp_path, '20260101_000001', 'x/epoch_3.pth', {'m': 1})  # before the training
    write_test(tmp_path, '20260101_000003', 'x/epoch_2.pth', {'m': 2})
    assert final_metrics(tmp_path, 3, 'epoch_3.pth') == {}
    write_test(tmp_path, '20260101_000004', 'x/epoch_3.pth', {'m': 0.5, 'name': 'x', 'per': [1]})
    assert final_metrics(tmp_path, 3, 'epoch_3.pth') == {'m': 0.5}
    assert final_metrics(tmp_path, 1, 'epoch_1.pth') == {'m': 0.25}
    assert [t.checkpoint for t in read_tests(tmp_path)] == [f'x/epoch_{n}.pth' for n in (3, 2, 3)]
    write_test(tmp_path, '20260101_000005', 'x', {}).write_text('{')
    with pytest.raises(ValueError, match='is no result of a test'):
        read_tests(tmp_path)


def test_starts(tmp_path: Path) -> None:
    assert read_starts(tmp_path) == []
    write_end(tmp_path, 'epoch_1.pth', {'lr': 1}, {'lr': 2, 'resumed': True})
    assert [(s['lr'], s['resumed']) for s in read_starts(tmp_path)] == [(1, False), (2, True)]


# Numbers


def test_statistics_are_those_of_scipy() -> None:
    values = (1.5, -0.25, 2.0, 0.75)
    pair = Paired('m', 'cls', 'g', 'parc', 'plain', values, 4)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert pair.interval == pytest.approx(tuple(expected))
    assert pair.mean == pytest.approx(np.mean(values))
    assert pair.spread == pytest.approx(np.std(values, ddof=1)) != pytest.approx(np.std(values))
    assert Measured(2.0, (2.5, 3.5)).difference == 1.0
    assert Measured(None, (2.5,)).difference is None and Measured(1.0, ()).difference is None
    assert our_text(Measured(None, (2.5, 3.5))) == '3.00 ± 0.71'
    assert our_text(Measured(1.0, (2.5,))) == '2.50' and our_text(Measured(1.0, ())) == 'not run'


@pytest.mark.parametrize(
    'values, wanted, half, verdict, shown',
    [
        ((), 3, None, 'not run', 'not run'),
        # nothing can be said of one pair
        ((1.0,), 1, None, 'unfinished', '+1.00, unfinished'),
        # by a table of Student's t: 12.7062 for one degree of freedom, 4.3027 for two
        ((1.0, 3.0), 2, 12.7062, 'undecided', '+2.00 ± 12.71, undecided'),
        ((1.0, 3.0), 3, 12.7062, 'unfinished', '+2.00 ± 12.71, 2 of 3 pairs, unfinished'),
        # spreads of 3 and of 5
        ((7.0, 10.0, 13.0), 3, 4.3027 * 3 / 3**0.5, 'higher', '+10.00 ± 7.45, yes'),
        ((-7.0, -10.0, -13.0), 3, 4.3027 * 3**0.5, 'lower', '−10.00 ± 7.45, no, the opposite'),
        ((5.0, 10.0, 15.0), 3, 4.3027 * 5 / 3**0.5, 'undecided', '+10.00 ± 12.42, undecided'),
        # all the same, to the last digit or but for rounding: no interval
        ((2.0, 2.0, 2.0), 3, None, 'undecided', '+2.00, undecided'),
        ((0.3 - 0.2, 0.2 - 0.1, 0.1), 3, None, 'undecided', '+0.10, undecided'),
    ],
)
def test_verdicts(values: tuple, wanted: int, half: float, verdict: str, shown: str) -> None:
    pair = Paired('m', 'cls', 'g', 'parc', 'plain', values, wanted)
    assert pair.half_width == (half and pytest.approx(half, rel=1e-4))
    assert (pair.verdict, verdict_text(pair)) == (verdict, shown)


def test_a_run_as_data(tmp_path: Path) -> None:
    row = make_row(schedule='300 epochs', metrics={'AP': 'coco/bbox_mAP'}, scale=100)
    (run,) = row.runs(tmp_path)
    write_process(run.work_dir, '20260101_000001', range(1, 6), {}, 1)
    assert read_run(row, run) is None
    shutil.rmtree(run.work_dir)
    write_run(run.work_dir, row.schedule, {'coco/bbox_mAP': 0.4725}, command='python train.py x')
    result = read_run(row, run)
    assert result.metrics == {'coco/bbox_mAP': 0.4725}
    assert result.starts[0]['command'] == 'python train.py x'
    assert [step for step, _ in result.curves['coco/bbox_mAP']] == [75, 150, 225, 300]
    assert len(result.loss) == LOSSES and result.loss[-1][0] == 300
    mean = np.mean([10 / step for step in range(1, 301)])
    assert np.mean([value for _, value in result.loss]) == pytest.approx(mean)
    (line,) = lines_of(make_table(row), Results('t', runs=[result]))
    assert line.measured('AP').mean == pytest.approx(47.25)
    assert made(line)['devices'] == '8 x NVIDIA H100 80GB HBM3'
    # another run is none of the row's
    for other in (replace(row, options={'a': 1}), replace(row, config='x.py')):
        table = make_table(other)
        assert lines_of(table, Results('t', runs=[result]))[0].runs == ()
        assert left_out(Results('t', runs=[result]), table) == [result]


def test_kept_results(tmp_path: Path) -> None:
    """They outlive the work directories, give way to newer runs, and are JSON to the letter."""
    table = make_table(make_row('a', seeds=(0, 1)), make_row('b'))
    runs = [(row, run) for row in table.rows for run in row.runs(tmp_path)]
    for number, (row, run) in enumerate(runs):
        metrics = {'m': 10.0 + number, 'other': math.nan}
        write_run(run.work_dir, row.schedule, metrics, seed=run.seed)
    results = Results('t', [Counted('a', 'x.py', {}, (4, 6), 7, {'': 8}, [])])
    assert len(merge(results, table, [read_run(*run) for run in reversed(runs)])) == 3
    assert [(r.row, r.seed) for r in results.runs] == [('a', 0), ('a', 1), ('b', None)]
    (tmp_path / 't.json').write_text(dump_results(results))

    def refuse(text: str) -> None:
        raise AssertionError(text)

    text = (tmp_path / 't.json').read_text()
    json.loads(text, parse_constant=refuse)
    with pytest.raises(AssertionError):
        json.loads('[NaN]', parse_constant=refuse)  # the control
    assert max(map(len, text.splitlines())) > 200  # a curve is one line
    kept = load_results('t', tmp_path)
    assert dump_results(kept) == text
    assert kept.runs[0].metrics == {'m': 10.0, 'other': None}
    lines = lines_of(table, kept)
    assert [line.measured('m').values for line in lines] == [(10.0, 11.0), (12.0,)]

    # nothing on disk: all stays; the same again: nothing changes; another: it is replaced
    assert merge(kept, table, []) == [] and dump_results(kept) == text
    assert merge(kept, table, [read_run(*runs[0])]) == []
    shutil.rmtree(runs[1][1].work_dir)
    write_run(runs[1][1].work_dir, '20 epochs', {'m': 5.0}, seed=1)
    assert merge(kept, table, [read_run(*runs[1])]) == ['a, seed 1: replaced']
    assert lines_of(table, kept)[0].measured('m').values == (10.0, 5.0)

    (tmp_path / 't.json').write_text(text.replace('"runs"', '"walks"'))
    with pytest.raises(ValueError, match=r"t.json' holds no results of a table: KeyError"):
        load_results('t', tmp_path)


# The small tier's comparisons


def small_view(folder: Path, missing: tuple = (), below: tuple = ()):
    """ParC is 2 above plain with a spread over seeds, and equal to itself without embedding.

    Args:
        below: the groups whose ParC is as much below it.
    """
    added = {'plain': 0.0, 'parc': 2.0, 'no-pos': 2.0}
    results = Results('small')
    for row in SMALL.rows:
        for run in row.runs(folder / 'work_dirs'):
            if (row.name, run.seed) in missing:
                continue
            gain = added[row.arm] + 0.1 * run.seed * (row.arm == 'parc')
            value = 50 + 10 * run.seed + (-gain if row.group in below else gain)
            write_run(run.work_dir, row.schedule, {'accuracy/top1': value}, seed=run.seed)
            merge(results, SMALL, [read_run(row, run)])
    return view_of(SMALL, results, folder / 'figures')


def test_pairs_have_the_same_seed(tmp_path: Path) -> None:
    """Seeds differ by 10, and the pairs by no more than 0.2."""
    view = small_view(tmp_path)
    first = view.pairs[0]
    assert (first.group, first.arm, first.against) == ('ConvNeXt', 'parc', 'plain')
    assert first.values == pytest.approx((2.0, 2.1, 2.2))
    second = view.pairs[1]
    assert second.group == 'ResNet' and second.values == pytest.approx((2.0, 2.1, 2.2))
    beats, matters, *fields = view.claims
    assert beats.pairs == {'ConvNeXt': first, 'ResNet': second}
    assert [p.values for p in matters.pairs.values()] == [pytest.approx((0.0, 0.1, 0.2))] * 2
    assert [field.text for field in fields] == [FIELD_CLAIM] * 2
    assert {p.verdict for field in fields for p in field.pairs.values()} == {'not run'}
    assert beats.text in to_readme([view], '.')
    nothing = view_of(SMALL, Results('small'), tmp_path / 'figures')
    assert nothing.claims and beats.text in to_markdown(nothing)
    assert to_readme([nothing], '.').endswith(f'[{SMALL.title}](./small.md): *not run*')


def test_each_network_has_its_own_verdict(tmp_path: Path) -> None:
    view = small_view(tmp_path, below=('ConvNeXt',))
    pairs = view.claims[0].pairs
    assert [pair.verdict for pair in pairs.values()] == ['lower', 'higher']
    cells = '| −2.10 ± 0.25, no, the opposite | +2.10 ± 0.25, yes |'
    header = '| claim | task and measure | ConvNeXt | ResNet |'
    for text in (to_markdown(view), to_readme([view], '.')):
        assert header in text and f'| classification, top1 {cells}' in text
        assert text.count('A pair is two runs of one network with the same seed.') == 1
    page = Tags(to_html([view], [])).text
    assert page.count('−2.10 ± 0.25, no, the opposite') == page.count('+2.10 ± 0.25, yes') == 1
    # the control: of all pairs together one would say that nothing is known
    together = [value for pair in pairs.values() for value in pair.values]
    low, high = stats.ttest_1samp(together, 0).confidence_interval(0.95)
    assert low < 0 < high
    assert Paired('m', 'cls', 'g', 'parc', 'plain', tuple(together), 6).verdict == 'undecided'


def test_a_network_without_a_task_has_no_verdict_there() -> None:
    view = view_of(load_table('small'), load_results('small', RESULTS), RESULTS / 'figures')
    (cells,) = (
        line.split(' | ')[2:]
        for line in to_readme([view], '.').splitlines()
        if line.startswith('| ParC beats its plain twin | detection, ')
    )
    assert cells[1:] == ['-', '- |'] and cells[0] != '-'


def test_a_pair_needs_both(tmp_path: Path) -> None:
    view = small_view(tmp_path, missing=(('ResNet, ParC', 1), ('ResNet, plain', 2)))
    assert [len(pair.values) for pair in view.pairs[:2]] == [3, 1]
    assert view.pairs[1].values == pytest.approx((2.0,))
    assert view.claims[0].pairs['ResNet'].verdict == 'unfinished'
    assert '2 of 3 runs' in to_html([view], [])
    assert '+2.00, 1 of 3 pairs, unfinished' in to_markdown(view)


def test_receptive_fields_of_trained_pairs(tmp_path: Path) -> None:
    lines = ['# a comment', 'model,variant,checkpoint,height,width,percent,pixels %,rectangle %']
    for row in SMALL.rows:
        for run in row.runs(Path('anywhere/work_dirs')):
            area = 30 + 5 * (row.arm == 'parc') + run.seed
            for percent in (20, 50, 99):
                lines.append(f'm,v,{run.work_dir}/epoch_20.pth,64,64,{percent},{area + percent},9')
    folder = tmp_path / 'figures'
    folder.mkdir()
    (folder / 'erf.csv').write_text('\n'.join(lines))
    fields = small_view(tmp_path).claims[2:]
    assert [field.what for field in fields] == ['area for 50 %', 'area for 99 %']
    for pair in (pair for field in fields for pair in field.pairs.values()):
        # in each seed by 5: no interval
        assert (pair.values, pair.interval, pair.verdict) == ((5, 5, 5), None, 'undecided')
    (folder / 'erf.csv').write_text('a,b\n1,2\n')
    with pytest.raises(ValueError, match=r"erf.csv' is no erf.csv of"):
        view_of(SMALL, Results('small'), folder)


# What is written


class Tags(HTMLParser):
    """What a page holds, by a parser of its own."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.text = ''
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == 'id']

    def handle_data(self, data: str) -> None:
        self.text += data


def test_names_and_notes_are_text(tmp_path: Path) -> None:
    rows = [
        make_row(EVIL, note=EVIL, published={'m': 1.0}),
        make_row('b', seeds=(0, 1)),
        make_row('c', group=EVIL, arm='parc', options={'a': 1}),
        make_row('d', group=EVIL, arm=EVIL, options={'a': 2}),
    ]
    table = replace(make_table(*rows), title=EVIL, note=EVIL, source=EVIL)
    results = Results('t')
    for row in rows:
        for run in row.runs(tmp_path):
            write_run(run.work_dir, row.schedule, {'m': 2.0}, command=EVIL, device=EVIL, torch=EVIL)
            merge(results, table, [read_run(row, run)])
    view = view_of(table, results, tmp_path)
    found = Tags(to_html([view], []))
    assert 'script' not in found.tags and found.tags.count('svg') >= 3
    assert found.text.count(EVIL) > 20
    assert len(set(found.ids)) == len(found.ids) > 100
    assert 'script' in Tags(EVIL).tags  # the control
    for text in (to_markdown(view), to_readme([view], '.')):
        assert '<script' not in text and '&lt;script&gt;' in text
        assert '$a\\|b$' in text and '$a|b$' not in text


def test_charts_are_xml(tmp_path: Path) -> None:
    page = to_html([small_view(tmp_path)], [])
    charts = re.findall(r'<svg.*?</svg>', page, re.DOTALL)
    assert len(charts) == 2 + 4  # differences from each; validation and loss of each group
    for chart in charts:
        root = ET.fromstring(chart)
        assert root.get('viewBox') and root.get('width') is None
        assert '#010203' not in chart and 'currentColor' in chart
    texts = [''.join(ET.fromstring(chart).itertext()) for chart in charts]
    assert 'ParC, mean and range of 3 runs' in texts[2] and 'top1, validation' in texts[2]
    assert 'training loss' in texts[3]


def test_figures(tmp_path: Path) -> None:
    assert read_figures(tmp_path / 'none') == []
    (tmp_path / 'a.png').write_bytes(b'png')
    with pytest.raises(ValueError, match=r"says nothing of 'a.png'"):
        read_figures(tmp_path)
    item = dict(file='a.png', kind='figures', title='T', caption='C')
    captions = tmp_path / 'captions.yaml'
    captions.write_text(json.dumps([item]))
    (figure,) = read_figures(tmp_path)
    assert figure.source == 'data:image/png;base64,cG5n' and figure.title == 'T'
    for wrong, said in (
        ({**item, 'kind': 'x'}, 'an unknown key or kind'),
        ({**item, 'nme': 'x'}, 'an unknown key or kind'),
        ({**item, 'file': 'b.png'}, "lists 'b.png', which is not beside it"),
        ({'file': 'a.png'}, 'each picture has file, kind, title and caption'),
    ):
        captions.write_text(json.dumps([wrong]))
        with pytest.raises(ValueError, match=said):
            read_figures(tmp_path)


# The tool


def run(*args: object, cwd: Path, status: int = 0) -> str:
    result = run_tool(TOOL, *args, cwd=cwd)
    assert result.returncode == status, result.stdout + result.stderr[-4000:]
    if status:
        assert result.stderr.startswith('error: ') and result.stderr.count('\n') == 1
    return result.stderr if status else result.stdout


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with what the project keeps, so that no model has to be counted."""
    shutil.copytree(RESULTS, tmp_path / 'out')
    return tmp_path / 'out'


def test_ours_is_up_to_date(tmp_path: Path) -> None:
    run('--check', '--out', RESULTS, '--readme', ROOT / 'README.md', cwd=tmp_path)


def test_what_is_kept_was_run() -> None:
    """Each result that is committed says with which command, and of which commit, it was made."""
    for name in table_names():
        table, results = load_table(name), load_results(name, RESULTS)
        assert left_out(results, table) == []
        for result in results.runs:
            assert result.starts, f'{name}: {result.row} has no start'
            for start in result.starts:
                assert re.fullmatch('[0-9a-f]{40}', start['commit'])
                assert start['modified'] is False
                assert start['command'].startswith('python tools/train.py ')


def test_models_are_counted_as_the_metafiles_say() -> None:
    entries = [
        e for m in load(ROOT / 'model-index.yml')['Import'] for e in load(ROOT / m)['Models']
    ]
    known = {entry['Config']: entry['Metadata'] for entry in entries}
    compared = 0
    for name in table_names():
        for row in load_table(name).rows:
            counted = load_results(name, RESULTS).count(row)
            assert counted, f'{name}: {row.name} is not counted: run {TOOL}'
            metadata = known.get(f'configs/{row.config}')
            if metadata and not row.options:
                assert counted.params == metadata['Parameters']
                if 'FLOPs' in metadata:
                    assert counted.madds.get('direct', counted.madds.get('')) == metadata['FLOPs']
                compared += 1
    assert compared >= 20


def test_from_work_directories_to_the_page(out: Path, tmp_path: Path) -> None:
    table = load_table('segmentation')
    first, second = table.rows[:2]
    (work,) = first.runs(tmp_path / 'work_dirs')
    metrics = {'mIoU': 41.5, 'mAcc': 54.0, 'aAcc': 80.0}
    write_run(work.work_dir, first.schedule, metrics, batch_size=16, lr=0.0004)
    args = ['segmentation', '--out', out]
    drawn = (out / 'index.html').read_text().count('<svg')
    said = run(*args, cwd=tmp_path)
    assert f'segmentation: {first.name}: new' in said and 'segmentation: 1 of 6 runs here' in said
    (result,) = json.loads((out / 'segmentation.json').read_text())['runs']
    assert result['metrics'] == metrics

    lines = (out / 'segmentation.csv').read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith('#')))
    assert (
        rows[0]['mIoU, paper'] == str(first.published['mIoU']) and rows[0]['mIoU, ours'] == '41.5'
    )
    assert float(rows[0]['mIoU, difference']) == pytest.approx(41.5 - first.published['mIoU'])
    assert rows[1]['mIoU, ours'] == rows[1]['commit'] == ''
    assert rows[1]['mIoU, paper'] == str(second.published['mIoU'])
    text = (out / 'segmentation.md').read_text()
    assert f'| {first.name} | 42.17 | 41.50 | −0.67 |' in text
    assert f'| {second.name} | 42.32 | *not run* | - |' in text
    page = (out / 'index.html').read_text()
    assert '>41.50<' in page and '0123456789' in page and page.count('<svg') == drawn + 2

    # the work directory is gone: the result stays, and the page with it
    kept = {path.name: path.read_text() for path in out.glob('*.*')}
    shutil.rmtree(tmp_path / 'work_dirs')
    run(*args, cwd=tmp_path)
    run('--check', '--out', out, cwd=tmp_path)
    assert {path.name: path.read_text() for path in out.glob('*.*')} == kept
    # a number changed by hand is noticed
    (out / 'segmentation.md').write_text(text.replace('41.50', '43.50'))
    said = run('--check', '--out', out, cwd=tmp_path, status=1)
    assert said == f"error: '{out}/segmentation.md' is stale: run {TOOL} --render-only\n"
    # and what someone else wrote is not overwritten
    (out / 'index.html').write_text('mine')
    assert 'was not written by' in run('--render-only', '--out', out, cwd=tmp_path, status=1)
    assert (out / 'index.html').read_text() == 'mine'


def test_mistakes(out: Path, tmp_path: Path) -> None:
    assert "did you mean 'detection'?" in run('detectoin', cwd=tmp_path, status=1)
    readme = tmp_path / 'README.md'
    readme.write_text('# no place\n')
    args = ('--render-only', '--out', out, '--readme', readme)
    assert 'has no place for the table' in run(*args, cwd=tmp_path, status=1)
    (run_,) = load_table('segmentation_voc').rows[0].runs(tmp_path / 'work_dirs')
    write_run(run_.work_dir, '9999 iterations', {'mIoU': 1.0})
    assert 'longer than' in run('segmentation_voc', '--out', out, cwd=tmp_path, status=1)
