"""The ParC block and the local-global unit around it, of ParC-Net (ECCV 2022, arXiv 2203.03952).

A block mixes the whole map: one half of its channels along H and then along W, the other half along
W and then along H; a feed-forward network with channel attention follows. A unit has its blocks
between a local convolution and a fusion with its own input, where MobileViT has its transformer.
Its parts have MobileViT's names. Maps are (B, C, H, W) of any size.

A block's channel attention normalizes one value per image and channel, so training needs at least
two images in a batch.
"""

from math import gcd

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn

from mmparc.layers import ParCConv, ResizedOnLoad
from mmparc.layers.channel_attention import ChannelAttention
from mmparc.layers.recompute import recompute
from mmparc.ops import resize_taps

BN = dict(type='BN')
SILU = dict(type='SiLU')


class ParCPair(ResizedOnLoad):
    """Batch norm, ParC along one axis, ParC along the other, and the input added.

    Depthwise and without bias. Embeddings start standard normal, kernels as a Conv2d's.

    Args:
        channels: C.
        kernel_size: (K along H, K along W).
        axes: 'hw' for H first, 'wh' for W first.
        pos_embed: whether embeddings are added, before the norm along the first axis and before
            the second ParC along the second.
        resize, backend: as in :class:`ParCConv`.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: tuple[int, int],
        axes: str,
        pos_embed: bool,
        resize: str,
        backend: str,
    ) -> None:
        super().__init__()
        lengths = dict(zip('hw', kernel_size, strict=True))
        self.axis, second = axes
        length = lengths[self.axis]
        options = dict(groups=channels, bias=False, resize=resize, backend=backend)
        # Not conv1's own: a norm stands between the two.
        self.pos_embed = nn.Parameter(torch.empty(channels, length)) if pos_embed else None
        self.norm = nn.BatchNorm2d(channels)
        self.conv1 = ParCConv(channels, channels, length, self.axis, pos_embed=False, **options)
        self.conv2 = ParCConv(
            channels, channels, lengths[second], second, pos_embed=pos_embed, **options
        )
        if pos_embed:
            nn.init.normal_(self.pos_embed)
            nn.init.normal_(self.conv2.pos_embed)

    def resized_on_load(self) -> dict[str, str]:
        return {'pos_embed': 'interpolate'}

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(self.norm(self._embedded(x))))

    def _embedded(self, x: Tensor) -> Tensor:
        if self.pos_embed is None:
            return x
        n = x.shape[2 if self.axis == 'h' else 3]
        embedding = resize_taps(self.pos_embed, n, 'interpolate').to(x.dtype)
        return x + (embedding[..., None] if self.axis == 'h' else embedding[..., None, :])


class ParCBlock(nn.Module):
    """A :class:`ParCPair` on each half of the channels, then x + attention(feed-forward(x)).

    Args:
        channels: C, even.
        ffn_channels: the hidden width of the feed-forward network.
        kernel_size: (K along H, K along W).
        pos_embed: whether position embeddings are added.
        resize, backend: as in :class:`ParCConv`.
        with_cp: whether to compute activations again in the backward pass, to save memory.
        drop_rate: of the feed-forward network's output.

    Raises:
        ValueError: if ``channels`` is odd.
    """

    def __init__(
        self,
        channels: int,
        ffn_channels: int,
        kernel_size: tuple[int, int],
        pos_embed: bool,
        resize: str = 'interpolate',
        backend: str = 'auto',
        with_cp: bool = False,
        drop_rate: float = 0.1,
    ) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f'a ParC block splits its channels in two halves; {channels} is odd')
        self.with_cp = with_cp
        options = dict(pos_embed=pos_embed, resize=resize, backend=backend)
        self.half1 = ParCPair(channels // 2, kernel_size, 'hw', **options)
        self.half2 = ParCPair(channels // 2, kernel_size, 'wh', **options)
        self.ffn = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, ffn_channels, 1),
            nn.Hardswish(inplace=True),
            nn.Conv2d(ffn_channels, channels, 1),
            nn.Dropout(drop_rate),
        )
        self.attention = ChannelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        return recompute(self, self._forward, x) if self.with_cp else self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        x1, x2 = x.chunk(2, dim=1)
        x = torch.cat([self.half1(x1), self.half2(x2)], dim=1)
        return x + self.attention(self.ffn(x))


class LocalGlobalUnit(nn.Module):
    """A local convolution, ParC blocks on another width, and the fusion with the input.

    Args:
        channels: C of input and output.
        inner_channels: the width of the ParC blocks, even.
        depth: how many blocks; the first holds the position embeddings.
        ffn_channels: the hidden width of their feed-forward networks.
        kernel_size: (K along H, K along W).
        fusion: 'concat', or 'sum' of the blocks' output and the unit's input.
        resize, backend: as in :class:`ParCConv`.
        with_cp: whether the blocks compute their activations again in the backward pass.

    Raises:
        ValueError: if ``fusion`` is unknown or ``inner_channels`` odd.
    """

    def __init__(
        self,
        channels: int,
        inner_channels: int,
        depth: int,
        ffn_channels: int,
        kernel_size: tuple[int, int],
        fusion: str = 'concat',
        resize: str = 'interpolate',
        backend: str = 'auto',
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        if fusion not in ('concat', 'sum'):
            raise ValueError(f"fusion must be 'concat' or 'sum', got {fusion!r}")
        self.fusion = fusion
        groups = gcd(channels, inner_channels)
        self.local_rep = nn.Sequential(
            ConvModule(
                channels,
                inner_channels,
                3,
                padding=1,
                groups=groups,
                norm_cfg=BN,
                act_cfg=SILU,
            ),
            nn.Conv2d(inner_channels, inner_channels, 1, bias=False),
        )
        blocks = [
            ParCBlock(
                inner_channels,
                ffn_channels,
                kernel_size,
                pos_embed=i == 0,
                resize=resize,
                backend=backend,
                with_cp=with_cp,
            )
            for i in range(depth)
        ]
        self.global_rep = nn.Sequential(*blocks, nn.BatchNorm2d(inner_channels))
        self.conv_proj = ConvModule(
            inner_channels, channels, 1, groups=groups, norm_cfg=BN, act_cfg=SILU
        )
        fused = 2 * channels if fusion == 'concat' else channels
        self.conv_fusion = ConvModule(fused, channels, 3, padding=1, norm_cfg=BN, act_cfg=SILU)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_proj(self.global_rep(self.local_rep(x)))
        return self.conv_fusion(torch.cat([y, x], dim=1) if self.fusion == 'concat' else y + x)
