"""ParC-MobileNetV2 (arXiv 2203.03952): MobileNetV2 whose deep 3x3 depthwise convolutions are ParC.

Everything but that operator is mmpretrain's MobileNetV2. The published model has ParC in the last
blocks of the stages of 64, 96 and 160 channels; batch norm and ReLU6 follow the mixer as they
follow the 3x3, and only a stage's first ParC block has a position embedding.
"""

from collections.abc import Sequence

from mmpretrain.models import MobileNetV2

from mmparc.layers import ParCMixer
from mmparc.layers.placement import (
    check_no_stride,
    check_parc_starts,
    layer_depth,
    padded_resolution,
)
from mmparc.registry import MODELS

STEM_STRIDE = 2

# MobileNetV2's rule with the ParC kernels among the convolutions.
INIT_CFG = [
    dict(type='Kaiming', layer=['Conv2d', 'ParCConv']),
    dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
]


@MODELS.register_module()
class ParCMobileNetV2(MobileNetV2):
    """MobileNetV2 with ParC mixers; takes images of any size, (B, 3, H, W).

    Args:
        widen_factor: multiplies all widths.
        parc_starts: for each of the seven stages the index of its first ParC block; a stage's
            depth means none. The depths are (1, 2, 3, 4, 3, 3, 1).
        img_size, resize, backend: as in :class:`ParCConvNeXt`.
        pos_embed: whether each stage's first mixer has position embeddings, as published.
        strides: of the seven stages after the stem, which has stride 2; by default MobileNetV2's,
            (1, 2, 2, 2, 1, 2, 1).
        init_cfg: by default as MobileNetV2's, with the ParC kernels among the convolutions:
            Kaiming normal with fan out, biases 0.
        **kwargs: mmpretrain's MobileNetV2's other arguments (out_indices, frozen_stages, norm_eval,
            with_cp, ...).

    Raises:
        ValueError: if ``parc_starts`` does not fit the depths or would replace a convolution with a
            stride, or if ``strides`` are not seven.
    """

    def __init__(
        self,
        widen_factor: float = 1.0,
        parc_starts: Sequence[int] = (1, 2, 3, 2, 2, 2, 1),
        img_size: int | tuple[int, int] = 224,
        pos_embed: bool = True,
        resize: str = 'interpolate',
        backend: str = 'auto',
        strides: Sequence[int] | None = None,
        init_cfg: dict | list[dict] | None = INIT_CFG,
        **kwargs,
    ) -> None:
        if strides is not None:
            if len(strides) != len(self.arch_settings):
                raise ValueError(
                    f'strides must give one stride for each of the {len(self.arch_settings)} '
                    f'stages, got {list(strides)}'
                )
            stages = zip(self.arch_settings, strides, strict=True)
            self.arch_settings = [[*settings[:3], stride] for settings, stride in stages]
        super().__init__(widen_factor, init_cfg=init_cfg, **kwargs)
        depths = [depth for _, _, depth, _ in self.arch_settings]
        self.parc_starts = check_parc_starts(parc_starts, depths)
        stride = STEM_STRIDE
        for stage, start in enumerate(self.parc_starts):
            stride *= self.arch_settings[stage][-1]
            kernel_size = padded_resolution(img_size, stride)
            blocks = getattr(self, self.layers[stage])
            for index in range(start, len(blocks)):
                depthwise = blocks[index].conv[-2]  # before it the expansion, if any
                check_no_stride(depthwise.conv, stage, index)
                options = dict(pos_embed=pos_embed and index == start, resize=resize)
                depthwise.conv = ParCMixer(
                    depthwise.in_channels, kernel_size, backend=backend, **options
                )

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """See :func:`layer_depth`: the stem, each of the seven stages and the final 1x1.

        These are about as many as mmpretrain counts in ConvNeXt and ResNet, so that decay rates
        mean about the same.
        """
        layers = [f'{name}.' for name in ('conv1', *self.layers)]
        return layer_depth(layers, param_name, prefix)
