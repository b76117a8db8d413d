"""Which convolutions a ParC mixer can stand in for, and the mixer's groups.

One rule for a layer of a config (:func:`ParCConv2d`) and for those inside a backbone
(:func:`mmparc.models.ParCify`): spatial, as many channels out as in, stride 1, and a map that keeps
its size. The kind stays: depthwise for depthwise, dense for full, grouped for grouped.
"""

from math import gcd


def is_spatial(in_channels: int, out_channels: int, kernel_size: tuple[int, int]) -> bool:
    """Whether a convolution mixes positions and keeps the number of channels."""
    return max(kernel_size) > 1 and in_channels == out_channels


def mixer_groups(channels: int, groups: int) -> int:
    """The groups of each half of a mixer, for a convolution of ``channels`` in ``groups``.

    A full convolution becomes a dense mixer, a depthwise one a depthwise mixer. Between them the
    groups keep their width where it divides a half of the channels; else it is the largest that
    divides both.
    """
    half = channels // 2
    return half // gcd(half, channels // groups)
