"""Names and configs of the published ParC-ResNet code, whose plain parts are torchvision's."""

from mmpretrain.models.backbones.resnet import Bottleneck

from mmparc.models import ParCResNet

from .family import Family, StateDict, by_pattern, read_stages

STRIDES = (4, 8, 16, 32)
_BLOCK_OF = by_pattern(r'layer(\d+)\.(\d+)\.', first=1)
_RULES = (
    (r'^head\.fc\.', 'fc.'),
    (r'^backbone\.', ''),
    (r'\.conv2\.conv_([hw])\.pos_embed$', lambda m: f'.parc_{m[1].upper()}.pe'),
    (r'\.conv2\.conv_([hw])\.', lambda m: f'.parc_{m[1].upper()}.gcc_conv.'),
)


def backbone_config(state_dict: StateDict) -> dict:
    stages = read_stages(state_dict, _BLOCK_OF)
    bottleneck = any('.conv3.' in name for name in state_dict)
    for depth, (block, depths) in ParCResNet.arch_settings.items():
        if depths == stages.depths and (block is Bottleneck) is bottleneck:
            return dict(type='mmparc.ParCResNet', depth=depth, **stages.placement(STRIDES))
    raise ValueError(f'{stages.depths} blocks are those of no ResNet here')


FAMILY = Family(backbone_config, _RULES)
