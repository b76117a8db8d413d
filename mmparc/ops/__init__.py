"""The ParC operator as tensor functions on torch alone."""

from .functional import ParCKernel, check_choices, compute_dtype, correlate, parc, prepare
from .reference import parc_reference
from .resize import resize_taps
from .select import BACKENDS, ROWS, choose_backend, load_table

__all__ = [
    'BACKENDS',
    'ROWS',
    'ParCKernel',
    'check_choices',
    'choose_backend',
    'compute_dtype',
    'correlate',
    'load_table',
    'parc',
    'parc_reference',
    'prepare',
    'resize_taps',
]
