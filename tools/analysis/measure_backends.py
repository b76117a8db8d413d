#!/usr/bin/env python
"""Measure which backend of ParC is the fastest here, by the kernel's length, into a table.

The path of the table then stands in the place of backend='auto'. mmparc's own, the 'auto' of
everyone, is written by this too, with --out mmparc/ops/auto_table.json --force. What this machine
cannot measure (a GPU, on one without) is taken over from that one. Needs torch alone.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import torch

    from mmparc.analysis import report
    from mmparc.analysis.timing import interleaved, machine, time_of
    from mmparc.ops import BACKENDS, ROWS, ParCKernel, correlate, load_table, prepare
    from mmparc.ops.select import SHIPPED_TABLE
except ImportError as error:
    raise SystemExit(
        f'error: {error.name or error} is not installed in this Python: in a checkout run '
        '`make env`, then `. .venv/bin/activate`; with an installed mmparc run '
        "`pip install 'mmparc[mm]'`"
    ) from None

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


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, required=True, help='the table, a .json file')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--lengths', type=int, nargs='+', default=LENGTHS)
    parser.add_argument('--seconds', type=float, default=0.3, help='a map and a row (0.3)')
    parser.add_argument('--rounds', type=int, default=5, help='at least so many of each (5)')
    parser.add_argument('--force', action='store_true', help='overwrite the table')
    return parser.parse_args()


def check(args: argparse.Namespace) -> None:
    if args.out.suffix != '.json':
        raise SystemExit(f'error: a table is a .json file: --out {args.out.with_suffix(".json")}')
    if min(args.lengths) < 1 or args.rounds < 1:
        raise SystemExit('error: --lengths and --rounds must be at least 1')
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise SystemExit('error: torch sees no GPU: leave --device out')
    try:
        report.make_folder(args.out.parent, [args.out.name], args.force)
    except FileExistsError as error:
        raise SystemExit(f'error: {error}') from None


def measure(row: str, args: argparse.Namespace) -> Iterator[tuple[int, str]]:
    """For each length of a row the backend of the best geometric mean over its maps."""
    _, precision, kind, axis, mode = row.split()
    hopeful = list(BACKENDS)
    for n in lengths_of(row, args):
        ratios = {name: 1.0 for name in hopeful}
        for batch, width, longest in MAPS[kind]:
            if n > longest:
                continue
            channels = max(8, min(width // n, CHANNELS) // 2)
            calls = candidates(kind, batch, channels, n, axis, mode, DTYPES[precision], args.device)
            calls = {name: call for name, call in calls.items() if name in hopeful}
            for call in calls.values():
                call()
            once = {name: min(time_of(call) for _ in range(2)) for name, call in calls.items()}
            bound = HOPELESS * min(once.values())
            calls = {name: call for name, call in calls.items() if once[name] <= bound}
            times = interleaved(
                calls,
                seconds=args.seconds,
                rounds=args.rounds,
                calls=20 if args.device == 'cuda' else 1,  # the host runs ahead, as in a network
            )
            medians = {name: statistics.median(times[name]) for name in calls}
            for name in hopeful:
                ratios[name] *= medians.get(name, math.inf) / min(medians.values())
        hopeful = [name for name in hopeful if name == 'fft' or ratios[name] < math.inf]
        yield n, min(ratios, key=ratios.get)


def lengths_of(row: str, args: argparse.Namespace) -> list[int]:
    longest = max(limit for *_, limit in MAPS[row.split()[2]])
    return sorted(n for n in args.lengths if n <= longest)


def candidates(
    kind: str,
    batch: int,
    channels: int,
    n: int,
    axis: str,
    mode: str,
    dtype: torch.dtype,
    device: str,
) -> dict[str, Callable[[], object]]:
    """One axis on a square map, with embedding and bias, by each backend."""
    groups = channels if kind == 'depthwise' else 1
    shapes = [(channels, channels // groups, n), (channels,), (channels, n)]
    training = mode == 'training'
    x = torch.randn(batch, channels, n, n, device=device).to(dtype).requires_grad_(training)
    cotangent = torch.randn_like(x)
    parameters = [torch.randn(s, device=device).to(dtype).requires_grad_(training) for s in shapes]

    def train(backend: str) -> object:
        kernel = prepare(x, *parameters, axis=axis, groups=groups, backend=backend)
        return torch.autograd.grad(correlate([x], [kernel]), [x, *parameters], cotangent)

    def infer(backend: str) -> Callable[[], object]:
        def prepared() -> ParCKernel:
            return prepare(x, *parameters, axis=axis, groups=groups, backend=backend)

        with torch.no_grad():
            kernel = prepared()
        if device == 'cuda':  # where layers keep none
            return torch.no_grad()(lambda: correlate([x], [prepared()]))
        return torch.no_grad()(lambda: correlate([x], [kernel]))

    # A dense circulant has (channels n)^2 values.
    names = [b for b in BACKENDS if kind == 'depthwise' or b != 'matmul' or channels * n <= 4096]
    if training:
        return {name: (lambda name=name: train(name)) for name in names}
    return {name: infer(name) for name in names}


def main() -> None:
    args = parse_args()
    check(args)
    torch.manual_seed(0)
    device = 'cpu' if args.device == 'cpu' else 'gpu'
    rows = {row: dict(backends) for row, backends in load_table(str(SHIPPED_TABLE)).items()}
    measured = [row for row in ROWS if row.startswith(device)]
    for row in report.track(measured, str):
        rows[row] = dict(measure(row, args))
    note = json.loads(SHIPPED_TABLE.read_text())['measured'] | {device: machine()}
    text = json.dumps(dict(measured=note, rows=rows), indent=1)
    args.out.write_text(text + '\n')


if __name__ == '__main__':
    main()
