"""Time whole backbones, ParC beside its plain twin, in inference and in training steps.

The pairs are those of configs/_base_/backbones, with random weights; twins run in turn. A training
step is the forward pass, the mean of the squares of the outputs as loss, the backward pass and a
step of SGD. Counts are of one image, ParC's by the backend matmul (flops.py).
"""

import argparse
import contextlib
import functools
import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmparc.analysis import report, timing
from mmparc.analysis.flops import count_multiply_adds, set_backend
from mmparc.engine.errors import suggest
from mmparc.errors import UserError
from mmparc.registry import MODELS
from mmparc.swap.fragments import load_fragment, twin_names

# (batch, height, width)
TASKS = {'cls': (8, 224, 224), 'det': (1, 800, 1344), 'seg': (2, 512, 512)}
TWINS = ('plain', 'parc')


def run(args: argparse.Namespace) -> None:
    """Print the table, and write model.csv and model.md to ``args.out`` if it is given."""
    timing.prepare(args)
    for name in args.models:
        if name not in pairs():
            hint = suggest(name, list(pairs())) or f'pass one of {", ".join(sorted(pairs()))}'
            raise UserError(f"there is no backbone '{name}' with a twin: {hint}")
    sizes = [(task, TASKS[task]) for task in args.tasks]
    if args.shapes:
        sizes = [('', tuple(timing.numbers_of(text, 'BxHxW'))) for text in args.shapes]
    steps = [(m, *size, mode, args) for m in args.models for size in sizes for mode in args.modes]
    note = f'{args.amp or "float32"} on {args.device}; medians of a pass or step'
    timing.write_tables(args, 'model', 'Whole backbones', note, steps, measure, table)


def pairs() -> dict[str, tuple[str, str]]:
    """{file of configs/_base_/backbones: names of its plain and its ParC backbone}."""
    return {parc.removeprefix('parc-'): (plain, parc) for parc, plain in twin_names()}


def build(name: str) -> dict[str, nn.Module]:
    """Both twins with random weights."""
    torch.manual_seed(0)
    return {
        twin: MODELS.build(load_fragment(own).settings) for twin, own in zip(TWINS, pairs()[name])
    }


def runner(
    model: nn.Module, images: Tensor, mode: str, args: argparse.Namespace
) -> Callable[[], object]:
    """A function without arguments that runs the model once."""
    model.train(mode == 'training')  # some of mmpretrain's return None
    run = torch.compile(model, dynamic=False) if args.compile else model
    autocast = contextlib.nullcontext
    if args.amp:
        autocast = functools.partial(torch.autocast, args.device.type, getattr(torch, args.amp))

    def infer() -> None:
        with torch.no_grad(), autocast():
            run(images)

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-4)

    def train() -> None:
        with autocast():
            loss = sum(output.float().square().mean() for output in run(images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return infer if mode == 'inference' else train


@functools.cache  # it is the same in each mode
def count(name: str, height: int, width: int) -> dict[str, int]:
    """Parameters of both twins, and multiply-adds for one image."""
    row = {}
    for twin, model in build(name).items():
        model.eval()
        set_backend(model, 'matmul')
        row[f'{twin} parameters'] = sum(p.numel() for p in model.parameters())
        counted = count_multiply_adds(model, torch.zeros(1, 3, height, width))
        row[f'{twin} multiply-adds'] = counted.total
    return row


def measure(
    name: str, task: str, size: tuple[int, int, int], mode: str, args: argparse.Namespace
) -> dict[str, object]:
    """A row: what was timed, the twins' median milliseconds and their images per second."""
    batch, height, width = size
    # Without it the models compiled before count towards torch's limit of versions of the same
    # code, beyond which it runs without compiling.
    torch.compiler.reset()
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    images = torch.randn(batch, 3, height, width, device=args.device).to(memory_format=layout)
    functions = {
        twin: runner(model.to(args.device, memory_format=layout), images, mode, args)
        for twin, model in build(name).items()
    }
    try:
        times = timing.interleaved(functions, seconds=args.seconds, rounds=args.rounds, warmup=2)
    except ValueError as error:  # such as a batch norm's of one image
        what = f'{name} in {mode} on {batch}x{height}x{width}'
        raise UserError(f'{what}: {error}: pass other --shapes or --modes') from None
    medians = {twin: statistics.median(times[twin]) for twin in TWINS}
    row = dict(model=name, task=task, mode=mode, batch=batch, height=height, width=width)
    row['rounds'] = len(times['plain'])
    row |= {f'{twin} ms': f'{medians[twin] * 1e3:.5g}' for twin in TWINS}
    row |= {f'{twin} images/s': f'{batch / medians[twin]:.5g}' for twin in TWINS}
    return row | (count(name, height, width) if args.count else {})


def table(rows: Sequence[dict]) -> str:
    """Images per second, the ratio of the twins' milliseconds, and what was counted."""
    header = ['model', 'task', 'images', 'mode', 'plain, images/s', 'ParC, images/s']
    header += ['time, ParC / plain']
    cells = []
    for row in rows:
        images = '{batch} x {height} x {width}'.format(**row)
        ratio = float(row['parc ms']) / float(row['plain ms'])
        speeds = [row[f'{twin} images/s'] for twin in TWINS]
        cells.append([row['model'], row['task'], images, row['mode'], *speeds, f'{ratio:.2f}'])
        if 'plain parameters' in row:
            cells[-1] += [f'{row[f"{twin} parameters"] / 1e6:.2f}' for twin in TWINS]
            cells[-1] += [f'{row[f"{twin} multiply-adds"] / 1e9:.2f}' for twin in TWINS]
    if 'plain parameters' in rows[0]:
        header += ['plain, M parameters', 'ParC, M']
        header += ['plain, G multiply-adds', 'ParC, G']
    return report.markdown(header, cells, 4) + '\n'
