"""Loading mmengine's checkpoints with torch's safe loading.

torch >= 2.6 loads with weights_only=True, which allows tensors and plain containers. A checkpoint
of mmengine also holds the message hub's HistoryBuffers, whose pickle rebuilds numpy arrays and
calls ``getattr(HistoryBuffer, <name of a statistic>)``. Only these are allowed in addition.
"""

import functools
import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import (
    load_from_http,
    load_from_local,
    load_from_mmcls,
    load_from_openmmlab,
    load_from_torchvision,
)
from torch.torch_version import TorchVersion

from .errors import UserError, first_line

LOADERS = {
    load_from_local: [''],
    load_from_http: ['http://', 'https://'],
    load_from_torchvision: ['torchvision://', 'modelzoo://'],
    load_from_openmmlab: ['openmmlab://', 'open-mmlab://'],
    load_from_mmcls: ['mmcls://'],
}
# A HistoryBuffer pickles a table of its statistics, which are its methods.
STATISTICS = ('current', 'max', 'mean', 'min')


def loads_safely() -> bool:
    """Whether this torch can load mmengine's checkpoints with weights_only=True."""
    return TorchVersion(torch.__version__) >= '2.6'


def allow_mmengine_checkpoints(*others: type) -> None:
    """Allow mmengine's checkpoints, and other classes, under safe loading, for the whole process.

    From then on every ``torch.load`` of the process is safe, even where it asks for
    ``weights_only=False``, and what mmengine cannot load is a UserError. Before torch 2.6 there is
    no safe loading to rely on, and a warning says so.
    """
    for load, schemes in LOADERS.items():
        CheckpointLoader.register_scheme(schemes, _in_one_line(load), force=True)
    if not loads_safely():
        print_log(
            f'torch {torch.__version__} runs code that a checkpoint may hold, and its weights_only '
            'has a known hole (CVE-2025-32434): load only files that you trust, or install '
            'torch>=2.6',
            'current',
            logging.WARNING,
        )
        return
    # torch's own switch: torch.hub, with which mmengine downloads, asks for weights_only=False
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
    os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None)
    allowed = [*others, HistoryBuffer, np.ndarray, np.dtype, (_statistic, 'builtins.getattr')]
    # numpy 1 and 2 pickle under different module names; either may have written the file.
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed.append((np.empty(0).__reduce__()[0], f'{module}._reconstruct'))
        allowed.append((np.float64().__reduce__()[0], f'{module}.scalar'))
    allowed += [type(np.dtype(kind)) for kind in ('f4', 'f8', 'i4', 'i8', 'bool')]
    torch.serialization.add_safe_globals(allowed)


def _statistic(owner: type, name: str) -> Callable:
    """Stands in for builtins.getattr in a checkpoint: HistoryBuffer's statistics only."""
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise pickle.UnpicklingError(f'a checkpoint may not reach {name!r} of {owner!r}')
    return getattr(HistoryBuffer, name)


def _in_one_line(load: Callable) -> Callable:
    """A loader whose errors are one line that names what was to be loaded."""

    @functools.wraps(load)
    def load_or_refuse(path: str | Path, *args: Any, **options: Any) -> Any:
        try:
            return load(path, *args, **options)
        except pickle.UnpicklingError as error:
            raise UserError(
                f"'{path}' cannot be read as a checkpoint: it is damaged or holds more than weights"
                f'{_refused(path)}, which could run code; use a file that holds only weights'
            ) from error
        except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
            said = first_line(error).partition('. ')[0]  # leaves out how to switch safe loading off
            raise UserError(
                f"'{path}' cannot be read as a checkpoint ({said}): use another file"
            ) from error

    return load_or_refuse


def load_weights_only(path: str | Path, **options: Any) -> Any:
    """torch.load of a file to the CPU, as safe as this torch can, with errors in one line."""
    options = dict(map_location='cpu', weights_only=loads_safely(), **options)
    return _in_one_line(torch.load)(path, **options)


def _refused(path: str | Path) -> str:
    """The names that safe loading does not allow in a file; '' where torch cannot tell them."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError):
        return ''
    return f' ({", ".join(sorted(names))})' if names else ''
