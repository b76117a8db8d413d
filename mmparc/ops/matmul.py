"""Backend 'matmul': the n x n circulant matrix of each kernel, as a batched matrix product."""

import torch
from torch import Tensor


def circulant(taps: Tensor) -> Tensor:
    """(..., n) taps to (..., n, n) matrices M with M[i, m] = taps[(m - i) mod n].

    Row i is the window that starts at n - i in the doubled taps: a view and a flip, so that the
    gradient needs no scattered accumulation, as that of an indexed gather does.
    """
    n = taps.shape[-1]
    return torch.cat([taps, taps], -1).unfold(-1, n, 1)[..., 1:, :].flip(-2)


def parc_matmul(input: Tensor, taps: Tensor, axis: str, groups: int) -> Tensor:
    """(B, C_in, H, W) and (C_out, C_in / groups, n) to (B, C_out, H, W); n^2 products a line."""
    x = input.unflatten(1, (groups, -1))
    matrix = circulant(taps).unflatten(0, (groups, -1))
    equation = 'gocim,bgcmj->bgoij' if axis == 'h' else 'gocim,bgcjm->bgoji'
    return torch.einsum(equation, matrix, x).flatten(1, 2)
