"""Registers mmparc's layers, which know torch alone, and ``ParCify`` in scope ``mmparc``."""

from mmengine.registry import MODELS as ANY_MODELS
from torch import nn

from mmparc.layers import ParCConv, ParCConv2d, ParCMixer
from mmparc.registry import MODELS
from mmparc.surgery import ParCify as parcify

for layer in (ParCConv, ParCConv2d, ParCMixer):
    MODELS.register_module(module=layer)


@MODELS.register_module()
def ParCify(backbone: dict | nn.Module, **options) -> nn.Module:
    """:func:`mmparc.parcify` for configs.

    ``backbone=dict(type='mmparc.ParCify', backbone=dict(type='mmpretrain.ResNeXt', depth=50))`` is
    that ResNeXt with ParC mixers for the spatial convolutions of its deep stages.

    Args:
        backbone: the config of any backbone that takes (B, C, H, W), whose type may name its scope
            ('mmdet.ResNet'), or a module. Name pretrained weights in its own ``init_cfg``, and set
            mmseg's older ``model.pretrained`` to None.
        options: the arguments of :func:`mmparc.parcify`.
    """
    if not isinstance(backbone, nn.Module):
        backbone = ANY_MODELS.build(backbone)
    return parcify(backbone, **options)
