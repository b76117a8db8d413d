"""ParC backbones, one file a family, each on mmpretrain's own class where there is one."""

from .parc_convnext import ParCConvNeXt
from .parcnet import ParCNet

__all__ = ['ParCConvNeXt', 'ParCNet']
