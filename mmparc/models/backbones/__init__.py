"""ParC backbones, one file a family, each on mmpretrain's own class where there is one."""

from .parc_convnext import ParCConvNeXt
from .parc_mobilenet_v2 import ParCMobileNetV2
from .parc_resnet import ParCResNet
from .parcnet import ParCNet

__all__ = ['ParCConvNeXt', 'ParCMobileNetV2', 'ParCNet', 'ParCResNet']
