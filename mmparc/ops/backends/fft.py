"""Backend 'fft', which is Fast-ParC (arXiv 2210.04020): a product at each frequency.

A circular correlation is a product with the conjugate spectrum: Y = X * conj(W) per channel, or,
across channels, a small complex matrix product at each frequency. The transforms take most of the
first's time, so they are fast ones. The products take most of the second's: they are done on real
and imaginary parts in one real matrix. Its transforms are matrix products too, which leave each
frequency contiguous; that is faster than fast transforms with the copies around them.

Half precision is computed in float32 and cast back: there is no complex half arithmetic.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..older_torch import is_compiling

# cuFFT keeps a plan and its memory for each shape, by default for 4096 shapes, and detection makes
# new shapes all the time.
PLANS = 64

# Shortest map that a dense transform splits.
SPLIT = 32


class Dense(NamedTuple):
    """The operand of a correlation across channels, for F frequencies.

    A long map of even length is transformed in P = 2 parts, at half the cost: its even frequencies
    are those of the sum of its halves, its odd ones those of their difference. Else P is 1.

    Attributes:
        forward: (P, 2 F / P, n / P), the real Fourier transform: each frequency's real and
            imaginary part.
        product: (F, groups, 2 C_out / groups, 2 C_in / groups), complex products as real ones.
        inverse: (P, n / P, 2 F / P).
    """

    forward: Tensor
    product: Tensor
    inverse: Tensor


def prepare(taps: Tensor, axis: str, groups: int) -> Tensor | Dense:
    """The conjugate spectrum, (C, F, 1) or (C, 1, F); across channels a Dense."""
    with torch.autocast(taps.device.type, enabled=False):
        taps = taps.to(torch.promote_types(taps.dtype, torch.float32))
        if taps.shape[0] == groups and taps.shape[1] == 1:
            spectrum = torch.fft.rfft(taps.squeeze(1)).conj()
            return spectrum.unsqueeze(2 if axis == 'h' else 1).resolve_conj()
        forward, inverse = _transforms(taps.shape[-1], taps)
        # By products here too: the kernels of a deep stage are larger than its maps.
        w = torch.bmm(forward, _split(taps.flatten(0, 1), 1, forward.shape[0]).mT)
        w = w.view(-1, 2, groups, taps.shape[0] // groups, taps.shape[1])
        real, imag = w.unbind(1)
        # (real - i imag) (x + i y) = (real x + imag y) + i (real y - imag x)
        product = torch.cat([torch.cat([real, imag], 3), torch.cat([-imag, real], 3)], 2)
        return Dense(forward, product, inverse)


def prepare_offset(offset: Tensor, kernel: Tensor | Dense, axis: str, groups: int) -> Tensor:
    """(C_out, n, 1) or (C_out, 1, n). Its spectrum would be free to add, but less accurate."""
    return offset.unsqueeze(2 if axis == 'h' else 1)


def correlate(
    input: Tensor,
    kernel: Tensor | Dense,
    offset: Tensor | None,
    axis: str,
    groups: int,
    out: Tensor | None = None,
) -> Tensor:
    """Across channels the result is a view with its axes in another order in memory."""
    with torch.autocast(input.device.type, enabled=False):
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        run = _across_channels if isinstance(kernel, Dense) else _per_channel
        y = run(x, kernel, axis, groups).to(input.dtype)
        return y if offset is None else torch.add(y, offset, out=out)


def _per_channel(x: Tensor, spectrum: Tensor, axis: str, groups: int) -> Tensor:
    if x.shape[0] == 0:  # rfft refuses an empty batch; this keeps it in the graph
        return x * spectrum.real.sum()
    if x.is_cuda and not is_compiling():
        cap_plan_cache(x.device)
    dim = 2 if axis == 'h' else 3
    y = torch.fft.rfft(x, dim=dim)
    y = y * spectrum if torch.is_grad_enabled() else y.mul_(spectrum)
    return torch.fft.irfft(y, n=x.shape[dim], dim=dim)


@cache
def cap_plan_cache(device: torch.device) -> None:
    """Let cuFFT keep at most :data:`PLANS` plans on a device, or fewer if the user chose fewer."""
    plans = torch.backends.cuda.cufft_plan_cache[device]
    plans.max_size = min(plans.max_size, PLANS)


def _across_channels(x: Tensor, kernel: Dense, axis: str, groups: int) -> Tensor:
    b, c, h, w = x.shape
    frequencies = kernel.product.shape[0]
    out_per_group, in_per_group = (size // 2 for size in kernel.product.shape[2:])
    parts = kernel.forward.shape[0]
    # Channels before images, so that one product at each frequency takes all images.
    if axis == 'h':
        lines = b * w
        x = _split(x.permute(2, 1, 0, 3).reshape(h, c * lines), 0, parts)
    else:
        lines = b * h
        x = _split(x.transpose(0, 1).reshape(c * lines, w), 1, parts).mT
    x = torch.bmm(kernel.forward, x).view(frequencies, 2, groups, in_per_group, lines)
    x = x.transpose(1, 2).reshape(frequencies * groups, 2 * in_per_group, lines)
    y = torch.bmm(kernel.product.flatten(0, 1), x)
    y = y.view(frequencies, groups, 2, out_per_group, lines).transpose(1, 2)
    c_out = groups * out_per_group
    y = y.reshape(parts, 2 * frequencies // parts, c_out * lines)
    if axis == 'h':
        return _joined(torch.bmm(kernel.inverse, y), 0).view(h, c_out, b, w).permute(2, 1, 0, 3)
    y = torch.bmm(y.mT, kernel.inverse.mT)
    return _joined(y, 1).view(c_out, b, h, w).transpose(0, 1)


def _split(x: Tensor, dim: int, parts: int) -> Tensor:
    """The matrices to transform, for one that is transformed along ``dim`` in so many parts."""
    if parts == 1:
        return x.unsqueeze(0)
    first, second = x.chunk(2, dim)
    return torch.stack([first + second, first - second])


def _joined(y: Tensor, dim: int) -> Tensor:
    """The inverse of :func:`_split`, up to the factor that the inverse transform has."""
    if y.shape[0] == 1:
        return y[0]
    return torch.cat([y[0] + y[1], y[0] - y[1]], dim)


def _transforms(n: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The real Fourier transform of length n and its inverse, as in :class:`Dense`."""
    parts = 2 if n >= SPLIT and n % 2 == 0 else 1
    count = n // 2 // parts + 1
    frequencies = (
        torch.arange(count * parts, device=like.device).view(count, parts, 1).transpose(0, 1)
    )
    # Reduced modulo n as an integer, for the angle's accuracy.
    turns = frequencies * torch.arange(n // parts, device=like.device) % n
    angle = turns.double() * (2 * math.pi / n)
    forward = torch.stack([angle.cos(), -angle.sin()], 2)
    # Frequencies 0 and n / 2 count once, those between count for their conjugates too, and one
    # beyond n / 2, which makes the parts equally long, does not count.
    once, beyond = 2 * frequencies % n == 0, 2 * frequencies > n
    share = (2 - once.double()) * (1 - beyond.double()) / n
    inverse = forward * share[..., None]
    return forward.flatten(1, 2).to(like.dtype), inverse.flatten(1, 2).mT.to(like.dtype)
