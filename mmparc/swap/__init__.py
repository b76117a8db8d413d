"""Another backbone for a config of mmpretrain, mmdet or mmseg, and the changes that follow from it.

``features`` runs a backbone or neck once to see its outputs, ``plan`` decides what changes,
``change`` records the changes and writes them as a config that inherits the original.
"""

from .change import Swap, config_text
from .fragments import backbone_names
from .plan import plan_swap, swap_backbone

__all__ = ['Swap', 'backbone_names', 'config_text', 'plan_swap', 'swap_backbone']
