"""Adapters for mmseg: SwinTransformer and MixVisionTransformer."""

from mmseg.models.backbones.mit import EfficientMultiheadAttention, MixFFN
from mmseg.models.backbones.swin import ShiftWindowMSA, SwinTransformer

from mmparc.layers.channel_attention import ChannelAttention
from mmparc.surgery.attention import append_to, register_attention, register_feed_forward

from . import reduced_attention, window_attention, without_positions

register_attention(ShiftWindowMSA)(window_attention)
register_attention(EfficientMultiheadAttention)(reduced_attention)
register_feed_forward(MixFFN)(append_to('layers', ChannelAttention))


@register_attention(SwinTransformer)
def swin(module: SwinTransformer) -> SwinTransformer:
    new = without_positions(module)
    if new is not module:  # upstream's init_weights reads its shape as (B, C, H, W)
        new.absolute_pos_embed = new.absolute_pos_embed.mT[..., None]
    return new
