"""ParC models. Importing this package registers all of them in scope ``mmparc``."""

from mmparc.layers import ParCConv, ParCConv2d, ParCMixer
from mmparc.registry import MODELS

from .backbones.parc_convnext import ParCConvNeXt
from .backbones.parc_mobilenet_v2 import ParCMobileNetV2
from .backbones.parc_resnet import ParCResNet
from .backbones.parc_transformers import (
    ParCMobileViT,
    ParCSwinTransformer,
    ParCVisionTransformer,
)
from .backbones.parcnet import ParCNet
from .log import forward_logs
from .multi_scale import MultiScaleClsDataPreprocessor
from .parcify import ParCify

__all__ = [
    'MultiScaleClsDataPreprocessor',
    'ParCConv',
    'ParCConv2d',
    'ParCConvNeXt',
    'ParCMixer',
    'ParCMobileNetV2',
    'ParCMobileViT',
    'ParCNet',
    'ParCResNet',
    'ParCSwinTransformer',
    'ParCVisionTransformer',
    'ParCify',
]

for layer in (ParCConv, ParCConv2d, ParCMixer):  # which know torch alone
    MODELS.register_module(module=layer)
forward_logs()
