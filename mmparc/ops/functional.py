"""``parc``: one axis of position-aware circular convolution (arXiv 2203.03952, 2210.04020).

Checks the arguments, resizes kernel and embedding to the map, chooses the backend, and folds
embedding and bias into one offset per channel and position, since ParC(x + p) = ParC(x) + ParC(p).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .direct import parc_direct
from .fft import parc_fft
from .matmul import parc_matmul
from .resize import resize_taps
from .select import choose_backend

# Each takes (input (B, C_in, H, W), taps (C_out, C_in / groups, n), axis, groups), with n the
# map's size along the axis, and returns the bare circular correlation (B, C_out, H, W).
_IMPLEMENTATIONS: dict[str, Callable[[Tensor, Tensor, str, int], Tensor]] = {
    'direct': parc_direct,
    'matmul': parc_matmul,
    'fft': parc_fft,
}
BACKENDS = tuple(_IMPLEMENTATIONS)


def parc(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pos_embed: Tensor | None = None,
    *,
    axis: str,
    groups: int = 1,
    backend: str = 'auto',
    resize: str = 'interpolate',
) -> Tensor:
    """Circular correlation of a map with a kernel as long as the map, along one axis.

    For ``axis='h'`` and n = H::

        y[b, o, i, j] = bias[o]
            + sum_c sum_k w[o, c, k] * (x + p)[b, first(o) + c, (i + k) mod n, j]

    The kernel is neither flipped nor centred. Where K differs from n, ``weight`` and ``pos_embed``
    are first resized along the axis, see :func:`resize_taps`. Under autocast the operands are
    cast to its dtype, as for a convolution; ``fft`` then computes in float32 and casts back.

    Args:
        input: (B, C_in, H, W), floating point.
        weight: (C_out, C_in / groups, K).
        bias: (C_out,).
        pos_embed: (C_in, K), added to the input at each position along the axis.
        axis: 'h' or 'w'.
        groups: as in a convolution; C_in for a depthwise one, 1 for a dense one.
        backend: one of :data:`BACKENDS`, or 'auto' (:func:`choose_backend`).
        resize: 'interpolate' or 'interpolate_sum'.

    Returns:
        (B, C_out, H, W).

    Raises:
        ValueError: if an argument is unknown, or shapes or dtypes do not fit.
    """
    _check(input, weight, bias, pos_embed, axis, groups, backend)
    n = input.shape[2 if axis == 'h' else 3]
    weight = resize_taps(weight, n, resize)
    if pos_embed is not None:
        # Only the taps are summed over, so only they are rescaled by 'interpolate_sum'.
        pos_embed = resize_taps(pos_embed, n, 'interpolate')

    device = input.device.type
    if torch.is_autocast_enabled(device) and input.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        input, weight = input.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
        pos_embed = None if pos_embed is None else pos_embed.to(dtype)

    if backend == 'auto':
        backend = choose_backend(input, weight, axis=axis, groups=groups)
    run = _IMPLEMENTATIONS[backend]
    output = run(input, weight, axis, groups)
    offset = _offset(weight, bias, pos_embed, groups, run)
    if offset is None:
        return output
    return output + (offset[..., None] if axis == 'h' else offset[..., None, :])


def _offset(
    weight: Tensor,
    bias: Tensor | None,
    pos_embed: Tensor | None,
    groups: int,
    run: Callable[[Tensor, Tensor, str, int], Tensor],
) -> Tensor | None:
    """ParC(p) + bias: (C_out, n) or, without an embedding, (C_out, 1)."""
    offset = None if bias is None else bias[:, None]
    if pos_embed is not None:
        embedded = run(pos_embed[None, :, None, :], weight, 'w', groups)[0, :, 0]
        offset = embedded if offset is None else embedded + offset
    return offset


def _check(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pos_embed: Tensor | None,
    axis: str,
    groups: int,
    backend: str,
) -> None:
    if axis not in ('h', 'w'):
        raise ValueError(f"axis must be 'h' or 'w', got {axis!r}")
    if backend != 'auto' and backend not in BACKENDS:
        raise ValueError(f"backend must be 'auto' or one of {BACKENDS}, got {backend!r}")
    if input.dim() != 4 or 0 in input.shape[1:]:
        raise ValueError(f'input must be (B, C_in, H, W), not empty, got {tuple(input.shape)}')
    if not input.is_floating_point():
        raise ValueError(f'input must be floating point, got {input.dtype}')
    if weight.dim() != 3 or weight.shape[-1] == 0:
        raise ValueError(f'weight must be (C_out, C_in / groups, K), got {tuple(weight.shape)}')
    in_channels, (out_channels, group_channels, length) = input.shape[1], weight.shape
    if groups < 1 or in_channels % groups or out_channels % groups:
        raise ValueError(f'groups={groups} must divide {in_channels} in and {out_channels} out')
    if group_channels != in_channels // groups:
        raise ValueError(
            f'weight {tuple(weight.shape)} does not fit {in_channels} channels, groups={groups}'
        )
    if bias is not None and bias.shape != (out_channels,):
        raise ValueError(f'bias must be ({out_channels},), got {tuple(bias.shape)}')
    if pos_embed is not None and pos_embed.shape != (in_channels, length):
        raise ValueError(
            f'pos_embed must be ({in_channels}, {length}), got {tuple(pos_embed.shape)}'
        )
    # A float64 input is left alone by autocast, as it is in a convolution.
    if not torch.is_autocast_enabled(input.device.type) or input.dtype == torch.float64:
        for name, tensor in (('weight', weight), ('bias', bias), ('pos_embed', pos_embed)):
            if tensor is not None and tensor.dtype != input.dtype:
                raise ValueError(f'{name} is {tensor.dtype}, the input {input.dtype}')
