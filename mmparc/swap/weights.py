"""The settings that a config chose for the weights that its backbone starts from."""

from mmengine.config import ConfigDict
from mmengine.registry import MODELS

from mmparc.engine.config import datasets_of, named_nodes
from mmparc.engine.layer_decay import DEFAULTS

from .change import Key, Swap, listed, lookup
from .features import accepts

# Upstream's, each for a few backbones: mmseg's two, mmdet's and mmpretrain's.
LAYER_DECAYS = (
    'LayerDecayOptimizerConstructor',
    'LearningRateDecayOptimizerConstructor',
    'LearningRateDecayOptimWrapperConstructor',
)


def set_backbone(swap: Swap) -> None:
    """Put the new backbone in, with the norms and the freezing that suit its first weights."""
    old, settings = swap.old_settings, swap.settings.copy()
    norm = (old.get('norm_cfg') or {}).get('type')
    if swap.new.batch_norm and norm in ('SyncBN', 'MMSyncBN'):
        settings.norm_cfg = dict(type=norm)
    if old.get('with_cp') and accepts(settings.type, 'with_cp'):
        settings.with_cp = True
    why = f'In place of {swap.old_name}. {_set_start(swap, settings)}'
    if swap.scope == 'mmseg' and swap.new.strides != swap.old.strides:
        strides = f'{listed(swap.new.strides)}, not {listed(swap.old.strides)}'
        why += f' Strides {strides}: the heads resize.'
    swap.set('backbone', value=settings, why=why)
    if swap.get('pretrained'):
        swap.set('pretrained', value=None, why=f'before: {swap.get("pretrained")}')
    if swap.new.unused:
        why = f'{swap.name} has parameters behind the last of these outputs'
        swap.set_in_config(('find_unused_parameters',), True, why)


def _set_start(swap: Swap, settings: ConfigDict) -> str:
    """Set the checkpoint and what keeps its weights as they are; describe both."""
    old, before = swap.old_settings, _old_start(swap)
    frozen, fixed = max(old.get('frozen_stages', -1), 0), bool(old.get('norm_eval'))
    if swap.pretrained:
        settings.init_cfg = dict(type='Pretrained', checkpoint=swap.pretrained, prefix='backbone.')
        if swap.pretrained.startswith('torchvision://'):  # not a classifier of mmpretrain's
            del settings.init_cfg['prefix']
        if frozen:  # the stem and so many stages
            values = swap.fragment.frozen_stages
            settings.frozen_stages = values[min(frozen, len(values)) - 1]
        if fixed and swap.new.batch_norm and accepts(settings.type, 'norm_eval'):
            settings.norm_eval = True
        return f"A classifier's weights, not {before or 'random ones'}."
    words = 'From random weights' + (f', not {before}' if before else '')
    held = [f'frozen_stages={frozen}'] * bool(frozen) + ['norm_eval=True'] * fixed
    if held:
        words += f', so nothing is held fixed (before: {", ".join(held)})'
    return f"{words}. To start from a classifier's: swap_backbone's --pretrained."


def _old_start(swap: Swap) -> str | None:
    """The checkpoint that the old backbone started from."""
    rules = _rules(swap.old_settings.get('init_cfg'))
    start = next((rule['checkpoint'] for rule in rules if 'checkpoint' in rule), None)
    return start or swap.old_settings.get('pretrained') or swap.get('pretrained')


def _rules(init_cfg: dict | list[dict] | None) -> list[dict]:
    return [init_cfg] if isinstance(init_cfg, dict) else list(init_cfg or [])


def set_statistics_and_rates(swap: Swap) -> None:
    """Adapt the normalization of images, a whole checkpoint and the learning rates."""
    cfg = swap.cfg
    whole = f'weights of the model with {swap.old_name}'
    if cfg.get('load_from'):
        swap.set_in_config(('load_from',), None, whole)
    models: list[Key] = list(dict.fromkeys([('model',), swap.key]))
    for key in models:
        rules = _rules(lookup(cfg, (*key, 'init_cfg')))
        kept = [rule for rule in rules if rule['type'] != 'Pretrained']
        if kept != rules:
            swap.set_in_config((*key, 'init_cfg'), kept or None, whole)
    pipelines = [data.get('pipeline') or [] for data in datasets_of(cfg.get('train_dataloader'))]
    in_pipeline = any(step['type'] == 'Normalize' for steps in pipelines for step in steps)
    # mmpretrain's classifiers train the backbone on the images as they are.
    if swap.scope != 'mmpretrain' and not in_pipeline:
        for key in models:
            preprocessor = lookup(cfg, (*key, 'data_preprocessor'))
            for name, node in named_nodes('.'.join([*key, 'data_preprocessor']), preprocessor):
                if name.endswith('data_preprocessor') and 'data_preprocessor' not in node:
                    _set_statistics(swap, tuple(name.split('.')), node)
    wrapper = cfg.get('optim_wrapper') or {}
    if str(wrapper.get('constructor')).rpartition('.')[2] in LAYER_DECAYS:
        _set_layer_decay(swap, wrapper)
    elif not swap.pretrained:
        _set_rates(swap, (wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {})


def _set_statistics(swap: Swap, key: Key, node: ConfigDict) -> None:
    images = dict(swap.fragment.images)
    stacked = max(len(node.get('mean') or ()) // 3, 1)  # images in one input: LEVIR has two
    images |= {name: images[name] * stacked for name in ('mean', 'std')}
    images['to_rgb' if 'to_rgb' in node else 'bgr_to_rgb'] = images.pop('rgb')
    for name, value in {**images, 'rgb_to_bgr': False}.items():
        before = node.get(name, None if name in ('mean', 'std') else False)
        if (list(before) if isinstance(before, tuple) else before) != value:
            why = f"for the images of {swap.name}'s classifier; {before} before"
            swap.set_in_config((*key, name), value, why)


def _set_rates(swap: Swap, custom: ConfigDict) -> None:
    """Train all of a backbone without weights at the full rate."""
    slow = [k for k, v in custom.items() if k.startswith('backbone') and v.get('lr_mult', 1) < 1]
    if slow:
        # 'backbone.norm' and the like mean parameters of the old one
        value = {k: v for k, v in custom.items() if k not in slow or k == 'backbone'}
        if 'backbone' in slow:
            value['backbone'] = {**custom['backbone'], 'lr_mult': 1.0}
        why = f'{", ".join(slow)}: {custom[slow[0]].lr_mult} of the rate before'
        swap.set_in_config(('optim_wrapper', 'paramwise_cfg', 'custom_keys'), value, why)


def _set_layer_decay(swap: Swap, wrapper: ConfigDict) -> None:
    """Layer-wise decay by the new backbone's own layers, at the old rate."""
    settings = wrapper.get('paramwise_cfg') or {}
    if hasattr(MODELS.get(swap.settings.type), 'get_layer_depth'):
        name = 'mmparc.LayerDecayOptimWrapperConstructor'
        own = ('decay_rate', 'decay_type', 'num_layers')
        paramwise = {k: v for k, v in settings.items() if k in DEFAULTS and k not in own}
        paramwise['decay_rate'] = settings.get('decay_rate') or settings.get('layer_decay_rate')
        why = f"{swap.name}'s own layers; {wrapper.constructor} before"
    else:
        name, paramwise = 'DefaultOptimWrapperConstructor', None
        why = f'{swap.name} has no get_layer_depth: one rate for all layers'
    before = dict(settings)
    swap.set_in_config(('optim_wrapper', 'constructor'), name, why)
    swap.set_in_config(('optim_wrapper', 'paramwise_cfg'), paramwise, f'before: {before}')
