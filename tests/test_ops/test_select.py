"""The table behind 'auto', the command that measures one, and the cap on cuFFT's plans."""

import importlib.util
import json
import logging
import time
from types import SimpleNamespace

import pytest
import torch
from helpers import ROOT, run_tool

from mmparc.models import ParCConv
from mmparc.ops import BACKENDS, ROWS, choose_backend, fft, load_table, parc, select

TOOL = ROOT / 'tools/analysis/measure_backends.py'


@pytest.fixture
def write_table(tmp_path):
    """Writes a table, 'direct' but for the rows given, and returns its path."""

    def write(**changes):
        path = tmp_path / f'{len(list(tmp_path.iterdir()))}.json'
        rows = {row: {'8': 'direct'} for row in ROWS}
        rows |= {row.replace('_', ' '): value for row, value in changes.items()}
        path.write_text(json.dumps(dict(rows=rows)))
        return str(path)

    return write


def choice(table, n=8, dtype=torch.float32, dense=False, axis='h', training=False, grad=True):
    x = torch.zeros(1, 4, *((n, 3) if axis == 'h' else (3, n)), requires_grad=training)
    weight = torch.zeros(4, 4 if dense else 1, 5, dtype=dtype)
    with torch.set_grad_enabled(grad):
        return choose_backend(x, weight, axis=axis, table=table)


def test_every_property_has_its_row(write_table):
    table = write_table(cpu_half_dense_w_training={'8': 'fft'})
    call = dict(dtype=torch.bfloat16, dense=True, axis='w', training=True)
    assert choice(table, **call) == 'fft'
    others = [
        dict(dtype=torch.float32),
        dict(dtype=torch.float64),
        dict(dense=False),
        dict(axis='h'),
        dict(training=False),
        dict(grad=False),
    ]
    assert [choice(table, **call | other) for other in others] == ['direct'] * len(others)
    assert choice(table, **call | dict(dtype=torch.float16)) == 'fft'


def test_other_devices_take_the_rows_of_the_gpu(write_table):
    table = write_table(gpu_float32_depthwise_h_inference={'8': 'matmul'})
    x, weight = torch.zeros(1, 4, 8, 3, device='meta'), torch.zeros(4, 1, 5, device='meta')
    assert choose_backend(x, weight, axis='h', table=table) == 'matmul'
    assert choice(table) == 'direct'


@pytest.mark.parametrize(
    ('n', 'backend'),
    [(1, 'direct'), (10, 'direct'), (19, 'direct'), (21, 'matmul'), (100, 'matmul'), (999, 'fft')],
)
def test_the_nearest_length_by_its_ratio(write_table, n, backend):
    lengths = {'10': 'direct', '40': 'matmul', '640': 'fft'}
    assert choice(write_table(cpu_float32_depthwise_h_inference=lengths), n) == backend


def test_ours_has_every_row_and_its_origin():
    path = ROOT / 'mmparc/ops/auto_table.json'
    table = load_table(str(path))
    assert set(table) == set(ROWS) and len(ROWS) == 32
    assert json.loads(path.read_text())['measured'].keys() == {'cpu', 'gpu'}
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


@pytest.mark.parametrize(
    'text',
    [
        None,
        'no json',
        '[]',
        '{}',
        '{"rows": {}}',
        '{"rows": []}',
        json.dumps(dict(rows={row: {} for row in ROWS})),
        json.dumps(dict(rows={row: {'x': 'fft'} for row in ROWS})),
        json.dumps(dict(rows={row: {'0': 'fft'} for row in ROWS})),
        json.dumps(dict(rows={row: {'8': 'cudnn'} for row in ROWS})),
        json.dumps(dict(rows={row: {'8': 'fft'} for row in ROWS[1:]})),
        json.dumps(dict(rows={row: 'fft' for row in ROWS})),
        json.dumps(dict(rows={row: {'8': ['fft']} for row in ROWS})),
    ],
)
def test_a_bad_table_is_one_line(tmp_path, text):
    path = tmp_path / 'table.json'
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=r'table\.json') as error:
        parc(torch.zeros(1, 4, 8, 3), torch.zeros(4, 1, 8), axis='h', groups=4, backend=str(path))
    assert '\n' not in str(error.value)


def test_a_choice_is_logged_once(write_table, caplog):
    table = write_table(cpu_float32_depthwise_h_inference={'8': 'fft'})
    with caplog.at_level(logging.INFO, 'mmparc'):
        for n in (8, 8, 9):
            choice(table, n)
        choice(table, training=True)
    assert [r.getMessage() for r in caplog.records if 'depthwise h' in r.getMessage()] == [
        'ParC cpu float32 depthwise h inference, length 8, as for 8: fft',
        'ParC cpu float32 depthwise h training, length 8, as for 8: direct',
    ]


# The command


def test_measure_backends(tmp_path):
    out = tmp_path / 'new/table.json'
    args = ['--out', out, '--lengths', 4, 9, '--seconds', 0, '--rounds', 1]
    run = run_tool(TOOL, *args, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    table, shipped = load_table(str(out)), load_table(str(select.SHIPPED_TABLE))
    for row in ROWS:
        assert (set(table[row]) == {4, 9}) == row.startswith('cpu')
        assert row.startswith('cpu') or table[row] == shipped[row]
    assert 'torch' in json.loads(out.read_text())['measured']['cpu']
    before = out.read_text()
    run = run_tool(TOOL, *args, cwd=tmp_path)
    assert run.returncode != 0 and '--force' in run.stderr and out.read_text() == before


@pytest.mark.parametrize(
    'args',
    [
        ['--out', 'table.txt'],
        ['--out', 'a.json', '--lengths', '0'],
        ['--out', 'a.json', '--rounds', '0'],
    ],
)
def test_measure_backends_refuses(tmp_path, args):
    run = run_tool(TOOL, *args, cwd=tmp_path)
    assert run.returncode != 0 and run.stderr.startswith('error: ')
    assert run.stderr.count('\n') == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize('slow', BACKENDS)
def test_a_slow_backend_is_not_chosen(monkeypatch, slow):
    """Negative control: whichever would win, it does not if it sleeps."""
    spec = importlib.util.spec_from_file_location('measure_backends', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    implementation = getattr(__import__('mmparc.ops', fromlist=[slow]), slow)
    run = implementation.correlate
    monkeypatch.setattr(implementation, 'correlate', lambda *args: time.sleep(0.02) or run(*args))
    args = SimpleNamespace(lengths=[6], seconds=0, rounds=1, device='cpu')
    for row in ('cpu float32 depthwise h inference', 'cpu float32 dense w training'):
        ((n, name),) = tool.measure(row, args)
        assert n == 6 and name in set(BACKENDS) - {slow}


# cuFFT's plans


@pytest.mark.parametrize(('before', 'after'), [(4096, fft.PLANS), (8, 8)])
def test_the_plan_cache_is_capped(monkeypatch, before, after):
    device, plans = torch.device('cuda', before), SimpleNamespace(max_size=before)
    monkeypatch.setattr(torch.backends.cuda, 'cufft_plan_cache', {device: plans})
    fft.cap_plan_cache(device)
    assert plans.max_size == after
