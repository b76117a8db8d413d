"""ParC-ConvNeXt (arXiv 2203.03952): ConvNeXt whose deep 7x7 depthwise convolutions are ParC mixers.

Everything but that operator is mmpretrain's ConvNeXt. The published models are 'xtiny' and 'tiny'
with ParC in the last third of stage 3 and of stage 4.
"""

from collections.abc import Sequence

from mmpretrain.models import ConvNeXt

from mmparc.layers import ParCMixer
from mmparc.layers.placement import check_parc_starts, image_size
from mmparc.registry import MODELS

# ConvNeXt's rule with the ParC kernels among the convolutions.
INIT_CFG = [
    dict(type='TruncNormal', layer=['Conv2d', 'Linear', 'ParCConv'], std=0.02, bias=0.0),
    dict(type='Constant', layer=['LayerNorm'], val=1.0, bias=0.0),
]


@MODELS.register_module()
class ParCConvNeXt(ConvNeXt):
    """ConvNeXt with ParC mixers; takes images of any size, (B, 3, H, W).

    Args:
        arch: a name of ``arch_settings``, or a dict of 'depths' and 'channels'.
        parc_starts: for each stage the index of its first ParC block; a stage's depth means none.
            By default the last third (rounded up) of the blocks in the last two stages, as
            published: (3, 3, 6, 2) for depths (3, 3, 9, 3).
        img_size: the training resolution, one number or (height, width). The kernels get the
            lengths of each stage's map at that size.
        pos_embed: whether the mixers have position embeddings, as all published models do.
        resize, backend: as in :class:`mmparc.ParCConv`.
        init_cfg: by default as ConvNeXt's, with the ParC kernels among the convolutions:
            truncated normal with standard deviation 0.02, biases 0.
        **kwargs: mmpretrain's ConvNeXt's other arguments (out_indices, drop_path_rate,
            layer_scale_init_value, gap_before_final_norm, with_cp, ...).

    Raises:
        ValueError: if ``parc_starts`` does not fit the depths, or ``img_size`` is too small for a
            ParC stage.
    """

    arch_settings = {
        **ConvNeXt.arch_settings,
        'xtiny': {'depths': [3, 3, 9, 3], 'channels': [48, 96, 192, 384]},
    }

    def __init__(
        self,
        arch: str | dict = 'tiny',
        parc_starts: Sequence[int] | None = None,
        img_size: int | tuple[int, int] = 224,
        pos_embed: bool = True,
        resize: str = 'interpolate',
        backend: str = 'auto',
        init_cfg: dict | list[dict] | None = INIT_CFG,
        **kwargs,
    ) -> None:
        super().__init__(arch=arch, init_cfg=init_cfg, **kwargs)
        if parc_starts is None:
            deep = self.num_stages - 2
            parc_starts = [d if i < deep else d * 2 // 3 for i, d in enumerate(self.depths)]
        self.parc_starts = check_parc_starts(parc_starts, self.depths)
        options = dict(pos_embed=pos_embed, resize=resize, backend=backend)
        (stride, _) = self.downsample_layers[0][0].stride
        for stage, start in enumerate(self.parc_starts):
            kernel_size = tuple(size // (stride * 2**stage) for size in image_size(img_size))
            for block in self.stages[stage][start:]:
                block.depthwise_conv = ParCMixer(self.channels[stage], kernel_size, **options)
        self.train()  # freezes the mixers too: the parent froze its stages before they came
