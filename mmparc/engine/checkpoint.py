"""Loading mmengine's checkpoints with torch's safe loading left on.

torch >= 2.6 loads with weights_only=True, which admits tensors and plain containers alone. A
checkpoint of mmengine also holds the message hub's HistoryBuffers, whose pickle rebuilds numpy
arrays and calls ``getattr(HistoryBuffer, <name of a statistic>)``. Exactly these are admitted.
"""

import functools
import logging
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch.torch_version import TorchVersion

from .errors import UserError

# A HistoryBuffer pickles its table of statistics, which are methods of its own.
_STATISTICS = ('current', 'max', 'mean', 'min')

# How torch's safe loading says that there is something which it does not let in. The names of
# classes and functions follow GLOBAL.
_REFUSALS = re.compile(
    r'GLOBAL (\S+)|may not reach|call reduce|Can only (?:build|create)'
    r'|weights_only=True.{,3} with'  # TorchScript, and what torch wrote before 1.0
)


def _statistic(owner: type, name: str):
    """Stands in for builtins.getattr in a checkpoint: HistoryBuffer's statistics only."""
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise pickle.UnpicklingError(f'a checkpoint may not reach {name!r} of {owner!r}')
    return getattr(HistoryBuffer, name)


@contextmanager
def refusal_named(path: str) -> Iterator[None]:
    """Turn what safe loading says of a file that holds no weights, or more, into a UserError."""
    try:
        yield
    except (pickle.UnpicklingError, RuntimeError) as error:
        refused = _REFUSALS.search(str(error))
        if refused is None:
            if isinstance(error, RuntimeError):  # of a file that is cut off, for one
                raise
            raise UserError(f"'{path}' cannot be read as a checkpoint of weights") from None
        what = f' ({refused[1]})' if refused[1] else ''
        raise UserError(
            f"'{path}' holds more than weights{what}, which may be code that would run, so it is "
            'not loaded: take a file that holds weights alone'
        ) from None


def loads_safely() -> bool:
    """Whether this torch's safe loading is one to rely on: what to pass as its `weights_only`.

    Before torch 2.6 it has a known hole, and will have none of mmengine's checkpoints.
    """
    return TorchVersion(torch.__version__) >= '2.6'


def allow_mmengine_checkpoints(*others: type) -> None:
    """Admit what mmengine writes into its checkpoints, for the whole process; and other classes.

    From here on mmengine's loader refuses a file that holds more with a UserError, and loads what
    it downloads as safely as other files; by itself it would run the code in it. Before torch 2.6
    there is no safe loading to rely on, and a warning says so.
    """
    if not loads_safely():
        print_log(
            f'torch {torch.__version__} runs the code that a checkpoint may hold, and its '
            'weights_only has a known hole (CVE-2025-32434): load only files that you trust, or '
            'install torch>=2.6',
            'current',
            logging.WARNING,
        )
        return
    multiarray = np._core.multiarray if hasattr(np, '_core') else np.core.multiarray
    admitted = [*others, HistoryBuffer, np.ndarray, np.dtype, (_statistic, 'builtins.getattr')]
    # numpy 1 and 2 pickle under different module names; either may have written the file.
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        admitted.append((multiarray._reconstruct, f'{module}._reconstruct'))
        admitted.append((multiarray.scalar, f'{module}.scalar'))
    admitted += [type(np.dtype(kind)) for kind in ('f4', 'f8', 'i4', 'i8', 'bool')]
    torch.serialization.add_safe_globals(admitted)
    CheckpointLoader.register_scheme('', _load_from_local, force=True)
    mmengine_checkpoint.load_url = _load_url  # what all schemes that download come down to
    # onedl-mmengine's loads what it has refused once more, carelessly
    if hasattr(mmengine_checkpoint, '_safe_torch_load'):
        careless = mmengine_checkpoint._safe_torch_load
        mmengine_checkpoint._safe_torch_load = functools.partial(careless, weights_only=True)


def _load_from_local(filename: str, map_location: Any = None) -> Any:
    with refusal_named(filename):
        return mmengine_checkpoint.load_from_local(filename, map_location)


def _load_url(url: str, **options: Any) -> Any:
    with refusal_named(url):
        return torch.hub.load_state_dict_from_url(url, weights_only=True, **options)
