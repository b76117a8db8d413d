"""The choice behind ``backend='auto'``."""

import torch
from torch import Tensor


def choose_backend(input: Tensor, taps: Tensor, *, axis: str, groups: int) -> str:
    """Name the backend that is likely the fastest for these shapes.

    A simple rule, drawn through a handful of float32 timings on two CPU cores and not itself
    measured: the convolution while the kernel is about as short as an ordinary one, the circulant
    product up to a few hundred taps where channels stay apart, the FFT beyond and if dense.

    Args:
        input: (B, C_in, H, W).
        taps: (C_out, C_in / groups, n), already resized.
        axis: 'h' or 'w'; not used by this rule.
        groups: C_in for depthwise.
    """
    n = taps.shape[-1]
    if n <= 8:
        return 'direct'
    half = input.dtype in (torch.float16, torch.bfloat16)
    if taps.shape[1] == 1:
        return 'matmul' if n <= 192 or half else 'fft'
    return 'direct' if n <= 14 else 'fft'
