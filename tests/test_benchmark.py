"""The benchmarks: that they time the operator, and that their tables are what they measured."""

import csv
import importlib.util
import math
import statistics
from pathlib import Path
from types import ModuleType

import pytest
import torch
from backbones import calls_of_mixers, in_eval, mixers
from helpers import BLOCK, HALVES, ROOT, assert_close, relative_error, run_python, run_tool
from mmengine.config import Config

from mmparc.analysis.flops import count_multiply_adds
from mmparc.models import ParCNet
from mmparc.ops import BACKENDS, parc_reference
from mmparc.registry import MODELS

OP, MODEL = 'tools/analysis/benchmark_op.py', 'tools/analysis/benchmark_model.py'
QUICK = ('--seconds', '0', '--rounds', '2')
SIZES = [(14, 14), (25, 42), (97, 131), (131, 97)]
MIXERS = ('published conv', 'published fft', *BACKENDS, 'auto')
CONVS = {'depthwise': ('3x3', '7x7', '31x31'), 'dense': ('3x3',)}
BASE = {'depthwise': '7x7', 'dense': '3x3'}


def load(tool: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(tool).stem, ROOT / tool)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


op, model = load(OP), load(MODEL)


# What is timed


def reference(shape: tuple, exchanged: bool = False) -> tuple[torch.Tensor, list[torch.Tensor]]:
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
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_all_mixers_are_the_same_operator(kind: str, size: tuple[int, int]) -> None:
    """What the timed functions return, with kernels as long as the map and not."""
    for kernel in (size, (9, 16)):
        shape = op.Shape(kind, '', '', 2, 6, *size, kernel)
        output, gradients = reference(shape)
        # negative control: what the benchmark would not be worth if it timed
        assert relative_error(reference(shape, exchanged=True)[0], output) > 0.1
        cpu = torch.device('cpu')
        for mode, expected in (('inference', [output]), ('training', gradients)):
            torch.manual_seed(0)
            functions = op.candidates(shape, mode, torch.float32, cpu, curve=False)
            assert set(functions) > set(MIXERS)
            for name in MIXERS:
                if mode == 'inference':
                    results = [functions[name]()]
                    assert not results[0].requires_grad
                else:
                    results = functions[name]()
                assert len(results) == len(expected), name
                for actual, wanted in zip(results, expected):
                    assert_close(actual, wanted, 1e-5, f'{name}, {mode}')


def test_convolutions_and_copy() -> None:
    """The two layouts compute the same; the copy is a copy; all keep the map's shape."""
    shape = op.Shape('depthwise', '', '', 2, 6, 9, 12, (9, 12))
    cpu = torch.device('cpu')
    functions = op.candidates(shape, 'inference', torch.float32, cpu, curve=False)
    outputs = {name: function() for name, function in functions.items()}
    assert {output.shape for output in outputs.values()} == {(2, 6, 9, 12)}
    torch.manual_seed(0)
    assert torch.equal(outputs['copy'], torch.randn(2, 6, 9, 12))
    for name in CONVS['depthwise']:
        plain, last = outputs[f'{name} NCHW'], outputs[f'{name} NHWC']
        assert plain.is_contiguous() and last.is_contiguous(memory_format=torch.channels_last)
    functions = op.candidates(shape, 'training', torch.float32, cpu, curve=False)
    shapes = [tuple(gradient.shape) for gradient in functions['7x7 NHWC']()]
    assert shapes == [(2, 6, 9, 12), (6, 1, 7, 7), (6,)]


@pytest.mark.parametrize(
    'name, fragment',
    [
        ('ParC-ConvNeXt-XT', 'convnext-xt'),
        ('ParC-ConvNeXt-T', 'convnext-t'),
        ('ParC-MobileNetV2', 'mobilenet-v2'),
        ('ParC-ResNet50', 'resnet50'),
    ],
)
def test_shapes_are_the_models(name: str, fragment: str) -> None:
    """Every map that a mixer of the model receives at 224 x 224 is among those of the benchmark."""
    shapes = [s for s in op.papers_shapes(['cls'], BASE) if name in s.model.split(', ')]
    known = {(s.kind == 'dense', s.channels, s.height, s.width, *s.kernel) for s in shapes}
    cfg = Config.fromfile(ROOT / f'configs/_base_/backbones/{fragment}.py')
    backbone = in_eval(MODELS.build({**cfg.plain, **cfg.parc}))
    met = set()
    for mixer, x, _ in calls_of_mixers(backbone, torch.zeros(1, 3, 224, 224)):
        lengths = (mixer.conv_h.kernel_size, mixer.conv_w.kernel_size)
        met.add((mixer.conv_h.groups == 1, *x.shape[1:], *lengths))
    assert met and met <= known
    if name == 'ParC-MobileNetV2':
        assert met == known


def test_shapes_of_all_tasks() -> None:
    shapes = op.papers_shapes(op.TASKS, BASE)
    assert len(set(shapes)) == len(shapes) == 3 * (4 + 4 + 3 + 4 - 1) + 3  # two share one
    for task, (batch, height, width) in model.TASKS.items():
        maps = [(height // stride, width // stride) for stride in (4, 8, 16, 32)]
        assert op.TASKS[task] == (batch, maps)
    widths = [s.channels for s in shapes if s.model == 'ParC-Net-S']
    assert widths == ParCNet.arch_settings['s']['inner_channels']
    values = [math.prod(s[3:7]) for s in op.curve_shapes(op.CURVE)]
    assert max(values) / min(values) < 1.1


# The table of benchmark_op


def run(tool: str, *args: object, cwd: Path) -> str:
    result = run_tool(tool, *args, cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def error_line(tool: str, *args: object, cwd: Path) -> str:
    result = run_tool(tool, *args, cwd=cwd)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith('error: ')
    return line


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


def faster(row: dict[str, str], name: str) -> float:
    return min(float(row[f'{name} {layout}']) for layout in ('NCHW', 'NHWC'))


def assert_table_fits(folder: Path) -> None:
    """Each number of op.md from the milliseconds of op.csv, computed again."""
    _, rows = read_csv(folder / 'op.csv')
    summary, *tables = read_tables(folder / 'op.md')
    groups = {}
    for row in rows:
        groups.setdefault((row['kind'], row['mode']), []).append(row)
    assert len(tables) == len(groups)
    for ((kind, mode), members), table in zip(groups.items(), tables):
        base = BASE[kind]
        assert len(table) == len(members)
        for row, shown in zip(members, table):
            shape = ' x '.join(row[key] for key in ('batch', 'channels', 'height', 'width'))
            assert shown['B x C x H x W'] == shape
            time = faster(row, base)
            assert float(shown[f'{base}, ms']) == pytest.approx(time, rel=1e-3)
            for name in (*MIXERS, 'copy'):
                assert float(shown[name]) == pytest.approx(float(row[name]) / time, abs=0.0051)
            for name in set(CONVS[kind]) - {base}:
                assert float(shown[name]) == pytest.approx(faster(row, name) / time, abs=0.0051)
        plain = [float(row['auto']) / faster(row, base) for row in members]
        best = [float(row['auto']) / min(float(row[b]) for b in BACKENDS) for row in members]
        published = [float(row['auto']) / min(float(row[p]) for p in MIXERS[:2]) for row in members]
        (shown,) = [s for s in summary if (s['kind'], s['mode'], s['n']) == (kind, mode, 'all')]
        expected = [
            len(members),
            math.exp(statistics.fmean(map(math.log, plain))),
            max(plain),
            math.exp(statistics.fmean(map(math.log, best))),
            max(best),
            statistics.median(published),
            max(published),
        ]
        assert [*map(float, list(shown.values())[4:])] == pytest.approx(expected, abs=0.0051)


@pytest.fixture(scope='module')
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of one run on small maps."""
    out = tmp_path_factory.mktemp('benchmark') / 'op'
    shapes = ('--shapes', '2x8x9x12', '1x4x70x5', '1x4x7x7')
    said = run(OP, *shapes, *QUICK, '--out', out, '--threads', 1, cwd=out.parent)
    assert 'machine: ' in said and str(out / 'op.md') in said
    assert (out / 'op.md').read_text().partition('## ')[2] in said
    return out


def test_op_files(measured: Path) -> None:
    comments, rows = read_csv(measured / 'op.csv')
    assert comments[0].startswith('# command: tools/analysis/benchmark_op.py --shapes 2x8x9x12 ')
    assert comments[1].startswith('# machine: ') and f'torch {torch.__version__}' in comments[1]
    assert '1 threads' in comments[1] and 'float32 on cpu' in comments[2]
    steps = [(row['kind'], row['batch'], row['height'], row['mode']) for row in rows]
    assert len(set(steps)) == 3 * 2 * 2
    convs = [f'{name} {layout}' for name in CONVS['depthwise'] for layout in ('NCHW', 'NHWC')]
    for row in rows:
        assert list(row)[-len(MIXERS) - 7 :] == [*MIXERS, *convs, 'copy']
        assert int(row['rounds']) == 2 and set(row['auto_is'].split()) <= set(BACKENDS)
        for name in (*MIXERS, *convs, 'copy'):
            there = row['kind'] == 'depthwise' or not name.startswith(('7x7', '31x31'))
            assert (float(row[name]) > 0) if there else (row[name] == '')


def test_op_table_is_what_was_measured(measured: Path) -> None:
    assert_table_fits(measured)
    summary = read_tables(measured / 'op.md')[0]
    assert [s['n'] for s in summary[:3]] == ['all', 'up to 64', 'above 64']
    assert [s['shapes'] for s in summary[:3]] == ['3', '2', '1']


@pytest.mark.parametrize('column', ['auto', 'fft', '7x7 NCHW', '31x31 NHWC', 'copy'])
def test_another_number_is_noticed(column: str, measured: Path, tmp_path: Path) -> None:
    """Negative control: milliseconds that the table was not made from."""
    (tmp_path / 'op.md').write_text((measured / 'op.md').read_text())
    comments, rows = read_csv(measured / 'op.csv')
    rows[0][column] = '1e-5' if 'x' in column else str(float(rows[0][column]) * 2)
    op.report.write_csv(tmp_path / 'op.csv', [c[2:] for c in comments], rows)
    with pytest.raises(AssertionError):
        assert_table_fits(tmp_path)


def test_nothing_is_overwritten(measured: Path) -> None:
    before = (measured / 'op.csv').read_text()
    args = ('--shapes', '1x2x3x3', '--kinds', 'dense', '--modes', 'inference', *QUICK)
    line = error_line(OP, *args, '--out', measured, cwd=measured)
    assert 'op.csv' in line and '--force' in line
    assert (measured / 'op.csv').read_text() == before
    copy = measured.parent / 'copy'
    copy.mkdir()
    for name in ('op.csv', 'op.md'):
        (copy / name).write_text(before)
    run(OP, *args, '--out', copy, '--force', cwd=copy)
    assert_table_fits(copy)
    assert len(read_csv(copy / 'op.csv')[1]) == 1


def test_hopeless_ones_are_skipped(tmp_path: Path) -> None:
    """Their cells say so; no number is made up."""
    args = ('--shapes', '1x2x3x3', '--kinds', 'depthwise', '--modes', 'training', '--cap', '1e-9')
    run(OP, *args, *QUICK, '--out', tmp_path, cwd=tmp_path)
    (row,) = read_csv(tmp_path / 'op.csv')[1]
    assert float(row['7x7 NCHW']) > 0
    assert {row[name] for name in (*MIXERS, '7x7 NHWC', '3x3 NCHW', 'copy')} == {'-'}
    summary, table = read_tables(tmp_path / 'op.md')
    assert {table[0][name] for name in (*MIXERS, '3x3', '31x31', 'copy')} == {'-'}
    assert set(list(summary[0].values())[5:]) == {'-'}


@pytest.mark.parametrize(
    'seconds, affordable',
    [([1, 1], True), ([1, 3, 3, 1], True), ([1, 3, 3, 3], False), ([6], False)],
)
def test_a_busy_machine_makes_nothing_hopeless(
    seconds: list[int], affordable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(seconds)
    monkeypatch.setattr(op, 'time_of', lambda function: next(calls))
    assert op.affordable(print, cap=5, limit=2) is affordable
    assert list(calls) == []


def test_dense_circulants_that_would_not_fit_are_skipped() -> None:
    sizes = {s: op.circulant_values(s) for s in op.papers_shapes(op.TASKS, ['dense'])}
    assert {s.task for s, values in sizes.items() if values > op.CAP_VALUES} == {'det'}


@pytest.mark.parametrize('dtype', [str(half).removeprefix('torch.') for half in HALVES])
def test_half_precision(dtype: str, tmp_path: Path) -> None:
    args = ('--shapes', '1x4x9x6', '--dtype', dtype, *QUICK)
    run(OP, *args, '--out', tmp_path, cwd=tmp_path)
    assert dtype in read_csv(tmp_path / 'op.csv')[0][2]
    assert_table_fits(tmp_path)


def test_curve(tmp_path: Path) -> None:
    args = ('--curve', '--sizes', '64', '512', '--modes', 'inference', '--seconds', '0')
    said = run(OP, *args, '--rounds', '1', '--plot', '--out', tmp_path, cwd=tmp_path)
    comments, rows = read_csv(tmp_path / 'curve.csv')
    assert 'ns per value' in comments[2]
    assert [row['n'] for row in rows] == ['64', '512']
    convs = ['7x7 NCHW', '7x7 NHWC']
    assert list(rows[0])[-len(MIXERS) - 3 :] == [*MIXERS, *convs, 'copy']
    costs = [float(row['auto']) for row in rows]
    (line,) = [line for line in said.splitlines() if 'n = 512 / at n = 64' in line]
    assert float(line.split()[-1]) == pytest.approx(costs[1] / costs[0], abs=0.0051)
    assert (tmp_path / 'curve.png').read_bytes().startswith(b'\x89PNG')
    row = dict.fromkeys(op.columns(curve=True), '2')  # ms, for 4 * 5 * 10 * 10 values
    row.update(batch=4, channels=5, height=10, width=10, mode='', rounds=1, auto_is='')
    assert float(op.per_value(row)['auto']) == 2 * 1e6 / 2000


@pytest.mark.parametrize(
    'args, said',
    [
        (['--shapes', '2x8x9'], 'takes BxCxHxW'),
        (['--shapes', '2x8x9x0'], 'takes BxCxHxW'),
        (['--shapes', '2x7x9x9'], 'has 7'),
        (['--device', 'cuda'], 'pass --device cpu'),
        (['--device', 'gpu'], "no device 'gpu'"),
        (['--threads', '0'], '--threads must be at least 1'),
        (['--rounds', '0'], '--rounds must be at least 1'),
        (['--curve', '--sizes', '0'], '--sizes must be at least 1'),
        (['--plot'], 'pass --curve and --out'),
        (['--out', 'file'], "'file' is no folder"),
    ],
    ids=str,
)
def test_op_errors(args: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    assert said in error_line(OP, *args, cwd=tmp_path)


RUN_OP = """
import runpy
allowed, sys.argv = sys.argv, [{tool!r}, *{args!r}]
runpy.run_path({tool!r}, run_name='__main__')
foreign = {{'mmengine', 'mmcv', 'mmpretrain', 'numpy', 'matplotlib'}}
loaded = {{name.partition('.')[0] for name in sys.modules}}
assert not foreign & loaded, foreign & loaded
"""


def test_op_needs_torch_alone(tmp_path: Path) -> None:
    args = ['--shapes', '2x4x9x12', *QUICK, '--out', str(tmp_path)]
    code = BLOCK + RUN_OP.format(tool=OP, args=args)
    done = run_python(code, 'torch', 'mmparc')
    assert done.returncode == 0, done.stderr
    assert_table_fits(tmp_path)
    # without rich, a line a step
    lines = [line for line in done.stderr.splitlines() if line.startswith('[')]
    assert lines[0] == '[1/4] depthwise 2x4x9x12 inference' and len(lines) == 4


def test_the_plot_needs_matplotlib(tmp_path: Path) -> None:
    code = BLOCK + RUN_OP.format(tool=OP, args=['--curve', '--plot', '--out', str(tmp_path)])
    done = run_python(code, 'torch', 'mmparc')
    assert (done.returncode, done.stdout) == (1, '')
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert line.startswith('error: --plot needs matplotlib')


def test_the_model_benchmark_is_noticed_to_need_more() -> None:
    """Negative control of the two above."""
    code = BLOCK + RUN_OP.format(tool=MODEL, args=[])
    done = run_python(code, 'torch', 'mmparc')
    assert done.returncode == 1 and 'error: mmengine is not installed' in done.stderr


# benchmark_model


@pytest.mark.parametrize('name', [path.stem for path in model.FRAGMENTS.glob('*-micro.py')])
def test_twins(name: str) -> None:
    twins = model.build(name)
    names = {twin: type(backbone).__name__ for twin, backbone in twins.items()}
    assert names['parc'].startswith('ParC') and not names['plain'].startswith('ParC')
    assert not mixers(twins['plain'])


def assert_models_fit(folder: Path) -> list[dict[str, str]]:
    """The rows of model.csv, after each number of model.md has been computed again from them."""
    _, rows = read_csv(folder / 'model.csv')
    (table,) = read_tables(folder / 'model.md')
    assert len(rows) == len(table)
    for row, shown in zip(rows, table):
        for twin, title in (('plain', 'plain'), ('parc', 'ParC')):
            speed = int(row['batch']) / float(row[f'{twin} ms']) * 1e3
            assert float(row[f'{twin} images/s']) == pytest.approx(speed, rel=1e-3)
            assert shown[f'{title}, images/s'] == row[f'{twin} images/s']
        ratio = float(row['parc ms']) / float(row['plain ms'])
        assert float(shown['time, ParC / plain']) == pytest.approx(ratio, abs=0.0051)
    return rows


def test_models(tmp_path: Path) -> None:
    args = ('--models', 'convnext-micro', 'resnet-micro', '--shapes', '2x64x97', *QUICK)
    run(MODEL, *args, '--out', tmp_path, cwd=tmp_path)
    comments, _ = read_csv(tmp_path / 'model.csv')
    assert 'benchmark_model.py --models convnext-micro' in comments[0]
    assert comments[1].startswith('# machine: ')
    rows = assert_models_fit(tmp_path)
    assert [(row['model'], row['mode'], row['width']) for row in rows] == [
        (name, mode, '97') for name in args[1:3] for mode in ('inference', 'training')
    ]
    line = error_line(MODEL, *args, '--out', tmp_path, cwd=tmp_path)
    assert 'model.csv' in line and '--force' in line
    # negative control
    text = (tmp_path / 'model.csv').read_text()
    (tmp_path / 'model.csv').write_text(text.replace(rows[0]['parc ms'], '123'))
    with pytest.raises(AssertionError):
        assert_models_fit(tmp_path)
    half = ('--amp', 'bfloat16', '--channels-last', '--force')
    run(MODEL, *args, *half, '--out', tmp_path, cwd=tmp_path)
    assert 'bfloat16' in read_csv(tmp_path / 'model.csv')[0][2]
    assert_models_fit(tmp_path)


def test_counts_stand_beside_the_times(tmp_path: Path) -> None:
    args = ('--models', 'convnext-micro', '--shapes', '1x64x96', '--modes', 'inference', *QUICK)
    run(MODEL, *args, '--count', '--out', tmp_path, cwd=tmp_path)
    (row,) = assert_models_fit(tmp_path)
    ((shown,),) = read_tables(tmp_path / 'model.md')
    for twin, backbone in model.build('convnext-micro', backend='matmul').items():
        backbone.eval()
        title = {'plain': 'plain, {}', 'parc': 'ParC, {}'}[twin]
        params = sum(p.numel() for p in backbone.parameters())
        total = count_multiply_adds(backbone, torch.zeros(1, 3, 64, 96)).total
        assert (int(row[f'{twin} parameters']), int(row[f'{twin} multiply-adds'])) == (
            params,
            total,
        )
        cells = {key: value for key, value in shown.items() if key.startswith(title[:5])}
        assert f'{params / 1e6:.2f}' in cells.values() and f'{total / 1e9:.2f}' in cells.values()
    assert row['plain multiply-adds'] != row['parc multiply-adds']


def test_a_training_step_trains_and_inference_does_not(tmp_path: Path) -> None:
    twins = model.build('convnext-micro')
    parameters = dict(twins['parc'].named_parameters())
    before = {name: p.detach().clone() for name, p in parameters.items()}
    options = model.argparse.Namespace(compile=False, amp=None, device=torch.device('cpu'))
    for mode, changes in (('inference', False), ('training', True)):
        model.runner(twins['parc'], torch.randn(2, 3, 64, 64), mode, options)()
        changed = [name for name, p in parameters.items() if not torch.equal(p, before[name])]
        assert bool(changed) == changes
    assert any('conv_h.weight' in name for name in changed)


@pytest.mark.parametrize(
    'args, said',
    [
        (['--shapes', '2x8'], 'takes BxHxW'),
        (['--device', 'cuda'], 'pass --device cpu'),
        (['--device', 'gpu'], "no device 'gpu'"),
        (['--rounds', '0'], '--rounds must be at least 1'),
    ],
    ids=str,
)
def test_model_errors(args: list[str], said: str, tmp_path: Path) -> None:
    assert said in error_line(MODEL, *args, cwd=tmp_path)


def test_a_step_that_cannot_run(tmp_path: Path) -> None:
    args = ('--models', 'parcnet-micro', '--shapes', '1x64x64', '--modes', 'training', *QUICK)
    result = run_tool(MODEL, *args, cwd=tmp_path)
    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]
    assert line.startswith('error: parcnet-micro in training on 1x64x64: Expected more than 1')
