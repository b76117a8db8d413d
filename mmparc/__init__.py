"""mmparc: position-aware circular convolution (ParC) for OpenMMLab.

Importing this package is light: neither torch nor any mm package comes with it.
The models register themselves when a config names them (``type='mmparc.ParCConvNeXt'``).
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

__version__ = '0.1.0'


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
