"""ParC-Swin: a Swin transformer with ParC in place of windowed attention (arXiv 2210.04020).

All else is mmpretrain's SwinTransformer; :mod:`mmparc.surgery.attention` says what goes with the
attention.
"""

from mmpretrain.models import SwinTransformer

from mmparc.layers.placement import image_size
from mmparc.registry import MODELS
from mmparc.surgery.attention import exchange_attention


@MODELS.register_module()
class ParCSwinTransformer(SwinTransformer):
    """A SwinTransformer without attention and windows, for images of any size, (B, 3, H, W).

    Args:
        arch: as in mmpretrain, such as 'tiny'; heads and ``window_size`` have no effect.
        img_size: as in :class:`ParCConvNeXt`.
        channel_attention, pos_embed, resize, backend: as in :func:`mmparc.parcify`.
        **kwargs: mmpretrain's SwinTransformer's other arguments (out_indices, drop_path_rate,
            frozen_stages, with_cp, ...).

    Raises:
        ValueError: if a width is odd or an argument unknown.
    """

    def __init__(
        self,
        arch: str | dict = 'tiny',
        img_size: int | tuple[int, int] = 224,
        channel_attention: bool = False,
        pos_embed: str = 'all',
        resize: str = 'interpolate',
        backend: str = 'auto',
        **kwargs,
    ) -> None:
        super().__init__(arch=arch, img_size=img_size, **{**kwargs, 'use_abs_pos_embed': False})
        exchange_attention(
            self, image_size(img_size), pos_embed, channel_attention, resize, backend
        )
