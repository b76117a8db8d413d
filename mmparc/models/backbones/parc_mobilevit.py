"""ParC-MobileViT: MobileViT with ParC in place of attention (arXiv 2210.04020).

All else is mmpretrain's MobileViT; :mod:`mmparc.surgery.attention` says what goes with the
attention. ParC-Net has MobileViT's outline, but its own blocks and widths.
"""

from mmpretrain.models import MobileViT

from mmparc.layers.placement import image_size
from mmparc.registry import MODELS
from mmparc.surgery.attention import exchange_attention


@MODELS.register_module()
class ParCMobileViT(MobileViT):
    """A MobileViT without attention, for images of any size, (B, 3, H, W).

    Args:
        arch: as in mmpretrain: 'small', 'x_small', 'xx_small' or a list.
        img_size: the training resolution, one number or (height, width). The kernels get the
            lengths of each block's map at that size.
        channel_attention, pos_embed, resize, backend: as in :func:`mmparc.parcify`.
        **kwargs: mmpretrain's MobileViT's other arguments (out_indices, frozen_stages, ...).

    Raises:
        ValueError: if a width is odd or an argument unknown.
    """

    def __init__(
        self,
        arch: str | list = 'small',
        img_size: int | tuple[int, int] = 256,
        channel_attention: bool = False,
        pos_embed: str = 'all',
        resize: str = 'interpolate',
        backend: str = 'auto',
        **kwargs,
    ) -> None:
        super().__init__(arch=arch, **kwargs)
        exchange_attention(
            self, image_size(img_size), pos_embed, channel_attention, resize, backend
        )
