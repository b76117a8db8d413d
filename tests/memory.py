"""Iterations on maps of changing sizes; prints the process's memory after each, as JSON.

memory.py CASE ITERATIONS KEPT: a process of its own, so that memory which other tests have freed
does not hide a leak. KEPT bytes are kept in each iteration: 0, or what the control asks for.
"""

import json
import random
import sys

import psutil
import torch
from torch import nn

from mmparc.layers import ParCMixer
from mmparc.models import ParCConvNeXt
from mmparc.ops import BACKENDS

MICRO = dict(depths=[1, 1, 2, 1], channels=[12, 24, 48, 96])
CASES = [
    f'{kind}, {what}' for kind in ('training', 'evaluation') for what in ('a backbone', *BACKENDS)
]


def main(case: str, iterations: int, kept: int) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    kind, what = case.split(', ')
    if what == 'a backbone':
        model = ParCConvNeXt(arch=MICRO, parc_starts=(1, 1, 1, 0), out_indices=(3,))
        channels, least, most = 3, 33, 96
    else:
        layers = [ParCMixer(8, 14, groups=groups, backend=what) for groups in (None, 1)]
        model, channels, least, most = nn.Sequential(*layers), 8, 3, 32
    model.train(kind == 'training').requires_grad_(kind == 'training')
    draw, process, keep, resident = random.Random(0), psutil.Process(), [], []
    for i in range(iterations):
        shape = draw.randint(least, most), draw.randint(least, most)  # mostly not square
        out = model(torch.randn(1, channels, *shape))
        if kind == 'training':
            (out[-1] if what == 'a backbone' else out).square().mean().backward()
        elif i % 10 == 0:  # cached kernels are used until the weights change
            for p in model.parameters():
                p.data.mul_(0.999)
        if kept:
            keep.append(torch.ones(kept, dtype=torch.uint8))
        resident.append(process.memory_info().rss)
    print(json.dumps(resident))


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
