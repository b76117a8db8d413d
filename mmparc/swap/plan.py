"""What changes in a config when its backbone does.

Two rules. The new backbone has as many outputs as the old one, of the same strides, so that
necks and heads change their input channels and nothing else (follow.py). And whatever was chosen
for the old backbone's weights goes with these weights (weights.py).
"""

import copy
import math
from itertools import pairwise

from mmengine.config import Config, ConfigDict

from mmparc.engine import UserError
from mmparc.engine.config import TASKS
from mmparc.engine.errors import first_line

from . import follow, weights
from .change import Key, Swap, listed, lookup, short_name
from .features import Features, accepts, features_of
from .fragments import STRIDES, Fragment, load_fragment


def swap_backbone(cfg: Config, backbone: str, pretrained: str | None = None) -> Config:
    """A copy of ``cfg`` with another backbone, and with the changes that follow.

    Args:
        cfg: a config of mmpretrain, mmdet or mmseg.
        backbone: one of :func:`mmparc.swap.backbone_names`, such as 'parc-resnet50'.
        pretrained: the checkpoint of a classifier with this backbone; without one the backbone
            starts from random weights, and nothing of it is frozen.

    Raises:
        UserError: if there is no such backbone, or the model cannot take it.
    """
    return plan_swap(cfg, backbone, pretrained).cfg


def plan_swap(cfg: Config, backbone: str, pretrained: str | None = None) -> Swap:
    """As :func:`swap_backbone`, with the reason of each change."""
    if not isinstance(cfg, Config) or cfg.get('default_scope') not in TASKS or 'model' not in cfg:
        raise UserError(
            'swap_backbone takes a config with a model and a default_scope, '
            "such as mmparc.engine.load_config('mmdet::...')"
        )
    fragment = load_fragment(backbone)
    key, scope = _model_key(cfg), cfg.default_scope
    old_settings = lookup(cfg, (*key, 'backbone'))
    old = _run(old_settings, scope, "the config's own backbone", backward=False)
    if old.in_training != len(old.outputs):
        raise UserError(
            f'{short_name(old_settings)} has {old.in_training} outputs in training and '
            f'{len(old.outputs)} in testing, {backbone} has the same in both: take a config whose '
            'backbone has, too'
        )
    neck = lookup(cfg, (*key, 'neck'))
    for_vector = old.strides == [None] or (len(old.outputs) == 1 and follow.is_pooling(neck))
    if for_vector:
        settings = _with_inputs(fragment.settings, backbone, old_settings)
    else:
        settings = _with_strides(fragment, backbone, old_settings, old.strides, scope)
    new = _run(settings, scope, backbone, backward=True)
    swap = Swap(
        copy.deepcopy(cfg), key, backbone, fragment, pretrained, old_settings, old, settings, new
    )
    weights.set_backbone(swap)
    if for_vector:
        follow.set_pooling(swap)
    follow.set_channels(swap)
    weights.set_statistics_and_rates(swap)
    return swap


def _model_key(cfg: Config) -> Key:
    """The key of the model that has the backbone: trackers hold a detector."""
    if not isinstance(cfg.model.get('type'), str):
        raise UserError('this is a config in pure Python style: pass one whose types are names')
    for key in (('model',), ('model', 'detector')):
        backbone = (lookup(cfg, key) or {}).get('backbone')
        if isinstance(backbone, dict) and 'type' in backbone:
            return key
    raise UserError(f'{cfg.model.type} has no backbone to replace (model.backbone)')


def _run(backbone: dict, scope: str, what: str, backward: bool) -> Features:
    try:
        return features_of(backbone, scope, backward)
    except Exception as error:  # another project's backbone may raise anything
        raise UserError(
            f'{what} ({short_name(backbone)}) cannot be run on an image to see its outputs: '
            f'{first_line(error)}'
        ) from error


def _with_strides(
    fragment: Fragment, name: str, old: ConfigDict, needed: list[int | None], scope: str
) -> ConfigDict:
    """The fragment's settings with outputs of the strides that the model needs."""
    settings, strides = _with_inputs(fragment.for_maps, name, old), fragment.strides
    if accepts(settings.type, 'gap_before_final_norm'):  # ConvNeXt would pool its last map
        settings.gap_before_final_norm = False
    dilated = _dilated_stages(old, needed)
    if dilated and accepts(settings.type, 'dilations'):
        settings.strides = [b // a for a, b in pairwise([4, *dilated])]
        settings.dilations = [whole // kept for whole, kept in zip(STRIDES, dilated)]
        whole = len(needed) == len(STRIDES)
        settings.out_indices = list(fragment.out_indices if whole else old.get('out_indices', [3]))
    elif set(needed) <= set(strides) and len(set(needed)) == len(needed):
        settings.out_indices = [fragment.out_indices[strides.index(s)] for s in needed]
    elif len(strides) == 1 and set(needed) == set(strides):  # a ViT's blocks at equal distances
        blocks = fragment.out_indices[0] + 1
        settings.out_indices = [blocks * (i + 1) // len(needed) - 1 for i in range(len(needed))]
    elif dilated and strides == STRIDES and scope == 'mmseg':  # whose heads resize their inputs
        settings.out_indices = list(fragment.out_indices)
    else:
        what = 'vectors' if None in needed else f'maps of stride {listed(needed)}'
        raise UserError(
            f'the model takes {what} from {short_name(old)}, {name} has maps of stride '
            f'{listed(strides)}: take a config whose necks and heads work on some of those'
        )
    return settings


def _with_inputs(settings: ConfigDict, name: str, old: ConfigDict) -> ConfigDict:
    """A copy of the settings with the old backbone's number of input channels."""
    settings, channels = settings.copy(), old.get('in_channels', 3)
    if channels != 3:
        if not accepts(settings.type, 'in_channels'):
            raise UserError(f'the images have {channels} channels, {name} takes 3')
        settings.in_channels = channels
    return settings


def _dilated_stages(old: ConfigDict, needed: list[int | None]) -> list[int] | None:
    """The strides of a dilated backbone's four stages, such as 4, 8, 8 and 8."""
    steps = old.get('strides', ())
    if 'depth' in old and len(steps) == 4:  # a ResNet, of which the last stage alone may be used
        strides = [4 * math.prod(steps[: i + 1]) for i in range(4)]
    else:
        strides = needed
    if len(strides) != 4 or None in strides or tuple(strides) == STRIDES or strides[0] != 4:
        return None
    return strides if all(b in (a, 2 * a) for a, b in pairwise(strides)) else None
