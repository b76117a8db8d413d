"""The forms of a ParC mixer that are timed against each other, as functions on torch alone.

A mixer sends the first half of a map's channels through a ParC along H and the second through one
along W: (B, C, H, W) to (B, C, H, W). The published forms are written from the papers (arXiv
2203.03952, 2210.04020) as their code does it: each call adds the embedding to the map and resizes
kernel and embedding where the map has another size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmparc.ops import ParCKernel, correlate, prepare


class Half(NamedTuple):
    """The parameters of one half, h of the C channels; all need gradients.

    Attributes:
        axis: 'h' or 'w'.
        weight: (h, 1, K) depthwise, (h, h, K) dense.
        bias: (h,).
        pos_embed: (h, K).
        groups: h or 1.
    """

    axis: str
    weight: Tensor
    bias: Tensor
    pos_embed: Tensor
    groups: int


def make_halves(like: Tensor, kernel_size: tuple[int, int], dense: bool) -> tuple[Half, Half]:
    """Random parameters of a mixer for maps like ``like``, with K along H and along W."""
    h = like.shape[1] // 2
    halves = []
    for axis, k in zip('hw', kernel_size):
        fan_in = k * (h if dense else 1)  # outputs stay near 1, within half precision's range
        shapes = {(h, h if dense else 1, k): fan_in**-0.5, (h,): 1.0, (h, k): 1.0}
        tensors = [like.new_empty(s).normal_(0, std) for s, std in shapes.items()]
        weight, bias, pos_embed = (t.requires_grad_() for t in tensors)
        halves.append(Half(axis, weight, bias, pos_embed, groups=1 if dense else h))
    return tuple(halves)


def prepare_mixer(x: Tensor, halves: Sequence[Half], backend: str) -> list[ParCKernel]:
    """What a layer keeps in evaluation."""
    return [
        prepare(
            part,
            half.weight,
            half.bias,
            half.pos_embed,
            axis=half.axis,
            groups=half.groups,
            backend=backend,
        )
        for part, half in zip(x.chunk(2, 1), halves)
    ]


def apply_mixer(x: Tensor, kernels: Sequence[ParCKernel]) -> Tensor:
    """mmparc's own, with the kernels of :func:`prepare_mixer`."""
    return correlate(x.chunk(2, 1), kernels)


def published_conv(x: Tensor, halves: Sequence[Half]) -> Tensor:
    """The plain published form: the map wrapped around to twice its size, then a convolution."""
    outputs = []
    for part, half in zip(x.chunk(2, 1), halves):
        dim = 2 if half.axis == 'h' else 3
        weight, pos_embed = _resized(half, part.shape[dim])
        part = part + _beside(pos_embed, dim)
        wrapped = torch.cat([part, part.narrow(dim, 0, part.shape[dim] - 1)], dim)
        outputs.append(F.conv2d(wrapped, _beside(weight, dim), half.bias, groups=half.groups))
    return torch.cat(outputs, 1)


def published_fft(x: Tensor, halves: Sequence[Half]) -> Tensor:
    """Fast-ParC as published: transforms of map and kernel, a product at each frequency.

    In half precision, for which there are no such transforms, it computes in float32.
    """
    outputs = []
    for part, half in zip(x.chunk(2, 1), halves):
        dim = 2 if half.axis == 'h' else 3
        n = part.shape[dim]
        weight, pos_embed = _resized(half, n)
        part = (part + _beside(pos_embed, dim)).to(torch.promote_types(x.dtype, torch.float32))
        spectrum = torch.fft.rfft(part, dim=dim)
        kernel = torch.fft.rfft(weight.to(part.dtype)).conj()  # (h, 1 or h, frequencies)
        if half.groups == 1:
            equation = 'bcfw,ocf->bofw' if half.axis == 'h' else 'bchf,ocf->bohf'
            product = torch.einsum(equation, spectrum, kernel)
        else:
            product = spectrum * _beside(kernel.squeeze(1), dim)
        output = torch.fft.irfft(product, n=n, dim=dim).to(x.dtype)
        outputs.append(output + half.bias[:, None, None])
    return torch.cat(outputs, 1)


def _resized(half: Half, n: int) -> tuple[Tensor, Tensor]:
    """Weight and embedding for a map of length n."""
    if half.weight.shape[-1] == n:
        return half.weight, half.pos_embed
    weight = F.interpolate(half.weight, n, mode='linear', align_corners=True)
    pos_embed = F.interpolate(half.pos_embed[None], n, mode='linear', align_corners=True)[0]
    return weight, pos_embed


def _beside(t: Tensor, dim: int) -> Tensor:
    """(..., n) to (..., n, 1) or (..., 1, n), as it lies beside dimension ``dim`` of a map."""
    return t.unsqueeze(-1 if dim == 2 else -2)
