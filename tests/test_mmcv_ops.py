"""mmparc.mmcv_ops, which mmcv-lite takes for its compiled operators.

What mmcv compiles for a CPU is compared with golden results of a compiled mmcv (mmcv_golden.py);
what it has for GPUs alone, with its definition written as loops, in float64, and the gradients with
finite differences.
"""

import math
import subprocess
import sys
from itertools import product
from pathlib import Path

import mmcv_golden
import numpy as np
import pytest
import torch
from helpers import HALVES, ROOT, assert_close
from mmcv import ops
from mmcv_golden import random
from torch.autograd import gradcheck

OURS = sys.modules['mmcv._ext'].__file__.endswith('mmcv_ops.py')
needs_ours = pytest.mark.skipif(not OURS, reason='a compiled mmcv is installed')
GOLDEN = np.load(mmcv_golden.DATA / 'mmcv_ops.npz')


def double(seed: int, *shape: int) -> torch.Tensor:
    return random(seed, *shape, dtype=torch.float64)


# Beside a compiled mmcv


def equal(actual: np.ndarray, expected: np.ndarray) -> bool:
    """To 1e-6 of the largest number; NaN equals NaN, and whole numbers are the same."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return False
    scale = np.nanmax(np.abs(expected), initial=0.0) if expected.dtype.kind == 'f' else 0
    return np.allclose(actual, expected, rtol=0, atol=1e-6 * scale, equal_nan=True)


def test_equals_a_compiled_mmcv() -> None:
    results = mmcv_golden.results(mmcv_golden.OPERATORS)
    assert results.keys() == set(GOLDEN.files)
    untied = {key: value for key, value in results.items() if not key.startswith('nms_ties')}
    assert [key for key, value in untied.items() if not equal(value, GOLDEN[key])] == []
    # the control: no reversed result passes
    several = {key: value for key, value in untied.items() if value.shape[-1] > 1 and value.any()}
    assert [key for key, value in several.items() if equal(value[..., ::-1], GOLDEN[key])] == []


def test_equal_scores_are_taken_in_the_order_given() -> None:
    """mmcv takes them in the order of torch's sort, which differs between machines."""
    order, expected = GOLDEN['nms_ties/order'], GOLDEN['nms_ties/inds']
    dets = mmcv_golden.random_boxes(0, 300)
    boxes, scores = dets[order, :4], (dets[order, 4] * 20).floor()
    assert scores.unique().numel() < 30
    kept = order[ops.nms(boxes, scores, 0.5)[1]]
    assert kept.tolist() == expected.tolist()
    backwards = order[::-1][ops.nms(boxes.flip(0), scores.flip(0), 0.5)[1]]
    assert backwards.tolist() != expected.tolist()


def test_a_threshold_is_that_of_float32() -> None:
    """An IoU of exactly 0.3 is not above 0.3, whose float32 is larger."""
    boxes = torch.tensor([[0, 0, 6.5, 1], [3.5, 0, 10, 1]])
    assert ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.3)[1].tolist() == [0, 1]
    assert ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.29)[1].tolist() == [0]


# Beside definitions


def bilinear(plane: torch.Tensor, y: float, x: float, border: bool) -> float:
    """A map (H, W) between its pixels; zero around it, or as its border up to one pixel away."""
    H, W = plane.shape
    if border:
        if not (-1 <= y <= H and -1 <= x <= W):
            return 0.0
        y, x = min(max(y, 0), H - 1), min(max(x, 0), W - 1)
    total = 0.0
    for i, j in product((math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)):
        if 0 <= i < H and 0 <= j < W:
            total += (1 - abs(y - i)) * (1 - abs(x - j)) * plane[i, j].item()
    return total


ROIS = torch.tensor(
    [[0, 1.3, 2.1, 17.7, 13.2], [1, -4.0, -3.0, 9.4, 8.9], [1, 15.1, 3.3, 33.3, 21.9]]
).double()


def deform_roi_pool_loops(
    maps: torch.Tensor, offset: torch.Tensor | None, size: tuple[int, int], scale: float, ratio: int
) -> torch.Tensor:
    gamma = 0.3
    output = maps.new_zeros(len(ROIS), maps.shape[1], *size)
    for k, (image, x1, y1, x2, y2) in enumerate(ROIS.tolist()):
        left, top = x1 * scale - 0.5, y1 * scale - 0.5
        width, height = (x2 - x1) * scale, (y2 - y1) * scale
        rows, columns = (
            ratio or math.ceil(length) for length in (height / size[0], width / size[1])
        )
        for i, j in np.ndindex(*size):
            by = offset[k, :, i, j].tolist() if offset is not None else (0, 0)
            x0 = left + gamma * width * by[0] + j * width / size[1]
            y0 = top + gamma * height * by[1] + i * height / size[0]
            places = [
                (
                    y0 + (a + 0.5) * height / size[0] / rows,
                    x0 + (b + 0.5) * width / size[1] / columns,
                )
                for a, b in np.ndindex(rows, columns)
            ]
            for c in range(maps.shape[1]):
                plane = maps[int(image), c]
                output[k, c, i, j] = sum(bilinear(plane, *place, True) for place in places)
        output[k] /= rows * columns
    return output


@needs_ours
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('moved', [True, False])
def test_deform_roi_pool(ratio: int, moved: bool) -> None:
    maps = double(0, 2, 2, 7, 9)
    offset = double(1, 3, 2, 2, 3) if moved else None

    def pool(maps: torch.Tensor, offset: torch.Tensor | None = None) -> torch.Tensor:
        return ops.deform_roi_pool(maps, ROIS, offset, (2, 3), 0.5, ratio, 0.3)

    expected = deform_roi_pool_loops(maps, offset, (2, 3), 0.5, ratio)
    assert_close(pool(maps, offset), expected, 1e-12)
    other = deform_roi_pool_loops(maps, double(2, 3, 2, 2, 3), (2, 3), 0.5, ratio)
    assert not torch.allclose(pool(maps, offset), other)  # the control
    if not moved:  # then it is RoIAlign
        assert_close(pool(maps), ops.roi_align(maps, ROIS, (2, 3), 0.5, ratio, 'avg', True), 1e-12)
    operands = [x.requires_grad_() for x in (maps, offset) if x is not None]
    assert gradcheck(pool, operands)


@needs_ours
def test_deform_roi_pool_of_nothing() -> None:
    """No RoI, and with ``sampling_ratio`` 0 one without area: zeros, and gradients of zero."""
    maps, offset = double(0, 2, 2, 7, 9).requires_grad_(), double(1, 1, 2, 2, 3).requires_grad_()
    flat = torch.tensor([[1, 5.0, 5.0, 5.0, 5.0]]).double()
    for rois, moved in product((ROIS[:0], flat), (True, False)):
        by = offset[: len(rois)] if moved else None
        output = ops.deform_roi_pool(maps, rois, by, (2, 3), 0.5, 0, 0.1)
        assert output.shape == (len(rois), 2, 2, 3) and not output.any()
        (grad,) = torch.autograd.grad(output.sum(), maps)
        assert not grad.any()


@needs_ours
def test_multi_scale_deformable_attention() -> None:
    shapes = torch.tensor([[5, 4], [2, 3]])
    starts = torch.tensor([0, 20])
    value, weights = double(0, 2, 26, 2, 4), double(1, 2, 3, 2, 2, 2).softmax(-1)
    places = double(2, 2, 3, 2, 2, 2, 2) * 0.5 + 0.5  # as shares of each map, some outside
    attend = ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply
    output = attend(value, shapes, starts, places, weights, 64)
    expected = torch.zeros(2, 3, 2, 4).double()
    for b, q, head, d, level, point in np.ndindex(2, 3, 2, 4, 2, 2):
        (H, W), start = shapes[level].tolist(), starts[level]
        x, y = places[b, q, head, level, point].tolist()
        plane = value[b, start : start + H * W, head, d].view(H, W)
        sampled = bilinear(plane, y * H - 0.5, x * W - 0.5, False)
        expected[b, q, head, d] += weights[b, q, head, level, point] * sampled
    assert_close(output, expected.flatten(2), 1e-12)
    assert not torch.allclose(output, expected.flip(2).flatten(2))  # the control
    operands = [x.requires_grad_() for x in (value, places, weights)]
    assert gradcheck(lambda v, p, w: attend(v, shapes, starts, p, w, 64), operands)


@needs_ours
@pytest.mark.parametrize('weighted', [False, True])
def test_focal_loss(weighted: bool) -> None:
    """A label behind the last class is background, for which there is no weight."""
    logits, target = double(0, 6, 4) * 3, torch.tensor([0, 3, 2, 1, 1, 0 if weighted else 4])
    weight = double(1, 4).abs() if weighted else None
    alpha, gamma = 0.3, 2.0
    expected = torch.zeros(6, 4).double()
    for n, c in np.ndindex(6, 4):
        p = 1 / (1 + math.exp(-logits[n, c]))
        if target[n] == c:
            expected[n, c] = -alpha * (1 - p) ** gamma * math.log(p)
        else:
            expected[n, c] = -(1 - alpha) * p**gamma * math.log(1 - p)
        expected[n, c] *= weight[target[n]] if weighted else 1
    settings = (target, gamma, alpha, weight)
    assert_close(ops.sigmoid_focal_loss(logits, *settings, 'none'), expected, 1e-12)
    shifted = ops.sigmoid_focal_loss(logits, target.roll(1), gamma, alpha, weight, 'none')
    assert not torch.allclose(shifted, expected)  # the control
    inputs = logits.clone().requires_grad_()
    assert gradcheck(lambda x: ops.sigmoid_focal_loss(x, *settings, 'sum'), inputs)
    saturated = torch.tensor([[-100.0, 30.0, 100.0]]).double().requires_grad_()
    loss = ops.sigmoid_focal_loss(saturated, torch.tensor([0]), 0.5, alpha, None, 'sum')
    assert_close(loss, torch.tensor(alpha * 100 + (1 - alpha) * 130), 1e-6)
    (grad,) = torch.autograd.grad(loss, saturated)
    assert_close(grad, torch.tensor([[-alpha, 1 - alpha, 1 - alpha]]), 1e-6)


@needs_ours
def test_carafe() -> None:
    features, masks = double(0, 2, 4, 3, 5), double(1, 2, 18, 6, 10)
    output = ops.carafe(features, masks, 3, 2, 2)
    expected = torch.zeros(2, 4, 6, 10).double()
    for b, c, y, x, i, j in np.ndindex(2, 4, 6, 10, 3, 3):
        row, column = y // 2 + i - 1, x // 2 + j - 1
        if 0 <= row < 3 and 0 <= column < 5:
            kernel = masks[b, (c // 2) * 9 + i * 3 + j, y, x]
            expected[b, c, y, x] += kernel * features[b, c, row, column]
    assert_close(output, expected, 1e-12)
    assert not torch.allclose(output, expected.flip(1))  # the control
    operands = [x.requires_grad_() for x in (features, masks)]
    assert gradcheck(lambda f, m: ops.carafe(f, m, 3, 2, 2), operands)
    with torch.autocast('cpu', torch.bfloat16):  # masks come from a softmax, in float32
        mixed = ops.carafe(features.bfloat16(), masks, 3, 2, 2)
    assert_close(mixed, expected, 0.02)
    assert all(grad.any() for grad in torch.autograd.grad(mixed.sum(), operands))


@needs_ours
def test_masked_convolution() -> None:
    features, weight, bias = double(0, 1, 3, 6, 7), double(1, 4, 3, 3, 5), double(2, 4)
    mask = double(3, 1, 6, 7) > 0
    output = ops.masked_conv2d(features, mask.double(), weight, bias, (1, 2))
    whole = torch.nn.functional.conv2d(features, weight, bias, padding=(1, 2))
    assert_close(output, whole * mask, 1e-12)
    assert not torch.allclose(output, whole * ~mask)  # the control
    none = ops.masked_conv2d(features, torch.zeros(1, 6, 7), weight, bias, (1, 2))
    assert not none.any()


@needs_ours
def test_synchronised_batch_norm() -> None:
    """MMSyncBN in a group of one process is torch's batch norm."""
    maps, weight, bias = random(0, 3, 4, 5, 6), random(1, 4).abs(), random(2, 4)
    leaves = [x.requires_grad_() for x in (maps, weight, bias)]
    running = [torch.zeros(4), torch.ones(4)]
    expected_running = [x.clone() for x in running]
    sync = ops.sync_bn.SyncBatchNormFunction.apply
    output = sync(maps, *running, weight, bias, 0.3, 1e-3, None, 1, 'default')
    norm = torch.nn.functional.batch_norm
    expected = norm(maps, *expected_running, weight, bias, True, 0.3, 1e-3)
    grads, expected_grads = (mmcv_golden.grads_of(y, *leaves) for y in (output, expected))
    for key in grads:
        assert_close(grads[key], expected_grads[key], 1e-5, key)
    for actual, wanted in zip(running, expected_running, strict=True):
        assert_close(actual, wanted, 1e-6)
    assert not torch.allclose(output, norm(maps, None, None, bias, weight, True, 0.3, 1e-3))


# Half precision, where mmcv has it


def calls(dtype: torch.dtype, rounded: torch.dtype) -> dict[str, torch.Tensor]:
    """Results of each operator that takes half precision, in a type, of operands rounded to one."""

    def operand(seed: int, *shape: int) -> torch.Tensor:
        return random(seed, *shape).to(rounded).to(dtype).requires_grad_()

    rois, dets = ROIS.to(rounded).to(dtype), mmcv_golden.random_boxes(0, 60).to(rounded).to(dtype)
    maps, offset, mask = operand(0, 2, 4, 7, 9), operand(2, 2, 18, 5, 7), operand(3, 2, 9, 5, 7)
    weight, moves, kernels = (
        operand(1, 4, 4, 3, 3),
        operand(4, 3, 2, 2, 3),
        operand(5, 2, 9, 14, 18),
    )
    logits = operand(6, 7, 9)
    found = {
        'roi_align': (ops.roi_align(maps, rois, (3, 2), 0.5, 0, 'avg', True), maps),
        'deform_roi_pool': (ops.deform_roi_pool(maps, rois, moves, (2, 3), 0.5, 2), maps, moves),
        'deform_conv': (ops.deform_conv2d(maps, offset, weight), maps, offset, weight),
        'modulated_deform_conv': (
            ops.modulated_deform_conv2d(maps, offset, mask, weight),
            *(maps, offset, mask, weight),
        ),
        'sigmoid_focal_loss': (ops.sigmoid_focal_loss(logits, torch.arange(7)), logits),
        'carafe': (ops.carafe(maps, kernels, 3, 1, 2), maps, kernels),
    }
    results = {'nms': ops.nms(dets[:, :4], dets[:, 4], 0.5)[0]}
    for name, (output, *inputs) in found.items():
        grads = torch.autograd.grad(output.sum(), inputs)
        results |= {f'{name} {i}': result for i, result in enumerate((output, *grads))}
    return results


@needs_ours
@pytest.mark.parametrize('dtype', HALVES)
def test_half_precision(dtype: torch.dtype) -> None:
    exact = calls(torch.float32, dtype)
    for key, value in calls(dtype, dtype).items():
        assert value.dtype == dtype, key
        assert_close(value, exact[key], 4 * torch.finfo(dtype).eps, key)


# Where it comes from


@needs_ours
def test_deterministic_mode_is_left_as_it_was() -> None:
    """On a GPU these kernels have no deterministic version; mmcv's do not refuse the mode."""
    maps = double(0, 2, 3, 7, 9).requires_grad_()
    try:
        torch.use_deterministic_algorithms(True)
        output = ops.roi_align(maps, ROIS, (2, 2), 0.5, 0, 'avg', True)
        torch.autograd.grad(output.sum(), maps)
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@needs_ours
def test_what_is_missing_says_so_when_it_is_called() -> None:
    with pytest.raises(NotImplementedError, match='nms_rotated') as raised:
        ops.nms_rotated(torch.rand(3, 5), torch.rand(3), 0.5)
    said = str(raised.value)
    assert 'mmcv==2.1.0' in said and '\n' not in said
    with pytest.raises(NotImplementedError, match="pool_mode='max'"):
        ops.roi_align(torch.rand(1, 1, 4, 4), torch.rand(1, 5), 2, 1.0, 0, 'max')
    with pytest.raises(NotImplementedError, match='roi_pool'):
        ops.roi_pool(torch.rand(1, 1, 4, 4), torch.rand(1, 5), 2)


@pytest.mark.parametrize('compiled', [True, False])
def test_a_compiled_module_comes_first(compiled: bool, tmp_path: Path) -> None:
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').touch()
    if compiled:
        (tmp_path / 'mmcv/_ext.py').touch()
    code = 'import mmparc, mmcv._ext; print(mmcv._ext.__file__)'
    command = [sys.executable, '-W', 'ignore', '-c', code]
    environment = {'PYTHONPATH': f'{tmp_path}:{ROOT}', 'OMP_NUM_THREADS': '1'}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    expected = tmp_path / 'mmcv/_ext.py' if compiled else ROOT / 'mmparc/mmcv_ops.py'
    assert said.stdout.strip() == str(expected), said.stderr
