"""ParC models. Importing this package registers all of them in scope ``mmparc``."""

from mmparc.layers import ParCConv, ParCConv2d, ParCMixer
from mmparc.surgery import ParCify

from .backbones import (
    ParCConvNeXt,
    ParCMobileNetV2,
    ParCMobileViT,
    ParCNet,
    ParCResNet,
    ParCSwinTransformer,
    ParCVisionTransformer,
)
from .multi_scale import MultiScaleClsDataPreprocessor

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
