"""ParC layers, on torch alone: modules with the kernels and the position embeddings."""

from .conv2d import ParCConv2d
from .parc import ParCConv, ParCMixer, ResizedOnLoad

__all__ = ['ParCConv', 'ParCConv2d', 'ParCMixer', 'ResizedOnLoad']
