"""Multi-scale batches for classification, as MobileViT (arXiv 2110.02178) and ParC-Net train.

Each training batch is resized to a size drawn for its iteration. The papers' sampler crops the
images at that size and puts more of the small ones and fewer of the large ones into a batch. Here
the collated batch is resized, so its number of images stays the same, and the largest size sets the
memory. Crop at the largest size, so that no image is enlarged a second time. For detection, mmdet's
BatchSyncRandomResize does this and resizes boxes too.
"""

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from mmengine.logging import MessageHub
from mmengine.utils import to_2tuple
from mmpretrain.models import ClsDataPreprocessor

from mmparc.registry import MODELS


@MODELS.register_module()
class MultiScaleClsDataPreprocessor(ClsDataPreprocessor):
    """mmpretrain's ClsDataPreprocessor that resizes each training batch to a random size.

    The size depends on ``seed`` and the Runner's iteration alone, so all ranks draw the same one
    without communication, and a resumed run continues with the same sizes.

    Args:
        sizes: numbers, or (height, width), all equally likely.
        seed: of the draws.
        kwargs: ClsDataPreprocessor's arguments.

    Raises:
        ValueError: if ``sizes`` is empty or holds one below 1, or, in the forward pass, if there is
            no Runner that counts iterations.
    """

    def __init__(self, sizes: Sequence[int | tuple[int, int]], seed: int = 0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.sizes = [to_2tuple(size) for size in sizes]
        if not self.sizes or min(map(min, self.sizes)) < 1:
            raise ValueError(f'sizes must be one or more positive numbers, got {sizes}')
        self.seed = seed

    def forward(self, data: dict, training: bool = False) -> dict:
        data = super().forward(data, training)
        if training:
            inputs, size = data['inputs'], self._draw()
            if inputs.shape[-2:] != size:
                data['inputs'] = F.interpolate(inputs, size, mode='bilinear', antialias=True)
        return data

    def _draw(self) -> tuple[int, int]:
        iteration = MessageHub.get_current_instance().get_info('iter')
        if iteration is None:
            raise ValueError(
                'multi-scale batches need the iteration, which no Runner has set: train with '
                "mmengine's Runner, or set 'iter' in the current MessageHub"
            )
        return self.sizes[np.random.default_rng([self.seed, iteration]).integers(len(self.sizes))]
