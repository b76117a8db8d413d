#!/usr/bin/env python
"""Time the ParC mixer, by every backend, beside the convolutions that it replaces.

At every shape of the papers, in one interleaved run a shape. Needs torch alone; rich draws a
progress bar if it is there, and --plot needs matplotlib.

Inference uses kernels that were prepared beforehand, as layers keep them in evaluation on a CPU (on
a GPU they keep none); a layer's check that its weights are still the same is not part of it, but is
of what benchmark_model.py times. Training is the forward and the backward pass, the preparing of
the kernels among it, with gradients for the map and all parameters. mmparc/analysis/mixers.py has
the forms that are timed; kernels are as long as the models', so they are resized for larger maps.
"""

import argparse
import csv
import math
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

try:
    import torch
    import torch.nn.functional as F
    from torch import Tensor

    from mmparc.analysis import mixers, report
    from mmparc.analysis.timing import interleaved, machine, time_of
    from mmparc.ops import BACKENDS
except ImportError as error:
    raise SystemExit(
        f'error: {error.name or error} is not installed in this Python: in a checkout run '
        '`make env`, then `. .venv/bin/activate`; with an installed mmparc run '
        "`pip install 'mmparc[mm]'`"
    ) from None

# The papers' shapes. Batch, and the maps at strides 4, 8, 16 and 32:
TASKS = {
    'cls': (8, [(56, 56), (28, 28), (14, 14), (7, 7)]),  # 224 x 224
    'det': (1, [(200, 336), (100, 168), (50, 84), (25, 42)]),  # 800 x 1344
    'seg': (2, [(128, 128), (64, 64), (32, 32), (16, 16)]),  # 512 x 512
}
# ... and the widths of what a mixer takes the place of, by the index of the map. ParC-ConvNeXt and
# ParC-ResNet50 have their mixers at strides 16 and 32; the wider maps stand for other placements.
MODELS = {
    'ParC-ConvNeXt-XT': ('depthwise', [(0, 48), (1, 96), (2, 192), (3, 384)]),
    'ParC-ConvNeXt-T': ('depthwise', [(0, 96), (1, 192), (2, 384), (3, 768)]),
    'ParC-MobileNetV2': ('depthwise', [(2, 6 * 64), (2, 6 * 96), (3, 6 * 160)]),
    'ParC-ResNet50': ('dense', [(0, 64), (1, 128), (2, 256), (3, 512)]),
}
# ParC-Net-S is a network for 256 x 256 images: (map, width).
PARCNET = [(32, 192), (16, 256), (8, 320)]
# Kernel lengths are the maps of classification.
KERNELS = [h for h, _ in TASKS['cls'][1]]

CURVE = (4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
CURVE_VALUES = 12 * 512**2

# The columns. Convolutions are timed in both layouts, and compared with in the faster one.
LAYOUTS = ('NCHW', 'NHWC')
PUBLISHED = ('published conv', 'published fft')
OURS = (*BACKENDS, 'auto')
CONVS = {'depthwise': (3, 7, 31), 'dense': (3,)}
BASE = {'depthwise': '7x7', 'dense': '3x3'}
SKIPPED = '-'

# What is hopeless is not timed, and its cells say '-': what takes more than --cap seconds in its
# first call, or more than CAP_RATIO times the plain convolution in each of CAP_CALLS more, since a
# busy machine may hold up one (times below CAP_FLOOR seconds always count as affordable); and dense
# circulants of more than CAP_VALUES.
CAP_RATIO = 50
CAP_FLOOR = 0.1
CAP_CALLS = 3
CAP_VALUES = 2**26


class Shape(NamedTuple):
    kind: str
    task: str
    model: str
    batch: int
    channels: int
    height: int
    width: int
    kernel: tuple[int, int]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=list(TASKS))
    parser.add_argument('--kinds', nargs='+', choices=BASE, default=list(BASE))
    modes = ['inference', 'training']
    parser.add_argument('--modes', nargs='+', choices=modes, default=modes)
    parser.add_argument(
        '--shapes',
        nargs='+',
        metavar='BxCxHxW',
        help="these instead of the papers', with kernels as long as the map: 1x8x12x9",
    )
    parser.add_argument(
        '--curve',
        action='store_true',
        help='instead, the cost per value against n on square n x n maps, depthwise',
    )
    parser.add_argument('--sizes', type=int, nargs='+', default=CURVE, help='n of --curve')
    parser.add_argument('--plot', action='store_true', help='draw --curve into OUT/curve.png')
    parser.add_argument('--dtype', choices=['float32', 'bfloat16', 'float16'], default='float32')
    parser.add_argument('--device', default='cpu', help='cpu, cuda or cuda:1')
    parser.add_argument('--threads', type=int, help="of the CPU; default: torch's own choice")
    parser.add_argument('--seconds', type=float, default=5.0, help='a shape and mode (5)')
    parser.add_argument('--rounds', type=int, default=5, help='at least so many of each (5)')
    parser.add_argument(
        '--calls', type=int, help='in a row for one measurement; default: 1, on a GPU 20'
    )
    parser.add_argument('--cap', type=float, default=5.0, help='skip what takes so long (5 s)')
    parser.add_argument('--out', type=Path, help='write op.csv and op.md, or curve.csv, there')
    parser.add_argument('--force', action='store_true', help='overwrite them')
    return parser.parse_args()


def fail(message: str) -> None:
    raise SystemExit(f'error: {message}')


def check(args: argparse.Namespace) -> None:
    """Fill in the defaults that depend on other arguments, and refuse what cannot run."""
    if args.device.startswith('cuda') and not torch.cuda.is_available():
        fail(f'--device {args.device} needs a GPU that torch sees: pass --device cpu')
    try:
        args.device = torch.device(args.device)
    except RuntimeError:
        fail(f'there is no device {args.device!r}: pass cpu, cuda or cuda:1')
    if args.calls is None:
        args.calls = 20 if args.device.type == 'cuda' else 1
    for name in ('threads', 'rounds', 'calls'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            fail(f'--{name} must be at least 1, got {getattr(args, name)}')
    if min(args.sizes) < 1:
        fail(f'--sizes must be at least 1, got {min(args.sizes)}')
    if args.plot and not (args.curve and args.out):
        fail('--plot draws the curve into a folder: pass --curve and --out DIR too')
    if args.plot:
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            fail('--plot needs matplotlib: pip install matplotlib, or leave --plot out')
    if args.out:
        names = ['curve.csv', *['curve.png'] * args.plot] if args.curve else ['op.csv', 'op.md']
        try:
            report.make_folder(args.out, names, args.force)
        except FileExistsError as error:
            fail(str(error))


# Shapes


def papers_shapes(tasks: Sequence[str], kinds: Sequence[str]) -> list[Shape]:
    """Each once, with all models that have it."""
    shapes = []
    for task in tasks:
        batch, maps = TASKS[task]
        for model, (kind, widths) in MODELS.items():
            for i, channels in widths:
                kernel = (KERNELS[i], KERNELS[i])
                shapes.append(Shape(kind, task, model, batch, channels, *maps[i], kernel))
        if task == 'cls':
            for n, channels in PARCNET:
                shapes.append(Shape('depthwise', task, 'ParC-Net-S', batch, channels, n, n, (n, n)))
    models = {}
    for shape in shapes:
        if shape.kind in kinds:
            models.setdefault(shape._replace(model=''), []).append(shape.model)
    return [shape._replace(model=', '.join(names)) for shape, names in models.items()]


def given_shapes(texts: Sequence[str], kinds: Sequence[str]) -> list[Shape]:
    shapes = []
    for text in texts:
        numbers = text.split('x')
        if len(numbers) != 4 or not all(n.isdecimal() and int(n) > 0 for n in numbers):
            fail(f'--shapes takes BxCxHxW, as in 8x48x56x56, got {text!r}')
        batch, channels, h, w = map(int, numbers)
        if channels % 2:
            fail(f'a mixer splits its channels in two halves; {text!r} has {channels}')
        shapes += [Shape(kind, '', '', batch, channels, h, w, (h, w)) for kind in kinds]
    return shapes


def curve_shapes(sizes: Sequence[int]) -> list[Shape]:
    """Maps of about as many values: as in a network, twice the width at half the size."""
    shapes = []
    for n in sizes:
        channels = min(768, 96 * 64 // n)
        batch = max(1, CURVE_VALUES // (channels * n**2))
        channels = max(2, round(CURVE_VALUES / (batch * n**2) / 2) * 2)
        shapes.append(Shape('depthwise', 'curve', '', batch, channels, n, n, (n, n)))
    return shapes


# What is timed


def candidates(
    shape: Shape, mode: str, dtype: torch.dtype, device: torch.device, curve: bool
) -> dict[str, Callable[[], object]]:
    """A function without arguments for each column."""
    torch.manual_seed(0)
    dense = shape.kind == 'dense'
    x = torch.randn(shape.batch, shape.channels, shape.height, shape.width).to(device, dtype)
    halves = mixers.make_halves(x, shape.kernel, dense)
    parameters = [t for half in halves for t in (half.weight, half.bias, half.pos_embed)]
    grad = torch.randn_like(x)

    def timed(
        run: Callable[[Tensor], Tensor], x: Tensor, parameters: Sequence[Tensor]
    ) -> Callable[[], object]:
        if mode == 'inference':
            return torch.no_grad()(lambda: run(x))
        x = x.detach().requires_grad_()
        grad_here = torch.empty_like(x).copy_(grad)  # in x's layout
        return lambda: torch.autograd.grad(run(x), [x, *parameters], grad_here)

    functions = {
        'published conv': timed(lambda x: mixers.published_conv(x, halves), x, parameters),
        'published fft': timed(lambda x: mixers.published_fft(x, halves), x, parameters),
    }
    for backend in OURS:
        if backend == 'matmul' and dense and circulant_values(shape) > CAP_VALUES:
            continue
        functions[backend] = timed(mixer(x, halves, backend, mode), x, parameters)
    for k in (7,) if curve else CONVS[shape.kind]:
        for layout in LAYOUTS:
            functions[f'{k}x{k} {layout}'] = conv(shape, k, layout, x, timed)
    functions['copy'] = timed(torch.clone, x, [])
    return functions


def mixer(
    x: Tensor, halves: Sequence[mixers.Half], backend: str, mode: str
) -> Callable[[Tensor], Tensor]:
    if mode == 'training':
        return lambda x: mixers.apply_mixer(x, mixers.prepare_mixer(x, halves, backend))
    with torch.no_grad():
        kernels = mixers.prepare_mixer(x, halves, backend)
    return lambda x: mixers.apply_mixer(x, kernels)


def conv(shape: Shape, k: int, layout: str, x: Tensor, timed: Callable) -> Callable[[], object]:
    """The plain convolution; as in the models, a depthwise one has a bias, ResNet's has none."""
    c = shape.channels
    groups = 1 if shape.kind == 'dense' else c
    memory_format = torch.channels_last if layout == 'NHWC' else torch.contiguous_format
    weight = torch.randn(c, c // groups, k, k).to(x).to(memory_format=memory_format)
    bias = None if groups == 1 else torch.randn(c).to(x)
    parameters = [t.requires_grad_() for t in (weight, bias) if t is not None]
    return timed(
        lambda x: F.conv2d(x, weight, bias, padding=k // 2, groups=groups),
        x.contiguous(memory_format=memory_format),
        parameters,
    )


def circulant_values(shape: Shape) -> int:
    """Of the larger of a dense mixer's two matrices."""
    return (shape.channels // 2 * max(shape.height, shape.width)) ** 2


def chosen(shape: Shape, mode: str, dtype: torch.dtype, device: torch.device) -> str:
    """What 'auto' is, along H and along W."""
    x = torch.zeros(shape.batch, shape.channels, shape.height, shape.width).to(device, dtype)
    with torch.set_grad_enabled(mode == 'training'):
        x.requires_grad_(mode == 'training')
        halves = mixers.make_halves(x, shape.kernel, shape.kind == 'dense')
        kernels = mixers.prepare_mixer(x, halves, 'auto')
    return ' '.join(kernel.backend for kernel in kernels)


def affordable(function: Callable[[], object], cap: float, limit: float) -> bool:
    return time_of(function) <= cap and any(time_of(function) <= limit for _ in range(CAP_CALLS))


def measure(shape: Shape, mode: str, args: argparse.Namespace) -> dict[str, object]:
    """A row: what was timed, and the median of each column in milliseconds."""
    dtype = getattr(torch, args.dtype)
    functions = candidates(shape, mode, dtype, args.device, args.curve)
    base = functions[f'{BASE[shape.kind]} NCHW']
    base()
    limit = max(CAP_FLOOR, CAP_RATIO * time_of(base))
    functions = {
        name: function
        for name, function in functions.items()
        if function is base or affordable(function, args.cap, limit)
    }
    times = interleaved(
        functions, seconds=args.seconds, rounds=args.rounds, warmup=1, calls=args.calls
    )
    row = dict(
        shape._asdict(),
        kernel='x'.join(map(str, shape.kernel)),
        mode=mode,
        rounds=len(times[next(iter(times))]),
        auto_is=chosen(shape, mode, dtype, args.device),
    )
    for column in columns(args.curve):
        known = not column.startswith(('7x7', '31x31')) or shape.kind == 'depthwise'
        row[column] = SKIPPED if known else ''
        if column in times:
            row[column] = f'{statistics.median(times[column]) * 1e3:.5g}'
    return row


def columns(curve: bool) -> list[str]:
    sizes = (7,) if curve else (3, 7, 31)
    convs = [f'{k}x{k} {layout}' for k in sizes for layout in LAYOUTS]
    return [*PUBLISHED, *OURS, *convs, 'copy']


# What is made of the rows


def value(row: dict, column: str) -> float | None:
    """Milliseconds; for a convolution in the faster layout; None if skipped."""
    cells = [row[key] for key in row if key == column or key in [f'{column} {n}' for n in LAYOUTS]]
    times = [float(cell) for cell in cells if cell not in (SKIPPED, '')]
    return min(times, default=None)


def best(row: dict, names: Sequence[str]) -> float | None:
    times = [value(row, name) for name in names]
    return min((t for t in times if t is not None), default=None)


def divided(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a / b


def text(ratio: float | None) -> str:
    return SKIPPED if ratio is None else f'{ratio:.2f}'


def tables(rows: Sequence[dict]) -> str:
    """Ratios to the plain convolution, below a summary of them, all from the rows' milliseconds."""
    groups = {}
    for row in rows:
        groups.setdefault((row['kind'], row['mode']), []).append(row)
    parts = [summary(groups)]
    for (kind, mode), members in groups.items():
        base = BASE[kind]
        others = ['auto', *PUBLISHED, *BACKENDS]
        others += [f'{k}x{k}' for k in CONVS[kind] if f'{k}x{k}' != base] + ['copy']
        cells = []
        for row in members:
            b, c, h, w = (row[key] for key in ('batch', 'channels', 'height', 'width'))
            times = value(row, base)
            ratios = [text(divided(value(row, name), times)) for name in others]
            where = [row['task'], row['model'], f'{b} x {c} x {h} x {w}', row['auto_is']]
            cells.append([*where, f'{times:.4g}' if times else SKIPPED, *ratios])
        header = ['task', 'model', 'B x C x H x W', 'auto is', f'{base}, ms', *others]
        title = f'## {kind.capitalize()}, {mode}: times as multiples of the {base} convolution'
        parts.append(f'{title}\n\n{report.markdown(header, cells, 4)}')
    return '\n\n'.join(parts) + '\n'


def summary(groups: dict[tuple[str, str], list[dict]]) -> str:
    """auto against the convolution, the best backend, and the better published form."""
    cells = []
    for (kind, mode), members in groups.items():
        ranges = {
            'all': members,
            'up to 64': [row for row in members if longest(row) <= 64],
            'above 64': [row for row in members if longest(row) > 64],
        }
        for name, rows in ranges.items():
            if not rows:
                continue
            against = [
                [divided(value(row, 'auto'), best(row, names)) for row in rows]
                for names in ([BASE[kind]], BACKENDS, PUBLISHED)
            ]
            plain, backend, published = ([r for r in a if r is not None] for a in against)
            numbers = [
                *mean_and_worst(plain, statistics.geometric_mean),
                *mean_and_worst(backend, statistics.geometric_mean),
                *mean_and_worst(published, statistics.median),
            ]
            cells.append([kind, mode, name, BASE[kind], len(rows), *numbers])
    header = ['kind', 'mode', 'n', 'plain', 'shapes', 'auto / plain: geometric mean', 'worst']
    header += ['auto / best backend: geometric mean', 'worst']
    header += ['auto / better published: median', 'worst']
    return f'## Summary\n\n{report.markdown(header, cells, 4)}'


def longest(row: dict) -> int:
    return max(int(row['height']), int(row['width']))


def mean_and_worst(
    ratios: Sequence[float], mean: Callable[[Sequence[float]], float]
) -> tuple[str, str]:
    return (text(mean(ratios)), text(max(ratios))) if ratios else (SKIPPED, SKIPPED)


# The curve


def per_value(row: dict) -> dict[str, object]:
    """The row with nanoseconds per value of the map instead of milliseconds."""
    values = math.prod(row[key] for key in ('batch', 'channels', 'height', 'width'))
    costs = {
        name: row[name] if row[name] in (SKIPPED, '') else f'{float(row[name]) * 1e6 / values:.5g}'
        for name in columns(curve=True)
    }
    kept = {key: row[key] for key in ('mode', 'batch', 'channels', 'rounds', 'auto_is')}
    return dict(n=row['height'], **kept, **costs)


def growth(rows: Sequence[dict]) -> str:
    """How the cost of auto grows from n = 64 to 512."""
    lines = []
    for mode in dict.fromkeys(row['mode'] for row in rows):
        costs = {row['n']: value(row, 'auto') for row in rows if row['mode'] == mode}
        ratio = text(divided(costs.get(512), costs.get(64)))
        lines.append(f'auto, {mode}: cost per value at n = 512 / at n = 64: {ratio}')
    return '\n'.join(lines)


def draw(rows: Sequence[dict], title: str, path: Path) -> None:
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    modes = list(dict.fromkeys(row['mode'] for row in rows))
    size = (7 * len(modes), 5.5)
    figure, panels = plt.subplots(1, len(modes), figsize=size, layout='constrained', squeeze=False)
    for panel, mode in zip(panels[0], modes):
        for name in ('auto', *BACKENDS, *PUBLISHED, '7x7', 'copy'):
            points = [(row['n'], value(row, name)) for row in rows if row['mode'] == mode]
            points = [point for point in points if point[1] is not None] or [(math.nan, math.nan)]
            width, zorder = (3, 3) if name == 'auto' else (1.3, 2)
            style = '--' if name in ('7x7', 'copy') else ':' if name in PUBLISHED else '-'
            panel.plot(*zip(*points), style, marker='.', label=name, lw=width, zorder=zorder)
        panel.set(xscale='log', yscale='log', title=mode, xlabel='n', ylabel='ns per value')
        ticks = sorted({row['n'] for row in rows})
        panel.set_xticks(ticks, ticks, minor=False)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc='outside right center')
    figure.suptitle(title, fontsize='small', wrap=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    args = parse_args()
    check(args)
    if args.curve:
        shapes = curve_shapes(args.sizes)
    elif args.shapes:
        shapes = given_shapes(args.shapes, args.kinds)
    else:
        shapes = papers_shapes(args.tasks, args.kinds)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.device.type == 'cuda':
        torch.cuda.set_device(args.device)
        torch.backends.cudnn.benchmark = True  # each convolution by cuDNN's fastest algorithm
    comments = [
        f'command: {shlex.join(["tools/analysis/benchmark_op.py", *sys.argv[1:]])}',
        f'machine: {machine()}',
        f'{args.dtype} on {args.device}; medians in '
        + ('ns per value of the map' if args.curve else 'ms')
        + '; inference with kernels prepared beforehand',
    ]
    print('\n'.join(comments))
    steps = [(shape, mode) for shape in shapes for mode in args.modes]

    def label(step: tuple[Shape, str]) -> str:
        shape, mode = step
        return f'{shape.kind} {shape.batch}x{shape.channels}x{shape.height}x{shape.width} {mode}'

    rows = [measure(shape, mode, args) for shape, mode in report.track(steps, label)]
    if args.curve:
        finish_curve([per_value(row) for row in rows], comments, args)
    else:
        finish(rows, comments, args)


def finish(rows: Sequence[dict], comments: Sequence[str], args: argparse.Namespace) -> None:
    made = tables(rows)
    print(f'\n{made}')
    if args.out:
        report.write_csv(args.out / 'op.csv', comments, rows)
        head = '\n'.join(f'- {comment}' for comment in comments)
        (args.out / 'op.md').write_text(f'# The operator\n\n{head}\n\n{made}')
        print(args.out / 'op.csv', args.out / 'op.md', sep='\n')


def finish_curve(rows: Sequence[dict], comments: Sequence[str], args: argparse.Namespace) -> None:
    if args.out:
        report.write_csv(args.out / 'curve.csv', comments, rows)
        print(args.out / 'curve.csv')
    else:
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)
    if args.plot:
        draw(rows, comments[1], args.out / 'curve.png')
        print(args.out / 'curve.png')
    print(growth(rows))


if __name__ == '__main__':
    main()
