"""mmparc: position-aware circular convolution (ParC) for PyTorch and OpenMMLab.

Importing this package is light: neither torch nor any mm package is imported. The names below
import what they need when they are first used. The models register themselves when a config names
them (``type='mmparc.ParCConvNeXt'``).
"""

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmparc.factory import create_backbone, list_backbones
    from mmparc.layers import ParCConv, ParCMixer
    from mmparc.ops import parc
    from mmparc.surgery import parcify

__version__ = '0.1.0'
__all__ = ['ParCConv', 'ParCMixer', 'create_backbone', 'list_backbones', 'parc', 'parcify']

_LAZY = {
    'ParCConv': 'mmparc.layers',
    'ParCMixer': 'mmparc.layers',
    'create_backbone': 'mmparc.factory',
    'list_backbones': 'mmparc.factory',
    'parc': 'mmparc.ops',
    'parcify': 'mmparc.surgery',
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class MMCVOpsFinder:
    """Finds mmparc/mmcv_ops.py under the name of mmcv's compiled module, ``mmcv._ext``.

    It is the last to be asked, so that a compiled module comes first where there is one.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != 'mmcv._ext':
            return None
        return spec_from_file_location(name, Path(__file__).with_name('mmcv_ops.py'))


sys.meta_path.append(MMCVOpsFinder)
