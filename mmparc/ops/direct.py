"""Backend 'direct': one ordinary convolution, with the taps wrapped around instead of the map.

Output row i reads row m through tap (m - i) mod n, and m - i lies between 1 - n and n - 1. So the
circular correlation is a zero-padded one with the 2n - 1 taps w[1], ..., w[n-1], w[0], ..., w[n-1].
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def prepare(taps: Tensor, axis: str, groups: int) -> Tensor:
    """(C_out, C_in / groups, n) to (C_out, C_in / groups, 2n - 1, 1)."""
    return torch.cat([taps[..., 1:], taps], -1).unsqueeze(-1)


def prepare_offset(offset: Tensor, kernel: Tensor, axis: str, groups: int) -> Tensor:
    """(C_out, n) to (C_out, n, 1)."""
    return offset.unsqueeze(-1)


def correlate(
    input: Tensor,
    kernel: Tensor,
    offset: Tensor | None,
    axis: str,
    groups: int,
    out: Tensor | None = None,
) -> Tensor:
    """(B, C_in, H, W) to (B, C_out, H, W)."""
    if axis == 'w':
        out = None if out is None else out.mT
        return correlate(input.mT, kernel, offset, 'h', groups, out).mT
    y = F.conv2d(input, kernel, padding=(input.shape[2] - 1, 0), groups=groups)
    return y if offset is None else torch.add(y, offset, out=out)
