"""Reference checkpoints to mmparc and back; `tools/convert_official.py` at the command line."""

from .families import FAMILIES
from .official import backbone_config, convert_official, convert_to_official

__all__ = ['FAMILIES', 'backbone_config', 'convert_official', 'convert_to_official']
