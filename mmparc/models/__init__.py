"""ParC models. Importing this package registers all of them in scope ``mmparc``."""

from .backbones import ParCConvNeXt, ParCMobileNetV2, ParCNet, ParCResNet
from .layers import ParCConv, ParCMixer
from .multi_scale import MultiScaleClsDataPreprocessor

__all__ = [
    'MultiScaleClsDataPreprocessor',
    'ParCConv',
    'ParCConvNeXt',
    'ParCMixer',
    'ParCMobileNetV2',
    'ParCNet',
    'ParCResNet',
]
