"""Names and configs of the published ParC-ConvNeXt code."""

from mmparc.models import ParCConvNeXt

from .family import Family, StateDict, by_pattern, read_stages, size_of

STRIDES = (4, 8, 16, 32)
_BLOCK_OF = by_pattern(r'stages\.(\d+)\.(\d+)\.', first=0)
_RULES = (
    (r'^head\.fc\.', 'head.'),
    (r'^backbone\.norm3\.', 'norm.'),
    (r'^backbone\.', ''),
    (r'\.depthwise_conv\.conv_([hw])\.pos_embed$', lambda m: f'.gcc_{m[1].upper()}.pe'),
    (r'\.depthwise_conv\.conv_([hw])\.', lambda m: f'.gcc_{m[1].upper()}.gcc_conv.'),
    (r'\.depthwise_conv\.', '.dwconv.'),
    (r'\.pointwise_conv', '.pwconv'),
)


def backbone_config(state_dict: StateDict) -> dict:
    stages = read_stages(state_dict, _BLOCK_OF)
    arch = dict(
        depths=list(stages.depths),
        channels=[
            size_of(state_dict, f'stages.{stage}.0.norm.weight', 0)
            for stage in range(len(stages.depths))
        ],
    )
    settings = ParCConvNeXt.arch_settings.items()
    name = next((name for name, setting in settings if setting == arch), arch)
    return dict(type='mmparc.ParCConvNeXt', arch=name, **stages.placement(STRIDES))


FAMILY = Family(backbone_config, _RULES)
