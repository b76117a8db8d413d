"""The choice behind ``backend='auto'``: a table of the fastest backend for each kernel length.

The table ships with mmparc (auto_table.json), so that 'auto' is the same everywhere and runs are
repeatable. ``tools/analysis/measure_backends.py`` measures one on another machine; pass the path of
its file instead of 'auto'.
"""

import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .older_torch import is_compiling

BACKENDS = ('direct', 'matmul', 'fft')

SHIPPED_TABLE = Path(__file__).with_name('auto_table.json')

# One row for each of these, such as 'cpu float32 depthwise h inference'. 'gpu' is any other device.
ROWS = tuple(
    map(
        ' '.join,
        itertools.product(
            ('cpu', 'gpu'),
            ('float32', 'half'),
            ('depthwise', 'dense'),
            ('h', 'w'),
            ('inference', 'training'),
        ),
    )
)
# {row: {length: backend}}
Table = Mapping[str, Mapping[int, str]]

TABLES = 16  # in memory, with the choices that were logged of each
_tables: dict[str, Table] = {}
_logger = logging.getLogger('mmparc')
_logged: set[tuple[str, str, int]] = set()


def choose_backend(input: Tensor, weight: Tensor, *, axis: str, table: str = 'auto') -> str:
    """Name the table's backend: the fastest where it was measured, on a GPU a guess.

    float64 uses float32's rows, and both half precisions use one, measured in bfloat16. A length
    between two measured ones uses the nearer one's backend. The logger 'mmparc' logs each choice
    once, but not while compiling.

    Args:
        input: (B, C_in, H, W).
        weight: (C_out, C_in / groups, K) of any K, in the dtype of the computation.
        axis: 'h' or 'w'.
        table: 'auto', or the path of a table.

    Raises:
        ValueError: if the table cannot be read.
    """
    n = input.shape[2 if axis == 'h' else 3]
    half = weight.dtype in (torch.float16, torch.bfloat16)
    training = torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad)
    row = ' '.join(
        (
            'cpu' if input.device.type == 'cpu' else 'gpu',
            'half' if half else 'float32',
            'depthwise' if weight.shape[1] == 1 else 'dense',
            axis,
            'training' if training else 'inference',
        )
    )
    backends = (_tables[table] if table in _tables else load_table(table))[row]
    length = _nearest(list(backends), n)
    if not is_compiling() and (table, row, length) not in _logged:
        _logged.add((table, row, length))
        _logger.info('ParC %s, length %d, as for %d: %s', row, n, length, backends[length])
    return backends[length]


def _nearest(lengths: Sequence[int], n: int) -> int:
    """The one of ascending ``lengths`` with the smallest ratio to n."""
    for length, longer in itertools.pairwise(lengths):
        if n * n <= length * longer:
            return length
    return lengths[-1]


def load_table(path: str) -> Table:
    """Read a table once, and keep it for :func:`choose_backend`, which may be compiled.

    Raises:
        ValueError: if the file cannot be read, lacks a row or names an unknown backend.
    """
    if path not in _tables:
        table = _read(path)
        if len(_tables) == TABLES:
            oldest = next(known for known in _tables if known != 'auto')
            del _tables[oldest]
            _logged.difference_update([choice for choice in _logged if choice[0] == oldest])
        _tables[path] = table
    return _tables[path]


def _read(path: str) -> Table:
    try:
        text = json.loads(Path(path).read_text())['rows']
        table = {row: {int(n): text[row][n] for n in sorted(text[row], key=int)} for row in ROWS}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f'{path} is not a table of backends ({type(error).__name__}: {error}): '
            'make one with tools/analysis/measure_backends.py'
        ) from None
    for row, backends in table.items():
        if not backends or min(backends) < 1 or any(b not in BACKENDS for b in backends.values()):
            raise ValueError(f'{path}: row {row!r} must map lengths to {BACKENDS}')
    return table


_tables['auto'] = _read(str(SHIPPED_TABLE))
