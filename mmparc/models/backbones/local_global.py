"""The ParC block and the local-global unit around it, of ParC-Net (ECCV 2022, arXiv 2203.03952).

A block mixes the whole map: one half of its channels along H and then along W, the other half along
W and then along H; a feed-forward network with channel attention follows. A unit has its blocks
between a local convolution and a fusion with its own input, where MobileViT has its transformer.
Its parts have MobileViT's names. Maps are (B, C, H, W) of any size.

A block's channel attention normalizes one value per image and channel, so training needs at least
two images in a batch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from math import gcd

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmparc.layers import ParCConv, ResizedOnLoad
from mmparc.layers.channel_attention import ChannelAttention
from mmparc.ops import resize_taps

BN = dict(type='BN')
SILU = dict(type='SiLU')


def recompute(block: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Run ``forward(x)``, and run it again in the backward pass instead of storing activations.

    Unlike in mmpretrain's blocks, the batch norms of ``block`` count each batch once.
    """
    if not torch.is_grad_enabled():
        return forward(x)
    return checkpoint(
        forward, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _not_counting(block))
    )


@contextmanager
def _not_counting(block: nn.Module) -> Iterator[None]:
    """In this context the norms of ``block`` change copies of their running statistics."""
    norms = [module for module in block.modules() if hasattr(module, 'track_running_stats')]
    kept = [(norm, name, value) for norm in norms for name, value in norm.named_buffers()]
    try:
        for norm, name, value in kept:
            setattr(norm, name, value.clone())
        yield
    finally:
        for norm, name, value in kept:
            setattr(norm, name, value)


class ParCPair(ResizedOnLoad):
    """Batch norm, ParC along one axis, ParC along the other, and the input added.

    Depthwise and without bias. Embeddings start standard normal, kernels as a Conv2d's.

    Args:
        channels: C.
        kernel_size: (K along H, K along W).
        axes: 'hw' for H first, 'wh' for W first.
        pos_embed: whether embeddings are added, before the norm along the first axis and before
            the second ParC along the second.
        options: ``resize`` and ``backend``, as in :class:`ParCConv`.
    """

    def __init__(
        self, channels: int, kernel_size: tuple[int, int], axes: str, pos_embed: bool, **options
    ) -> None:
        super().__init__()
        lengths = dict(zip('hw', kernel_size, strict=True))
        self.axis, second = axes
        first_length, second_length = lengths[self.axis], lengths[second]
        options.update(groups=channels, bias=False)
        # Not conv1's own: a norm stands between the two.
        self.pos_embed = nn.Parameter(torch.empty(channels, first_length)) if pos_embed else None
        self.norm = nn.BatchNorm2d(channels)
        self.conv1 = ParCConv(
            channels, channels, first_length, self.axis, pos_embed=False, **options
        )
        self.conv2 = ParCConv(
            channels, channels, second_length, second, pos_embed=pos_embed, **options
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
        with_cp: whether to compute activations again in the backward pass, to save memory.
        options: ``pos_embed``, ``resize`` and ``backend``, as in :class:`ParCPair`.

    Raises:
        ValueError: if ``channels`` is odd.
    """

    def __init__(
        self,
        channels: int,
        ffn_channels: int,
        kernel_size: tuple[int, int],
        with_cp: bool = False,
        **options,
    ) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f'a ParC block splits its channels in two halves; {channels} is odd')
        self.with_cp = with_cp
        self.half1 = ParCPair(channels // 2, kernel_size, 'hw', **options)
        self.half2 = ParCPair(channels // 2, kernel_size, 'wh', **options)
        self.ffn = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, ffn_channels, 1),
            nn.Hardswish(inplace=True),
            nn.Conv2d(ffn_channels, channels, 1),
            nn.Dropout(0.1),
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
        fusion: 'concat', or 'sum' of the blocks' output and the unit's input.
        options: the other arguments of :class:`ParCBlock`.

    Raises:
        ValueError: if ``fusion`` is unknown or ``inner_channels`` odd.
    """

    def __init__(
        self, channels: int, inner_channels: int, depth: int, fusion: str, **options
    ) -> None:
        super().__init__()
        if fusion not in ('concat', 'sum'):
            raise ValueError(f"fusion must be 'concat' or 'sum', got {fusion!r}")
        self.fusion = fusion
        cfg = dict(norm_cfg=BN, act_cfg=SILU)
        groups = gcd(channels, inner_channels)
        self.local_rep = nn.Sequential(
            ConvModule(channels, inner_channels, 3, padding=1, groups=groups, **cfg),
            nn.Conv2d(inner_channels, inner_channels, 1, bias=False),
        )
        blocks = [ParCBlock(inner_channels, pos_embed=i == 0, **options) for i in range(depth)]
        self.global_rep = nn.Sequential(*blocks, nn.BatchNorm2d(inner_channels))
        self.conv_proj = ConvModule(inner_channels, channels, 1, groups=groups, **cfg)
        fused = 2 * channels if fusion == 'concat' else channels
        self.conv_fusion = ConvModule(fused, channels, 3, padding=1, **cfg)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_proj(self.global_rep(self.local_rep(x)))
        return self.conv_fusion(torch.cat([y, x], dim=1) if self.fusion == 'concat' else y + x)
