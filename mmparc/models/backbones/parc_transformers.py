"""ParC-ViT (DeiT), ParC-Swin and ParC-MobileViT: ParC in place of attention (arXiv 2210.04020).

All else is mmpretrain's; :mod:`mmparc.surgery.attention` says what goes with the attention.
"""

from mmpretrain.models import MobileViT, SwinTransformer

from mmparc.models.adapters.mmpretrain import MapVisionTransformer
from mmparc.registry import MODELS
from mmparc.surgery import parcify


class WithoutAttention:
    """Builds a transformer without attention, for images of any size, (B, 3, H, W).

    Args:
        arch: as in mmpretrain; heads and windows have no effect.
        img_size: the training resolution, one number or (height, width). The kernels get the
            lengths of each block's map at that size.
        channel_attention, pos_embed, resize, backend: as in :func:`mmparc.parcify`.
        **kwargs: the other arguments of mmpretrain's class (out_indices, drop_path_rate,
            frozen_stages, ...).

    Raises:
        ValueError: if a width is odd or an argument unknown.
    """

    def __init__(
        self,
        arch: str | dict | list,
        img_size: int | tuple[int, int],
        channel_attention: bool = False,
        pos_embed: str = 'all',
        resize: str = 'interpolate',
        backend: str = 'auto',
        **kwargs,
    ) -> None:
        super().__init__(arch=arch, **kwargs)
        parcify(
            self,
            replace='attention',
            img_size=img_size,
            pos_embed=pos_embed,
            channel_attention=channel_attention,
            resize=resize,
            backend=backend,
        )


@MODELS.register_module()
class ParCVisionTransformer(WithoutAttention, MapVisionTransformer):
    """A VisionTransformer or DeiT; its ``out_type='cls_token'`` is the mean over all positions."""

    def __init__(self, arch: str | dict = 'deit-tiny', img_size: int = 224, **kwargs) -> None:
        super().__init__(arch, img_size, **kwargs)


@MODELS.register_module()
class ParCSwinTransformer(WithoutAttention, SwinTransformer):
    """A SwinTransformer."""

    def __init__(self, arch: str | dict = 'tiny', img_size: int = 224, **kwargs) -> None:
        super().__init__(arch, img_size, **{**kwargs, 'use_abs_pos_embed': False})


@MODELS.register_module()
class ParCMobileViT(WithoutAttention, MobileViT):
    """A MobileViT. ParC-Net has its outline, but blocks and widths of its own."""

    def __init__(self, arch: str | list = 'small', img_size: int = 256, **kwargs) -> None:
        super().__init__(arch, img_size, **kwargs)
