"""The form that torch.export and ONNX see: few plain operators, for any length, known or not.

A length may be a symbol here. Code that asks for its value would bind the exported program to
lengths with the same answer. So there is one way for all lengths, without complex numbers. It suits
ONNX Runtime's kernels: across channels a convolution of the wrapped map, which needs no large
matrix; per channel, where such convolutions are slow, the circulant matrix.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# torch 2.6 lacks it. There ParC is exported as it runs, at fixed sizes.
exporting = getattr(torch.compiler, 'is_exporting', lambda: False)


def is_known(condition: bool | torch.SymBool) -> bool:
    """Whether it is true of all lengths that the program is exported for."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # slow to import

    return statically_known_true(condition)


def resize_taps(t: Tensor, n: int) -> Tensor:
    """As :func:`mmparc.ops.resize_taps` by 'interpolate', as a product with a K x n matrix."""
    new = torch.arange(n, device=t.device)
    old = torch.arange(t.shape[-1], device=t.device)
    # Whole numbers, so that the ends, and for n = K all, are exact; where n is 1, 0 / 1.
    position = (new * (t.shape[-1] - 1)).to(t.dtype) / new[-1:].clamp(min=1)
    shares = (1 - (position - old[:, None]).abs()).clamp(min=0)
    return torch.matmul(t, shares.to(t.dtype))


def circulant(taps: Tensor) -> Tensor:
    """The circulant matrix of 'matmul', by a gather: [..., i, m] = taps[..., (m - i) mod n]."""
    n = taps.shape[-1]
    i = torch.arange(n, device=taps.device)
    ahead = i - i[:, None]
    # No remainder: for that, torch's ONNX exporter wants a number and no symbol.
    return taps[..., torch.where(ahead < 0, ahead + n, ahead)]


def prepare(taps: Tensor, axis: str, groups: int) -> Tensor:
    """Per channel matrices (C, n, n), transposed along W; else a convolution's kernel."""
    if taps.shape[0] != groups or taps.shape[1] != 1:
        return taps.unsqueeze(-1 if axis == 'h' else -2)
    matrix = circulant(taps.squeeze(1))
    return matrix if axis == 'h' else matrix.mT


def prepare_offset(offset: Tensor, operand: Tensor, axis: str, groups: int) -> Tensor:
    """(C_out, n, 1) or (C_out, 1, n)."""
    return offset.unsqueeze(-1 if axis == 'h' else -2)


def correlate(
    input: Tensor,
    operand: Tensor,
    offset: Tensor | None,
    axis: str,
    groups: int,
    out: Tensor | None = None,
) -> Tensor:
    if operand.dim() == 3:
        # A product asks for the map's memory layout. ONNX drops this copy.
        input = input.clone(memory_format=torch.contiguous_format)
        y = torch.matmul(operand, input) if axis == 'h' else torch.matmul(input, operand)
    else:
        dim = 2 if axis == 'h' else 3
        # Twice the map, less one row: torch would ask whether n - 1 rows alone are empty.
        wrapped = torch.cat([input, input], dim).narrow(dim, 0, 2 * input.shape[dim] - 1)
        y = F.conv2d(wrapped, operand, groups=groups)
    return y if offset is None else y + offset
