"""Adapters for mmdet: SwinTransformer and PyramidVisionTransformer (V2 too)."""

from mmdet.models.backbones.pvt import (
    AbsolutePositionEmbedding,
    MixFFN,
    SpatialReductionAttention,
)
from mmdet.models.backbones.swin import ShiftWindowMSA, SwinTransformer, swin_converter
from mmengine.logging import MMLogger
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_state_dict
from torch import Tensor, nn

from mmparc.layers.channel_attention import ChannelAttention
from mmparc.surgery.attention import (
    adopt,
    append_to,
    register_attention,
    register_feed_forward,
)

from . import reduced_attention, window_attention, without_positions

register_attention(ShiftWindowMSA)(window_attention)
register_attention(SpatialReductionAttention)(reduced_attention)
register_feed_forward(MixFFN)(append_to('layers', ChannelAttention))


class SwinWithoutWindows(SwinTransformer):
    def init_weights(self) -> None:
        """As upstream's, which looks in the model for the tables of relative positions."""
        if 'checkpoint' not in (self.init_cfg or {}):
            super().init_weights()
            return
        path = self.init_cfg['checkpoint']
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
        weights = checkpoint.get('state_dict', checkpoint.get('model', checkpoint))
        if self.convert_weights:
            weights = swin_converter(weights)
        for prefix in ('backbone.', 'module.'):
            own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
            weights = own or weights
        load_state_dict(self, weights, strict=False, logger=MMLogger.get_current_instance())


@register_attention(SwinTransformer)
def swin(module: SwinTransformer) -> nn.Module:
    return adopt(SwinWithoutWindows, without_positions(module))


class NoPositionEmbedding(nn.Module):
    """In place of PVT's AbsolutePositionEmbedding, whose dropout it keeps."""

    def __init__(self, drop: nn.Module) -> None:
        super().__init__()
        self.drop = drop
        self.training = drop.training

    def forward(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        return self.drop(x)


@register_attention(AbsolutePositionEmbedding)
def position_embedding(module: AbsolutePositionEmbedding) -> nn.Module:
    return NoPositionEmbedding(module.drop)
