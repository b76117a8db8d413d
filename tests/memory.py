"""Iterations on maps that change their sizes; prints the process's memory after each, as JSON.

memory.py CASE ITERATIONS KEPT: a process of its own, so that no memory which others have freed
hides what is kept. KEPT bytes are kept in each iteration: 0, or what the control asks for.
"""

import itertools
import json
import random
import sys
from collections.abc import Callable, Iterator

import psutil
import torch
from torch import nn

from mmparc.models import ParCConvNeXt, ParCMixer
from mmparc.ops import BACKENDS

MICRO = dict(depths=[1, 1, 2, 1], channels=[12, 24, 48, 96])


def sizes(least: int, most: int) -> Iterator[tuple[int, int]]:
    """Heights and widths, each drawn anew: even and odd, primes, mostly oblong."""
    draw = random.Random(0)
    while True:
        yield draw.randint(least, most), draw.randint(least, most)


def backbone() -> tuple[nn.Module, Iterator]:
    return ParCConvNeXt(arch=MICRO, parc_starts=(1, 1, 1, 0), out_indices=(3,)), sizes(33, 96)


def mixers(backend: str) -> tuple[nn.Module, Iterator]:
    options = dict(kernel_size=14, backend=backend)
    layers = [ParCMixer(8, groups=1 if dense else None, **options) for dense in (False, True)]
    return nn.Sequential(*layers), sizes(3, 32)


CASES: dict[str, Callable[[], tuple[nn.Module, Iterator]]] = {}
for name, kind in itertools.product(BACKENDS[::-1], ('training', 'evaluation')):
    CASES[f'{kind}, {name}'] = lambda name=name: mixers(name)
for kind in ('evaluation', 'training'):
    CASES[f'{kind}, a backbone'] = backbone


def train(model: nn.Module, shapes: Iterator) -> Iterator[tuple[int, int]]:
    optimizer = torch.optim.AdamW(model.parameters())
    for shape in shapes:
        out = model(torch.randn(1, channels(model), *shape))
        (out[-1] if isinstance(out, tuple) else out).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        yield shape


@torch.no_grad()
def evaluate(model: nn.Module, shapes: Iterator) -> Iterator[tuple[int, int]]:
    """Kernels are kept here; every tenth time all weights change, half of these through .data."""
    model.eval()
    for i, shape in enumerate(shapes):
        if i % 10 == 0:
            for p in model.parameters():
                p.data.mul_(0.999) if i % 20 else p.mul_(0.999)
        model(torch.randn(1, channels(model), *shape))
        yield shape


def channels(model: nn.Module) -> int:
    return 3 if isinstance(model, ParCConvNeXt) else 8


def main(case: str, iterations: int, kept: int) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    run = train if case.startswith('training') else evaluate
    process, keep, resident, seen = psutil.Process(), [], [], set()
    for shape in itertools.islice(run(*CASES[case]()), iterations):
        seen.add(shape)
        if kept:
            keep.append(torch.ones(kept, dtype=torch.uint8))
        resident.append(process.memory_info().rss)
    print(json.dumps(dict(resident=resident, shapes=len(seen))))


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
