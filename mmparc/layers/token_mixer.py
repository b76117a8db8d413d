"""ParC mixers where transformers have attention (Fast-ParC, arXiv 2210.04020).

They take tokens in rows and columns, (B, H, W, C): norms and linear layers act on the last axis
whatever is before it. Subclasses take what other attention takes.
"""

from torch import Tensor, nn

from .channel_attention import ChannelAttention


class TokenMixer(nn.Module):
    """A ParC mixer in the place of attention, (B, H, W, C) to the same shape.

    It keeps what that attention has behind its projection. Its mixer is made by
    :func:`mmparc.parcify`, which finds the map's size first.

    Args:
        attention: the module whose place it takes.
        scale: the layer scale of that attention, if it has one.
        drops: the dropouts of its output, such as a DropPath.
    """

    def __init__(
        self, attention: nn.Module, scale: nn.Module | None = None, drops: tuple = ()
    ) -> None:
        super().__init__()
        self.mixer = Placeholder(attention)
        self.gamma1 = nn.Identity() if scale is None else scale  # the name in mmpretrain
        self.drop = nn.Sequential(*drops)
        self.train(attention.training)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4:
            raise ValueError(f'expected tokens (B, H, W, C), got shape {tuple(x.shape)}')
        y = self.mixer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.drop(self.gamma1(y))


class Placeholder(nn.Module):
    """Stands where a mixer will be, and records the size of the map that it gets.

    Attributes:
        attention: the module that was there, in a tuple, so that it is no submodule.
        channels, size: of the map, C and (H, W).
    """

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = (attention,)

    def forward(self, x: Tensor) -> Tensor:
        _, self.channels, *size = x.shape
        self.size = tuple(size)
        return x


class TokenChannelAttention(ChannelAttention):
    """ParC-Net's channel attention on tokens (B, ..., C)."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1, -2).mean(1)
        weight = self.fc(mean[..., None, None])
        return x * weight.view(len(x), *[1] * (x.dim() - 2), -1)
