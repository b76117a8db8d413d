"""Measure which backend of ParC is the fastest here, by the kernel's length, into a table.

What this machine cannot measure (a GPU, on one without) is taken from mmparc's own table. Needs
torch alone.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator

import torch

from mmparc.analysis import report, timing
from mmparc.errors import UserError
from mmparc.ops import BACKENDS, ROWS, ParCKernel, correlate, load_table, prepare
from mmparc.ops.select import SHIPPED_TABLE

LENGTHS = (4, 7, 10, 14, 20, 28, 42, 56, 64, 84, 100, 128, 168, 200, 336, 512)
DTYPES = {'float32': torch.float32, 'half': torch.bfloat16}
# Maps are as wide as in the papers' models: a length times its channels is about the same at each
# stage. One axis gets half of them. {kind: [(batch, length times channels, longest)]}
MAPS = {
    'depthwise': [(8, 2688, 64), (1, 9600, 512)],  # ParC-ConvNeXt-XT at 224 x 224 and 800 x 1344
    'dense': [(8, 3584, 64), (1, 12800, 336)],  # ParC-ResNet50
}
CHANNELS = 512  # the widest, halved too
# A backend that takes so many times the best one's time is not tried at longer lengths: direct and
# matmul cost n products a value, where fft costs log n.
HOPELESS = 4


def run(args: argparse.Namespace) -> None:
    """Write the table to the file ``args.out``."""
    if args.out.suffix != '.json':
        raise UserError(f'a table is a .json file: --out {args.out.with_suffix(".json")}')
    args.lengths = args.lengths or LENGTHS
    if min(args.lengths) < 1:
        raise UserError(f'--lengths must be at least 1, got {min(args.lengths)}')
    timing.prepare(args)
    report.make_folder(args.out.parent, [args.out.name], args.force)
    torch.manual_seed(0)
    device = 'cpu' if args.device.type == 'cpu' else 'gpu'
    rows = {row: dict(backends) for row, backends in load_table(str(SHIPPED_TABLE)).items()}
    for row in report.track([row for row in ROWS if row.startswith(device)]):
        rows[row] = dict(measure(row, args))
    note = json.loads(SHIPPED_TABLE.read_text())['measured'] | {device: timing.machine()}
    args.out.write_text(json.dumps(dict(measured=note, rows=rows), indent=1) + '\n')


def measure(row: str, args: argparse.Namespace) -> Iterator[tuple[int, str]]:
    """For each length of a row the backend of the best geometric mean over its maps."""
    _, precision, kind, axis, mode = row.split()
    device = torch.device(args.device)
    hopeful = list(BACKENDS)
    longest = max(limit for *_, limit in MAPS[kind])
    for n in sorted(n for n in args.lengths if n <= longest):
        ratios = {name: 1.0 for name in hopeful}
        for batch, width, longest in MAPS[kind]:
            if n > longest:
                continue
            shape = batch, max(8, min(width // n, CHANNELS) // 2), n, n
            calls = candidates(shape, kind, axis, mode, DTYPES[precision], device)
            calls = {name: call for name, call in calls.items() if name in hopeful}
            for call in calls.values():
                call()
            once = {
                name: min(timing.time_of(call) for _ in range(2)) for name, call in calls.items()
            }
            bound = HOPELESS * min(once.values())
            calls = {name: call for name, call in calls.items() if once[name] <= bound}
            times = timing.interleaved(
                calls,
                seconds=args.seconds,
                rounds=args.rounds,
                calls=20 if device.type == 'cuda' else 1,  # the host runs ahead, as in a network
            )
            medians = {name: statistics.median(times[name]) for name in calls}
            for name in hopeful:
                ratios[name] *= medians.get(name, math.inf) / min(medians.values())
        hopeful = [name for name in hopeful if name == 'fft' or ratios[name] < math.inf]
        yield n, min(ratios, key=ratios.get)


def candidates(
    shape: tuple[int, int, int, int],
    kind: str,
    axis: str,
    mode: str,
    dtype: torch.dtype,
    device: torch.device,
) -> dict[str, Callable[[], object]]:
    """One axis on a square map, with embedding and bias, by each backend."""
    _, channels, n, _ = shape
    groups = channels if kind == 'depthwise' else 1
    shapes = [(channels, channels // groups, n), (channels,), (channels, n)]
    training = mode == 'training'
    x = torch.randn(shape, device=device).to(dtype).requires_grad_(training)
    cotangent = torch.randn_like(x)
    parameters = [torch.randn(s, device=device).to(dtype).requires_grad_(training) for s in shapes]

    def prepared(backend: str) -> ParCKernel:
        return prepare(x, *parameters, axis=axis, groups=groups, backend=backend)

    def train(backend: str) -> object:
        return torch.autograd.grad(correlate([x], [prepared(backend)]), [x, *parameters], cotangent)

    def infer(backend: str) -> Callable[[], object]:
        if device.type == 'cuda':  # where layers keep none
            return torch.no_grad()(lambda: correlate([x], [prepared(backend)]))
        with torch.no_grad():
            kernel = prepared(backend)
        return torch.no_grad()(lambda: correlate([x], [kernel]))

    # A dense circulant has (channels n)^2 values.
    names = [b for b in BACKENDS if kind == 'depthwise' or b != 'matmul' or channels * n <= 4096]
    if training:
        return {name: (lambda name=name: train(name)) for name in names}
    return {name: infer(name) for name in names}
