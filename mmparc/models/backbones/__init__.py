"""ParC backbones, one file a family, each on mmpretrain's own class where there is one."""

from .parc_convnext import ParCConvNeXt
from .parc_mobilenet_v2 import ParCMobileNetV2
from .parc_resnet import ParCResNet
from .parc_transformers import ParCMobileViT, ParCSwinTransformer, ParCVisionTransformer
from .parcnet import ParCNet

__all__ = [
    'ParCConvNeXt',
    'ParCMobileNetV2',
    'ParCMobileViT',
    'ParCNet',
    'ParCResNet',
    'ParCSwinTransformer',
    'ParCVisionTransformer',
]
