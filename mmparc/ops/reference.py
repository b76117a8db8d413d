"""The definition of ParC, written as plainly as possible: every test's oracle.

It shares no code with the backends, not even the resizing, and is slow.
"""

import torch
from torch import Tensor


def parc_reference(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pos_embed: Tensor | None = None,
    *,
    axis: str,
    groups: int = 1,
    resize: str = 'interpolate',
) -> Tensor:
    """:func:`mmparc.ops.parc` tap by tap; shapes as there."""
    if axis == 'w':
        flipped = input.transpose(2, 3)
        output = parc_reference(
            flipped, weight, bias, pos_embed, axis='h', groups=groups, resize=resize
        )
        return output.transpose(2, 3)

    n, length = input.shape[2], weight.shape[-1]
    weight = _interpolate(weight, n)
    if resize == 'interpolate_sum':
        weight = weight * (length / n)
    if pos_embed is not None:
        input = input + _interpolate(pos_embed, n)[None, :, :, None]

    maps = input.chunk(groups, dim=1)
    kernels = weight.chunk(groups, dim=0)
    outputs = []
    for x, w in zip(maps, kernels, strict=True):
        total = 0
        for k in range(n):
            shifted = torch.roll(x, -k, dims=2)  # row i now holds row (i + k) mod n
            total = total + torch.einsum('oc,bcij->boij', w[:, :, k], shifted)
        outputs.append(total)
    output = torch.cat(outputs, dim=1)
    return output if bias is None else output + bias[None, :, None, None]


def _interpolate(t: Tensor, n: int) -> Tensor:
    """(..., K) to (..., n), linearly, first to first and last to last value."""
    length = t.shape[-1]
    values = []
    for i in range(n):
        position = i * (length - 1) / (n - 1) if n > 1 else 0.0
        left = min(int(position), length - 1)
        right = min(left + 1, length - 1)
        part = position - left
        values.append((1 - part) * t[..., left] + part * t[..., right])
    return torch.stack(values, dim=-1)
