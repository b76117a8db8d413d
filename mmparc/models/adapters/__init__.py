"""Adapters for the attention of OpenMMLab's transformers, see :mod:`mmparc.surgery.attention`.

One module for each package, which is imported when a network of that package is met. Here is what
they share.
"""

from mmcv.cnn.bricks.transformer import FFN
from torch import Tensor, nn

from mmparc.layers.token_mixer import TokenMixer
from mmparc.surgery.attention import adopt, append_to, forget, register_feed_forward

register_feed_forward(FFN)(append_to('layers'))


class GridTokenMixer(TokenMixer):
    """Takes tokens (B, H * W, C) and their (H, W); with ``identity`` it returns the sum of both."""

    def forward(
        self, x: Tensor, hw_shape: tuple[int, int], identity: Tensor | None = None
    ) -> Tensor:
        y = super().forward(x.unflatten(1, hw_shape)).flatten(1, 2)
        return y if identity is None else identity + y


def window_attention(module: nn.Module) -> TokenMixer:
    """For each package's ShiftWindowMSA."""
    return GridTokenMixer(module, drops=[module.w_msa.proj_drop, module.drop])


def reduced_attention(module: nn.Module) -> TokenMixer:
    """For PVT's SpatialReductionAttention, and MiT's of another name."""
    return GridTokenMixer(module, drops=[module.proj_drop, module.dropout_layer])


def without_positions(module: nn.Module) -> nn.Module:
    """A Swin without its embedding of absolute positions, if it has one."""
    if not module.use_abs_pos_embed:
        return module
    new = adopt(type(module), module)
    new.use_abs_pos_embed = False
    forget(new, 'absolute_pos_embed')
    return new
