"""Multi-scale batches for classification, as MobileViT (arXiv 2110.02178) and ParC-Net train.

Each training batch is resized to a size drawn for its iteration. Their multi-scale sampler crops
the images at that size and takes more of the small ones and fewer of the large ones at a time; here
the batch is resized after it has been collated, so that its number of images stays the same: an
epoch has as many iterations as without, and the largest size sets the memory. Where the images are
cropped at the largest size, none is enlarged a second time. Detection has this in mmdet's
BatchSyncRandomResize, which resizes boxes too.
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
    """mmpretrain's ClsDataPreprocessor, whose training batches change their size.

    The size depends on ``seed`` and the Runner's iteration alone. So it is the same on every rank
    with nothing sent between them, and a resumed run goes on as it would have.

    Args:
        sizes: what is drawn from, each as often: numbers, or (height, width).
        seed: of the draws.
        kwargs: ClsDataPreprocessor's own.

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
                'multi-scale batches follow the iteration, and no Runner counts one: train with '
                "mmengine's Runner, or set 'iter' in the current MessageHub"
            )
        return self.sizes[np.random.default_rng([self.seed, iteration]).integers(len(self.sizes))]
