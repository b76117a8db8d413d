"""Adapters for timm: VisionTransformer (DeiT, distilled too), SwinTransformer and its V2."""

from timm.layers import Attention, Format, HybridEmbed, Mlp, PatchEmbed
from timm.models import swin_transformer, swin_transformer_v2
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mmparc.layers.token_mixer import TokenChannelAttention, TokenMixer

from .attention import adopt, forget, register_attention, register_feed_forward


class UnmaskedTokenMixer(TokenMixer):
    """In place of an Attention, whose masks have no meaning here."""

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        if attn_mask is not None or is_causal:
            raise ValueError('a ParC mixer takes no attention mask')
        return super().forward(x)


class MapVisionTransformer(VisionTransformer):
    """A VisionTransformer whose blocks work on (B, H, W, C), without tokens of its own."""

    def _pos_embed(self, x: Tensor) -> Tensor:
        return self.pos_drop(x)

    def forward_features(self, x: Tensor, **options) -> Tensor:
        return super().forward_features(x, **options).flatten(1, 2)


class MapVisionTransformerDistilled(MapVisionTransformer, VisionTransformerDistilled):
    """One with two heads, which both take the mean over all positions."""

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        mean = x.mean(1, keepdim=True)
        return super().forward_head(mean.expand(-1, 2, -1), pre_logits)


@register_attention(Attention)
def attention(module: Attention) -> TokenMixer:
    return UnmaskedTokenMixer(module, drops=[module.proj_drop])


@register_attention(VisionTransformer)
def vision_transformer(module: VisionTransformer, kind: type = MapVisionTransformer) -> nn.Module:
    new = adopt(kind, module)
    new.cls_token = new.reg_token = new.pos_embed = None
    new.has_class_token = False
    new.num_prefix_tokens = new.num_reg_tokens = 0
    if new.global_pool == 'token':
        new.global_pool = 'avg'
    new.patch_embed = adopt(type(module.patch_embed), module.patch_embed)
    new.patch_embed.flatten, new.patch_embed.output_fmt = False, Format.NHWC
    return new


@register_attention(VisionTransformerDistilled)
def distilled(module: VisionTransformerDistilled) -> nn.Module:
    new = vision_transformer(module, MapVisionTransformerDistilled)
    forget(new, 'dist_token')
    return new


@register_attention(PatchEmbed)
@register_attention(HybridEmbed)
def patch_embed(module: nn.Module) -> nn.Module:
    """It takes images of any size, and pads them to whole patches."""
    new = adopt(type(module), module)
    new.strict_img_size, new.dynamic_img_pad = False, True
    return new


class WithoutWindows:
    """Of a block: it sees the whole map."""

    def set_input_size(self, *args, **options) -> None:
        """Nothing here depends on it."""


class MapSwinBlock(WithoutWindows, swin_transformer.SwinTransformerBlock):
    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class MapSwinV2Block(WithoutWindows, swin_transformer_v2.SwinTransformerV2Block):
    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.norm1(self.attn(x)))
        return x + self.drop_path2(self.norm2(self.mlp(x)))


@register_attention(swin_transformer.SwinTransformerBlock)
def swin_block(module: nn.Module, kind: type = MapSwinBlock) -> nn.Module:
    new = adopt(kind, module)
    new.attn = TokenMixer(module.attn, drops=[module.attn.proj_drop])
    new.attn_mask = None
    return new


@register_attention(swin_transformer_v2.SwinTransformerV2Block)
def swin_v2_block(module: nn.Module) -> nn.Module:
    return swin_block(module, MapSwinV2Block)


@register_feed_forward(Mlp)
def mlp(module: Mlp, channels: int) -> TokenChannelAttention:
    attention = TokenChannelAttention(channels)
    module.drop2 = nn.Sequential(module.drop2, attention).train(module.training)
    return attention
