"""Backend 'matmul': the n x n circulant matrix of each kernel, as a batched matrix product.

Along H the matrix stands left of the map. Along W it stands right of it, transposed, so that map
and product keep their memory layout. BLAS is slow with a right side of few columns, so there a
short matrix stands left too, of the transposed map.
"""

import torch
from torch import Tensor

# Shortest map with the matrix on its right. On two AVX2 cores, W = 7: 0.07 ms left, 0.24 right;
# W = 16: 0.13 and 0.11, with the copies that either needs.
RIGHT = 16


def circulant(taps: Tensor) -> Tensor:
    """(..., n) taps to (..., n, n) matrices M with M[i, m] = taps[(m - i) mod n].

    Row i is the window that starts at n - i in the doubled taps: a view and a flip, whose gradient
    needs no scattered accumulation, as that of a gather does. In half precision that gradient, a
    sum over n, is computed in float32.
    """
    if taps.requires_grad and taps.dtype in (torch.float16, torch.bfloat16):
        return circulant(taps.float()).to(taps.dtype)
    n = taps.shape[-1]
    return torch.cat([taps, taps], -1).unfold(-1, n, 1)[..., 1:, :].flip(-2)


def prepare(taps: Tensor, axis: str, groups: int) -> Tensor:
    """(groups, C_out / groups * n, C_in / groups * n), transposed where it stands right."""
    if _stands_right(axis, taps.shape[-1]):
        # The transposed matrix is that of the taps in reverse order, the first staying the first.
        m = circulant(taps.flip(-1).roll(1, -1)).unflatten(0, (groups, -1))
        return m.permute(0, 2, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    m = circulant(taps).unflatten(0, (groups, -1))
    return m.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def prepare_offset(offset: Tensor, matrix: Tensor, axis: str, groups: int) -> Tensor:
    """What is added to each column of the product, or to each row."""
    right = _stands_right(axis, offset.shape[1])
    return offset.reshape(groups, 1, -1) if right else offset.reshape(groups, -1, 1)


def correlate(
    input: Tensor,
    matrix: Tensor,
    offset: Tensor | None,
    axis: str,
    groups: int,
    out: Tensor | None = None,
) -> Tensor:
    """If B > 1 the result is a view with its axes in another order in memory."""
    b, c, h, w = input.shape
    x = input.view(b, groups, c // groups, h, w)
    if axis == 'h':
        x = x.permute(1, 2, 3, 0, 4).reshape(groups, c // groups * h, b * w)
        y = _product(matrix, x, offset, _as_product(out, (groups, -1, w)))
        return y.view(groups * matrix.shape[1] // h, h, b, w).permute(2, 0, 1, 3)
    x = x.permute(1, 0, 3, 2, 4).reshape(groups, b * h, c // groups * w)
    if _stands_right(axis, w):
        one_each = matrix.shape[2] == w
        y = _product(x, matrix, offset, _as_product(out, (groups, h, w)) if one_each else None)
        y = y.view(groups, b, h, matrix.shape[2] // w, w)
        return y.permute(1, 0, 3, 2, 4).flatten(1, 2)
    y = _product(matrix, x.mT, offset, None)
    return y.view(groups * matrix.shape[1] // w, w, b, h).permute(2, 0, 3, 1)


def _stands_right(axis: str, n: int) -> bool:
    return axis == 'w' and n >= RIGHT


def _as_product(out: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
    """``out`` in the product's shape, if it has its memory layout, as it has for one image."""
    one = out is not None and out.shape[0] == 1 and out.is_contiguous()
    return out.view(shape) if one else None


def _product(a: Tensor, b: Tensor, offset: Tensor | None, out: Tensor | None) -> Tensor:
    return torch.bmm(a, b, out=out) if offset is None else torch.baddbmm(offset, a, b, out=out)
