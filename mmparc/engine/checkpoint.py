"""Loading mmengine's checkpoints with torch's safe loading left on.

torch >= 2.6 loads with weights_only=True, which admits tensors and plain containers alone. A
checkpoint of mmengine also holds the message hub's HistoryBuffers, whose pickle rebuilds numpy
arrays and calls ``getattr(HistoryBuffer, <name of a statistic>)``. Exactly these are admitted.
"""

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

# A HistoryBuffer pickles its table of statistics, which are methods of its own.
_STATISTICS = ('current', 'max', 'mean', 'min')


def _statistic(owner: type, name: str):
    """Stands in for builtins.getattr in a checkpoint: HistoryBuffer's statistics only."""
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise ValueError(f'a checkpoint may not reach {name!r} of {owner!r}')
    return getattr(HistoryBuffer, name)


def allow_mmengine_checkpoints() -> None:
    """Admit what mmengine writes into its checkpoints, for the whole process."""
    multiarray = np._core.multiarray if hasattr(np, '_core') else np.core.multiarray
    admitted = [HistoryBuffer, np.ndarray, np.dtype, (_statistic, 'builtins.getattr')]
    # numpy 1 and 2 pickle under different module names; either may have written the file.
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        admitted.append((multiarray._reconstruct, f'{module}._reconstruct'))
        admitted.append((multiarray.scalar, f'{module}.scalar'))
    admitted += [type(np.dtype(kind)) for kind in ('f4', 'f8', 'i4', 'i8', 'bool')]
    torch.serialization.add_safe_globals(admitted)
