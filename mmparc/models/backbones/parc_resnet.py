"""ParC-ResNet (arXiv 2203.03952): ResNet whose deep 3x3 convolutions are dense ParC mixers.

Everything but that operator is mmpretrain's ResNet. The published model is ResNet50 with ParC in
blocks 3 to 5 of stage 3 and block 2 of stage 4; its mixers have a bias, and batch norm and ReLU
follow them as they follow the 3x3.
"""

from collections.abc import Sequence

from mmpretrain.models import ResNet
from torch import nn

from mmparc.layers import ParCMixer
from mmparc.layers.placement import (
    check_no_stride,
    check_parc_starts,
    layer_depth,
    padded_resolution,
)
from mmparc.registry import MODELS

STEM_STRIDE = 4  # convolution and pooling


@MODELS.register_module()
class ParCResNet(ResNet):
    """ResNet with dense ParC mixers; takes images of any size, (B, 3, H, W).

    A mixer replaces a block's ``conv2`` (the 3x3 of a bottleneck, the second one of a basic block)
    and drops its dilation, which has no meaning for a kernel as long as the map.

    ParC kernels start Kaiming normal with fan out, as all convolutions here; their biases keep
    PyTorch's default, as in the published code. Unlike there, ``zero_init_residual`` keeps
    mmpretrain's default, True: the last norm of each block starts at 0.

    Args:
        depth: 18, 34, 50, 101 or 152.
        parc_starts: for each stage the index of its first ParC block; a stage's depth means none.
            By default the last half of stage 3 and the last third of stage 4, both rounded up, as
            published: (3, 4, 3, 2) for depth 50.
        img_size, pos_embed, resize, backend: as in :class:`ParCConvNeXt`.
        **kwargs: mmpretrain's ResNet's other arguments (strides, dilations, out_indices, style,
            deep_stem, frozen_stages, norm_eval, with_cp, ...).

    Raises:
        ValueError: if ``parc_starts`` does not fit the depths or would replace a convolution with a
            stride.
    """

    def __init__(
        self,
        depth: int = 50,
        parc_starts: Sequence[int] | None = None,
        img_size: int | tuple[int, int] = 224,
        pos_embed: bool = True,
        resize: str = 'interpolate',
        backend: str = 'auto',
        **kwargs,
    ) -> None:
        super().__init__(depth, **kwargs)
        depths = self.stage_blocks
        if parc_starts is None:
            half, third = (d // 2 for d in depths[2:3]), (d * 2 // 3 for d in depths[3:])
            parc_starts = [*depths[:2], *half, *third]
        self.parc_starts = check_parc_starts(parc_starts, depths)
        options = dict(groups=1, pos_embed=pos_embed, resize=resize, backend=backend)
        stride = STEM_STRIDE
        for stage, start in enumerate(self.parc_starts):
            stride *= self.strides[stage]
            kernel_size = padded_resolution(img_size, stride)
            blocks = list(getattr(self, self.res_layers[stage]))
            for index in range(start, len(blocks)):
                block = blocks[index]
                check_no_stride(block.conv2, stage, index)
                block.conv2 = ParCMixer(block.mid_channels, kernel_size, **options)
                # Here and not by a rule of init_cfg, which would zero the biases.
                for conv in (block.conv2.conv_h, block.conv2.conv_w):
                    nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')
        self.train()  # freezes the mixers too: the parent froze its stages before they came

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """See :func:`layer_depth`; the parent counts blocks, but not of every ResNet."""
        if self.depth != 18 and self.num_stages > 2:
            return super().get_layer_depth(param_name, prefix)
        layers = [('conv1.', 'bn1.', 'stem.'), *(f'{name}.' for name in self.res_layers)]
        return layer_depth(layers, param_name, prefix)
