"""ParC models. Importing this package registers all of them in scope ``mmparc``."""

from .backbones import (
    ParCConvNeXt,
    ParCMobileNetV2,
    ParCMobileViT,
    ParCNet,
    ParCResNet,
    ParCSwinTransformer,
    ParCVisionTransformer,
)
from .layers import ParCConv, ParCConv2d, ParCMixer
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

forward_logs()
