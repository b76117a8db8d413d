"""The state dicts of the ParC-Net authors' code: which backbone they fit, and its names in theirs.

Their kernels are (C, 1, K, 1) or (C, 1, 1, K), their embeddings (1, C, K, 1) or (1, C, 1, K).
"""

import re
from collections.abc import Callable

from torch import Tensor

from mmparc.models.backbones import ParCNet

# Their state dict holds these parameters a second time, under names that begin with the first.
COPIES = {'residual.': 'layer_5.0.'}

_RENAMES: tuple[tuple[str, str | Callable[[re.Match], str]], ...] = (
    (r'^head\.', 'classifier.'),
    (r'^backbone\.', ''),
    (r'^stem\.', 'conv_1.'),
    (r'^layers\.(\d)\.', lambda match: f'layer_{int(match[1]) + 1}.'),
    (r'\.conv\.0\.', '.block.exp_1x1.'),
    (r'\.conv\.1\.', '.block.conv_3x3.'),
    (r'\.conv\.2\.', '.block.red_1x1.'),
    (r'\.local_rep\.1\.', '.dim_adaptive.1.conv.'),
    (r'\.local_rep\.', '.dim_adaptive.'),
    (r'\.global_rep\.', '.spatial_global_rep.'),
    (r'\.conv_proj\.', '.channel_adaptive.'),
    (r'\.conv_fusion\.', '.local_global_fusion.'),
    # the number of a kernel and an embedding is the step's, that of a norm the half's
    (r'\.half1\.pos_embed$', '.meta_pe_1_H'),
    (r'\.half1\.conv1\.weight$', '.meta_kernel_1_H'),
    (r'\.half1\.conv2\.pos_embed$', '.meta_pe_2_W'),
    (r'\.half1\.conv2\.weight$', '.meta_kernel_2_W'),
    (r'\.half2\.pos_embed$', '.meta_pe_1_W'),
    (r'\.half2\.conv1\.weight$', '.meta_kernel_1_W'),
    (r'\.half2\.conv2\.pos_embed$', '.meta_pe_2_H'),
    (r'\.half2\.conv2\.weight$', '.meta_kernel_2_H'),
    (r'\.half([12])\.norm\.', r'.pre_Norm_\1.'),
    (r'\.ffn\.3\.', '.ffn.4.'),
    (r'\.attention\.fc\.0\.conv\.', '.ca.fc.0.'),
    (r'\.attention\.fc\.0\.bn\.', '.ca.fc.1.'),
    (r'\.attention\.fc\.1\.conv\.', '.ca.fc.3.'),
    (r'\.attention\.fc\.1\.bn\.', '.ca.fc.4.'),
    (r'\.conv\.weight$', '.block.conv.weight'),
    (r'\.bn\.', '.block.norm.'),
)


def official_name(name: str) -> str:
    """The authors' name of a parameter or buffer of our ImageClassifier ('backbone.', 'head.')."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def backbone_config(state_dict: dict[str, Tensor]) -> dict:
    """The config of the ParCNet that a state dict of the authors' code fits.

    Args:
        state_dict: by their names; only shapes are read.

    Returns:
        A dict of type, arch and img_size; arch is a dict where the widths are none of the published
        ones, img_size a number where height and width agree.

    Raises:
        ValueError: if a parameter that tells the architecture is missing.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in state_dict:
            raise ValueError(f'not a state dict of ParC-Net: {name} is missing')
        return tuple(state_dict[name].shape)

    units = [f'layer_{i}.1.' for i in (3, 4, 5)]
    channels = [shape(f'layer_{i}.0.block.red_1x1.block.conv.weight')[0] for i in range(1, 6)]
    stem_channels, _, stem_kernel, _ = shape('conv_1.block.conv.weight')
    fused = shape(f'{units[0]}local_global_fusion.block.conv.weight')[1]
    arch = dict(
        stem_kernel=stem_kernel,
        stem_channels=stem_channels,
        channels=channels,
        inner_channels=[shape(f'{unit}dim_adaptive.1.block.conv.weight')[0] for unit in units],
        depths=[
            sum(name.startswith(unit) and name.endswith('.meta_kernel_1_H') for name in state_dict)
            for unit in units
        ],
        ffn_channels=[shape(f'{unit}spatial_global_rep.0.ffn.1.weight')[0] for unit in units],
        fusion='sum' if fused == channels[2] else 'concat',
    )
    named = [name for name, settings in ParCNet.arch_settings.items() if settings == arch]
    # layer 3 has stride 8
    height = 8 * shape(f'{units[0]}spatial_global_rep.0.meta_kernel_1_H')[2]
    width = 8 * shape(f'{units[0]}spatial_global_rep.0.meta_kernel_1_W')[3]
    return dict(
        type='mmparc.ParCNet',
        arch=named[0] if named else arch,
        img_size=height if height == width else (height, width),
    )
