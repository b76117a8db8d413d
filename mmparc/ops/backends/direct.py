"""Backend 'direct': one ordinary convolution, with the taps wrapped around instead of the map.

Output row i reads row m through tap (m - i) mod n, and m - i lies between 1 - n and n - 1. So the
circular correlation is a zero-padded one with the 2n - 1 taps w[1], ..., w[n-1], w[0], ..., w[n-1].
Where oneDNN's gradients of that are wrong, the map is wrapped around instead.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# oneDNN's AVX-512 gradients of a convolution that is not depthwise write out of bounds where it
# pads by 9 or more (seen with torch 2.12.1). With up to 13 of the 2n - 1 taps they are right.
SAFE_TAPS = 13


def prepare(taps: Tensor, axis: str, groups: int) -> Tensor:
    """The kernel, (C_out, C_in / groups, 2n - 1, 1)."""
    return torch.cat([taps[..., 1:], taps], -1).unsqueeze(-1)


def prepare_offset(offset: Tensor, kernel: Tensor, axis: str, groups: int) -> Tensor:
    """(C_out, n, 1)."""
    return offset.unsqueeze(-1)


def correlate(
    input: Tensor,
    kernel: Tensor,
    offset: Tensor | None,
    axis: str,
    groups: int,
    out: Tensor | None = None,
) -> Tensor:
    differentiated = torch.is_grad_enabled() and (input.requires_grad or kernel.requires_grad)
    depthwise = 1 < groups == input.shape[1] == kernel.shape[0]
    if differentiated and not depthwise and kernel.shape[2] > SAFE_TAPS:
        return _with_map_wrapped(input, kernel, offset, axis, groups)
    if axis == 'w':
        out = None if out is None else out.mT
        return correlate(input.mT, kernel, offset, 'h', groups, out).mT
    y = F.conv2d(input, kernel, padding=(input.shape[2] - 1, 0), groups=groups)
    return y if offset is None else torch.add(y, offset, out=out)


def _with_map_wrapped(
    input: Tensor, kernel: Tensor, offset: Tensor | None, axis: str, groups: int
) -> Tensor:
    dim = 2 if axis == 'h' else 3
    before = input.shape[dim] - 1
    kernel = kernel[:, :, before:]  # the taps alone
    if axis == 'w':
        kernel, offset = kernel.mT, None if offset is None else offset.mT
    input = torch.cat([input, input.narrow(dim, 0, before)], dim)
    y = F.conv2d(input, kernel, groups=groups)
    return y if offset is None else y + offset
