"""Adapters for torchvision: VisionTransformer, SwinTransformer and its V2."""

from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2
from torchvision.models.vision_transformer import (
    Encoder,
    EncoderBlock,
    MLPBlock,
    VisionTransformer,
)
from torchvision.ops.misc import MLP

from mmparc.layers.token_mixer import TokenMixer

from .attention import adopt, append_to, register_attention, register_feed_forward

for mlp in (MLP, MLPBlock):
    register_feed_forward(mlp)(append_to(''))  # itself a Sequential


class MapVisionTransformer(VisionTransformer):
    """A VisionTransformer that works on (B, H, W, C) of any size, without a class token."""

    def forward(self, x: Tensor) -> Tensor:
        below, right = (-side % self.patch_size for side in x.shape[2:])
        x = self.conv_proj(pad(x, (0, right, 0, below)))
        return self.heads(self.encoder(x.permute(0, 2, 3, 1)).mean((1, 2)))


class MapEncoder(Encoder):
    def forward(self, input: Tensor) -> Tensor:
        return self.ln(self.layers(self.dropout(input)))


class MapEncoderBlock(EncoderBlock):
    def forward(self, input: Tensor) -> Tensor:
        x = input + self.dropout(self.self_attention(self.ln_1(input)))
        return x + self.mlp(self.ln_2(x))


@register_attention(VisionTransformer)
def vision_transformer(module: VisionTransformer) -> nn.Module:
    new = adopt(MapVisionTransformer, module)
    new.class_token = None
    return new


@register_attention(Encoder)
def encoder(module: Encoder) -> nn.Module:
    new = adopt(MapEncoder, module)
    new.pos_embedding = None
    return new


@register_attention(EncoderBlock)
def encoder_block(module: EncoderBlock) -> nn.Module:
    new = adopt(MapEncoderBlock, module)
    new.self_attention = TokenMixer(module.self_attention)
    return new


@register_attention(ShiftedWindowAttention)
@register_attention(ShiftedWindowAttentionV2)
def window_attention(module: ShiftedWindowAttention) -> TokenMixer:
    return TokenMixer(module, drops=[nn.Dropout(module.dropout)])
