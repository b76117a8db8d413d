"""Small generated data sets on disk, in the formats of ImageNet, COCO and ADE20K.

Needs NumPy, OpenCV and pycocotools, not torch or OpenMMLab.
"""

from mmparc.datasets.relations import RELATIONS, draw_relations
from mmparc.datasets.scenes import CLASSES, DIFFICULTIES, Scene, SceneObject, draw_scene
from mmparc.datasets.writers import DEFAULTS, SCENES, TASKS, holds_toy_data, make_toy_data

__all__ = [
    'CLASSES',
    'DEFAULTS',
    'DIFFICULTIES',
    'RELATIONS',
    'SCENES',
    'TASKS',
    'Scene',
    'SceneObject',
    'draw_relations',
    'draw_scene',
    'holds_toy_data',
    'make_toy_data',
]
