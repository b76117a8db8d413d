"""ParC-Net (ECCV 2022, arXiv 2203.03952): MobileViT's outline with ParC blocks.

The stem and inverted residuals are mmpretrain's, as in its MobileViT. The reference's network takes
256 x 256 images; this one takes maps of any size. The published head is a global average, dropout
0.2 and a linear layer that starts truncated normal with standard deviation 0.02; mmpretrain's
LinearClsHead has no dropout and starts at 0.01 unless its init_cfg says otherwise.
"""

from collections.abc import Sequence

import torch.nn as nn
from mmcv.cnn import ConvModule
from mmpretrain.models.backbones import mobilenet_v2
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.models.utils import make_divisible
from torch import Tensor

from mmparc.layers.placement import layer_depth, padded_resolution
from mmparc.registry import MODELS

from .local_global import BN, SILU, LocalGlobalUnit, recompute

# No rule for the ParC kernels and embeddings: they keep their first values.
INIT_CFG = [
    dict(type='Kaiming', layer=['Conv2d']),
    dict(type='Constant', val=1, layer=['_BatchNorm']),
]


class InvertedResidual(mobilenet_v2.InvertedResidual):
    """mmpretrain's with SiLU, the hidden width rounded to 8, and :func:`recompute`."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, with_cp: bool) -> None:
        super().__init__(
            in_channels,
            out_channels,
            stride,
            expand_ratio=make_divisible(4 * in_channels, 8) / in_channels,
            act_cfg=SILU,
        )
        self.recompute = with_cp  # with_cp, the parent's, would count batch statistics twice

    def forward(self, x: Tensor) -> Tensor:
        return recompute(self, super().forward, x) if self.recompute else super().forward(x)


@MODELS.register_module()
class ParCNet(BaseBackbone):
    """ParC-Net; takes images of any size, (B, 3, H, W).

    Its layers 1 to 5 have strides 2, 4, 8, 16 and 32 (see ``output_stride``); ParC is in layers 3
    to 5. A training step needs at least two images: see :mod:`.local_global`.

    Args:
        arch: a name of ``arch_settings``, or a dict with the keys of one of them: the stem's kernel
            and width, the widths of layers 1 to 5, and for layers 3 to 5 the width of the ParC
            blocks, their number and the hidden width of their feed-forward networks; 'concat' or
            'sum' for the fusion.
        img_size, resize, backend: as in :class:`ParCConvNeXt`.
        output_stride: 32, or 16 for segmentation: layer 5 then has layer 4's resolution. No
            convolution is dilated for that, since ParC sees the whole map. Checkpoints of either
            stride load into the other.
        out_indices: which outputs to return; 0 to 4 are layers 1 to 5, 5 the final 1x1 convolution.
            Parts after the last of them do not run and are frozen, but exist, so that a state dict
            fits any choice of outputs.
        frozen_stages: -1 for none, 0 for the stem, i for the stem and layers 1 to i. Unlike
            mmpretrain's MobileNetV2, which freezes the stem's parameters only, frozen parts keep
            their running statistics too.
        with_cp: whether ParC blocks and inverted residuals compute their activations again in the
            backward pass, to save memory. Gradients and running statistics stay the same.
        norm_eval: whether batch norms keep their running statistics in training.
        init_cfg: by default convolutions start Kaiming normal (fan out). ParC kernels start with
            PyTorch's default for Conv2d and embeddings standard normal, whatever its rules.

    Raises:
        ValueError: if ``arch`` is unknown or its keys or lengths do not fit, or an index is out of
            range.
    """

    arch_settings = {
        'xs': dict(
            stem_kernel=3,
            stem_channels=16,
            channels=[32, 64, 96, 128, 160],
            inner_channels=[96, 128, 160],
            depths=[2, 3, 2],
            ffn_channels=[192, 256, 320],
            fusion='sum',
        ),
        's': dict(
            stem_kernel=3,
            stem_channels=16,
            channels=[32, 64, 96, 128, 160],
            inner_channels=[192, 256, 320],
            depths=[2, 4, 3],
            ffn_channels=[384, 512, 640],
            fusion='concat',
        ),
        'h': dict(
            stem_kernel=5,
            stem_channels=48,
            channels=[96, 144, 216, 288, 432],
            inner_channels=[324, 432, 432],
            depths=[3, 9, 3],
            ffn_channels=[648, 864, 864],
            fusion='concat',
        ),
    }

    def __init__(
        self,
        arch: str | dict = 's',
        img_size: int | tuple[int, int] = 256,
        output_stride: int = 32,
        resize: str = 'interpolate',
        backend: str = 'auto',
        out_indices: int | Sequence[int] = (5,),
        frozen_stages: int = -1,
        with_cp: bool = False,
        norm_eval: bool = False,
        init_cfg: dict | list[dict] | None = INIT_CFG,
    ) -> None:
        super().__init__(init_cfg)
        self.arch = arch = self._check_arch(arch)
        self.out_indices = self._check_indices(out_indices)
        if frozen_stages not in range(-1, 6):
            raise ValueError(f'frozen_stages must be from -1 to 5, got {frozen_stages}')
        if output_stride not in (16, 32):
            raise ValueError(f'output_stride must be 16 or 32, got {output_stride}')
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

        cfg = dict(norm_cfg=BN, act_cfg=SILU)
        before, kernel = arch['stem_channels'], arch['stem_kernel']
        self.stem = ConvModule(3, before, kernel, stride=2, padding=kernel // 2, **cfg)
        self.layers = nn.Sequential()
        for i, channels in enumerate(arch['channels']):
            total_stride = min(2 ** (i + 1), output_stride)
            stride = 1 if i == 0 or 2 ** (i + 1) > output_stride else 2
            blocks = [InvertedResidual(before, channels, stride, with_cp)]
            if i == 1:
                blocks += [InvertedResidual(channels, channels, 1, with_cp) for _ in range(2)]
            elif i > 1:
                unit = LocalGlobalUnit(
                    channels,
                    arch['inner_channels'][i - 2],
                    arch['depths'][i - 2],
                    arch['fusion'],
                    ffn_channels=arch['ffn_channels'][i - 2],
                    kernel_size=padded_resolution(img_size, total_stride),
                    with_cp=with_cp,
                    resize=resize,
                    backend=backend,
                )
                blocks.append(unit)
            self.layers.append(nn.Sequential(*blocks))
            before = channels
        self.conv_1x1_exp = ConvModule(before, min(4 * before, 960), 1, **cfg)
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs = []
        x = self.stem(x)
        parts = [*self.layers, self.conv_1x1_exp]
        for i, part in enumerate(parts[: max(self.out_indices) + 1]):
            x = part(x)
            if i in self.out_indices:
                outputs.append(x)
        return tuple(outputs)

    def train(self, mode: bool = True) -> 'ParCNet':
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
                    module.eval()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """See :func:`layer_depth`: the stem, layers 1 to 5, and the final 1x1 convolution."""
        layers = [f'layers.{i}.' for i in range(len(self.layers))]
        return layer_depth(['stem.', *layers, 'conv_1x1_exp.'], param_name, prefix)

    def _freeze(self) -> None:
        """Freeze the chosen stages, and what no output depends on."""
        last = max(self.out_indices)
        for i, part in enumerate([self.stem, *self.layers, self.conv_1x1_exp]):
            if i <= self.frozen_stages:
                part.eval()
            if i <= self.frozen_stages or i - 1 > last:
                part.requires_grad_(False)

    @classmethod
    def _check_arch(cls, arch: str | dict) -> dict:
        if isinstance(arch, str):
            if arch.lower() not in cls.arch_settings:
                raise ValueError(f'arch must be one of {list(cls.arch_settings)}, got {arch!r}')
            return cls.arch_settings[arch.lower()]
        known = cls.arch_settings['s']
        if set(arch) != set(known):
            raise ValueError(f'arch must have the keys {list(known)}, got {list(arch)}')
        for key, value in known.items():
            if isinstance(value, list) and len(arch[key]) != len(value):
                raise ValueError(f'{key} of arch needs {len(value)} numbers, got {arch[key]}')
        return dict(arch)

    @staticmethod
    def _check_indices(out_indices: int | Sequence[int]) -> tuple[int, ...]:
        indices = [out_indices] if isinstance(out_indices, int) else out_indices
        if not indices or any(i not in range(-6, 6) for i in indices):
            raise ValueError(f'out_indices must be from 0 to 5, or -6 to -1, got {out_indices}')
        return tuple(i % 6 for i in indices)
