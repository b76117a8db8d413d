"""The table behind 'auto', the command that measures one, and the cap on cuFFT's plans."""

import functools
import json
import logging
import time
from types import SimpleNamespace

import pytest
import torch
from helpers import ROOT, run_tool

from mmparc.analysis.measure_backends import measure
from mmparc.layers import ParCConv
from mmparc.ops import ROWS, choose_backend, load_table, parc, select
from mmparc.ops.backends import direct, fft, matmul

TOOL = ROOT / 'tools/analysis/measure_backends.py'


@pytest.fixture
def write_table(tmp_path):
    """Writes a table, 'direct' but for the rows given, and returns its path."""

    def write(**changes):
        path = tmp_path / f'{len(list(tmp_path.iterdir()))}.json'
        rows = {row: changes.get(row.replace(' ', '_'), {'8': 'direct'}) for row in ROWS}
        path.write_text(json.dumps(dict(rows=rows)))
        return str(path)

    return write


def choice(table, n=8, dtype=torch.float32, groups=4, axis='h', training=False, grad=True):
    x = torch.zeros(1, 4, *((n, 3) if axis == 'h' else (3, n)), requires_grad=training)
    weight = torch.zeros(4, 4 // groups, 5, dtype=dtype)
    with torch.set_grad_enabled(grad):
        return choose_backend(x, weight, axis=axis, table=table)


def test_every_property_has_its_row(write_table):
    table = write_table(cpu_half_dense_w_training={'8': 'fft'})
    call = dict(dtype=torch.bfloat16, groups=1, axis='w', training=True)
    assert choice(table, **call) == 'fft'
    for other in (
        dict(dtype=torch.float32),
        dict(dtype=torch.float64),
        dict(groups=4),
        dict(axis='h'),
        dict(training=False),
        dict(grad=False),
    ):
        assert choice(table, **call | other) == 'direct', other
    assert choice(table, **call | dict(dtype=torch.float16)) == 'fft'


def test_other_devices_take_the_rows_of_the_gpu(write_table):
    table = write_table(gpu_float32_depthwise_h_inference={'8': 'matmul'})
    x, weight = torch.zeros(1, 4, 8, 3, device='meta'), torch.zeros(4, 1, 5, device='meta')
    assert choose_backend(x, weight, axis='h', table=table) == 'matmul'
    assert choice(table) == 'direct'


def test_the_nearest_length_by_its_ratio(write_table):
    lengths = {'10': 'direct', '40': 'matmul', '640': 'fft'}
    table = write_table(cpu_float32_depthwise_h_inference=lengths)
    chosen = [choice(table, n) for n in (1, 10, 19, 21, 100, 999)]
    assert chosen == ['direct', 'direct', 'direct', 'matmul', 'matmul', 'fft']


def test_ours_has_every_row_and_its_origin():
    table = load_table(str(select.SHIPPED_TABLE))
    assert set(table) == set(ROWS) and len(ROWS) == 32
    assert json.loads(select.SHIPPED_TABLE.read_text())['measured'].keys() == {'cpu', 'gpu'}
    for n in (1, 14, 500):
        nearest = min(table[ROWS[0]], key=lambda m: max(n / m, m / n))
        assert choice('auto', n) == table[ROWS[0]][nearest]


def test_a_layer_takes_a_table(write_table, monkeypatch):
    used = []
    run = fft.correlate
    monkeypatch.setattr(fft, 'correlate', lambda *args: used.append(1) or run(*args))
    layer = ParCConv(4, 4, 8, 'h', groups=4, pos_embed=False).eval().requires_grad_(False)
    x = torch.randn(1, 4, 8, 3)
    layer.backend = write_table()
    expected = layer(x)
    assert not used
    layer.backend = write_table(cpu_float32_depthwise_h_inference={'8': 'fft'})
    assert torch.allclose(layer(x), expected, atol=1e-5)
    assert used == [1]


def test_a_bad_table_is_one_line(tmp_path):
    x, weight = torch.zeros(1, 4, 8, 3), torch.zeros(4, 1, 8)
    tables = [
        {},
        {row: {} for row in ROWS},
        *({row: entry for row in ROWS} for entry in ({'x': 'fft'}, {'0': 'fft'}, {'8': ['fft']})),
        {row: {'8': 'cudnn'} for row in ROWS},
        {row: {'8': 'fft'} for row in ROWS[1:]},
    ]
    texts = [json.dumps(dict(rows=rows)) for rows in tables]
    for i, text in enumerate([None, 'no json', '[]', *texts]):
        path = tmp_path / f'{i}.json'
        if text is not None:
            path.write_text(text)
        with pytest.raises(ValueError, match=path.name) as error:
            parc(x, weight, axis='h', groups=4, backend=str(path))
        assert len(str(error.value).splitlines()) == 1


def test_a_choice_is_logged_once(write_table, caplog):
    table = write_table(cpu_float32_depthwise_h_inference={'8': 'fft'})
    with caplog.at_level(logging.INFO, 'mmparc'):
        for n in (8, 8, 9):
            choice(table, n)
        choice(table, training=True)
    inference, training = (r.getMessage() for r in caplog.records)
    assert 'inference' in inference and 'fft' in inference
    assert 'training' in training and 'direct' in training


# The command


def test_measure_backends(tmp_path):
    out = tmp_path / 'new/table.json'
    args = ['--out', out, '--lengths', 4, '--seconds', 0, '--rounds', 1]
    run = run_tool(TOOL, *args, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    table, shipped = load_table(str(out)), load_table(str(select.SHIPPED_TABLE))
    for row in ROWS:
        assert (set(table[row]) == {4}) == row.startswith('cpu')
        assert row.startswith('cpu') or table[row] == shipped[row]
    assert 'torch' in json.loads(out.read_text())['measured']['cpu']
    before = out.read_text()
    run = run_tool(TOOL, *args, cwd=tmp_path)
    assert run.returncode != 0 and '--force' in run.stderr and out.read_text() == before


def test_measure_backends_refuses(tmp_path):
    for args in (
        ['--out', 'table.txt'],
        ['--out', 'a.json', '--lengths', '0'],
        ['--out', 'a.json', '--rounds', '0'],
    ):
        run = run_tool(TOOL, *args, cwd=tmp_path)
        assert run.returncode != 0 and len(run.stderr.splitlines()) == 1, args
    assert not list(tmp_path.iterdir())


def test_a_slow_backend_is_not_chosen(monkeypatch):
    """Negative control: whichever would win, it does not if it sleeps."""
    args = SimpleNamespace(lengths=[6], seconds=0, rounds=1, device='cpu')
    for implementation in (direct, matmul, fft):
        run = implementation.correlate
        with monkeypatch.context() as patch:
            slow = functools.partial(run_slowly, run)
            patch.setattr(implementation, 'correlate', slow)
            for row in ('cpu float32 depthwise h inference', 'cpu float32 dense w training'):
                ((n, name),) = measure(row, args)
                assert n == 6 and not implementation.__name__.endswith(name)


def run_slowly(run, *args):
    time.sleep(0.02)
    return run(*args)


# cuFFT's plans


def test_the_plan_cache_is_capped(monkeypatch):
    for before, after in ((4096, fft.PLANS), (8, 8)):
        device, plans = torch.device('cuda', before), SimpleNamespace(max_size=before)
        monkeypatch.setattr(torch.backends.cuda, 'cufft_plan_cache', {device: plans})
        fft.cap_plan_cache(device)
        assert plans.max_size == after
