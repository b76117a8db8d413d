#!/usr/bin/env python
"""Time whole backbones, ParC beside its plain twin, in inference and in training steps.

The pairs are those of configs/_base_/backbones, with random weights, at the three tasks' sizes;
twins run in turn. A training step is the forward pass, the mean of the squares of the outputs as
loss, the backward pass and a step of SGD. With --count, parameters and multiply-adds stand beside
the times: of one image, ParC's by the backend matmul (mmparc/analysis/flops.py).
"""

import argparse
import contextlib
import functools
import shlex
import statistics
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

try:
    import torch
    from mmengine.config import Config
    from mmengine.logging import MMLogger
    from torch import Tensor, nn

    from mmparc import engine
    from mmparc.analysis import report
    from mmparc.analysis.flops import count_multiply_adds
    from mmparc.analysis.timing import interleaved, machine
    from mmparc.registry import MODELS
except ImportError as error:
    raise SystemExit(
        f'error: {error.name or error} is not installed in this Python: in a checkout run '
        '`make env`, then `. .venv/bin/activate`; with an installed mmparc run '
        "`pip install 'mmparc[mm]'`"
    ) from None

FRAGMENTS = Path(__file__).parents[2] / 'configs/_base_/backbones'
# (batch, height, width)
TASKS = {'cls': (8, 224, 224), 'det': (1, 800, 1344), 'seg': (2, 512, 512)}
TWINS = ('plain', 'parc')
MODES = ('inference', 'training')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    families = sorted(path.stem for path in FRAGMENTS.glob('*.py'))
    parser.add_argument(
        '--models',
        nargs='+',
        choices=families,
        default=['convnext-xt', 'resnet50'],
        metavar='NAME',
        help=f'default: convnext-xt resnet50; there are {", ".join(families)}',
    )
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=list(TASKS))
    parser.add_argument('--modes', nargs='+', choices=MODES, default=MODES)
    parser.add_argument(
        '--shapes', nargs='+', metavar='BxHxW', help="these images instead of the tasks': 2x64x96"
    )
    parser.add_argument('--count', action='store_true', help='count both twins too')
    parser.add_argument('--channels-last', action='store_true', help='models and images')
    parser.add_argument('--amp', choices=['bfloat16', 'float16'], help='run under autocast')
    parser.add_argument('--compile', action='store_true', help='run torch.compile of the models')
    parser.add_argument('--device', default='cpu', help='cpu, cuda or cuda:1')
    parser.add_argument('--threads', type=int, help="of the CPU; default: torch's own choice")
    parser.add_argument('--seconds', type=float, default=20.0, help='a pair, size and mode (20)')
    parser.add_argument('--rounds', type=int, default=5, help='at least so many of each (5)')
    parser.add_argument('--out', type=Path, help='write model.csv and model.md there')
    parser.add_argument('--force', action='store_true', help='overwrite them')
    return parser.parse_args()


def check(args: argparse.Namespace) -> None:
    if args.device.startswith('cuda') and not torch.cuda.is_available():
        raise engine.UserError(
            f'--device {args.device} needs a GPU that torch sees: pass --device cpu'
        )
    try:
        args.device = torch.device(args.device)
    except RuntimeError:
        raise engine.UserError(
            f'there is no device {args.device!r}: pass cpu, cuda or cuda:1'
        ) from None
    for name in ('threads', 'rounds'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise engine.UserError(f'--{name} must be at least 1, got {getattr(args, name)}')
    if args.out:
        try:
            report.make_folder(args.out, ['model.csv', 'model.md'], args.force)
        except FileExistsError as error:
            raise engine.UserError(str(error)) from None


def sizes_of(args: argparse.Namespace) -> list[tuple[str, tuple[int, int, int]]]:
    """(task, (B, H, W)) of each size."""
    if not args.shapes:
        return [(task, TASKS[task]) for task in args.tasks]
    sizes = []
    for shape in args.shapes:
        numbers = shape.split('x')
        if len(numbers) != 3 or not all(n.isdecimal() and int(n) > 0 for n in numbers):
            raise engine.UserError(f'--shapes takes BxHxW, as in 8x224x224, got {shape!r}')
        sizes.append(('', tuple(map(int, numbers))))
    return sizes


def build(name: str, **settings) -> dict[str, nn.Module]:
    """Both twins; as in the configs, the ParC one is a diff on the plain one.

    Args:
        settings: more of them, for the ParC one.
    """
    fragment = Config.fromfile(FRAGMENTS / f'{name}.py')
    cfg = Config(dict(plain=fragment.plain, parc=fragment.plain))
    cfg.merge_from_dict(dict(parc={**fragment.parc, **settings}))
    torch.manual_seed(0)
    return {twin: MODELS.build(cfg[twin]) for twin in TWINS}


def runner(
    model: nn.Module, images: Tensor, mode: str, args: argparse.Namespace
) -> Callable[[], object]:
    """A function without arguments that runs the model once."""
    model.train(mode == 'training')  # some of mmpretrain's return None
    run = torch.compile(model, dynamic=False) if args.compile else model

    def autocast() -> contextlib.AbstractContextManager:
        if args.amp is None:
            return contextlib.nullcontext()
        return torch.autocast(args.device.type, getattr(torch, args.amp))

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
    for twin, model in build(name, backend='matmul').items():
        model.eval()
        row[f'{twin} parameters'] = sum(p.numel() for p in model.parameters())
        counted = count_multiply_adds(model, torch.zeros(1, 3, height, width))
        if counted.unknown:
            raise engine.UserError(f'--count does not know {", ".join(counted.unknown)} of {name}')
        row[f'{twin} multiply-adds'] = counted.total
    return row


def measure(
    name: str, task: str, size: tuple[int, int, int], mode: str, args: argparse.Namespace
) -> dict[str, object]:
    """A row: what was timed, the twins' median milliseconds and their images per second."""
    batch, height, width = size
    # Or the models compiled before count against the number of versions that torch makes of the
    # same code, beyond which it runs without compiling.
    torch.compiler.reset()
    memory_format = torch.channels_last if args.channels_last else torch.contiguous_format
    images = torch.randn(batch, 3, height, width, device=args.device)
    images = images.to(memory_format=memory_format)
    functions = {
        twin: runner(model.to(args.device).to(memory_format=memory_format), images, mode, args)
        for twin, model in build(name).items()
    }
    try:
        times = interleaved(functions, seconds=args.seconds, rounds=args.rounds, warmup=2)
    except ValueError as error:  # such as a batch norm's of one image
        what = f'{name} in {mode} on {batch}x{height}x{width}'
        raise engine.UserError(f'{what}: {error}: pass other --shapes or --modes') from None
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


@engine.exit_on_user_error
def main() -> None:
    args = parse_args()
    check(args)
    sizes = sizes_of(args)
    warnings.simplefilter('ignore')  # upstream's constructors
    MMLogger.get_current_instance().setLevel('ERROR')
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.device.type == 'cuda':
        torch.cuda.set_device(args.device)
        torch.backends.cudnn.benchmark = True  # each convolution by cuDNN's fastest algorithm
    comments = [
        f'command: {shlex.join(["tools/analysis/benchmark_model.py", *sys.argv[1:]])}',
        f'machine: {machine()}',
        f'{args.amp or "float32"} on {args.device}; medians of a pass or step',
    ]
    print('\n'.join(comments))
    steps = [
        (name, task, size, mode)
        for name in args.models
        for task, size in sizes
        for mode in args.modes
    ]

    def label(step: tuple) -> str:
        name, _, size, mode = step
        return f'{name} {"x".join(map(str, size))} {mode}'

    if args.count:  # or what it refuses would be told after all the timing
        for name, _, (_, height, width), _ in steps:
            count(name, height, width)
    rows = [measure(*step, args) for step in report.track(steps, label)]
    made = table(rows)
    print(f'\n{made}')
    if args.out:
        report.write_csv(args.out / 'model.csv', comments, rows)
        head = '\n'.join(f'- {comment}' for comment in comments)
        (args.out / 'model.md').write_text(f'# Whole backbones\n\n{head}\n\n{made}')
        print(args.out / 'model.csv', args.out / 'model.md', sep='\n')


if __name__ == '__main__':
    main()
