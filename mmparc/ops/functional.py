"""``parc``: one axis of position-aware circular convolution (arXiv 2203.03952, 2210.04020).

It has two steps. :func:`prepare` computes what depends on the weights alone: it resizes kernel and
embedding to the map, brings the kernel into the backend's form, and folds embedding and bias into
one offset per channel and position, since ParC(x + p) = ParC(x) + ParC(p). :func:`correlate`
applies one or more such kernels to a map. In evaluation on a CPU, layers cache the first step.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .backends import IMPLEMENTATIONS, exported
from .older_torch import get_autocast_dtype, is_autocast_enabled, is_compiling
from .resize import RESIZES, resize_taps
from .select import BACKENDS, choose_backend

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class ParCKernel(NamedTuple):
    """The part of a ParC that depends on its weights alone, for maps of one length along its axis.

    Attributes:
        dtype: what the map is cast to.
        operand: the backend's form of the taps.
        offset: the backend's form of ParC(pos_embed) + bias, or None.
    """

    backend: str
    axis: str
    length: int
    groups: int
    out_channels: int
    dtype: torch.dtype
    operand: Tensor | tuple[Tensor, ...]
    offset: Tensor | None


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
        input: (B, C_in, H, W), floating point, of 16 bits or more.
        weight: (C_out, C_in / groups, K).
        bias: (C_out,).
        pos_embed: (C_in, K), added to the input at each position along the axis.
        axis: 'h' or 'w'.
        groups: as in a convolution; C_in for a depthwise one, 1 for a dense one.
        backend: one of :data:`BACKENDS`, 'auto', or the path of a table for 'auto', a .json file;
            see :func:`choose_backend`.
        resize: 'interpolate' or 'interpolate_sum'.

    Returns:
        (B, C_out, H, W), in the memory format of the input; compilers choose that themselves.

    Raises:
        ValueError: if a choice is unknown, or shapes or dtypes do not fit each other.
    """
    kernel = prepare(
        input, weight, bias, pos_embed, axis=axis, groups=groups, backend=backend, resize=resize
    )
    return correlate([input], [kernel])


def prepare(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pos_embed: Tensor | None = None,
    *,
    axis: str,
    groups: int = 1,
    backend: str = 'auto',
    resize: str = 'interpolate',
) -> ParCKernel:
    """The first step of :func:`parc`, with its arguments and errors; it ignores the input's values.

    The result serves every map of the same channels, length along the axis, dtype and device.
    """
    check_choices(axis, backend, resize)
    _check(input, weight, bias, pos_embed, groups)
    n = input.shape[2 if axis == 'h' else 3]
    dtype = compute_dtype(input)
    weight = resize_taps(weight, n, resize).to(dtype)
    if backend not in BACKENDS:
        if exported.exporting():
            backend = 'exported'
        else:
            backend = choose_backend(input, weight, axis=axis, table=backend)
    implementation = IMPLEMENTATIONS[backend]
    operand = implementation.prepare(weight, axis, groups)
    offset = None if bias is None else bias.to(dtype)[:, None].expand(-1, n)
    if pos_embed is not None:
        # 'interpolate_sum' rescales the taps alone: only they are summed over.
        p = resize_taps(pos_embed, n, 'interpolate').to(dtype)
        p = p[None, :, :, None] if axis == 'h' else p[None, :, None, :]
        embedded = implementation.correlate(p, operand, None, axis, groups)[0]
        embedded = embedded.squeeze(2 if axis == 'h' else 1)
        offset = embedded if offset is None else embedded + offset
    if offset is not None:
        offset = implementation.prepare_offset(offset, operand, axis, groups)
    return ParCKernel(backend, axis, n, groups, weight.shape[0], dtype, operand, offset)


def correlate(inputs: Sequence[Tensor], kernels: Sequence[ParCKernel]) -> Tensor:
    """The second step of :func:`parc`: each map with its own kernel, the outputs as one map.

    Args:
        inputs: maps (B, C_in, H, W), equal but for C_in.
        kernels: what :func:`prepare` returned for each of them.

    Returns:
        (B, sum of all C_out, H, W), in the memory format of the first map; compilers choose that
        themselves.

    Raises:
        ValueError: if a kernel was prepared for another length.
    """
    for x, kernel in zip(inputs, kernels, strict=True):
        if x.shape[2 if kernel.axis == 'h' else 3] != kernel.length:
            raise ValueError(
                f'a kernel prepared for length {kernel.length} along {kernel.axis} does not fit '
                f'the map {tuple(x.shape)}: prepare one for it'
            )
    inputs = [x.to(kernel.dtype) for x, kernel in zip(inputs, kernels, strict=True)]
    compiling = is_compiling() or torch.jit.is_tracing()
    plain = type(inputs[0]) is Tensor  # subclasses may not support writing to a part of a map
    if torch.is_grad_enabled() or compiling or not plain:
        outputs = [_run(x, kernel) for x, kernel in zip(inputs, kernels, strict=True)]
        joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)
        # Compilers choose layouts themselves, and dynamo cannot ask for those of dynamic shapes.
        return joined if compiling else joined.contiguous(memory_format=_memory_format(inputs[0]))
    # Without gradients a backend writes its part of the output itself, if that costs no copy.
    b, _, h, w = inputs[0].shape
    channels = [kernel.out_channels for kernel in kernels]
    joined = torch.empty(
        (b, sum(channels), h, w),
        dtype=inputs[0].dtype,
        device=inputs[0].device,
        memory_format=_memory_format(inputs[0]),
    )
    for x, kernel, out in zip(inputs, kernels, joined.split(channels, 1), strict=True):
        y = _run(x, kernel, out)
        if y.data_ptr() != out.data_ptr():
            out.copy_(y)
    return joined


def _run(x: Tensor, kernel: ParCKernel, out: Tensor | None = None) -> Tensor:
    run = IMPLEMENTATIONS[kernel.backend].correlate
    return run(x, kernel.operand, kernel.offset, kernel.axis, kernel.groups, out)


def compute_dtype(input: Tensor) -> torch.dtype:
    """The dtype of the computation: the input's, or autocast's, which leaves float64 alone."""
    device = input.device.type
    if is_autocast_enabled(device) and input.dtype != torch.float64:
        return get_autocast_dtype(device)
    return input.dtype


def _memory_format(map: Tensor) -> torch.memory_format:
    """The format of a map, or of a slice of its channels."""
    channels_last = map.stride(1) == 1 < map.stride(3)
    return torch.channels_last if channels_last else torch.contiguous_format


def check_choices(axis: str, backend: str, resize: str) -> None:
    """Raise a ValueError if one of these arguments of :func:`parc` is unknown."""
    if axis not in ('h', 'w'):
        raise ValueError(f"axis must be 'h' or 'w', got {axis!r}")
    table = isinstance(backend, str) and backend.endswith('.json')
    if backend != 'auto' and backend not in BACKENDS and not table:
        raise ValueError(
            f"backend must be 'auto', one of {BACKENDS} or a table's .json file, got {backend!r}"
        )
    if resize not in RESIZES:
        raise ValueError(f'resize must be one of {RESIZES}, got {resize!r}')


def _check(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pos_embed: Tensor | None,
    groups: int,
) -> None:
    if input.dim() != 4 or 0 in input.shape[1:]:
        raise ValueError(f'input must be (B, C_in, H, W), not empty, got {tuple(input.shape)}')
    if input.dtype not in _DTYPES:  # torch has 8-bit floating point too
        raise ValueError(f'input must be floating point, of 16 bits or more, got {input.dtype}')
    if weight.dim() != 3 or 0 in weight.shape:
        shape = tuple(weight.shape)
        raise ValueError(f'weight must be (C_out, C_in / groups, K), not empty, got {shape}')
    in_channels, (out_channels, group_channels, length) = input.shape[1], weight.shape
    if not isinstance(groups, int):
        raise ValueError(f'groups must be an int, got {groups!r}')
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
    if not is_autocast_enabled(input.device.type) or input.dtype == torch.float64:
        for name, tensor in (('weight', weight), ('bias', bias), ('pos_embed', pos_embed)):
            if tensor is not None and tensor.dtype != input.dtype:
                raise ValueError(f'{name} is {tensor.dtype}, the input {input.dtype}')
