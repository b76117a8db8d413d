"""ParC inside any backbone: in place of its convolutions, or of its attention."""

from .parcify import ParCify

__all__ = ['ParCify']
