"""The benchmarks: that they time the operator, and that their tables are what they measured."""

import argparse
import csv
import math
import statistics
from pathlib import Path

import pytest
import torch
from backbones import calls_of_mixers, in_eval, mixers
from helpers import BLOCK, ROOT, assert_close, relative_error, run_python
from mmengine.config import Config
from tool_calls import call, load_tool, refusal

from mmparc.analysis import benchmark_model as model
from mmparc.analysis import benchmark_op as op
from mmparc.analysis.flops import count_multiply_adds, set_backend
from mmparc.models import ParCNet
from mmparc.ops import BACKENDS, parc_reference
from mmparc.registry import MODELS

OP, MODEL = 'analysis/benchmark_op.py', 'analysis/benchmark_model.py'
QUICK = ('--seconds', 0, '--rounds', 2)
MIXERS = (*op.PUBLISHED, *BACKENDS, 'auto')
CPU = torch.device('cpu')


# What is timed


def reference(shape: op.Shape, exchanged: bool = False) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The mixer's output and gradients from the reference operator, in float64.

    Map and parameters are drawn as the benchmark draws them. ``exchanged``: H and W.
    """
    torch.manual_seed(0)
    x = torch.randn(shape.batch, shape.channels, shape.height, shape.width)
    halves = op.mixers.make_halves(x, shape.kernel, shape.kind == 'dense')
    grad = torch.randn_like(x)
    groups = 1 if shape.kind == 'dense' else shape.channels // 2
    leaves = [x, *(t for half in halves for t in (half.weight, half.bias, half.pos_embed))]
    x, *parameters = leaves = [t.detach().double().requires_grad_() for t in leaves]
    outputs = [
        parc_reference(part, *tensors, axis=axis, groups=groups)
        for part, tensors, axis in zip(
            x.chunk(2, 1), (parameters[:3], parameters[3:]), 'wh' if exchanged else 'hw'
        )
    ]
    output = torch.cat(outputs, 1)
    return output, torch.autograd.grad(output, leaves, grad.double())


@pytest.mark.parametrize('kind', ['depthwise', 'dense'])
def test_all_mixers_are_the_same_operator(kind: str) -> None:
    """What the timed functions return, with kernels as long as the map and not."""
    for size, kernel in (((14, 14), (14, 14)), ((25, 42), (9, 16)), ((41, 37), (9, 16))):
        shape = op.Shape(kind, '', '', 2, 6, *size, kernel)
        output, gradients = reference(shape)
        # negative control: what the benchmark would not be worth if it timed
        assert relative_error(reference(shape, exchanged=True)[0], output) > 0.1
        for mode, expected in (('inference', [output]), ('training', gradients)):
            functions, _ = op.candidates(shape, mode, torch.float32, CPU)
            assert set(functions) > set(MIXERS)
            for name in MIXERS:
                results = functions[name]()
                results = [results] if mode == 'inference' else results
                assert mode == 'training' or not results[0].requires_grad
                for actual, wanted in zip(results, expected, strict=True):
                    assert_close(actual, wanted, 1e-5, f'{name}, {mode}')


def test_shapes_are_the_models() -> None:
    """Every map that a mixer of a model receives at 224 x 224 is among those of the benchmark."""
    for name, fragment in (('ParC-ConvNeXt-XT', 'convnext-xt'), ('ParC-ResNet50', 'resnet50')):
        shapes = [s for s in op.papers_shapes(op.BASE) if name in s.model.split(', ')]
        known = {(s.kind == 'dense', s.channels, s.height, s.width, *s.kernel) for s in shapes}
        cfg = Config.fromfile(ROOT / f'configs/_base_/backbones/{fragment}.py')
        backbone = in_eval(MODELS.build({**cfg.plain, **cfg.parc}))
        met = set()
        for mixer, x, _ in calls_of_mixers(backbone, torch.zeros(1, 3, 224, 224)):
            lengths = (mixer.conv_h.kernel_size, mixer.conv_w.kernel_size)
            met.add((mixer.conv_h.groups == 1, *x.shape[1:], *lengths))
        assert met and met <= known


def test_shapes_of_all_tasks() -> None:
    shapes = op.papers_shapes(op.BASE)
    assert len(set(shapes)) == len(shapes) == 3 * (4 + 4 + 3 + 4 - 1) + 3  # two share one
    for task, (batch, height, width) in model.TASKS.items():
        maps = [(height // stride, width // stride) for stride in (4, 8, 16, 32)]
        assert op.TASKS[task] == (batch, maps)
    widths = [s.channels for s in shapes if s.model == 'ParC-Net-S']
    assert widths == ParCNet.arch_settings['s']['inner_channels']
    dense = [s for s in shapes if s.kind == 'dense']
    too_large = {s.task for s in dense if op.circulant_values(s) > op.CAP_VALUES}
    assert too_large == {'det'}
    assert load_tool(OP).KINDS == tuple(op.BASE) and load_tool(MODEL).TASKS == tuple(model.TASKS)


# The table of benchmark_op


def read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    lines = path.read_text().splitlines()
    comments = [line for line in lines if line.startswith('# ')]
    assert lines[: len(comments)] == comments
    return comments, list(csv.DictReader(lines[len(comments) :]))


def read_tables(path: Path) -> list[list[dict[str, str]]]:
    """The rows of each table of a Markdown file; columns of one name are numbered."""
    found = []
    for block in path.read_text().split('\n\n'):
        lines = [line for line in block.splitlines() if line.startswith('|')]
        if lines:
            cells = [[cell.strip() for cell in line[1:-1].split('|')] for line in lines]
            names = [f'{n} {i}' if n == 'worst' else n for i, n in enumerate(cells[0])]
            found.append([dict(zip(names, row)) for row in cells[2:]])
    return found


def assert_table_fits(folder: Path) -> None:
    """Each number of op.md from the milliseconds of op.csv, computed again."""
    _, rows = read_csv(folder / 'op.csv')
    summary, *tables = read_tables(folder / 'op.md')
    groups = {}
    for row in rows:
        groups.setdefault((row['kind'], row['mode']), []).append(row)
    assert len(tables) == len(groups)
    for ((kind, mode), members), table in zip(groups.items(), tables):
        base = op.BASE[kind]
        columns = [*MIXERS, *(f'{k}x{k}' for k in op.CONVS[kind] if f'{k}x{k}' != base), 'copy']
        for row, shown in zip(members, table, strict=True):
            shape = ' x '.join(row[key] for key in ('batch', 'channels', 'height', 'width'))
            assert shown['B x C x H x W'] == shape and shown[f'{base}, ms'] == row[base]
            for name in columns:
                ratio = float(row[name]) / float(row[base])
                assert float(shown[name]) == pytest.approx(ratio, abs=0.0051)
        ratios = {
            others: [float(r['auto']) / min(float(r[name]) for name in others) for r in members]
            for others in ((base,), BACKENDS, op.PUBLISHED)
        }
        (shown,) = [s for s in summary if (s['kind'], s['mode'], s['n']) == (kind, mode, 'all')]
        expected = [len(members)]
        for others, values in ratios.items():
            mean = math.exp(statistics.fmean(map(math.log, values)))
            median = statistics.median(values)
            expected += [median if others == op.PUBLISHED else mean, max(values)]
        assert [*map(float, list(shown.values())[4:])] == pytest.approx(expected, abs=0.0051)


@pytest.fixture(scope='module')
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of one run on small maps."""
    folder = tmp_path_factory.mktemp('benchmark')
    shapes = ('--shapes', '2x8x9x12', '1x4x70x5', '1x4x7x7')
    call(OP, *shapes, *QUICK, '--out', 'op', '--threads', 1, cwd=folder)
    return folder / 'op'


def test_op_table_is_what_was_measured(measured: Path, tmp_path: Path) -> None:
    comments, rows = read_csv(measured / 'op.csv')
    assert comments[0].startswith('# command: tools/analysis/benchmark_op.py --shapes 2x8x9x12 ')
    assert f'torch {torch.__version__}' in comments[1] and '1 threads' in comments[1]
    steps = {(row['kind'], row['batch'], row['height'], row['mode']) for row in rows}
    assert len(steps) == len(rows) == 3 * 2 * 2
    for row in rows:
        assert int(row['rounds']) == 2 and set(row['auto_is'].split()) <= set(BACKENDS)
        for name in op.COLUMNS:
            there = row['kind'] == 'depthwise' or name not in ('7x7', '31x31')
            assert (float(row[name]) > 0) if there else (row[name] == '')
    assert_table_fits(measured)
    summary = read_tables(measured / 'op.md')[0]
    assert [s['n'] for s in summary[:3]] == ['all', 'up to 64', 'above 64']
    assert [s['shapes'] for s in summary[:3]] == ['3', '2', '1']
    # the control: milliseconds that the table was not made from
    (tmp_path / 'op.md').write_text((measured / 'op.md').read_text())
    for column in ('auto', 'fft', '7x7', 'copy'):
        changed = [dict(row) for row in rows]
        changed[0][column] = str(float(rows[0][column]) * 2)
        op.report.write_csv(tmp_path / 'op.csv', [c[2:] for c in comments], changed)
        with pytest.raises(AssertionError):
            assert_table_fits(tmp_path)


def test_hopeless_ones_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their cells say so; no number is made up. A busy machine makes nothing hopeless."""
    args = ('--shapes', '1x2x3x3', '--kinds', 'depthwise', '--modes', 'training', '--cap', 1e-9)
    call(OP, *args, *QUICK, '--out', '.', cwd=tmp_path)
    (row,) = read_csv(tmp_path / 'op.csv')[1]
    assert float(row['7x7']) > 0
    assert {row[name] for name in (*MIXERS, '3x3', 'copy')} == {''}
    summary, table = read_tables(tmp_path / 'op.md')
    assert {table[0][name] for name in (*MIXERS, '3x3', '31x31', 'copy')} == {'-'}
    assert set(list(summary[0].values())[5:]) == {'-'}
    calls = []
    monkeypatch.setattr(op.timing, 'time_of', lambda function: calls.pop(0))
    for seconds, affordable in (((1, 1), 1), ((1, 3, 3, 1), 1), ((1, 3, 3, 3), 0), ((6,), 0)):
        calls[:] = seconds
        assert op.affordable(print, cap=5, limit=2) == bool(affordable)


def test_op_needs_torch_alone(tmp_path: Path) -> None:
    code = BLOCK + (
        'import runpy\n'
        f'sys.argv = {[OP, "--shapes", "1x2x5x6", "--seconds", "0", "--out", str(tmp_path)]!r}\n'
        f"runpy.run_path('tools/{OP}', run_name='__main__')\n"
        "assert not {'mmengine', 'mmcv', 'numpy', 'matplotlib'} & sys.modules.keys()\n"
    )
    done = run_python(code, 'torch', 'mmparc')
    assert done.returncode == 0, done.stderr
    assert_table_fits(tmp_path)
    # the control: the other needs more
    done = run_python(code.replace('benchmark_op', 'benchmark_model'), 'torch', 'mmparc')
    assert done.returncode == 1 and 'mmengine' in done.stderr


# benchmark_model


def assert_models_fit(folder: Path) -> list[dict[str, str]]:
    """The rows of model.csv, after each number of model.md has been computed again from them."""
    _, rows = read_csv(folder / 'model.csv')
    (table,) = read_tables(folder / 'model.md')
    for row, shown in zip(rows, table, strict=True):
        for twin, title in (('plain', 'plain'), ('parc', 'ParC')):
            speed = int(row['batch']) / float(row[f'{twin} ms']) * 1e3
            assert float(row[f'{twin} images/s']) == pytest.approx(speed, rel=1e-3)
            assert shown[f'{title}, images/s'] == row[f'{twin} images/s']
        ratio = float(row['parc ms']) / float(row['plain ms'])
        assert float(shown['time, ParC / plain']) == pytest.approx(ratio, abs=0.0051)
    return rows


def test_models(tmp_path: Path) -> None:
    args = ('--models', 'convnext-micro', '--shapes', '2x64x97', '--count', '--amp', 'bfloat16')
    call(MODEL, *args, '--channels-last', *QUICK, '--out', '.', cwd=tmp_path)
    comments, _ = read_csv(tmp_path / 'model.csv')
    assert 'benchmark_model.py --models convnext-micro' in comments[0] and 'bfloat16' in comments[2]
    rows = assert_models_fit(tmp_path)
    modes = [(row['model'], row['mode'], row['width']) for row in rows]
    assert modes == [('convnext-micro', mode, '97') for mode in ('inference', 'training')]
    shown = read_tables(tmp_path / 'model.md')[0][0]
    for twin, backbone in model.build('convnext-micro').items():
        assert bool(mixers(backbone)) == (twin == 'parc')
        backbone.eval()
        set_backend(backbone, 'matmul')
        params = sum(p.numel() for p in backbone.parameters())
        total = count_multiply_adds(backbone, torch.zeros(1, 3, 64, 97)).total
        assert int(rows[0][f'{twin} parameters']) == params
        assert int(rows[0][f'{twin} multiply-adds']) == total
        assert {f'{params / 1e6:.2f}', f'{total / 1e9:.2f}'} <= set(shown.values())
    # negative control
    text = (tmp_path / 'model.csv').read_text()
    (tmp_path / 'model.csv').write_text(text.replace(rows[0]['parc ms'], '123'))
    with pytest.raises(AssertionError):
        assert_models_fit(tmp_path)


def test_a_training_step_trains_and_inference_does_not() -> None:
    twins = model.build('convnext-micro')
    parameters = dict(twins['parc'].named_parameters())
    before = {name: p.detach().clone() for name, p in parameters.items()}
    options = argparse.Namespace(compile=False, amp=None, device=CPU)
    for mode, changes in (('inference', False), ('training', True)):
        model.runner(twins['parc'], torch.randn(2, 3, 64, 64), mode, options)()
        changed = [name for name, p in parameters.items() if not torch.equal(p, before[name])]
        assert bool(changed) == changes
    assert any('conv_h.weight' in name for name in changed)


# What they refuse


def test_refusals(measured: Path, tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    for tool, *args, named in (
        (OP, '--shapes', '2x8x9', '2x8x9'),
        (OP, '--shapes', '2x8x9x0', '2x8x9x0'),
        (OP, '--shapes', '2x7x9x9', 'has 7'),
        (OP, '--threads', 0, '--threads'),
        (OP, '--out', 'file', "'file'"),
        (OP, '--out', measured, 'op.csv'),
        (MODEL, '--shapes', '2x8', '2x8'),
        (MODEL, '--device', 'cuda', 'cuda'),
        (MODEL, '--device', 'gpu', "'gpu'"),
        (MODEL, '--rounds', 0, '--rounds'),
        (MODEL, '--models', 'resnet51', "'resnet50'"),
        (MODEL, '--models', 'parcnet-micro', '--shapes', '1x64x64', *QUICK, '1x64x64'),
        ('analysis/benchmark_mmcv_ops.py', 'compiled'),
    ):
        assert named in refusal(tool, *args, cwd=tmp_path), (tool, args)
