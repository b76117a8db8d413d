"""Time the ParC mixer, by every backend, beside the convolutions that it replaces.

Inference uses kernels that were prepared beforehand, as layers keep them in evaluation on a CPU (on
a GPU they keep none). Training is the forward and the backward pass, with gradients for the map and
all parameters, and prepares the kernels. mixers.py has the forms that are timed; kernels are as
long as the models', so they are resized for larger maps. Needs torch alone.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmparc.analysis import mixers, report, timing
from mmparc.errors import UserError
from mmparc.ops import BACKENDS

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

# The columns. Convolutions are timed in both layouts; the faster one counts.
PUBLISHED = ('published conv', 'published fft')
CONVS = {'depthwise': (3, 7, 31), 'dense': (3,)}
BASE = {'depthwise': '7x7', 'dense': '3x3'}
COLUMNS = (*PUBLISHED, *BACKENDS, 'auto', '3x3', '7x7', '31x31', 'copy')

# What is hopeless is not timed: what takes more than --cap seconds in its first call, or more than
# CAP_RATIO times the plain convolution in each of CAP_CALLS more, since a busy machine may hold up
# one (times below CAP_FLOOR seconds always count as affordable); and dense circulants of more than
# CAP_VALUES.
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


def run(args: argparse.Namespace) -> None:
    """Print the tables of all shapes; write them to ``args.out`` if it is given."""
    timing.prepare(args)
    shapes = given_shapes(args.shapes, args.kinds) if args.shapes else papers_shapes(args.kinds)
    note = f'{args.dtype} on {args.device}; medians in ms; kernels of inference prepared before'
    steps = [(shape, mode, args) for shape in shapes for mode in args.modes]
    timing.write_tables(args, 'op', 'The operator', note, steps, measure, tables)


# Shapes


def papers_shapes(kinds: Sequence[str]) -> list[Shape]:
    """Each once, with all models that have it."""
    shapes = []
    for task, (batch, maps) in TASKS.items():
        for model, (kind, widths) in MODELS.items():
            for i, channels in widths:
                kernel = (KERNELS[i], KERNELS[i])
                shapes.append(Shape(kind, task, model, batch, channels, *maps[i], kernel))
    for n, channels in PARCNET:
        batch = TASKS['cls'][0]
        shapes.append(Shape('depthwise', 'cls', 'ParC-Net-S', batch, channels, n, n, (n, n)))
    models = {}
    for shape in shapes:
        if shape.kind in kinds:
            models.setdefault(shape._replace(model=''), []).append(shape.model)
    return [shape._replace(model=', '.join(names)) for shape, names in models.items()]


def given_shapes(texts: Sequence[str], kinds: Sequence[str]) -> list[Shape]:
    shapes = []
    for text in texts:
        batch, channels, h, w = timing.numbers_of(text, 'BxCxHxW')
        if channels % 2:
            raise UserError(f'a mixer splits its channels in two halves; {text!r} has {channels}')
        shapes += [Shape(kind, '', '', batch, channels, h, w, (h, w)) for kind in kinds]
    return shapes


# What is timed


def candidates(
    shape: Shape, mode: str, dtype: torch.dtype, device: torch.device
) -> tuple[dict[str, Callable[[], object]], str]:
    """A function for each column, and what 'auto' is along H and along W.

    There are two functions for a convolution, 7x7 and '7x7, NHWC'.
    """
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
    for backend in (*BACKENDS, 'auto'):
        if backend == 'matmul' and dense and circulant_values(shape) > CAP_VALUES:
            continue
        functions[backend] = timed(mixer(x, halves, backend, mode), x, parameters)
    for k in CONVS[shape.kind]:
        for name, layout in (('', torch.contiguous_format), (', NHWC', torch.channels_last)):
            # as in the models, a depthwise one has a bias, ResNet's has none
            weight = torch.randn(shape.channels, shape.channels if dense else 1, k, k).to(x)
            weight = weight.to(memory_format=layout).requires_grad_()
            bias = None if dense else torch.randn(shape.channels).to(x).requires_grad_()
            settings = dict(bias=bias, padding=k // 2, groups=1 if dense else shape.channels)
            functions[f'{k}x{k}{name}'] = timed(
                lambda x, weight=weight, settings=settings: F.conv2d(x, weight, **settings),
                x.contiguous(memory_format=layout),
                [weight] if dense else [weight, bias],
            )
    functions['copy'] = timed(torch.clone, x, [])
    with torch.set_grad_enabled(mode == 'training'):
        kernels = mixers.prepare_mixer(x, halves, 'auto')
    return functions, ' '.join(kernel.backend for kernel in kernels)


def mixer(
    x: Tensor, halves: Sequence[mixers.Half], backend: str, mode: str
) -> Callable[[Tensor], Tensor]:
    if mode == 'training':
        return lambda x: mixers.apply_mixer(x, mixers.prepare_mixer(x, halves, backend))
    with torch.no_grad():
        kernels = mixers.prepare_mixer(x, halves, backend)
    return lambda x: mixers.apply_mixer(x, kernels)


def circulant_values(shape: Shape) -> int:
    """Of the larger of a dense mixer's two matrices."""
    return (shape.channels // 2 * max(shape.height, shape.width)) ** 2


def affordable(function: Callable[[], object], cap: float, limit: float) -> bool:
    if timing.time_of(function) > cap:
        return False
    return any(timing.time_of(function) <= limit for _ in range(CAP_CALLS))


def measure(shape: Shape, mode: str, args: argparse.Namespace) -> dict[str, object]:
    """A row: what was timed, and the median of each column in milliseconds; '' if not timed."""
    functions, auto_is = candidates(shape, mode, getattr(torch, args.dtype), args.device)
    base = functions[BASE[shape.kind]]
    base()
    limit = max(CAP_FLOOR, CAP_RATIO * timing.time_of(base))
    functions = {
        name: function
        for name, function in functions.items()
        if function is base or affordable(function, args.cap, limit)
    }
    times = timing.interleaved(
        functions,
        seconds=args.seconds,
        rounds=args.rounds,
        calls=20 if args.device.type == 'cuda' else 1,  # the host runs ahead, as in a network
    )
    row = dict(
        shape._asdict(),
        kernel='x'.join(map(str, shape.kernel)),
        mode=mode,
        rounds=len(times[BASE[shape.kind]]),
        auto_is=auto_is,
    )
    for column in COLUMNS:
        own = [statistics.median(times[n]) for n in (column, f'{column}, NHWC') if n in times]
        row[column] = f'{min(own) * 1e3:.5g}' if own else ''
    return row


# What is made of the rows


def best(row: dict, names: Sequence[str]) -> float | None:
    """The shortest of a row's times in these columns."""
    return min((float(row[name]) for name in names if row[name]), default=None)


def ratios(rows: Sequence[dict], name: str, others: Sequence[str]) -> list[float]:
    """A column's times over the best of others, where both were timed."""
    pairs = [(best(row, [name]), best(row, others)) for row in rows]
    return [a / b for a, b in pairs if a is not None and b is not None]


def text(values: Sequence[float], of: Callable[[Sequence[float]], float]) -> str:
    return f'{of(values):.2f}' if values else '-'


def tables(rows: Sequence[dict]) -> str:
    """Ratios to the plain convolution, below a summary of them."""
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
            where = '{batch} x {channels} x {height} x {width}'.format(**row)
            cells.append([row['task'], row['model'], where, row['auto_is'], row[base]])
            cells[-1] += [text(ratios([row], name, [base]), min) for name in others]
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
            'up to 64': [row for row in members if max(row['height'], row['width']) <= 64],
            'above 64': [row for row in members if max(row['height'], row['width']) > 64],
        }
        for name, rows in ranges.items():
            if rows:
                cells.append([kind, mode, name, BASE[kind], len(rows)])
                for others, mean in (
                    ([BASE[kind]], statistics.geometric_mean),
                    (BACKENDS, statistics.geometric_mean),
                    (PUBLISHED, statistics.median),
                ):
                    found = ratios(rows, 'auto', others)
                    cells[-1] += [text(found, mean), text(found, max)]
    header = ['kind', 'mode', 'n', 'plain', 'shapes', 'auto / plain: geometric mean', 'worst']
    header += ['auto / best backend: geometric mean', 'worst']
    header += ['auto / better published: median', 'worst']
    return f'## Summary\n\n{report.markdown(header, cells, 4)}'
