"""Names and configs of the published ParC-Net code."""

from mmparc.models import ParCNet

from .family import Family, StateDict, by_pattern, read_stages, size_of

# Its state dict holds these parameters a second time, under names that begin with the first.
COPIES = {'residual.': 'layer_5.0.'}
STRIDES = (8, 16, 32)  # of layers 3 to 5, the stages that have ParC blocks
# A norm follows the blocks, under the number after theirs.
_BLOCK_OF = by_pattern(
    r'layer_([345])\.1\.spatial_global_rep\.(\d+)\.(?:meta|pre_Norm|ffn|ca)', first=3
)
_RULES = (
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


def backbone_config(state_dict: StateDict) -> dict:
    stages = read_stages(state_dict, _BLOCK_OF)

    def widths(names: str, layers: str) -> list[int]:
        return [size_of(state_dict, names.format(layer), 0) for layer in layers]

    stem = 'conv_1.block.conv.weight'
    channels = widths('layer_{}.0.block.red_1x1.block.conv.weight', '12345')
    fused = size_of(state_dict, 'layer_3.1.local_global_fusion.block.conv.weight', 1)
    arch = dict(
        stem_kernel=size_of(state_dict, stem, 2),
        stem_channels=size_of(state_dict, stem, 0),
        channels=channels,
        inner_channels=widths('layer_{}.1.dim_adaptive.1.block.conv.weight', '345'),
        depths=list(stages.depths),
        ffn_channels=widths('layer_{}.1.spatial_global_rep.0.ffn.1.weight', '345'),
        fusion='sum' if fused == channels[2] else 'concat',
    )
    settings = ParCNet.arch_settings.items()
    name = next((name for name, setting in settings if setting == arch), arch)
    return dict(type='mmparc.ParCNet', arch=name, **stages.img_size(STRIDES))


FAMILY = Family(backbone_config, _RULES, COPIES)
