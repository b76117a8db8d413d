"""ParC mixers where transformers have attention (Fast-ParC, arXiv 2210.04020).

Transformers hand on tokens, one per position: (B, H * W, C) with (H, W) beside them in Swin and
PVT. ViT and MobileViT hand theirs on without (H, W), so that here their layers work on
(B, H, W, C): norms and linear layers act on the last axis whatever is before it.
"""

import torch
from mmpretrain.models.backbones.mobilevit import MobileVitBlock
from mmpretrain.models.backbones.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .channel_attention import ChannelAttention
from .parc import ParCMixer


class TokenMixer(nn.Module):
    """A ParC mixer with what the attention in whose place it stands has behind its projection.

    Takes tokens and returns as many: (B, H, W, C), or (B, H * W, C) with their (H, W). With
    ``identity`` it returns the sum of both, as PVT's attention does.

    Args:
        mixer: of C channels.
        scale: a layer scale; by default there is none.
        drop: dropout of the output, such as a DropPath; by default there is none.
    """

    def __init__(
        self, mixer: ParCMixer, scale: nn.Module | None = None, drop: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.mixer = mixer
        self.gamma1 = scale or nn.Identity()  # as in mmpretrain's, so that its weight loads
        self.drop = drop or nn.Identity()

    def forward(
        self, x: Tensor, hw_shape: tuple[int, int] | None = None, identity: Tensor | None = None
    ) -> Tensor:
        maps = x if hw_shape is None else x.unflatten(1, hw_shape)
        y = self.mixer(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = y if hw_shape is None else y.flatten(1, 2)
        y = self.drop(self.gamma1(y))
        return y if identity is None else identity + y


class TokenChannelAttention(ChannelAttention):
    """ParC-Net's channel attention on tokens (B, ..., C)."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1, -2).mean(1)
        weight = self.fc(mean[..., None, None])
        return x * weight.view(len(x), *[1] * (x.dim() - 2), -1)


class MapVisionTransformer(VisionTransformer):
    """A VisionTransformer whose layers work on (B, H, W, C).

    It has no class token, in whose place is the mean over all positions (``out_type='cls_token'``),
    and no embedding of absolute positions.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x, hw_shape = self.patch_embed(x)
        x = self.pre_norm(self.drop_after_pos(x.unflatten(1, hw_shape)))
        outputs = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if self.final_norm and i == self.num_layers - 1:
                x = self.ln1(x)
            if i in self.out_indices:
                outputs.append(self._format_output(x, hw_shape))
        return tuple(outputs)

    def _format_output(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        if self.out_type == 'featmap':
            return x.permute(0, 3, 1, 2)
        if self.out_type == 'raw':
            return x.flatten(1, 2)
        mean = x.mean((1, 2))
        return self.ln2(mean) if self.out_type == 'avg_featmap' else mean


class MapDistilledVisionTransformer(MapVisionTransformer):
    """One whose heads, as DeiTClsHead, take a pair: both tokens' places are taken by the mean."""

    def _format_output(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor | tuple[Tensor, ...]:
        output = super()._format_output(x, hw_shape)
        return (output, output) if self.out_type == 'cls_token' else output


class MapMobileVitBlock(MobileVitBlock):
    """A MobileVitBlock whose layers work on the whole map, not on every fourth position of it."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.local_rep(x).permute(0, 2, 3, 1)
        y = self.conv_proj(self.global_rep(y).permute(0, 3, 1, 2))
        return y if self.conv_fusion is None else self.conv_fusion(torch.cat((x, y), dim=1))
