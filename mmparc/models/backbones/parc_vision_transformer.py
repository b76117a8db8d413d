"""ParC-ViT and ParC-DeiT: a vision transformer with ParC in place of attention (arXiv 2210.04020).

All else is mmpretrain's VisionTransformer; :mod:`mmparc.surgery.attention` says what goes with the
attention.
"""

from mmparc.layers.placement import image_size
from mmparc.models.adapters.mmpretrain import MapVisionTransformer
from mmparc.registry import MODELS
from mmparc.surgery.attention import exchange_attention


@MODELS.register_module()
class ParCVisionTransformer(MapVisionTransformer):
    """A VisionTransformer without attention, for images of any size, (B, 3, H, W).

    Args:
        arch: as in mmpretrain, such as 'deit-tiny'; heads have no effect.
        img_size: the training resolution, one number or (height, width). The kernels are as long as
            the number of patches along their axis.
        channel_attention, pos_embed, resize, backend: as in :func:`mmparc.parcify`.
        **kwargs: mmpretrain's VisionTransformer's other arguments (patch_size, out_indices,
            out_type, drop_path_rate, frozen_stages, ...). ``out_type='cls_token'`` gives the mean
            over all positions of the normalized map, (B, C).

    Raises:
        ValueError: if the width is odd or an argument unknown.
    """

    def __init__(
        self,
        arch: str | dict = 'deit-tiny',
        img_size: int | tuple[int, int] = 224,
        channel_attention: bool = False,
        pos_embed: str = 'all',
        resize: str = 'interpolate',
        backend: str = 'auto',
        **kwargs,
    ) -> None:
        super().__init__(arch=arch, img_size=img_size, **kwargs)
        self.drop_tokens()
        exchange_attention(
            self, image_size(img_size), pos_embed, channel_attention, resize, backend
        )
