"""Names and configs of the published ParC-MobileNetV2 code, whose plain parts are torchvision's.

The reference numbers stem, blocks and the final 1x1 through (`features.0` to `features.18`), and
gives the convolutions of a ParC block other names than those of a plain one.
"""

import re
from collections.abc import Iterable
from itertools import accumulate

from mmparc.models import ParCMobileNetV2

from .family import Family, StateDict, read_stages, renamed, size_of

_SETTINGS = ParCMobileNetV2.arch_settings  # expansion, channels, depth, stride of each stage
STRIDES = tuple(accumulate((stride for *_, stride in _SETTINGS), int.__mul__, initial=2))[1:]
# (stage, block) in the order of the reference's features.1 and on
_BLOCKS = [(stage, i) for stage, (_, _, depth, _) in enumerate(_SETTINGS) for i in range(depth)]
_DEPTHS = tuple(depth for _, _, depth, _ in _SETTINGS)
_UNEXPANDED = {f'layer{s + 1}.{i}' for s, i in _BLOCKS if i == 0 and _SETTINGS[s][0] == 1}
_FEATURES = {f'layer{s + 1}.{i}': f'features.{n}' for n, (s, i) in enumerate(_BLOCKS, 1)}
_FEATURES.update(conv1='features.0', conv2=f'features.{len(_BLOCKS) + 1}')

_OUTSIDE = ((r'^conv\.', '0.'), (r'^bn\.', '1.'))
_PARC_BLOCK = (
    (r'^conv\.0\.conv\.', 'pw_expand.0.'),
    (r'^conv\.0\.bn\.', 'pw_expand.1.'),
    (r'^conv\.1\.conv\.conv_([hw])\.pos_embed$', lambda m: f'gcc_{m[1].upper()}.pe'),
    (r'^conv\.1\.conv\.conv_([hw])\.', lambda m: f'gcc_{m[1].upper()}.gcc_conv.'),
    (r'^conv\.1\.bn\.', 'bn.'),
    (r'^conv\.2\.conv\.', 'pw_linear.0.'),
    (r'^conv\.2\.bn\.', 'pw_linear.1.'),
)
# The last convolution and its norm are not a pair of their own in torchvision.
_BLOCK = (
    (r'^conv\.2\.conv\.', 'conv.2.'),
    (r'^conv\.2\.bn\.', 'conv.3.'),
    (r'^(conv\.[01])\.conv\.', r'\1.0.'),
    (r'^(conv\.[01])\.bn\.', r'\1.1.'),
)
_BLOCK_WITHOUT_EXPANSION = (
    (r'^conv\.1\.conv\.', 'conv.1.'),
    (r'^conv\.1\.bn\.', 'conv.2.'),
    (r'^conv\.0\.conv\.', 'conv.0.0.'),
    (r'^conv\.0\.bn\.', 'conv.0.1.'),
)


def backbone_config(state_dict: StateDict) -> dict:
    stages = read_stages(state_dict, _block_of)
    if stages.depths != _DEPTHS:
        raise ValueError(f'it has {stages.depths} blocks, not {_DEPTHS}')
    # The last stage's width is a multiple of 8 for the usual factors, so nothing was rounded.
    width = size_of(state_dict, f'features.{len(_BLOCKS) + 1}.0.weight', 1) / _SETTINGS[-1][1]
    return dict(type='mmparc.ParCMobileNetV2', widen_factor=width, **stages.placement(STRIDES))


def _block_of(name: str) -> tuple[int, int] | None:
    match = re.match(r'features\.(\d+)\.', name)
    return _BLOCKS[int(match[1]) - 1] if match and 0 < int(match[1]) <= len(_BLOCKS) else None


class MobileNetV2Family(Family):
    """A block's names depend on whether it has ParC, so all names are needed."""

    def official_names(self, names: Iterable[str]) -> dict[str, str]:
        names = list(names)
        parc = {
            m[1]
            for name in names
            if (m := re.match(r'backbone\.(layer\d+\.\d+)\..*\.conv_h\.', name))
        }
        if parc & _UNEXPANDED:
            first = min(parc & _UNEXPANDED)
            raise ValueError(f"the published code has no ParC in '{first}', which does not expand")
        official = {}
        for name in names:
            match = re.match(r'backbone\.(conv\d|layer\d+\.\d+)\.(.+)', name)
            if match is None or match[1] not in _FEATURES:
                official[name] = renamed(name, self.rules)
                continue
            part, rest = match.groups()
            if part in parc:
                rules = _PARC_BLOCK
            elif part.startswith('conv'):
                rules = _OUTSIDE
            else:
                rules = _BLOCK_WITHOUT_EXPANSION if part in _UNEXPANDED else _BLOCK
            official[name] = f'{_FEATURES[part]}.{renamed(rest, rules)}'
        return official


FAMILY = MobileNetV2Family(backbone_config, ((r'^head\.fc\.', 'classifier.1.'),))
