"""mmcv's compiled operators, computed by torchvision and torch: stands in for ``mmcv._ext``.

mmcv-lite lacks only this module, whose sources need a C++ compiler, and nvcc for a GPU. ``import
mmparc`` makes this file importable as ``mmcv._ext`` unless a compiled one is installed. It has what
mmdet, mmsegmentation and mmpretrain call, on CPUs and GPUs; any other operator raises.

Names, arguments and shapes are mmcv 2.1's, since mmcv's own autograd functions call these: a
result goes into a buffer that the caller made (``output``, ``grad_input``). Boxes are (x1, y1, x2,
y2) in pixels, RoIs (image, x1, y1, x2, y2). Differences from the compiled module:

- ``nms`` and ``nms_match``: ties keep input order; mmcv's order is undefined.
- ``roi_align`` averages only; ``pool_mode='max'`` raises. A RoI of negative size is not an error.
- ``sigmoid_focal_loss`` does not cap the loss of a logit beyond 87 in absolute value.
- In torch's deterministic mode, backward passes that have no such version on a GPU warn.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor


def _missing(name: str) -> Callable:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            f"{name} needs mmcv's compiled operators: build them on Python 3.11 or 3.12 with "
            '`MMCV_WITH_OPS=1 pip wheel --no-deps --no-build-isolation mmcv==2.1.0`, then install '
            'that wheel in place of mmcv-lite'
        )

    return fail


def __getattr__(name: str) -> Callable:
    """An operator that is not implemented here: it exists, and calling it raises."""
    if name.startswith('_'):
        raise AttributeError(name)
    return _missing(name)


def get_compiler_version() -> str:
    """What mmengine logs at the start of a run."""
    return f'none: operators of mmparc.mmcv_ops (torchvision {torchvision.__version__})'


def get_compiling_cuda_version() -> str:
    """The CUDA or ROCm version of torch, whose operators these are, in mmcv's words."""
    return torch.version.cuda or torch.version.hip or 'not available'


# What the operators share


def _computable(*tensors: Tensor) -> list[Tensor]:
    """Convert to float32 what torchvision has no kernel for: bfloat16, and float16 on a CPU."""
    return [
        x.float()
        if x.dtype == torch.bfloat16 or (x.dtype == torch.float16 and not x.is_cuda)
        else x
        for x in tensors
    ]


@contextmanager
def _nondeterministic() -> Iterator[None]:
    """Make torch's deterministic mode warn and not refuse: mmcv's kernels run in it, too."""
    mode = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(mode, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode, warn_only=warn_only)


def _forward(function: Callable, arguments: str) -> Callable:
    """mmcv's forward call of a function of tensors and settings; ``output`` gets the result.

    ``arguments`` names mmcv's positional ones in order. The function gets those that it knows; the
    others are workspaces.
    """

    def forward(*tensors: Tensor, **settings: Any) -> None:
        given = dict(zip(arguments.split(), tensors, strict=True))
        given['output'].copy_(function(**_known(function, given), **settings))

    return forward


def _backward(function: Callable, arguments: str) -> Callable:
    """mmcv's backward call: each ``grad_X`` gets the gradient of ``grad_output`` by X.

    It is left as it is, zeros, where the output does not depend on X.
    """

    def backward(*tensors: Tensor, **settings: Any) -> None:
        given = dict(zip(arguments.split(), tensors, strict=True))
        with torch.enable_grad(), _nondeterministic():
            inputs = _known(function, given)
            leaves = {
                name: inputs[name].detach().requires_grad_()
                for name in inputs
                if f'grad_{name}' in given
            }
            output = function(**{**inputs, **leaves}, **settings)
            if not output.requires_grad:  # of RoIs, of which none has a sample
                return
            grad_output = given['grad_output'].to(output.dtype)
            grads = torch.autograd.grad(
                output, list(leaves.values()), grad_output, allow_unused=True
            )
        for name, grad in zip(leaves, grads, strict=True):
            if grad is not None:
                given[f'grad_{name}'].copy_(grad)

    return backward


def _known(function: Callable, given: dict[str, Tensor]) -> dict[str, Tensor]:
    names = inspect.signature(function).parameters
    return {name: tensor for name, tensor in given.items() if name in names}


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
    if boxes.device.type == 'cpu':
        return _nms_in_blocks(boxes, scores, threshold)
    return torchvision.ops.nms(boxes, scores.to(boxes.dtype), threshold)


def _nms_in_blocks(boxes: Tensor, scores: Tensor, threshold: float, block: int = 128) -> Tensor:
    """NMS on a CPU, block by block: torchvision's among the best boxes, which suppress the rest.

    For 2,000 to 12,000 boxes this takes a third to a fifth of the time of torchvision's NMS of all.
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

    ``method`` is 0 for NMS, 1 for linear and 2 for Gaussian decay. The order of ties follows from
    mmcv's swaps, which are made here, too.

    Returns:
        Indices of the boxes that are kept, in the order of ``dets``.
    """
    found = torch.cat([boxes, scores[:, None].to(boxes)], dim=1).float().numpy().copy()
    order = np.arange(len(found))
    threshold, n, i = np.float32(iou_threshold), len(found), 0
    while i < n:
        left = found[i:n, 4]
        # the IoU of two boxes without area is NaN, which is never the best
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
        _missing("roi_align with pool_mode='max'")()
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
    (input,) = _computable(input)
    # not torchvision.ops.roi_align, which needs a C compiler in torch's deterministic mode
    align = torch.ops.torchvision.roi_align
    rois, size = rois.to(input.dtype), _align_size(**size)
    output.copy_(align(input, rois, spatial_scale, *size, sampling_ratio, aligned))


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
    (grad_output,) = _computable(grad_output)
    # torch.autograd.grad would compute the output once more: 1.4 to 1.6 times as slow on a CPU
    backward = torch.ops.torchvision._roi_align_backward
    rois, shapes = rois.to(grad_output.dtype), (*_align_size(**size), *grad_input.shape)
    with _nondeterministic():
        grad = backward(grad_output, rois, spatial_scale, *shapes, sampling_ratio, aligned)
    grad_input.copy_(grad)


def _sample(maps: Tensor, images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Bilinear values (K, C, ...) of maps (B, C, H, W) at pixels y, x (K, ...) of images (K,).

    More than one pixel outside of a map they are 0, nearer they are the border's.
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
    input, rois, offset = _computable(input, rois, offset)
    start = rois[:, 1:3] * spatial_scale - 0.5
    size = rois[:, 3:5] * spatial_scale - 0.5 - start
    bins = size / size.new_tensor([pooled_width, pooled_height])
    grids = torch.full_like(bins, sampling_ratio) if sampling_ratio > 0 else bins.ceil()
    offset = (
        offset if offset.numel() else offset.new_zeros(1, 2, 1, 1).expand(len(rois), -1, -1, -1)
    )
    moves = gamma * size[:, :, None, None] * offset
    output = input.new_zeros(len(rois), input.shape[1], pooled_height, pooled_width)
    for grid in grids.int().unique(dim=0):  # RoIs with as many samples in a bin are one batch
        which = (grids == grid).all(dim=1).nonzero()[:, 0]
        columns, rows = grid.tolist()
        if columns <= 0 or rows <= 0:
            continue
        x = _samples(start[which, 0], bins[which, 0], pooled_width, columns)[:, None, :, None, :]
        y = _samples(start[which, 1], bins[which, 1], pooled_height, rows)[:, :, None, :, None]
        x = x + moves[which, 0, :, :, None, None]
        y = y + moves[which, 1, :, :, None, None]
        y, x = torch.broadcast_tensors(y, x)
        mean = _sample(input, rois[which, 0].long(), y, x).mean(dim=(-1, -2))
        output = output.index_copy(0, which, mean)
    return output


def _samples(start: Tensor, length: Tensor, bins: int, grid: int) -> Tensor:
    """Coordinates (K, bins, grid) of the samples along an axis; starts and bins' lengths (K,)."""
    within = (torch.arange(bins * grid).to(start) + 0.5) / grid
    return (start[:, None] + within * length[:, None]).view(-1, bins, grid)


deform_roi_pool_forward = _forward(_deform_roi_pool, 'input rois offset output')
deform_roi_pool_backward = _backward(
    _deform_roi_pool, 'grad_output input rois offset grad_input grad_offset'
)


# Deformable convolution (arXiv 1703.06211, 1811.11168) and attention (arXiv 2010.04159)


def _deform_conv(input: Tensor, weight: Tensor, offset: Tensor, **settings: int) -> Tensor:
    """``settings``: dH, dW (the stride), padH, padW, dilationH, dilationW, and what shapes say."""
    geometry = [[settings[f'{name}{axis}'] for axis in 'HW'] for name in ('d', 'pad', 'dilation')]
    input, weight, offset = _computable(input, weight, offset)
    return torchvision.ops.deform_conv2d(input, offset, weight, None, *geometry)


deform_conv_forward = _forward(_deform_conv, 'input weight offset output columns ones')
deform_conv_backward_input = _backward(
    _deform_conv, 'input offset grad_output grad_input grad_offset weight columns'
)


def deform_conv_backward_parameters(
    input: Tensor, offset: Tensor, grad_output: Tensor, grad_weight: Tensor, *_: Tensor, **settings
) -> None:
    # the output is linear in the weight, so that any weight of this shape serves
    backward = _backward(_deform_conv, 'input offset grad_output grad_weight weight')
    backward(input, offset, grad_output, grad_weight, torch.zeros_like(grad_weight), **settings)


def _of_output_size(tensor: Tensor, weight: Tensor, input: Tensor, settings: dict) -> Tensor:
    """An offset or mask (B, ..., H, W) as it is, or a larger one as mmcv reads it.

    mmcv ignores the shape of a larger one and reads each image's first numbers; mmdet's DyHead
    relies on it.
    """
    size = [
        (n + 2 * settings[f'pad_{axis}'] - settings[f'dilation_{axis}'] * (k - 1) - 1)
        // settings[f'stride_{axis}']
        + 1
        for axis, n, k in zip('hw', input.shape[2:], weight.shape[2:], strict=True)
    ]
    if [*tensor.shape[2:]] == size:
        return tensor
    count = tensor.shape[1] * math.prod(size)
    return tensor.view(len(tensor), -1)[:, :count].view(len(tensor), -1, *size)


def _modulated_deform_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    offset: Tensor,
    mask: Tensor,
    with_bias: bool,
    **settings: int,
) -> Tensor:
    """``settings``: stride_h, stride_w, pad_h, dilation_h and so on."""
    geometry = [
        [settings[f'{name}_{axis}'] for axis in 'hw'] for name in ('stride', 'pad', 'dilation')
    ]
    offset, mask = (_of_output_size(x, weight, input, settings) for x in (offset, mask))
    input, weight, bias, offset, mask = _computable(input, weight, bias, offset, mask)
    bias = bias if with_bias else None
    return torchvision.ops.deform_conv2d(input, offset, weight, bias, *geometry, mask)


modulated_deform_conv_forward = _forward(
    _modulated_deform_conv, 'input weight bias ones offset mask output columns'
)
modulated_deform_conv_backward = _backward(
    _modulated_deform_conv,
    'input weight bias ones offset mask columns '
    'grad_input grad_weight grad_bias grad_offset grad_mask grad_output',
)


def _ms_deform_attn(
    value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor, **settings: int
) -> Tensor:
    # imported here because mmcv.ops imports this module
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, shapes.tolist(), locations, weights)


def ms_deform_attn_forward(
    value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor, **settings
) -> Tensor:
    """Values (B, keys, heads, D) sampled for queries: (B, queries, heads * D)."""
    return _ms_deform_attn(value, shapes, locations, weights)


ms_deform_attn_backward = _backward(
    _ms_deform_attn,
    'value shapes starts locations weights grad_output grad_value grad_locations grad_weights',
)


# Focal loss (arXiv 1708.02002)


def _of_classes(
    input: Tensor, target: Tensor, weight: Tensor, of_label: Tensor, of_others: Tensor
) -> Tensor:
    """(N, C): one value where the class is the label, another elsewhere, times the label's weight.

    The label C is background, and ``weight`` may be empty.
    """
    is_label = target[:, None] == torch.arange(input.shape[1], device=input.device)
    values = torch.where(is_label, of_label, of_others)
    return values * weight[target][:, None] if weight.numel() else values


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Losses (N, C) of logits (N, C) and labels (N,)."""
    p, n = input.sigmoid(), (-input).sigmoid()
    of_label = -alpha * n**gamma * F.logsigmoid(input)
    of_others = -(1 - alpha) * p**gamma * F.logsigmoid(-input)
    output.copy_(_of_classes(input, target, weight, of_label, of_others))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    p, n = input.sigmoid(), (-input).sigmoid()
    of_label = -alpha * n**gamma * (n - gamma * p * F.logsigmoid(input))
    of_others = -(1 - alpha) * p**gamma * (gamma * n * F.logsigmoid(-input) - p)
    grad_input.copy_(_of_classes(input, target, weight, of_label, of_others))


# CARAFE (arXiv 1905.02188)


def _carafe(
    features: Tensor, masks: Tensor, kernel_size: int, group_size: int, scale_factor: int
) -> Tensor:
    """Features (B, C, H, W), each output pixel a sum over a window with a kernel of its own.

    ``masks`` is (B, group_size * kernel_size^2, H * scale_factor, W * scale_factor).
    """
    B, C, H, W = features.shape
    masks = masks.to(features.dtype)
    windows = F.unfold(features, kernel_size, padding=kernel_size // 2)
    windows = windows.view(B, group_size, C // group_size, kernel_size**2, H, W)
    kernels = masks.view(B, group_size, kernel_size**2, H, scale_factor, W, scale_factor)
    with torch.autocast(features.device.type, enabled=False):  # in the operands' precision
        output = torch.einsum('bgckhw,bgkhiwj->bgchiwj', windows, kernels)
    return output.reshape(B, C, H * scale_factor, W * scale_factor)


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    **settings: int,
) -> None:
    """``rfeatures`` is what backward gets in place of ``features``."""
    rfeatures.copy_(features)
    output.copy_(_carafe(features, masks, **settings))


carafe_backward = _backward(
    _carafe,
    'grad_output features masks rgrad_output rgrad_input_hs rgrad_input rgrad_masks '
    'grad_features grad_masks',
)


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


psamask_forward = _forward(_psamask, 'input output')


def psamask_backward(grad_output: Tensor, grad_input: Tensor, **settings: int) -> None:
    # linear in the input, so that any input of this shape serves
    backward = _backward(_psamask, 'grad_output grad_input input')
    backward(grad_output, grad_input, torch.zeros_like(grad_input), **settings)


# Synchronised batch norm, MMSyncBN: mmcv exchanges the statistics between processes


def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """The mean (C,) of a map (B, C, H * W)."""
    mean.copy_(input.float().mean(dim=(0, 2)))


def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    var.copy_((input.float() - mean[:, None]).square().mean(dim=(0, 2)))


def sync_bn_forward_output(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    norm: Tensor,
    std: Tensor,
    output: Tensor,
    eps: float,
    momentum: float,
    group_size: int,
) -> None:
    std.copy_((var + eps).sqrt())
    norm.copy_((input.float() - mean[:, None]) / std[:, None])
    output.copy_(norm * weight[:, None] + bias[:, None])
    count = input.shape[0] * input.shape[2] * group_size
    unbiased = var * count / max(count - 1, 1)
    running_mean.copy_(momentum * mean + (1 - momentum) * running_mean)
    running_var.copy_(momentum * unbiased + (1 - momentum) * running_var)


def sync_bn_backward_param(
    grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor
) -> None:
    grad_weight.copy_((grad_output * norm).sum(dim=(0, 2)))
    grad_bias.copy_(grad_output.float().sum(dim=(0, 2)))


def sync_bn_backward_data(
    grad_output: Tensor,
    weight: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    norm: Tensor,
    std: Tensor,
    grad_input: Tensor,
) -> None:
    mean = grad_weight[:, None] * norm + grad_bias[:, None]
    mean = mean / (grad_output.shape[0] * grad_output.shape[2])
    grad_input.copy_((weight / std)[:, None] * (grad_output - mean))
