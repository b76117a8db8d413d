"""The four families of published models: their parameters' names, and how to read their configs.

Plain parts of ResNet and MobileNetV2 have torchvision's names. A config follows from the shapes in
a reference state dict.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from mmpretrain.models.backbones.resnet import Bottleneck
from torch import Tensor

from mmparc.models import ParCConvNeXt, ParCMobileNetV2, ParCNet, ParCResNet

StateDict = Mapping[str, Tensor]
# Patterns and replacements of ``re.sub``, in order.
Rules = Sequence[tuple[str, str | Callable[[re.Match], str]]]

# The published code names what belongs to one axis ..._H or ..._W, with or without more behind it.
_AXIS = re.compile(r'_([HW])(\.|$)')


@dataclass(frozen=True)
class Family:
    """How the checkpoints of one family of models are read and written.

    Args:
        backbone_config: from a reference state dict to the config of mmparc's backbone; raises
            ValueError where it cannot be read.
        rules: from our names ('backbone.', 'head.fc.') to the reference's; a function of all names
            where a name depends on others.
        copies: prefixes under which the reference's state dict holds a second copy of a module,
            to the module's own prefix.
    """

    backbone_config: Callable[[StateDict], dict]
    rules: Rules | Callable[[Iterable[str]], Rules]
    copies: Mapping[str, str] = field(default_factory=dict)

    def official_names(self, names: Iterable[str]) -> dict[str, str]:
        """From each of our parameters' names to the reference's."""
        rules = self.rules(names) if callable(self.rules) else self.rules
        official = {}
        for name in names:
            official[name] = name
            for pattern, replacement in rules:
                official[name] = re.sub(pattern, replacement, official[name])
        return official


def axis_of(official_name: str) -> str | None:
    """'H' or 'W' for a ParC kernel, bias or embedding of the reference, else None."""
    match = _AXIS.search(official_name)
    return match and match[1]


def _mixer(ours: str, official: str) -> Rules:
    """The rules for a mixer's two layers."""
    return (
        (rf'{ours}\.conv_([hw])\.pos_embed$', lambda m: f'{official}_{m[1].upper()}.pe'),
        (rf'{ours}\.conv_([hw])\.', lambda m: f'{official}_{m[1].upper()}.gcc_conv.'),
    )


class Stages(NamedTuple):
    """The depth of each stage, the index of its first ParC block (or the depth), and ``img_size``.

    Several sizes give the same kernels: this is the multiple of the first ParC stage's stride.
    Without a kernel it is left to the backbone's default.
    """

    depths: tuple[int, ...]
    parc_starts: tuple[int, ...]
    img_size: dict[str, int | tuple[int, int]]

    def placement(self) -> dict:
        return dict(parc_starts=self.parc_starts, **self.img_size)


def _read_stages(state_dict: StateDict, pattern: str, first: int, strides: Sequence[int]) -> Stages:
    """Read depths and ParC blocks.

    Args:
        state_dict: of the reference.
        pattern: of the names in blocks; its groups are the stage, from ``first``, and the block.
        first: the number of the first stage.
        strides: the total stride of each stage.

    Raises:
        ValueError: if a stage before the last has no block.
    """
    blocks: dict[int, set[int]] = {}
    parc: dict[int, set[int]] = {}
    kernels: dict[int, dict[str, int]] = {}
    for name, value in state_dict.items():
        if not (match := re.match(pattern, name)):
            continue
        stage, block = int(match[1]) - first, int(match[2])
        blocks.setdefault(stage, set()).add(block)
        if axis := axis_of(name):
            parc.setdefault(stage, set()).add(block)
            if value.dim() == 4:  # a kernel or an embedding, whose last two sizes are K and 1
                kernels.setdefault(stage, {}).setdefault(axis, math.prod(value.shape[2:]))
    if not blocks or set(blocks) != set(range(max(blocks) + 1)):
        raise ValueError('it has no such blocks' if not blocks else 'a stage has no blocks')
    depths = tuple(max(blocks[stage]) + 1 for stage in sorted(blocks))
    parc_starts = tuple(min(parc.get(stage, {depth})) for stage, depth in enumerate(depths))
    img_size = {}
    if kernels:
        stage = min(kernels)
        found = kernels[stage]
        height = found.get('H', found.get('W')) * strides[stage]
        width = found.get('W', found.get('H')) * strides[stage]
        img_size['img_size'] = height if height == width else (height, width)
    return Stages(depths, parc_starts, img_size)


def _size_of(state_dict: StateDict, name: str, axis: int) -> int:
    """One size of the tensor of that name; ValueError if there is none."""
    if name not in state_dict or state_dict[name].dim() <= axis:
        raise ValueError(f"it has no '{name}', which shows its widths")
    return state_dict[name].shape[axis]


def _named(arch: dict, settings: Mapping[str, dict]) -> str | dict:
    """An architecture's name, or itself where it has none."""
    return next((name for name, setting in settings.items() if setting == arch), arch)


def _convnext_config(state_dict: StateDict) -> dict:
    stages = _read_stages(state_dict, r'stages\.(\d+)\.(\d+)\.', 0, (4, 8, 16, 32))
    norms = [f'stages.{stage}.0.norm.weight' for stage in range(len(stages.depths))]
    channels = [_size_of(state_dict, norm, 0) for norm in norms]
    arch = _named(dict(depths=list(stages.depths), channels=channels), ParCConvNeXt.arch_settings)
    return dict(type='mmparc.ParCConvNeXt', arch=arch, **stages.placement())


def _resnet_config(state_dict: StateDict) -> dict:
    stages = _read_stages(state_dict, r'layer(\d+)\.(\d+)\.', 1, (4, 8, 16, 32))
    bottleneck = any('.conv3.' in name for name in state_dict)
    for depth, (block, depths) in ParCResNet.arch_settings.items():
        if depths == stages.depths and (block is Bottleneck) is bottleneck:
            return dict(type='mmparc.ParCResNet', depth=depth, **stages.placement())
    raise ValueError(f'{stages.depths} blocks are those of no ResNet here')


# MobileNetV2's reference numbers stem, blocks and the final 1x1 through: features.0 to features.18.
_MOBILENETV2 = ParCMobileNetV2.arch_settings  # expansion, channels, depth, stride of each stage
_DEPTHS = tuple(depth for _, _, depth, _ in _MOBILENETV2)
_BLOCKS = [(stage, i) for stage, depth in enumerate(_DEPTHS) for i in range(depth)]
_LAST = f'features.{len(_BLOCKS) + 1}'
# In a ParC block convolutions have other names than in a plain one, where the last convolution and
# its norm are no pair of their own.
_PARC_BLOCK = {
    **{'0.conv': 'pw_expand.0', '0.bn': 'pw_expand.1', '1.bn': 'bn'},
    **{'2.conv': 'pw_linear.0', '2.bn': 'pw_linear.1'},
}
_BLOCK = {
    **{'0.conv': 'conv.0.0', '0.bn': 'conv.0.1', '1.conv': 'conv.1.0', '1.bn': 'conv.1.1'},
    **{'2.conv': 'conv.2', '2.bn': 'conv.3'},
}
_UNEXPANDED = {'0.conv': 'conv.0.0', '0.bn': 'conv.0.1', '1.conv': 'conv.1', '1.bn': 'conv.2'}


def _mobilenetv2_config(state_dict: StateDict) -> dict:
    blocks = {f'features.{n}': f'{stage}.{i}' for n, (stage, i) in enumerate(_BLOCKS, 1)}
    parts = {name: re.match(r'(features\.\d+)?', name)[0] for name in state_dict}
    named = {
        blocks[part] + name.removeprefix(part): state_dict[name]
        for name, part in parts.items()
        if part in blocks
    }
    strides = list(accumulate((stride for *_, stride in _MOBILENETV2), int.__mul__, initial=2))
    stages = _read_stages(named, r'(\d)\.(\d)\.', 0, strides[1:])
    if stages.depths != _DEPTHS:
        raise ValueError(f'it has {stages.depths} blocks, not {_DEPTHS}')
    # The last stage's width is a multiple of 8 for the usual factors, so nothing was rounded.
    width = _size_of(state_dict, f'{_LAST}.0.weight', 1) / _MOBILENETV2[-1][1]
    return dict(type='mmparc.ParCMobileNetV2', widen_factor=width, **stages.placement())


def _mobilenetv2_rules(names: Iterable[str]) -> Rules:
    rules = [(r'^head\.fc\.', 'classifier.1.')]
    for ours, official in (('conv1', 'features.0'), ('conv2', _LAST)):
        rules.append((rf'^backbone\.{ours}\.conv\.', f'{official}.0.'))
        rules.append((rf'^backbone\.{ours}\.bn\.', f'{official}.1.'))
    for number, (stage, i) in enumerate(_BLOCKS, 1):
        layer, official = f'layer{stage + 1}.{i}', f'features.{number}'
        ours, table = f'^backbone.{layer}.conv.'.replace('.', r'\.'), _BLOCK
        unexpanded = i == 0 and _MOBILENETV2[stage][0] == 1
        if any(name.startswith(f'backbone.{layer}.') and '.conv_h.' in name for name in names):
            if unexpanded:
                raise ValueError(
                    f"the published code has no ParC in '{layer}', which does not expand"
                )
            rules += _mixer(rf'{ours}1\.conv', f'{official}.gcc')
            table = _PARC_BLOCK
        elif unexpanded:
            table = _UNEXPANDED
        for part, new in table.items():
            rules.append((ours + part.replace('.', r'\.') + r'\.', f'{official}.{new}.'))
    return rules


def _parcnet_config(state_dict: StateDict) -> dict:
    # A norm follows the blocks, under the number after theirs.
    pattern = r'layer_([345])\.1\.spatial_global_rep\.(\d+)\.(?:meta|pre_Norm|ffn|ca)'
    stages = _read_stages(state_dict, pattern, 3, (8, 16, 32))

    def widths(names: str, layers: str) -> list[int]:
        return [_size_of(state_dict, names.format(layer), 0) for layer in layers]

    stem = 'conv_1.block.conv.weight'
    channels = widths('layer_{}.0.block.red_1x1.block.conv.weight', '12345')
    fused = _size_of(state_dict, 'layer_3.1.local_global_fusion.block.conv.weight', 1)
    arch = dict(
        stem_kernel=_size_of(state_dict, stem, 2),
        stem_channels=_size_of(state_dict, stem, 0),
        channels=channels,
        inner_channels=widths('layer_{}.1.dim_adaptive.1.block.conv.weight', '345'),
        depths=list(stages.depths),
        ffn_channels=widths('layer_{}.1.spatial_global_rep.0.ffn.1.weight', '345'),
        fusion='sum' if fused == channels[2] else 'concat',
    )
    return dict(type='mmparc.ParCNet', arch=_named(arch, ParCNet.arch_settings), **stages.img_size)


_PARCNET_RULES = (
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
_CONVNEXT_RULES = (
    (r'^head\.fc\.', 'head.'),
    (r'^backbone\.norm3\.', 'norm.'),
    (r'^backbone\.', ''),
    *_mixer(r'\.depthwise_conv', '.gcc'),
    (r'\.depthwise_conv\.', '.dwconv.'),
    (r'\.pointwise_conv', '.pwconv'),
)
_RESNET_RULES = (
    (r'^head\.fc\.', 'fc.'),
    (r'^backbone\.', ''),
    *_mixer(r'\.conv2', '.parc'),
)
FAMILIES = {
    'parc_convnext': Family(_convnext_config, _CONVNEXT_RULES),
    'parc_resnet': Family(_resnet_config, _RESNET_RULES),
    'parc_mobilenetv2': Family(_mobilenetv2_config, _mobilenetv2_rules),
    'parcnet': Family(_parcnet_config, _PARCNET_RULES, {'residual.': 'layer_5.0.'}),
}
