"""A ParC mixer for OpenMMLab's ``conv_cfg`` (ParC: arXiv 2203.03952).

Set ``conv_cfg=dict(type='mmparc.ParCConv2d', taps=14)`` in a ConvModule, a ResNet, an FPN or a head
that passes it on. They build all their convolutions from that one ``conv_cfg``; those that a ParC
cannot replace stay plain.
"""

from torch import nn

from .parc import ParCMixer
from .placement import is_spatial, mixer_groups


class _MixerAsConv2d(ParCMixer):
    """A mixer with the attributes of the convolution that it replaces.

    Code that computes the output's size from kernel size, padding and dilation stays right.
    """

    transposed = False

    def __init__(self, asked: nn.Conv2d, **options) -> None:
        channels, bias = asked.in_channels, asked.bias is not None
        super().__init__(
            channels, groups=mixer_groups(channels, asked.groups), bias=bias, **options
        )
        for name in asked.__constants__:  # torch's list of a convolution's settings
            setattr(self, name, getattr(asked, name))


def ParCConv2d(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    *arguments,
    taps: int | tuple[int, int],
    resize: str = 'interpolate',
    backend: str = 'auto',
    **options,
) -> nn.Module:
    """Build a ParC mixer in place of a convolution, where it can replace it.

    It replaces a convolution with a kernel larger than 1 and stride 1 that keeps the number of
    channels and the map's size: a depthwise mixer for a depthwise one, a dense mixer for a full
    one, a grouped mixer for a grouped one. Any other arguments give that ``torch.nn.Conv2d``.

    Initial values: a mixer starts as :class:`ParCMixer` does; rules of an ``init_cfg`` for Conv2d
    do not reach it, those for 'ParCConv' do.

    Args:
        in_channels, out_channels, kernel_size, arguments, options: as in ``torch.nn.Conv2d``. A
            mixer wraps around instead of padding.
        taps: K, or (K along H, K along W): the map's size at the training resolution.
        resize, backend: as in :class:`ParCConv`.

    Raises:
        ValueError: if a mixer would have an odd number of channels.
    """
    arguments = in_channels, out_channels, kernel_size, *arguments
    asked = nn.Conv2d(*arguments, **{**options, 'device': 'meta'})  # draws no random numbers
    spatial = is_spatial(in_channels, out_channels, asked.kernel_size)
    if not spatial or asked.stride != (1, 1) or not _keeps_size(asked):
        return nn.Conv2d(*arguments, **options)
    return _MixerAsConv2d(asked, kernel_size=taps, resize=resize, backend=backend)


def _keeps_size(conv: nn.Conv2d) -> bool:
    if isinstance(conv.padding, str):
        return conv.padding == 'same'
    sides = zip(conv.padding, conv.dilation, conv.kernel_size, strict=True)
    return all(2 * p == d * (k - 1) for p, d, k in sides)
