"""The harness of all timing tools: settings, times beside each other, the machine; torch alone."""

import argparse
import os
import platform
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from mmparc.analysis import report
from mmparc.errors import UserError


def prepare(args: argparse.Namespace) -> None:
    """Apply the arguments of tool.add_timing; ``args.device`` becomes a torch.device.

    Raises:
        UserError: if there is no such device, or a number is too small.
    """
    try:
        args.device = torch.device(args.device)
    except RuntimeError:
        raise UserError(f"there is no device '{args.device}': pass cpu, cuda or cuda:1") from None
    if args.device.type == 'cuda' and not torch.cuda.is_available():
        raise UserError(f'--device {args.device} needs a GPU that torch sees: pass --device cpu')
    for name in ('threads', 'rounds'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f'--{name} must be at least 1, got {getattr(args, name)}')
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.device.type == 'cuda':
        torch.cuda.set_device(args.device)
        torch.backends.cudnn.benchmark = True  # each convolution by cuDNN's fastest algorithm


def write_tables(
    args: argparse.Namespace,
    name: str,
    title: str,
    note: str,
    steps: Sequence[tuple],
    measure: Callable[..., dict],
    tables: Callable[[list[dict]], str],
) -> None:
    """Measure a row for each step, print Markdown tables of them, and write both to ``args.out``.

    Args:
        name: of the files, NAME.csv and NAME.md.
        note: on the numbers; it stands in both files, below the command and the machine.
        steps: the arguments of ``measure``.
    """
    files = []
    if args.out:
        files = report.make_folder(args.out, [f'{name}.csv', f'{name}.md'], args.force)
    comments = [report.command(), f'machine: {machine()}', note]
    print('\n'.join(comments))
    rows = [measure(*step) for step in report.track(steps)]
    text = tables(rows)
    print(f'\n{text}')
    if files:
        report.write_csv(files[0], comments, rows)
        report.write_page(files[1], title, comments, text)
        print(*files, sep='\n')


def numbers_of(text: str, form: str) -> list[int]:
    """The numbers of a text such as 8x48x56x56, of the form 'BxCxHxW'.

    Raises:
        UserError: if it has another form.
    """
    numbers = text.split('x')
    if len(numbers) != form.count('x') + 1 or not all(n.isdecimal() and int(n) for n in numbers):
        raise UserError(f"--shapes takes {form}, got '{text}'")
    return [int(n) for n in numbers]


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    *,
    seconds: float = 1.0,
    rounds: int = 5,
    warmup: int = 1,
    calls: int = 1,
) -> dict[str, list[float]]:
    """Time all functions in turn, round by round, so that a noisy moment hits all alike.

    Each round has its own order, so that no function always follows the same one. The current CUDA
    device, if CUDA is in use, is waited for before and after each measurement.

    Args:
        functions: what is timed, by name.
        seconds: begin rounds until so much time has passed;
        rounds: but at least so many.
        warmup: rounds before the first one, which are not timed.
        calls: of a function in a row for one measurement, which is their mean. More than one lets
            a GPU's host run ahead of it, as in a network, and hides the cost of waiting.

    Returns:
        The seconds of a call, {name: one measurement a round}, to take the median of.
    """
    for _ in range(warmup):
        for function in functions.values():
            function()
    times = {name: [] for name in functions}
    order = list(functions)
    generator = random.Random(0)
    end = time.perf_counter() + seconds
    done = 0
    while done < rounds or time.perf_counter() < end:
        generator.shuffle(order)
        for name in order:
            times[name].append(time_of(functions[name], calls))
        done += 1
    return times


def time_of(function: Callable[[], object], calls: int = 1) -> float:
    """The seconds of one call, as the mean of ``calls``."""
    _synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    _synchronize()
    return (time.perf_counter() - start) / calls


def _synchronize() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def machine() -> str:
    """One line: processor, cores, threads, torch, and the GPU where there is one."""
    processor, cpuinfo = platform.processor() or platform.machine(), Path('/proc/cpuinfo')
    if cpuinfo.is_file():
        names = re.findall(r'^model name\s*: (.*)$', cpuinfo.read_text(), re.M)
        processor = names[0] if names else processor
    parts = [
        processor,
        f'{os.cpu_count()} logical cores',
        f'{torch.get_num_threads()} threads',
        f'CPU capability {torch.backends.cpu.get_cpu_capability()}',
        f'Python {platform.python_version()}',
        f'torch {torch.__version__}',
    ]
    if torch.cuda.is_available():
        parts += [
            torch.cuda.get_device_name(),
            f'CUDA {torch.version.cuda or torch.version.hip}',
            f'cuDNN {torch.backends.cudnn.version()}',
            f'TF32 in convolutions: {torch.backends.cudnn.allow_tf32}',
            f'TF32 in matrix products: {torch.backends.cuda.matmul.allow_tf32}',
        ]
    return ', '.join(parts)
