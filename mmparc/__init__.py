"""mmparc: position-aware circular convolution (ParC) for OpenMMLab.

Importing this package is light: neither torch nor any mm package comes with it.
The models register themselves when a config names them (``type='mmparc.ParCConvNeXt'``).
"""

__version__ = '0.1.0'
