"""ParC backbones, one file a family, each on mmpretrain's own class where there is one."""

from .parc_convnext import ParCConvNeXt
from .parc_mobilenet_v2 import ParCMobileNetV2
from .parc_mobilevit import ParCMobileViT
from .parc_resnet import ParCResNet
from .parc_swin import ParCSwinTransformer
from .parc_vision_transformer import ParCVisionTransformer
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
