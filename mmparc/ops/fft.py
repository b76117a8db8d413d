"""Backend 'fft', which is Fast-ParC (arXiv 2210.04020): O(n log n) a line.

A circular correlation is a product with the conjugate spectrum: Y = X * conj(W) per channel, or,
across channels, a small complex matrix product at each frequency.
"""

import torch
from torch import Tensor

from .direct import parc_direct


def parc_fft(input: Tensor, taps: Tensor, axis: str, groups: int) -> Tensor:
    """(B, C_in, H, W) and (C_out, C_in / groups, n) to (B, C_out, H, W).

    Half precision is computed in float32 and cast back: there is no complex half arithmetic.
    """
    dim = 2 if axis == 'h' else 3
    n = input.shape[dim]
    if input.shape[0] == 0:  # rfft refuses an empty batch; this one keeps it in the graph
        return parc_direct(input, taps, axis, groups)
    with torch.autocast(input.device.type, enabled=False):
        dtype = torch.promote_types(input.dtype, torch.float32)
        x = torch.fft.rfft(input.to(dtype), dim=dim)
        w = torch.fft.rfft(taps.to(dtype), dim=-1).conj()
        if taps.shape[0] == groups and taps.shape[1] == 1:
            y = x * (w.squeeze(1)[..., None] if dim == 2 else w)
        else:
            frequencies = 'bgcfj,gocf->bgofj' if dim == 2 else 'bgcjf,gocf->bgojf'
            y = torch.einsum(
                frequencies, x.unflatten(1, (groups, -1)), w.unflatten(0, (groups, -1))
            ).flatten(1, 2)
        return torch.fft.irfft(y, n=n, dim=dim).to(input.dtype)
