"""Time mmparc's NMS and RoIAlign beside those of a compiled mmcv, at sizes of COCO detectors.

Both sides take the same operands in turn; a ratio is ours / mmcv's, of medians.
"""

import argparse
import importlib
import statistics
from collections.abc import Callable
from functools import partial
from types import ModuleType

import torch

from mmparc import mmcv_ops
from mmparc.analysis import report, timing
from mmparc.errors import UserError

# (boxes, IoU threshold): five levels of 1,000 proposals; the classes of a box head; without FPN
NMS = [(5000, 0.7), (2000, 0.5), (12000, 0.7)]
# (RoIs, output, images): box and mask head in training, box head in a test; on the finest level
ROI_ALIGN = [(1024, 7, 2), (256, 14, 2), (1000, 7, 1)]
MAP = 256, 200, 336  # (C, H, W) of a batch of 800 x 1344 images at stride 4


def boxes(count: int, seed: int) -> torch.Tensor:
    """Boxes (count, 4) of an 800 x 1344 image, of all sizes and crowded as proposals are."""
    generator = torch.Generator().manual_seed(seed)
    objects = torch.rand(40, 2, generator=generator) * torch.tensor([1344, 800])
    sizes = 2 ** (torch.rand(40, 2, generator=generator) * 5 + 4)
    which = torch.randint(40, (count,), generator=generator)
    noise = torch.randn(count, 4, generator=generator) * 0.25
    centers = objects[which] + noise[:, :2] * sizes[which]
    halves = sizes[which] * (1 + noise[:, 2:]).clamp(min=0.1) / 2
    corners = torch.cat([centers - halves, centers + halves], dim=1)
    return corners.clamp(min=0).minimum(torch.tensor([1344.0, 800.0, 1344.0, 800.0]))


def nms(count: int, threshold: float, module: ModuleType) -> Callable[[], object]:
    some, scores = boxes(count, 0), torch.rand(count, generator=torch.Generator().manual_seed(1))
    return partial(module.nms, some, scores, iou_threshold=threshold, offset=0)


def roi_align(
    count: int, size: int, images: int, backward: bool, module: ModuleType
) -> Callable[[], object]:
    maps, empty = torch.rand(images, *MAP), torch.empty(0)
    rois = torch.cat([torch.arange(count)[:, None] % images, boxes(count, 0)], dim=1)
    output = torch.zeros(count, MAP[0], size, size)
    settings = dict(aligned_height=size, aligned_width=size, spatial_scale=0.25)
    settings |= dict(sampling_ratio=0, pool_mode=1, aligned=True)
    if backward:
        return partial(module.roi_align_backward, output, rois, empty, empty, maps, **settings)
    return partial(module.roi_align_forward, maps, rois, output, empty, empty, **settings)


def run(args: argparse.Namespace) -> None:
    """Print the table as Markdown."""
    compiled = importlib.import_module('mmcv._ext')  # mmparc's own if it has none
    if compiled.__file__.endswith('mmcv_ops.py'):
        raise UserError(
            'mmcv-lite has no compiled operators to compare with: run this in an environment with '
            'a compiled mmcv (docs/mmcv_ops.md says how to make one)'
        )
    cases = {f'NMS of {n} boxes at {at}': partial(nms, n, at) for n, at in NMS}
    for count, size, images in ROI_ALIGN:
        for backward, name in enumerate(('forward', 'backward')):
            key = f'RoIAlign of {count} RoIs, {size} x {size}, {images} images, {name}'
            cases[key] = partial(roi_align, count, size, images, bool(backward))
    rows = []
    for name in report.track(list(cases), str):
        sides = dict(ours=cases[name](mmcv_ops), mmcv=cases[name](compiled))
        times = timing.interleaved(sides, seconds=args.seconds, rounds=3)
        ours, theirs = (statistics.median(times[side]) * 1000 for side in sides)
        rows.append([name, f'{ours:.1f}', f'{theirs:.1f}', f'{ours / theirs:.2f}'])
    print('# NMS and RoIAlign beside a compiled mmcv\n')
    print(f'- {report.command()}\n- {timing.machine()}\n')
    print(report.markdown(['operator', 'mmparc, ms', 'compiled, ms', 'ratio'], rows, 1))
