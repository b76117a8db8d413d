"""ParC layers: they own the kernels and the position embeddings."""

from .parc import ParCConv, ParCMixer

__all__ = ['ParCConv', 'ParCMixer']
