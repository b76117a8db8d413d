"""ParC models. Importing this package registers all of them in scope ``mmparc``."""

from .backbones import ParCConvNeXt, ParCMobileNetV2, ParCNet, ParCResNet
from .layers import ParCConv, ParCMixer

__all__ = [
    'ParCConv',
    'ParCConvNeXt',
    'ParCMixer',
    'ParCMobileNetV2',
    'ParCNet',
    'ParCResNet',
]
