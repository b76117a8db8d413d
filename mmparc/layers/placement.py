"""Where a backbone can hold ParC mixers, with which kernels and groups, and its parts' depths."""

from collections.abc import Sequence
from math import gcd
from numbers import Integral

from torch import nn


def check_parc_starts(parc_starts: Sequence[int], depths: Sequence[int]) -> tuple[int, ...]:
    """Return ``parc_starts`` as a tuple.

    Raises:
        ValueError: if it is not one index for each stage, from 0 to the stage's depth.
    """
    fits = isinstance(parc_starts, Sequence) and len(parc_starts) == len(depths)
    if not fits or not all(
        isinstance(s, Integral) and 0 <= s <= d for s, d in zip(parc_starts, depths, strict=True)
    ):
        raise ValueError(
            f'parc_starts must give one block index from 0 to its depth for each stage of '
            f'depths {list(depths)}, got {parc_starts!r}'
        )
    return tuple(parc_starts)


def check_no_stride(conv: nn.Conv2d, stage: int, block: int) -> None:
    """Raise a ValueError if ``conv``, which ParC would replace, has a stride; indices from 0."""
    if max(conv.stride) > 1:
        raise ValueError(
            f'ParC has no stride, but the convolution of block {block} in stage {stage + 1} has: '
            f'set parc_starts[{stage}] to {block + 1} or more'
        )


def is_spatial(in_channels: int, out_channels: int, kernel_size: tuple[int, int]) -> bool:
    """Whether a convolution mixes positions and keeps the number of channels."""
    return max(kernel_size) > 1 and in_channels == out_channels


def mixer_groups(channels: int, groups: int) -> int:
    """The groups of each half of a mixer, for a convolution of ``channels`` in ``groups``.

    A full convolution gives a dense mixer, a depthwise one a depthwise mixer. Other groups keep
    their width if it divides half the channels; if not, they get the largest common divisor.
    """
    half = channels // 2
    return half // gcd(half, channels // groups)


def image_size(img_size: int | tuple[int, int]) -> tuple[int, int]:
    """The (height, width) of a training resolution.

    Raises:
        ValueError: if it is neither a positive number nor two of them.
    """
    size = (img_size, img_size) if isinstance(img_size, Integral) else img_size
    two = isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2
    if not two or not all(isinstance(side, Integral) and side > 0 for side in size):
        raise ValueError(
            f'img_size must be a positive number or two, (height, width), got {img_size!r}'
        )
    return tuple(size)


def padded_resolution(img_size: int | tuple[int, int], stride: int) -> tuple[int, int]:
    """The map's (height, width) after padded convolutions of this total stride: rounded up."""
    height, width = image_size(img_size)
    return -(-height // stride), -(-width // stride)


def layer_depth(
    layers: Sequence[str | tuple[str, ...]], param_name: str, prefix: str
) -> tuple[int, int]:
    """The depth of a parameter and the number of depths, for layer-wise learning-rate decay.

    Args:
        layers: for each depth how its parameters' names begin. What comes after the backbone is one
            depth more.
        param_name: the parameter's name.
        prefix: the prefix of the backbone's parameters.
    """
    name = param_name.removeprefix(prefix) if param_name.startswith(prefix) else ''
    depths = (depth for depth, start in enumerate(layers) if name.startswith(start))
    return next(depths, len(layers)), len(layers) + 1
