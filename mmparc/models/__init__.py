"""ParC models. Importing this package registers all of them in scope ``mmparc``."""

from .backbones import ParCConvNeXt, ParCNet
from .layers import ParCConv, ParCMixer

__all__ = ['ParCConv', 'ParCConvNeXt', 'ParCMixer', 'ParCNet']
