"""The form that torch.export sees, for ONNX too: few plain operators, for any length, known or not.

A length may be a symbol here, of which nothing may be asked: each answer would bind the exported
program to lengths of that answer. So there is one way for all lengths, without complex numbers. It
is chosen for ONNX Runtime's kernels: across channels a convolution of the map that is wrapped
around, which takes as many multiply-adds as a circulant matrix and spares building that, C times
the size of the weights' own n values per pair; per channel, where such convolutions are slow, the
matrix.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# torch 2.6 lacks it; ParC is exported at fixed sizes there, as it is run.
exporting = getattr(torch.compiler, 'is_exporting', lambda: False)


def is_known(condition: bool | torch.SymBool) -> bool:
    """Whether it is true of all lengths that the program is exported for."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # takes its time

    return statically_known_true(condition)


def resize_taps(t: Tensor, n: int) -> Tensor:
    """As :func:`mmparc.ops.resize_taps` by 'interpolate', for n equal to K too.

    A product with the K x n matrix of the shares that each value has in the new ones.
    """
    new = torch.arange(n, device=t.device)
    old = torch.arange(t.shape[-1], device=t.device)
    # Whole numbers, so that the ends, and for n = K all, are exact; where n is 1, 0 / 1.
    position = (new * (t.shape[-1] - 1)).to(t.dtype) / new[-1:].clamp(min=1)
    shares = (1 - (position - old[:, None]).abs()).clamp(min=0)
    return torch.matmul(t, shares.to(t.dtype))


def circulant(taps: Tensor) -> Tensor:
    """As that of 'matmul', by a gather: (..., n) to (..., n, n), [i, m] = taps[(m - i) mod n]."""
    n = taps.shape[-1]
    i = torch.arange(n, device=taps.device)
    ahead = i - i[:, None]
    # Not by a remainder, for which torch's ONNX wants a number and no symbol.
    return taps[..., torch.where(ahead < 0, ahead + n, ahead)]


def prepare(taps: Tensor, axis: str, groups: int) -> Tensor:
    """(C_out, C_in / groups, n) to (C, n, n), transposed along W; or to a convolution's kernel."""
    if not _per_channel(taps, groups):
        return taps.unsqueeze(-1 if axis == 'h' else -2)
    matrix = circulant(taps.squeeze(1))
    return matrix if axis == 'h' else matrix.mT


def prepare_offset(offset: Tensor, operand: Tensor, axis: str, groups: int) -> Tensor:
    """(C_out, n) to (C_out, n, 1) or (C_out, 1, n)."""
    return offset.unsqueeze(-1 if axis == 'h' else -2)


def correlate(
    input: Tensor,
    operand: Tensor,
    offset: Tensor | None,
    axis: str,
    groups: int,
    out: Tensor | None = None,
) -> Tensor:
    """(B, C_in, H, W) to (B, C_out, H, W)."""
    if operand.dim() == 3:
        # A product asks how maps lie in memory; this one lies in order. Not copied in ONNX.
        input = input.clone(memory_format=torch.contiguous_format)
        y = torch.matmul(operand, input) if axis == 'h' else torch.matmul(input, operand)
    else:
        dim = 2 if axis == 'h' else 3
        # Twice the map, then one less: a map less one may be empty, which would be asked about.
        wrapped = torch.cat([input, input], dim).narrow(dim, 0, 2 * input.shape[dim] - 1)
        y = F.conv2d(wrapped, operand, groups=groups)
    return y if offset is None else y + offset


def _per_channel(taps: Tensor, groups: int) -> bool:
    return taps.shape[0] == groups and taps.shape[1] == 1
