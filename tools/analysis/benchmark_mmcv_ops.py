#!/usr/bin/env python
"""Time mmparc's NMS and RoIAlign beside those of a compiled mmcv, at sizes of COCO detectors.

It runs where a compiled mmcv is installed, and prints Markdown. Both sides take the same operands
in turn; a ratio is ours / mmcv's, of medians.
"""

import argparse
import importlib
import statistics
from functools import partial

from mmparc import tool

# (boxes, IoU threshold): five levels of 1,000 proposals; the classes of a box head; without FPN
NMS = [(5000, 0.7), (2000, 0.5), (12000, 0.7)]
# (RoIs, output, images): box and mask head in training, box head in a test; on the finest level
ROI_ALIGN = [(1024, 7, 2), (256, 14, 2), (1000, 7, 1)]
MAP = 256, 200, 336  # (C, H, W) of a batch of 800 x 1344 images at stride 4


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=5.0, help='for each row (5)')
    return parser


def main(args: argparse.Namespace) -> None:
    from mmparc import mmcv_ops
    from mmparc.analysis import report, timing

    compiled = importlib.import_module('mmcv._ext')  # mmparc's own if it has none
    if compiled.__file__.endswith('mmcv_ops.py'):
        raise tool.UserError(
            'mmcv-lite has no compiled operators to compare with: run this in an environment with '
            'a compiled mmcv (docs/mmcv_ops.md says how to make one)'
        )
    rows = []
    for name, function, tensors, settings in cases():
        modules = dict(ours=mmcv_ops, theirs=compiled)
        sides = {k: partial(getattr(m, function), *tensors, **settings) for k, m in modules.items()}
        times = timing.interleaved(sides, seconds=args.seconds, rounds=3)
        ours, theirs = (statistics.median(own) * 1000 for own in times.values())
        rows.append([name, f'{ours:.1f}', f'{theirs:.1f}', f'{ours / theirs:.2f}'])
    print('# NMS and RoIAlign beside a compiled mmcv\n')
    print(f'- {report.command()}\n- {timing.machine()}\n')
    print(report.markdown(['operator', 'mmparc, ms', 'compiled, ms', 'ratio'], rows, 1))


def cases():
    """The name of each row, the function of the operators' module, and its arguments."""
    import torch

    for count, threshold in NMS:
        scores = torch.rand(count, generator=torch.Generator().manual_seed(1))
        settings = dict(iou_threshold=threshold, offset=0)
        yield f'NMS of {count} boxes at {threshold}', 'nms', (boxes(count), scores), settings
    for count, size, images in ROI_ALIGN:
        maps, empty = torch.rand(images, *MAP), torch.empty(0)
        rois = torch.cat([torch.arange(count)[:, None] % images, boxes(count)], dim=1)
        output = torch.zeros(count, MAP[0], size, size)
        settings = dict(aligned_height=size, aligned_width=size, spatial_scale=0.25)
        settings |= dict(sampling_ratio=0, pool_mode=1, aligned=True)
        name = f'RoIAlign of {count} RoIs, {size} x {size}, {images} images'
        tensors = maps, rois, output, empty, empty
        yield f'{name}, forward', 'roi_align_forward', tensors, settings
        tensors = output, rois, empty, empty, maps
        yield f'{name}, backward', 'roi_align_backward', tensors, settings


def boxes(count: int):
    """Boxes (count, 4) of an 800 x 1344 image, of all sizes and crowded as proposals are."""
    import torch

    generator = torch.Generator().manual_seed(0)
    objects = torch.rand(40, 2, generator=generator) * torch.tensor([1344, 800])
    sizes = 2 ** (torch.rand(40, 2, generator=generator) * 5 + 4)
    which = torch.randint(40, (count,), generator=generator)
    noise = torch.randn(count, 4, generator=generator) * 0.25
    centers = objects[which] + noise[:, :2] * sizes[which]
    halves = sizes[which] * (1 + noise[:, 2:]).clamp(min=0.1) / 2
    corners = torch.cat([centers - halves, centers + halves], dim=1)
    return corners.clamp(min=0).minimum(torch.tensor([1344.0, 800.0, 1344.0, 800.0]))


if __name__ == '__main__':
    tool.run(make_parser(), main)
