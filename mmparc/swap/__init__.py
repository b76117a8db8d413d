"""Another backbone for a config of mmpretrain, mmdet or mmseg, with all that follows from it.

``features`` runs a backbone or neck once to see what it hands on, ``plan`` decides what changes,
``text`` writes the changes as a config that inherits the original; ``swap_backbone`` applies them.
"""

from .context import Swap
from .fragments import backbone_names
from .plan import plan_swap, swap_backbone
from .text import config_text

__all__ = ['Swap', 'backbone_names', 'config_text', 'plan_swap', 'swap_backbone']
