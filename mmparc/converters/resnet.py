"""Names and configs of the published ParC-ResNet code, whose plain parts are torchvision's."""

import re

from mmpretrain.models.backbones.resnet import Bottleneck

from mmparc.models.backbones import ParCResNet

from .family import StateDict, read_stages, renamed

STRIDES = (4, 8, 16, 32)
_BLOCK = re.compile(r'layer(\d+)\.(\d+)\.')
_RULES = (
    (r'^head\.fc\.', 'fc.'),
    (r'^backbone\.', ''),
    (r'\.conv2\.conv_([hw])\.pos_embed$', lambda m: f'.parc_{m[1].upper()}.pe'),
    (r'\.conv2\.conv_([hw])\.', lambda m: f'.parc_{m[1].upper()}.gcc_conv.'),
)


def backbone_config(state_dict: StateDict) -> dict:
    stages = read_stages(state_dict, _block_of)
    bottleneck = any('.conv3.' in name for name in state_dict)
    for depth, (block, depths) in ParCResNet.arch_settings.items():
        if depths == stages.depths and (block is Bottleneck) is bottleneck:
            return dict(type='mmparc.ParCResNet', depth=depth, **stages.placement(STRIDES))
    raise ValueError(f'{stages.depths} blocks are those of no ResNet here')


def _block_of(name: str) -> tuple[int, int] | None:
    match = _BLOCK.match(name)
    return match and (int(match[1]) - 1, int(match[2]))


def official_name(name: str) -> str:
    return renamed(name, _RULES)
