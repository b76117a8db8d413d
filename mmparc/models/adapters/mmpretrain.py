"""Adapters for mmpretrain: VisionTransformer (distilled too), Swin (V2 too) and MobileViT."""

import torch
from mmcv.cnn.bricks import DropPath
from mmpretrain.models import (
    DistilledVisionTransformer,
    SwinTransformer,
    SwinTransformerV2,
    VisionTransformer,
)
from mmpretrain.models.backbones.mobilevit import MobileVitBlock
from mmpretrain.models.utils import MultiheadAttention, ShiftWindowMSA
from torch import Tensor, nn

from mmparc.layers.token_mixer import TokenMixer
from mmparc.surgery.attention import adopt, forget, register_attention

from . import window_attention, without_positions

register_attention(ShiftWindowMSA)(window_attention)
register_attention(SwinTransformer)(without_positions)
register_attention(SwinTransformerV2)(without_positions)


@register_attention(MultiheadAttention)
def attention(module: MultiheadAttention) -> TokenMixer:
    return TokenMixer(module, module.gamma1, [module.proj_drop, module.out_drop])


class MapVisionTransformer(VisionTransformer):
    """A VisionTransformer whose layers work on (B, H, W, C).

    It has no class token, in whose place is the mean over all positions (``out_type='cls_token'``),
    and no embedding of absolute positions.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.drop_tokens()

    def drop_tokens(self) -> None:
        """Take out the parameters that only attention needs."""
        self.cls_token = None
        forget(self, 'pos_embed')
        for module in self.modules():
            if isinstance(module, DropPath):  # of numpy's, by which torch.compile breaks its graph
                module.drop_prob = float(module.drop_prob)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x, hw_shape = self.patch_embed(x)
        x = self.pre_norm(self.drop_after_pos(x.unflatten(1, hw_shape)))
        outputs = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if self.final_norm and i == self.num_layers - 1:
                x = self.ln1(x)
            if i in self.out_indices:
                outputs.append(self.output(x))
        return tuple(outputs)

    def output(self, x: Tensor) -> Tensor:
        """What ``out_type`` asks for, of a map (B, H, W, C)."""
        if self.out_type == 'featmap':
            return x.permute(0, 3, 1, 2)
        if self.out_type == 'raw':
            return x.flatten(1, 2)
        mean = x.mean((1, 2))
        return self.ln2(mean) if self.out_type == 'avg_featmap' else mean


class MapDistilledVisionTransformer(MapVisionTransformer):
    """One whose heads, as DeiTClsHead, take a pair: both tokens' places are taken by the mean."""

    def drop_tokens(self) -> None:
        super().drop_tokens()
        del self.dist_token

    def output(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        output = super().output(x)
        return (output, output) if self.out_type == 'cls_token' else output


@register_attention(VisionTransformer)
def vision_transformer(
    module: VisionTransformer, kind: type[MapVisionTransformer] = MapVisionTransformer
) -> MapVisionTransformer:
    new = adopt(kind, module)
    new.drop_tokens()
    return new


@register_attention(DistilledVisionTransformer)
def distilled_vision_transformer(module: DistilledVisionTransformer) -> MapVisionTransformer:
    return vision_transformer(module, MapDistilledVisionTransformer)


class MapMobileVitBlock(MobileVitBlock):
    """A MobileVitBlock whose layers work on the whole map, not on every fourth position of it."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.local_rep(x).permute(0, 2, 3, 1)
        y = self.conv_proj(self.global_rep(y).permute(0, 3, 1, 2))
        return y if self.conv_fusion is None else self.conv_fusion(torch.cat((x, y), dim=1))


@register_attention(MobileVitBlock)
def mobilevit_block(module: MobileVitBlock) -> nn.Module:
    return adopt(MapMobileVitBlock, module)
