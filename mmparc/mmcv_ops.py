"""mmcv's compiled operators, computed by torchvision and torch: stands in for ``mmcv._ext``.

mmcv-lite holds all of mmcv but this one module, whose sources need a C++ compiler, and nvcc for a
GPU. ``import mmparc`` offers this file under its name, and Python takes it only where no compiled
module is installed. It has what mmdet, mmsegmentation and mmpretrain call, on CPUs and GPUs alike;
any other name is a function that raises NotImplementedError when it is called.

Names, arguments and shapes are mmcv 2.1's, since mmcv's own autograd functions call these: a
result goes into a buffer that the caller made (``output``, ``grad_input``). Boxes are (x1, y1, x2,
y2) in pixels, RoIs (image, x1, y1, x2, y2). Half precision is computed in float32 where torchvision
has no kernel for it. Differences from the compiled module:

- Equal scores: ``nms`` and ``nms_match`` take the first box first, where mmcv leaves it open.
- ``roi_align`` averages only; ``pool_mode='max'`` raises. A RoI of negative size is not refused.
- ``sigmoid_focal_loss`` does not cap the loss of a logit beyond 87 in absolute value.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor


def __getattr__(name: str) -> Callable:
    """What mmcv asks for at import and nothing here implements: it fails when it is called."""
    if name.startswith('_'):
        raise AttributeError(name)

    def missing(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            f"{name} needs mmcv's compiled operators: replace mmcv-lite by a compiled mmcv "
            '(pip uninstall -y mmcv-lite && '
            'MMCV_WITH_OPS=1 pip install --no-build-isolation mmcv==2.1.0)'
        )

    return missing


def get_compiler_version() -> str:
    return f'none (torchvision {torchvision.__version__})'


def get_compiling_cuda_version() -> str:
    """The CUDA version of torch, whose operators these are, in mmcv's words."""
    return torch.version.cuda or 'not available'


# What the operators share


def _computable(*tensors: Tensor) -> list[Tensor]:
    """The same in float32 where torchvision has no kernel: bfloat16, and float16 on a CPU."""
    return [
        x.float()
        if x.dtype == torch.bfloat16 or (x.dtype == torch.float16 and not x.is_cuda)
        else x
        for x in tensors
    ]


def _gradients(function: Callable, grad_output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """``grad_output`` times the derivative of ``function`` by each of its inputs, at ``inputs``."""
    with torch.enable_grad():
        inputs = tuple(x.detach().requires_grad_() for x in inputs)
        output = function(*inputs)
        return torch.autograd.grad(output, inputs, grad_output.to(output.dtype))


def _write(buffers: list[Tensor], values: tuple[Tensor, ...]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)


# Non-maximum suppression


def _as_float32(threshold: float) -> float:
    """mmcv compares with the threshold in float32: an IoU of exactly 0.3 is not above 0.3."""
    return float(np.float32(threshold))


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes (N, 4) that are kept, best score first.

    With ``offset`` 1 a box includes its last pixel: its width is x2 - x1 + 1.
    """
    boxes, scores = _computable(boxes, scores)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    threshold = _as_float32(iou_threshold)
    if boxes.is_cuda:
        return torchvision.ops.nms(boxes, scores.to(boxes.dtype), threshold)
    return _nms_in_blocks(boxes, scores, threshold)


def _nms_in_blocks(boxes: Tensor, scores: Tensor, threshold: float, block: int = 128) -> Tensor:
    """NMS on a CPU: torchvision's within the best boxes, which then remove from all others.

    torchvision's alone takes three times as long as mmcv's for thousands of boxes.
    """
    order = scores.sort(descending=True, stable=True).indices
    ranks = torch.arange(block, 0, -1, dtype=boxes.dtype)
    x1, y1, x2, y2 = boxes[order].unbind(dim=1)
    left = torch.stack([x1, y1, x2, y2, (x2 - x1) * (y2 - y1)])  # (5, N)
    kept = []
    while len(order):
        best, left = left[:, :block], left[:, block:]
        best_kept = torchvision.ops.nms(best[:4].T, ranks[: best.shape[1]], threshold)
        kept.append(order[best_kept])
        x1, y1, x2, y2, area = best[:, best_kept, None]
        # in place: these are as large as best_kept times what is left
        width = torch.minimum(x2, left[2]).sub_(torch.maximum(x1, left[0])).clamp_(min=0)
        height = torch.minimum(y2, left[3]).sub_(torch.maximum(y1, left[1])).clamp_(min=0)
        common = width.mul_(height)
        overlap = common.div_((area + left[4]).sub_(common))
        alone = ~(overlap > threshold).any(dim=0)
        left, order = left[:, alone], order[block:][alone]
    return torch.cat([*kept, order])


def _overlaps(box: np.ndarray, boxes: np.ndarray, offset: int) -> np.ndarray:
    """IoUs (N,) of a box (4,) with boxes (N, 4); NaN for two boxes without area."""
    corners = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:4], boxes[:, 2:4])
    width, height = np.maximum(corners[1] - corners[0] + offset, 0).T
    area = np.prod(box[2:4] - box[:2] + offset)
    areas = np.prod(boxes[:, 2:4] - boxes[:, :2] + offset, axis=1)
    with np.errstate(invalid='ignore', divide='ignore'):
        return width * height / (area + areas - width * height)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (arXiv 1704.04503) on a CPU; fills the first rows of ``dets`` (N, 5).

    ``method`` is 0 for NMS, 1 for linear and 2 for Gaussian decay. Equal scores are taken in the
    order that mmcv's exchanges leave, hence the same exchanges here.

    Returns:
        Indices of the boxes that are kept, in the order of ``dets``.
    """
    found = torch.cat([boxes, scores[:, None].to(boxes)], dim=1).float().numpy().copy()
    order = np.arange(len(found))
    threshold, n, i = np.float32(iou_threshold), len(found), 0
    while i < n:
        left = found[i:n, 4]
        # NaN, of two boxes without area, compares as false: it is never taken for the best
        best = i if np.isnan(left[0]) else i + int(np.nanargmax(left))
        found[[i, best]], order[[i, best]] = found[[best, i]], order[[best, i]]
        rest = found[i + 1 : n]  # a view: its scores decay in place
        overlaps = _overlaps(found[i], rest, offset)
        if method == 2:
            rest[:, 4] *= np.exp(-(overlaps**2) / np.float32(sigma))
        else:
            near = overlaps >= threshold
            rest[near, 4] *= 1 - overlaps[near] if method == 1 else 0
        gone = found[:, 4] < np.float32(min_score)
        for place in i + 1 + np.flatnonzero(gone[i + 1 : n]):
            while place < n and gone[place]:  # the last box takes the place of one that is gone
                n -= 1
                found[place], order[place], gone[place] = found[n], order[n], gone[n]
        i += 1
    dets[:n] = torch.from_numpy(found[:n])
    return torch.from_numpy(order[:n])


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of ``dets`` (N, 5) on a CPU: each kept box, then those it suppresses, by score."""
    found = dets.float().numpy()
    left = dets[:, 4].sort(descending=True, stable=True).indices.numpy()
    groups = []
    while len(left):
        first, rest = left[0], left[1:]
        near = _overlaps(found[first], found[rest], 0) >= np.float32(iou_threshold)
        groups.append([int(first), *map(int, rest[near])])
        left = rest[~near]
    return groups


# Pooling of regions


def _align_size(pool_mode: int, aligned_height: int, aligned_width: int) -> tuple[int, int]:
    if pool_mode == 0:
        __getattr__("roi_align with pool_mode='max'")()
    return aligned_height, aligned_width


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    **size: int,
) -> None:
    """RoIAlign (arXiv 1703.06870): (B, C, H, W) and RoIs (K, 5) to (K, C, *size)."""
    input, rois = _computable(input, rois.to(input.dtype))
    align = torchvision.ops.roi_align
    output.copy_(align(input, rois, _align_size(**size), spatial_scale, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    **size: int,
) -> None:
    grad_output, rois = _computable(grad_output, rois.to(grad_output.dtype))
    # not torch.autograd.grad, which would compute the output once more
    backward = torch.ops.torchvision._roi_align_backward
    shapes = *_align_size(**size), *grad_input.shape
    grad_input.copy_(backward(grad_output, rois, spatial_scale, *shapes, sampling_ratio, aligned))


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """RoIPool (arXiv 1504.08083), whose RoIs include their last pixel and are not rounded.

    torchvision rounds them. ``argmax`` gets the place y * W + x of each maximum in the map, -1 for
    a bin without pixels, whose output is 0; so has a RoI without area, which mmcv gives pixel 0.
    """
    H, W = input.shape[2:]
    (rois,) = _computable(rois)
    starts = rois[:, 1:3] * spatial_scale
    bins = (rois[:, 3:5] + 1) * spatial_scale - starts
    bins = bins / bins.new_tensor([pooled_width, pooled_height])
    edges = []  # of the bins, (K, bins, 2) for x and for y
    for axis, (count, length) in enumerate([(pooled_width, W), (pooled_height, H)]):
        steps = torch.arange(count + 1, device=rois.device) * bins[:, axis, None]
        steps = steps + starts[:, axis, None]
        ends = torch.stack([steps[:, :-1].floor(), steps[:, 1:].ceil()], dim=-1)
        edges.append(ends.clamp(0, length).long().tolist())
    images = rois[:, 0].long().tolist()
    valid = (bins > 0).all(dim=1).tolist()
    for k, (image, columns, rows) in enumerate(zip(images, *edges, strict=True)):
        for j, (x1, x2) in enumerate(columns):
            for i, (y1, y2) in enumerate(rows):
                if x1 >= x2 or y1 >= y2 or not valid[k]:
                    argmax[k, :, i, j] = -1
                    continue
                best, place = input[image, :, y1:y2, x1:x2].flatten(1).max(dim=1)
                output[k, :, i, j] = best
                y, x = place // (x2 - x1) + y1, place % (x2 - x1) + x1
                argmax[k, :, i, j] = (y * W + x).to(argmax.dtype)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    _, C, H, W = grad_input.shape
    planes = rois[:, :1].long() * C + torch.arange(C, device=rois.device)  # (K, C)
    places = planes[..., None, None] * H * W + argmax.long()
    taken = argmax >= 0
    grad_input.view(-1).index_add_(0, places[taken], grad_output[taken])


def _sample(maps: Tensor, images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Bilinear values (K, C, ...) of maps (B, C, H, W) at pixels y, x (K, ...) of images (K,).

    Zero more than one pixel outside, as the border within that.
    """
    H, W = maps.shape[2:]
    inside = (y >= -1) & (y <= H) & (x >= -1) & (x <= W)
    y, x = y.clamp(0, H - 1), x.clamp(0, W - 1)
    top, left = y.detach().floor(), x.detach().floor()
    images = images.view(-1, *[1] * (y.dim() - 1))
    maps = maps.permute(0, 2, 3, 1)
    value = maps.new_zeros(())
    for row, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            corner = maps[images, row.clamp(max=H - 1).long(), column.clamp(max=W - 1).long()]
            value = value + corner * (weight_y * weight_x * inside)[..., None]
    return value.movedim(-1, 1)


def _deform_roi_pool(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> Tensor:
    """Deformable RoI pooling (arXiv 1703.06211): RoIAlign whose bins are moved by an offset.

    ``offset`` (K, 2, height, width) holds the moves along x and y in RoI sizes times ``gamma``; it
    may be empty.
    """
    start = rois[:, 1:3] * spatial_scale - 0.5
    size = rois[:, 3:5] * spatial_scale - 0.5 - start
    bins = size / size.new_tensor([pooled_width, pooled_height])
    grids = torch.full_like(bins, sampling_ratio) if sampling_ratio > 0 else bins.ceil()
    moves = gamma * size[:, :, None, None] * offset if offset.numel() else None
    output = input.new_zeros(len(rois), input.shape[1], pooled_height, pooled_width)
    for grid in grids.int().unique(dim=0):  # RoIs with as many samples in a bin are one batch
        which = (grids == grid).all(dim=1).nonzero()[:, 0]
        columns, rows = grid.tolist()
        if columns <= 0 or rows <= 0:
            continue

        def samples(axis: int, count: int, grid: int, which: Tensor = which) -> Tensor:
            """Coordinates (K, bins, samples) along an axis, without the offset."""
            within = (torch.arange(count * grid).to(rois) + 0.5) / grid
            places = start[which, axis, None] + within * bins[which, axis, None]
            return places.view(-1, count, grid)

        x = samples(0, pooled_width, columns)[:, None, :, None, :]
        y = samples(1, pooled_height, rows)[:, :, None, :, None]
        if moves is not None:
            x = x + moves[which, 0, :, :, None, None]
            y = y + moves[which, 1, :, :, None, None]
        y, x = torch.broadcast_tensors(y, x)
        mean = _sample(input, rois[which, 0].long(), y, x).mean(dim=(-1, -2))
        output = output.index_copy(0, which, mean)
    return output


def deform_roi_pool_forward(
    input: Tensor, rois: Tensor, offset: Tensor, output: Tensor, **settings: Any
) -> None:
    output.copy_(_deform_roi_pool(*_computable(input, rois, offset), **settings))


def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    **settings: Any,
) -> None:
    input, rois, offset = _computable(input, rois, offset)
    if offset.numel():
        grads = _gradients(
            lambda x, by: _deform_roi_pool(x, rois, by, **settings), grad_output, input, offset
        )
    else:
        grads = _gradients(
            lambda x: _deform_roi_pool(x, rois, offset, **settings), grad_output, input
        )
    _write([grad_input, grad_offset][: len(grads)], grads)


# Deformable convolution (arXiv 1703.06211, 1811.11168) and attention (arXiv 2010.04159)


def _deform_conv(input: Tensor, weight: Tensor, offset: Tensor, settings: dict[str, Any]) -> Tensor:
    stride, padding, dilation = (
        (settings[name + 'H'], settings[name + 'W']) for name in ('d', 'pad', 'dilation')
    )
    return torchvision.ops.deform_conv2d(
        input, offset, weight, stride=stride, padding=padding, dilation=dilation
    )


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, *buffers: Tensor, **settings: int
) -> None:
    """``settings``: kH, kW, dH, dW (the stride), padH, padW, dilationH, dilationW, and so on."""
    output.copy_(_deform_conv(*_computable(input, weight, offset), settings))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    *buffers: Tensor,
    **settings: int,
) -> None:
    input, offset, weight = _computable(input, offset, weight)
    grads = _gradients(
        lambda x, by: _deform_conv(x, weight, by, settings), grad_output, input, offset
    )
    _write([grad_input, grad_offset], grads)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    *buffers: Tensor,
    scale: float,
    **settings: int,
) -> None:
    """Adds the weight's gradient times ``scale`` to ``grad_weight``."""
    # the output is linear in the weight, so that any weight of this shape serves
    input, offset, weight = _computable(input, offset, torch.zeros_like(grad_weight))
    (grad,) = _gradients(lambda w: _deform_conv(input, w, offset, settings), grad_output, weight)
    grad_weight.add_(grad.to(grad_weight.dtype), alpha=scale)


def _modulated_deform_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    offset: Tensor,
    mask: Tensor,
    settings: dict[str, Any],
) -> Tensor:
    stride, padding, dilation = (
        (settings[name + '_h'], settings[name + '_w']) for name in ('stride', 'pad', 'dilation')
    )
    size = [
        (n + 2 * pad - dil * (k - 1) - 1) // step + 1
        for n, k, step, pad, dil in zip(
            input.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True
        )
    ]
    # Of larger offsets and masks mmcv reads the first numbers of each image's memory as if they had
    # the size of the output, and mmdet's DyHead depends on that.
    offset, mask = (
        x
        if [*x.shape[2:]] == size
        else x.flatten(1)[:, : x.shape[1] * math.prod(size)].unflatten(1, (-1, *size))
        for x in (offset, mask)
    )
    bias = bias if settings['with_bias'] else None
    return torchvision.ops.deform_conv2d(
        input, offset, weight, bias, stride, padding, dilation, mask
    )


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    **settings: Any,
) -> None:
    """``settings``: stride_h, stride_w, pad_h, dilation_h and so on, with_bias."""
    operands = _computable(input, weight, bias, offset, mask)
    output.copy_(_modulated_deform_conv(*operands, settings))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    **settings: Any,
) -> None:
    input, weight, bias, offset, mask = _computable(input, weight, bias, offset, mask)
    grads = _gradients(
        lambda x, w, by, m: _modulated_deform_conv(x, w, bias, by, m, settings),
        grad_output,
        input,
        weight,
        offset,
        mask,
    )
    _write([grad_input, grad_weight, grad_offset, grad_mask], grads)
    if settings['with_bias']:
        grad_bias.copy_(grad_output.sum(dim=(0, 2, 3)))


def _ms_deform_attn(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    # mmcv's own, in torch; it could not be imported before mmcv.ops, which imports this module
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Values (B, keys, heads, D) sampled for queries: (B, queries, heads * D)."""
    return _ms_deform_attn(value, value_spatial_shapes, sampling_locations, attention_weights)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    grads = _gradients(
        lambda v, at, w: _ms_deform_attn(v, value_spatial_shapes, at, w),
        grad_output,
        value,
        sampling_locations,
        attention_weights,
    )
    _write([grad_value, grad_sampling_loc, grad_attn_weight], grads)


# Focal loss (arXiv 1708.02002)


def _sigmoid_focal_loss(
    input: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float
) -> Tensor:
    """Losses (N, C) of logits (N, C); the label C is background, and ``weight`` may be empty."""
    is_class = target[:, None] == torch.arange(input.shape[1], device=input.device)
    p, minus_log_p, minus_log_n = input.sigmoid(), F.softplus(-input), F.softplus(input)
    losses = torch.where(
        is_class, alpha * (1 - p) ** gamma * minus_log_p, (1 - alpha) * p**gamma * minus_log_n
    )
    return losses * weight[target][:, None] if weight.numel() else losses


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    output.copy_(_sigmoid_focal_loss(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    grads = _gradients(
        lambda x: _sigmoid_focal_loss(x, target, weight, gamma, alpha),
        torch.ones_like(input),
        input,
    )
    _write([grad_input], grads)


def _of_label(softmax: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The probability (N,) of each label and its weight (N,), 0 where the label is negative."""
    label = target.clamp(min=0)
    weights = (target >= 0).to(softmax.dtype)
    p = softmax.gather(1, label[:, None])[:, 0]
    return p, weights * weight[label] if weight.numel() else weights


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Losses (N,) of probabilities (N, C)."""
    p, weights = _of_label(input, target, weight)
    log_p = p.clamp(min=torch.finfo(torch.float32).tiny).log()
    output.copy_(-alpha * (1 - p) ** gamma * log_p * weights)


def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """The gradient by the logits behind the probabilities ``input`` (N, C)."""
    p, weights = _of_label(input, target, weight)
    log_p = p.clamp(min=torch.finfo(torch.float32).tiny).log()
    slope = gamma * (1 - p) ** (gamma - 1) * p * log_p - (1 - p) ** gamma
    is_label = target[:, None] == torch.arange(input.shape[1], device=input.device)
    grad_input.copy_((alpha * slope * weights)[:, None] * (is_label.to(input.dtype) - input))


# CARAFE (arXiv 1905.02188)


def _carafe(
    features: Tensor, masks: Tensor, kernel_size: int, group_size: int, scale_factor: int
) -> Tensor:
    """Features (B, C, H, W), each output pixel a sum over a window with a kernel of its own.

    ``masks`` is (B, group_size * kernel_size^2, H * scale_factor, W * scale_factor).
    """
    B, C, H, W = features.shape
    windows = F.unfold(features, kernel_size, padding=kernel_size // 2)
    windows = windows.view(B, group_size, C // group_size, kernel_size**2, H, W)
    kernels = masks.view(B, group_size, kernel_size**2, H, scale_factor, W, scale_factor)
    output = torch.einsum('bgckhw,bgkhiwj->bgchiwj', windows, kernels)
    return output.reshape(B, C, H * scale_factor, W * scale_factor)


def carafe_naive_forward(features: Tensor, masks: Tensor, output: Tensor, **settings: int) -> None:
    output.copy_(_carafe(features, masks, **settings))


def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    **settings: int,
) -> None:
    grads = _gradients(lambda x, m: _carafe(x, m, **settings), top_grad, features, masks)
    _write([bottom_grad, mask_grad], grads)


def carafe_forward(
    features: Tensor, masks: Tensor, rfeatures: Tensor, *buffers: Tensor, **settings: int
) -> None:
    """Writes to the last of ``buffers``; the others and ``rfeatures`` are for mmcv's kernels."""
    rfeatures.copy_(features)  # all that the backward pass is given of them
    carafe_naive_forward(features, masks, buffers[-1], **settings)


def carafe_backward(
    top_grad: Tensor, rfeatures: Tensor, masks: Tensor, *buffers: Tensor, **settings: int
) -> None:
    carafe_naive_backward(top_grad, rfeatures, masks, *buffers[-2:], **settings)


# Masked convolution (arXiv 1901.03278), and the masks of PSANet (ECCV 2018)


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Windows (C * kernel_h * kernel_w, N) of an image (1, C, H, W) at the N masked pixels."""
    padded = F.pad(im, (pad_w, kernel_w, pad_h, kernel_h))[0]
    rows = torch.arange(kernel_h, device=im.device)[:, None, None] + mask_h_idx
    columns = torch.arange(kernel_w, device=im.device)[:, None] + mask_w_idx
    col.copy_(padded[:, rows, columns].reshape(col.shape))


def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    im: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    im[0][:, mask_h_idx, mask_w_idx] = col.to(im.dtype)


def _psamask(
    input: Tensor,
    psa_type: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
    **sizes: int,
) -> Tensor:
    """Masks (B, h_mask * w_mask, H, W) around each pixel, over the whole map: (B, H * W, H, W).

    ``psa_type`` 0 collects: channel (y, x) at (h, w) is what (h, w) takes from (y, x). 1
    distributes: there channel and place are exchanged.
    """
    B, _, H, W = input.shape
    h, w = torch.arange(H, device=input.device), torch.arange(W, device=input.device)
    row = (h - h[:, None] + half_h_mask)[:, None, :, None]  # [h, w, y, x] from here on
    column = (w - w[:, None] + half_w_mask)[None, :, None, :]
    inside = (row >= 0) & (row < h_mask) & (column >= 0) & (column < w_mask)
    channel = row.clamp(0, h_mask - 1) * w_mask + column.clamp(0, w_mask - 1)
    masks = input[:, channel, h[:, None, None, None], w[:, None, None]] * inside
    if psa_type == 0:
        masks = masks.permute(0, 3, 4, 1, 2)
    return masks.reshape(B, H * W, H, W)


def psamask_forward(input: Tensor, output: Tensor, **settings: int) -> None:
    output.copy_(_psamask(input, **settings))


def psamask_backward(grad_output: Tensor, grad_input: Tensor, **settings: int) -> None:
    # linear in the input, so that any input of this shape serves
    grads = _gradients(lambda x: _psamask(x, **settings), grad_output, torch.zeros_like(grad_input))
    _write([grad_input], grads)
