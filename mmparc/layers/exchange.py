"""Which convolutions a ParC mixer can replace, and with how many groups.

:func:`ParCConv2d` and :func:`mmparc.parcify` share this rule: a kernel larger than 1, as many
channels out as in, stride 1, and a map that keeps its size.
"""

from math import gcd


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
