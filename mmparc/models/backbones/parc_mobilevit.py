"""ParC-MobileViT: MobileViT with ParC in place of attention (arXiv 2210.04020).

Everything but that is mmpretrain's MobileViT, as it is not in ParC-Net, which has its outline but
blocks and widths of its own. What goes with the attention: :mod:`mmparc.surgery.attention`.
"""

from mmpretrain.models import MobileViT

from mmparc.layers.placement import image_size
from mmparc.registry import MODELS
from mmparc.surgery.attention import exchange_attention


@MODELS.register_module()
class ParCMobileViT(MobileViT):
    """A MobileViT without attention, for images of any size, (B, 3, H, W).

    Args:
        arch: as in mmpretrain's: 'small', 'x_small', 'xx_small' or a list.
        img_size: the training resolution, one number or (height, width). It gives the kernels'
            lengths: the resolution of each block with attention at that size.
        channel_attention, pos_embed, resize, backend: as in :func:`mmparc.models.ParCify`.
        **kwargs: everything else that mmpretrain's takes (out_indices, frozen_stages, ...).

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
