"""ParC-Net's channel attention (ECCV 2022, arXiv 2203.03952)."""

from collections import OrderedDict

from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """Scales each channel by a value in [0, 1], computed from the map's mean over H and W.

    Its batch norms see one value per image and channel, so training needs at least two images.
    """

    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        squeezed = max(channels // ratio, 1)
        self.fc = nn.Sequential(
            conv_bn(channels, squeezed, activate=nn.Hardswish()),
            conv_bn(squeezed, channels),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3), keepdim=True))


def conv_bn(in_channels: int, out_channels: int, **activation: nn.Module) -> nn.Sequential:
    """A 1x1 convolution and its batch norm, with the names of mmcv's ConvModule."""
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')
    parts = OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels), **activation)
    return nn.Sequential(parts)
