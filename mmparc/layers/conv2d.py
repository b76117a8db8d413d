"""A ParC mixer where mm's building blocks take a ``conv_cfg`` (ParC: arXiv 2203.03952).

``conv_cfg=dict(type='mmparc.ParCConv2d', taps=14)`` in a ConvModule, a ResNet, an FPN or a head
that hands it on. All of these ask for many kinds of convolutions by the one ``conv_cfg``; those
that a ParC cannot stand in for stay what they are.
"""

from torch import nn

from .exchange import is_spatial, mixer_groups
from .parc import ParCMixer


class _MixerAsConv2d(ParCMixer):
    """A mixer with the attributes of the convolution that it stands in for.

    Its kernel size, padding and dilation are those that were asked for, so that what computes the
    output's size from them still gets it right.
    """

    transposed = False
    output_padding = (0, 0)

    def __init__(self, asked: nn.Conv2d, **options) -> None:
        groups = mixer_groups(asked.in_channels, asked.groups)
        super().__init__(asked.in_channels, groups=groups, **options)
        for name in (
            'in_channels',
            'out_channels',
            'kernel_size',
            'stride',
            'padding',
            'dilation',
            'groups',
            'padding_mode',
        ):
            setattr(self, name, getattr(asked, name))


def ParCConv2d(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    bias: bool = True,
    padding_mode: str = 'zeros',
    *,
    taps: int | tuple[int, int],
    resize: str = 'interpolate',
    backend: str = 'auto',
) -> nn.Module:
    """A ParC mixer for the convolution that is asked for, or that convolution.

    A mixer where the convolution is spatial (a kernel larger than 1), has stride 1, and keeps the
    number of channels and the map's size: depthwise for a depthwise one, dense for a full one,
    grouped for a grouped one. Anything else (a 1x1, one with a stride, one that changes the width
    or the map) is the ``torch.nn.Conv2d`` that was asked for. The mixer has the convolution's
    attributes that mmcv's ConvModule reads.

    Initial values: a mixer starts as :class:`ParCMixer` does; rules of an ``init_cfg`` for Conv2d
    do not reach it, those for 'ParCConv' do.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
        padding_mode: as in ``torch.nn.Conv2d``. A mixer wraps around instead of padding.
        taps: K, or (K along H, K along W): the map's size at the training resolution.
        resize, backend: as in :class:`ParCConv`.

    Raises:
        ValueError: if the number of channels is odd where a mixer is due.
    """
    arguments = (
        in_channels,
        out_channels,
        kernel_size,
        stride,
        padding,
        dilation,
        groups,
        bias,
        padding_mode,
    )
    asked = nn.Conv2d(*arguments, device='meta')  # no memory, no random numbers
    spatial = is_spatial(in_channels, out_channels, asked.kernel_size)
    if not spatial or asked.stride != (1, 1) or not _keeps_size(asked):
        return nn.Conv2d(*arguments)
    return _MixerAsConv2d(asked, kernel_size=taps, bias=bias, resize=resize, backend=backend)


def _keeps_size(conv: nn.Conv2d) -> bool:
    if isinstance(conv.padding, str):
        return conv.padding == 'same'
    sides = zip(conv.padding, conv.dilation, conv.kernel_size, strict=True)
    return all(2 * p == d * (k - 1) for p, d, k in sides)
