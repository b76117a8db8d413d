"""The ParC operator as tensor code on torch alone: no parameters, no mm packages."""

from .functional import BACKENDS, parc
from .reference import parc_reference
from .resize import resize_taps
from .select import choose_backend

__all__ = ['BACKENDS', 'choose_backend', 'parc', 'parc_reference', 'resize_taps']
