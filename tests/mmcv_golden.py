"""Calls of mmcv's operators on seeded inputs: what mmparc.mmcv_ops has to equal.

    python tests/mmcv_golden.py

writes what a compiled mmcv 2.1.0 gives to tests/data/golden/mmcv_ops.npz. test_mmcv_ops.py makes
the same calls. Operators are those that mmcv compiles for a CPU; the others are in
test_mmcv_ops.py, beside their definitions.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmcv import ops
from torch import Tensor

DATA = Path(__file__).parent / 'data' / 'golden'

# Operators


def random(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal; numpy's generator is the same everywhere."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape)).to(dtype)


def random_boxes(seed: int, count: int, size: int = 40) -> Tensor:
    """Boxes on whole pixels, crowded, some equal, some without area; no two scores are equal."""
    state = np.random.RandomState(seed)
    starts = state.randint(0, size, (count, 2))
    ends = starts + state.randint(0, size, (count, 2))
    boxes = np.concatenate([starts, ends], axis=1)
    boxes[1::9] = boxes[::9][: len(boxes[1::9])]
    scores = state.permutation(count)[:, None] / count
    return torch.from_numpy(np.concatenate([boxes, scores], axis=1)).float()


def grads_of(output: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
    """The output, and each input's gradient of it times random numbers."""
    grads = torch.autograd.grad(output, inputs, random(99, *output.shape, dtype=output.dtype))
    return {'output': output, **{f'grad{i}': grad for i, grad in enumerate(grads)}}


def leaf(tensor: Tensor) -> Tensor:
    return tensor.requires_grad_()


def nms_cases() -> dict[str, Callable[[], dict]]:
    dets = random_boxes(0, 300)
    boxes, scores, labels = dets[:, :4], dets[:, 4], torch.arange(300) % 5
    tied = (scores * 20).floor() / 20
    smooth = boxes + random(1, 300, 4).abs()  # no longer on whole pixels

    def call(function: Callable, *args, **kwargs) -> Callable[[], dict]:
        return lambda: dict(zip(('dets', 'inds'), function(*args, **kwargs)))

    def ties() -> dict:
        """mmcv leaves the order of equal scores to torch, so it is kept beside the result."""
        order = tied.sort(descending=True).indices
        return dict(order=order, inds=ops.nms(boxes, tied, 0.5)[1])

    def batched(**cfg) -> Callable[[], dict]:
        return call(ops.batched_nms, smooth, scores, labels, cfg)

    def match(dets: Tensor, threshold: float) -> Callable[[], dict]:
        def groups() -> dict:
            found = ops.nms_match(dets, threshold)
            sizes = torch.tensor([len(group) for group in found])
            return dict(sizes=sizes, inds=torch.cat(found) if found else torch.zeros(0))

        return groups

    cases = {
        'nms_empty': call(ops.nms, boxes[:0], scores[:0], 0.5),
        'nms_one': call(ops.nms, boxes[:1], scores[:1], 0.5),
        'nms_of_scores': call(ops.nms, boxes, scores, 0.5, score_threshold=0.4, max_num=20),
        'nms_numpy': call(ops.nms, boxes.numpy(), scores.numpy(), 0.5),
        'nms_ties': ties,
        'soft_nms_empty': call(ops.soft_nms, boxes[:0], scores[:0]),
        'batched': batched(type='nms', iou_threshold=0.5),
        'batched_split': batched(type='nms', iou_threshold=0.5, split_thr=100, max_num=50),
        'batched_agnostic': batched(type='nms', iou_threshold=0.5, class_agnostic=True),
        'batched_soft': batched(type='soft_nms', iou_threshold=0.5, min_score=0.05),
    }
    for threshold in (0.3, 0.5, 0.7):  # 0.3 and 0.7 differ in float32 and float64
        for offset in (0, 1):
            for name, some in dict(whole=boxes, smooth=smooth).items():
                key = f'{name}_{threshold}_{offset}'
                cases[f'nms_{key}'] = call(ops.nms, some, scores, threshold, offset)
                for method in ('naive', 'linear', 'gaussian'):
                    cases[f'soft_nms_{method}_{key}'] = call(
                        ops.soft_nms, some, tied, threshold, 0.5, 0.1, method, offset
                    )
        cases[f'soft_nms_sigma_{threshold}'] = call(
            ops.soft_nms, smooth, tied, 0.5, threshold, 0.1, 'gaussian', 0
        )
        cases[f'nms_match_{threshold}'] = match(dets, threshold)
    cases['nms_match_empty'] = match(dets[:0], 0.5)
    return cases


def pooling_cases() -> dict[str, Callable[[], dict]]:
    dets = random_boxes(2, 30)  # on an image of 40 x 56 pixels, in part outside of it
    rois = torch.cat([torch.arange(30)[:, None] % 2, dets[:, :4] - 5], dim=1)

    def align(aligned: bool, ratio: int, dtype: torch.dtype, rois: Tensor) -> Callable[[], dict]:
        def run() -> dict:
            maps = leaf(random(3, 2, 3, 10, 14, dtype=dtype))
            size = (5, 3)
            output = ops.roi_align(maps, rois.to(dtype), size, 0.25, ratio, 'avg', aligned)
            return grads_of(output, maps)

        return run

    cases = {'roi_align_none': align(True, 0, torch.float32, rois[:0])}
    for aligned in (False, True):
        for ratio in (0, 2):
            for dtype in (torch.float32, torch.float64):
                key = f'roi_align_{aligned}_{ratio}_{str(dtype)[6:]}'
                cases[key] = align(aligned, ratio, dtype, rois)
    return cases


def convolution_cases() -> dict[str, Callable[[], dict]]:
    def convolve(modulated: bool, bias: bool, **settings) -> Callable[[], dict]:
        def run() -> dict:
            groups, parts = settings.get('groups', 1), settings.get('deform_groups', 1)
            maps, weight = leaf(random(4, 3, 4, 9, 12)), leaf(random(5, 6, 4 // groups, 3, 2))
            stride, padding = settings.get('stride', (1, 1)), settings.get('padding', (0, 0))
            dilation = settings.get('dilation', (1, 1))
            size = [
                (n + 2 * pad - dil * (k - 1) - 1) // step + 1
                for n, pad, dil, k, step in zip((9, 12), padding, dilation, (3, 2), stride)
            ]
            offset = leaf(random(6, 3, parts * 12, *size) * 2)
            options = (stride, padding, dilation, groups, parts)
            if not modulated:
                return grads_of(
                    ops.deform_conv2d(maps, offset, weight, *options), maps, offset, weight
                )
            mask = leaf(random(7, 3, parts * 6, *size).sigmoid())
            operands = [maps, offset, mask, weight, leaf(random(8, 6)) if bias else None]
            output = ops.modulated_deform_conv2d(*operands, *options)
            return grads_of(output, *operands[: 5 if bias else 4])

        return run

    def larger() -> dict:
        """Offsets and masks of a larger map, as mmdet's DyHead hands them over."""
        maps, weight = leaf(random(4, 2, 4, 5, 6)), leaf(random(5, 6, 4, 3, 3))
        offset, mask = leaf(random(6, 2, 18, 9, 11)), leaf(random(7, 2, 9, 9, 11).sigmoid())
        output = ops.modulated_deform_conv2d(maps, offset, mask, weight, None, 1, 1)
        return grads_of(output, maps, offset, mask, weight)

    settings = {
        'plain': {},
        'stride': dict(stride=(2, 1), padding=(1, 2), dilation=(1, 3)),
        'groups': dict(groups=2, deform_groups=2, padding=(1, 1)),
    }
    cases = {
        f'{"modulated_" * modulated}deform_conv_{name}{"_bias" * bias}': convolve(
            modulated, bias, **these
        )
        for name, these in settings.items()
        for modulated, bias in ((False, False), (True, False), (True, True))
    }
    return {**cases, 'modulated_deform_conv_larger': larger}


def psa_cases() -> dict[str, Callable[[], dict]]:
    def mask(kind: str, size: tuple[int, int]) -> Callable[[], dict]:
        def run() -> dict:
            maps = leaf(random(9, 2, size[0] * size[1], 4, 6))
            return grads_of(ops.PSAMask(kind, size)(maps), maps)

        return run

    return {
        f'psa_mask_{kind}_{"x".join(map(str, size))}': mask(kind, size)
        for kind in ('collect', 'distribute')
        for size in ((3, 5), (7, 11))
    }


OPERATORS = {**nms_cases(), **pooling_cases(), **convolution_cases(), **psa_cases()}


def results(cases: dict[str, Callable[[], dict]]) -> dict[str, np.ndarray]:
    """{case/name: array} of all that the cases give."""
    return {
        f'{case}/{name}': np.asarray(torch.as_tensor(value).detach())
        for case, run in cases.items()
        for name, value in run().items()
    }


def main() -> None:
    if sys.modules['mmcv._ext'].__file__.endswith('.py'):
        sys.exit('error: this is mmcv-lite: golden results are made by a compiled mmcv 2.1.0')
    torch.set_num_threads(1)
    np.savez_compressed(DATA / 'mmcv_ops.npz', **results(OPERATORS))


if __name__ == '__main__':
    main()
