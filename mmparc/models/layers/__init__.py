"""ParC layers: they own the kernels and the position embeddings."""

from .parc import ParCConv, ParCMixer
from .resize_on_load import ResizedOnLoad

__all__ = ['ParCConv', 'ParCMixer', 'ResizedOnLoad']
