"""Resizing of kernels and position embeddings to the length of the map.

'interpolate' is what the papers' code does: linear, end points aligned. It multiplies the sum of a
kernel's taps by about n / K, so outputs grow with the map; 'interpolate_sum' takes that factor out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .backends import exported

RESIZES = ('interpolate', 'interpolate_sum')


def resize_taps(t: Tensor, n: int, resize: str) -> Tensor:
    """Resize the last axis of ``t`` to n values, by linear interpolation with aligned end points.

    Args:
        t: (..., K).
        n: the new length; for n = 1 the first value is taken.
        resize: 'interpolate', or 'interpolate_sum', which multiplies the result by K / n.

    Raises:
        ValueError: if ``resize`` is unknown or n is not positive.
    """
    if resize not in RESIZES:
        raise ValueError(f'resize must be one of {RESIZES}, got {resize!r}')
    length = t.shape[-1]
    if exported.exporting():
        if exported.is_known(length == n):
            return t
        taps = exported.resize_taps(t, n)
    else:
        if n < 1:
            raise ValueError(f'the length to resize to must be positive, got {n}')
        if length == n:
            return t
        if torch.are_deterministic_algorithms_enabled() and not t.is_cpu:
            taps = exported.resize_taps(t, n)  # torch has no such gradient of interpolate
        else:
            rows = t.reshape(1, -1, length)
            taps = F.interpolate(rows, size=n, mode='linear', align_corners=True)
            taps = taps.view(*t.shape[:-1], n)
    return taps * (length / n) if resize == 'interpolate_sum' else taps
