"""Layer-wise learning-rate decay, compared with upstream's own constructors.

mmdet's and mmseg's constructors take only a ConvNeXt; there each parameter's rate, scale and weight
decay must be the same number.
"""

import copy
import itertools
import math

import pytest
import torch
from helpers import ROOT
from mmdet.engine.optimizers import LearningRateDecayOptimizerConstructor as MmdetConstructor
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.models import ConvNeXt, MobileNetV2, ResNet
from mmseg.engine.optimizers import LearningRateDecayOptimizerConstructor as MmsegConstructor
from torch import nn

from mmparc import engine
from mmparc.engine.layer_decay import LayerDecayOptimWrapperConstructor
from mmparc.models import ParCConvNeXt, ParCMobileNetV2

LR, WEIGHT_DECAY = 3e-4, 0.05
OPTIMIZER = dict(type='AdamW', lr=LR, weight_decay=WEIGHT_DECAY)
# ConvNeXt-T's and ConvNeXt-S's blocks, for which upstream's recipes say 6 and 12 layers
DEPTHS = {6: [3, 3, 9, 3], 12: [3, 3, 27, 3]}
TOY = {
    'mmpretrain': 'cls/convnext/{}convnext-micro_toy.py',
    'mmdet': 'det/convnext/centernet-update_{}convnext-micro_hrfpn_toy.py',
    'mmseg': 'seg/convnext/{}convnext-micro_upernet_toy.py',
}
DECAY_TYPES = ('layer_wise', 'stage_wise')
UPSTREAM = (MmdetConstructor, MmsegConstructor)


class Model(nn.Module):
    """A backbone, and what stands for neck and head, with a parameter of no dimension."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Conv2d(3, 5, 1)
        self.head = nn.ModuleList([nn.GroupNorm(1, 5), nn.Linear(5, 2)])
        self.scale = nn.Parameter(torch.tensor(1.0))


def convnext(cls: type = ConvNeXt, depths=(1, 2, 6, 1), **options) -> nn.Module:
    arch = dict(depths=list(depths), channels=[4, 6, 8, 10])
    pyramid = dict(out_indices=(0, 1, 2, 3), gap_before_final_norm=False)
    return cls(arch, **pyramid, **options)


def resnet(depth: int = 50, cls: type = ResNet) -> nn.Module:
    return cls(depth, stem_channels=4, base_channels=4, out_indices=(0, 1, 2, 3))


def settings_of(model: nn.Module, constructor: type, **paramwise) -> dict[str, tuple]:
    """(lr, scale, weight decay) of every parameter by name, from the optimizer itself."""
    optimizer = constructor(dict(optimizer=OPTIMIZER), paramwise)(model).optimizer
    names = {id(p): name for name, p in model.named_parameters()}
    found = {
        names[id(p)]: (group['lr'], group['lr_scale'], group['weight_decay'])
        for group in optimizer.param_groups
        for p in group['params']
    }
    assert len(found) == sum(len(group['params']) for group in optimizer.param_groups)
    return found


def layers_of(model: nn.Module, number: int, **paramwise) -> dict[str, int]:
    """The layer of every parameter, read off its scale of 0.5 ** (number + 1 - layer)."""
    found = settings_of(model, LayerDecayOptimWrapperConstructor, decay_rate=0.5, **paramwise)
    return {name: number + 1 + round(math.log2(scale)) for name, (_, scale, _) in found.items()}


# On a ConvNeXt, as upstream


@pytest.mark.parametrize(
    'depths, num_layers',
    [*((depths, number) for number, depths in DEPTHS.items()), (DEPTHS[6], 12), ([1, 1, 1, 1], 9)],
    ids=str,
)
def test_as_upstream_on_convnext(depths, num_layers) -> None:
    """Exactly; also with layers that the backbone does not have."""
    model = Model(convnext(depths=depths))
    for upstream, rate, decay_type in itertools.product(UPSTREAM, (0.7, 0.9), DECAY_TYPES):
        paramwise = dict(decay_rate=rate, decay_type=decay_type, num_layers=num_layers)
        expected = settings_of(model, upstream, **paramwise)
        assert set(expected) == {name for name, _ in model.named_parameters()}
        assert settings_of(model, LayerDecayOptimWrapperConstructor, **paramwise) == expected
        if DEPTHS.get(num_layers) == depths:
            del paramwise['num_layers']  # the backbone's own
            assert settings_of(model, LayerDecayOptimWrapperConstructor, **paramwise) == expected


def test_another_setting_is_noticed() -> None:
    """Negative control: the comparison sees each of the settings."""
    model = Model(convnext(depths=DEPTHS[6]))
    paramwise = dict(decay_rate=0.7, decay_type='layer_wise', num_layers=6)
    expected = settings_of(model, MmdetConstructor, **paramwise)
    for other in (
        dict(decay_rate=0.71),
        dict(num_layers=7),
        dict(decay_type='stage_wise'),
        dict(flat_decay_mult=1.0),
        dict(bias_decay_mult=1.0),
        dict(custom_keys={'neck': dict(decay_mult=0.5)}),
    ):
        wrong = settings_of(model, LayerDecayOptimWrapperConstructor, **{**paramwise, **other})
        assert wrong != expected, other


@pytest.mark.parametrize('decay_type', DECAY_TYPES)
@pytest.mark.parametrize('upstream', UPSTREAM)
def test_parc_convnext_as_its_plain_twin(decay_type: str, upstream: type) -> None:
    paramwise = dict(decay_rate=0.8, decay_type=decay_type, num_layers=6)
    plain = settings_of(Model(convnext(depths=DEPTHS[6])), upstream, **paramwise)
    model = Model(convnext(ParCConvNeXt, depths=DEPTHS[6]))
    parc = settings_of(model, LayerDecayOptimWrapperConstructor, **paramwise)
    assert set(parc) == {name for name, _ in model.named_parameters()}
    shared = plain.keys() & parc.keys()
    assert len(shared) > 100
    assert {name: parc[name] for name in shared} == {name: plain[name] for name in shared}
    # a mixer's own parameters belong to its block
    own = parc.keys() - plain.keys()
    assert {name.rpartition('.')[2] for name in own} == {'weight', 'bias', 'pos_embed'}
    for name in own:
        block, kind = name.split('.depthwise_conv.')[0], name.rpartition('.')[2]
        lr, scale, _ = plain[f'{block}.depthwise_conv.weight']
        assert parc[name] == (lr, scale, WEIGHT_DECAY if kind == 'weight' else 0.0), name


# Position embeddings


def test_embeddings_are_never_decayed() -> None:
    model = Model(convnext(ParCConvNeXt))
    keys = ('depthwise_conv', 'conv_h.pos_embed', 'pos_embed', 'backbone')
    for key, decay_type in itertools.product(keys, DECAY_TYPES):
        custom = {key: dict(decay_mult=1.0)}
        paramwise = dict(decay_rate=0.8, decay_type=decay_type, custom_keys=custom)
        found = settings_of(model, LayerDecayOptimWrapperConstructor, **paramwise)
        embeddings = {name: decay for name, (*_, decay) in found.items() if 'pos_embed' in name}
        assert len(embeddings) == 6 and set(embeddings.values()) == {0.0}


def test_mmseg_decays_the_embeddings() -> None:
    """The control, and why mmparc has a constructor: mmseg knows the class by its name."""
    found = settings_of(
        Model(convnext(ParCConvNeXt)), MmsegConstructor, decay_rate=0.8, num_layers=6
    )
    decays = {decay for name, (*_, decay) in found.items() if name.endswith('.pos_embed')}
    assert decays == {WEIGHT_DECAY}


# Other backbones


def test_stage_wise_on_a_resnet() -> None:
    model = Model(resnet())
    for name, layer in layers_of(model, 6, decay_type='stage_wise').items():
        stage = name.removeprefix('backbone.layer')[0]
        if name.startswith('backbone.'):
            assert layer == (int(stage) if stage.isdigit() else 0), name
        else:
            assert layer == 7, name


def test_layer_wise_on_a_resnet() -> None:
    """mmpretrain's layers: the second and third stage in two each."""
    layers = layers_of(Model(resnet()), 6)
    blocks = {(2, 1): 2, (2, 2): 3, (3, 2): 4, (3, 3): 5, (4, 0): 6, (1, 2): 1}
    for (stage, block), layer in blocks.items():
        assert layers[f'backbone.layer{stage}.{block}.conv2.weight'] == layer
    assert layers['backbone.conv1.weight'] == layers['backbone.bn1.bias'] == 0
    assert layers['neck.weight'] == 7


@pytest.mark.parametrize('backbone', [MobileNetV2, ParCMobileNetV2])
def test_stages_need_no_get_layer_depth(backbone: type) -> None:
    """mmpretrain's MobileNetV2 lacks it; its last convolution learns as the head."""
    layers = layers_of(Model(backbone(0.1)), 7, decay_type='stage_wise', num_layers=7)
    expected = {'conv1.conv': 0, **{f'layer{i}.0.conv.0.conv': i for i in range(1, 8)}}
    for name, layer in {**expected, 'conv2.conv': 8}.items():
        assert layers[f'backbone.{name}.weight'] == layer
    mixers = {name.split('.')[1]: i for name, i in layers.items() if '.conv_h.' in name}
    assert mixers == ({f'layer{i}': i for i in (4, 5, 6)} if backbone is ParCMobileNetV2 else {})


# Groups


def test_groups_are_few_and_complete() -> None:
    """One a layer and weight decay; frozen parameters in none, shared ones in one."""
    model = Model(convnext(depths=DEPTHS[12], frozen_stages=2))
    model.again = model.neck
    groups = LayerDecayOptimWrapperConstructor(dict(optimizer=OPTIMIZER), dict(decay_rate=0.9))(
        model
    ).optimizer.param_groups
    names = [name for group in groups for name in group['param_names']]
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert sorted(names) == sorted(trained) and len(names) < len(list(model.parameters()))
    by_name = dict(model.named_parameters())
    for group in groups:
        members = [by_name[name] for name in group['param_names']]
        assert all(a is b for a, b in zip(members, group['params'], strict=True))
    # with and without decay: 9 layers of stage 3, its downsampling in the first, stage 4, the head
    assert len(groups) == 2 * (9 + 1 + 1)


# By name, in the configs of all three tasks


@pytest.mark.parametrize('parc', ['', 'parc-'], ids=['plain', 'parc'])
@pytest.mark.parametrize('decay_type', DECAY_TYPES)
@pytest.mark.parametrize('scope', TOY)
def test_by_name_in_every_task(scope: str, decay_type: str, parc: str) -> None:
    cfg = Config.fromfile(ROOT / 'configs' / TOY[scope].format(parc))
    if cfg.get('data_preprocessor'):
        cfg.model.data_preprocessor = cfg.data_preprocessor
    wrapper = dict(
        cfg.optim_wrapper,
        constructor='mmparc.LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(decay_rate=0.8, decay_type=decay_type, num_layers=6),
    )
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(cfg.model)
        groups = build_optim_wrapper(model, copy.deepcopy(wrapper)).optimizer.param_groups
        found = {n: (g['lr'], g['weight_decay']) for g in groups for n in g['param_names']}
    assert set(found) == {name for name, _ in model.named_parameters()}
    outside = {lr for name, (lr, _) in found.items() if not name.startswith('backbone.')}
    assert outside == {cfg.optim_wrapper.optimizer.lr}
    assert len({lr for lr, _ in found.values()}) == 6  # the stem, four stages, the head
    embeddings = {decay for name, (_, decay) in found.items() if name.endswith('pos_embed')}
    assert embeddings == ({0.0} if parc else set())
    if not parc:  # upstream's takes any model
        upstream = MmdetConstructor(dict(optimizer=wrapper['optimizer']), wrapper['paramwise_cfg'])
        for group in upstream(model).optimizer.param_groups:
            for name in group['param_names']:
                assert found[name] == (group['lr'], group['weight_decay']), name


@pytest.mark.parametrize('twin', ['', 'parc-'])
def test_ade20k_recipe_as_upstream(twin: str) -> None:
    """The config's own settings; the plain twin as by mmseg's constructor."""
    name = f'{twin}convnext-xt_upernet_8xb2-amp-160k_ade20k-512x512.py'
    cfg = Config.fromfile(ROOT / 'configs/seg/convnext' / name)
    assert cfg.optim_wrapper.constructor == 'mmparc.LayerDecayOptimWrapperConstructor'
    engine.set_amp(cfg, False)
    engine.drop_pretrained(cfg)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model)
        optimizers = []
        for constructor in (cfg.optim_wrapper.constructor, 'LearningRateDecayOptimizerConstructor'):
            wrapper = dict(copy.deepcopy(cfg.optim_wrapper), constructor=constructor)
            optimizers.append(build_optim_wrapper(model, wrapper).optimizer)
    ours, upstream = (
        {n: (g['lr'], g['weight_decay']) for g in optimizer.param_groups for n in g['param_names']}
        for optimizer in optimizers
    )
    changed = {n for n in ours if ours[n] != upstream[n]}
    assert ours.keys() == upstream.keys()
    assert changed == {n for n in ours if n.endswith('.pos_embed')}
    assert bool(changed) == bool(twin)


# Errors


class Flat(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(3, 3, 1)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        return 0, 3


def test_errors() -> None:
    rate, stages = dict(decay_rate=0.9), dict(decay_rate=0.9, decay_type='stage_wise')
    convnext6 = convnext(depths=DEPTHS[6])
    for backbone, paramwise, words in (
        (convnext6, dict(decay_rate=0.9, decay_type='block_wise'), ['decay_type', 'block_wise']),
        (convnext6, dict(decay_rate=0.9, layers=6), ['layers', 'num_layers']),
        (convnext6, dict(num_layers=6), ['decay_rate']),
        (convnext6, None, ['decay_rate']),
        (convnext6, dict(**rate, custom_keys={'head': dict(lr_mult=10)}), ['head', 'lr_mult']),
        (convnext6, dict(**rate, num_layers=5), ['ConvNeXt', 'num_layers=6']),
        (convnext6, dict(**stages, num_layers=3), ['ConvNeXt', 'num_layers=4']),
        (nn.Conv2d(3, 3, 1), stages, ['Conv2d']),
        (MobileNetV2(0.1), rate, ['MobileNetV2', 'stage_wise']),
        (None, rate, ['NoneType']),
        (resnet(18), rate, ['ResNet', 'stage_wise']),
        (Flat(), stages, ['Flat', 'layer_wise']),
    ):
        with pytest.raises(ValueError) as caught:
            constructor = LayerDecayOptimWrapperConstructor(dict(optimizer=OPTIMIZER), paramwise)
            constructor(Model(backbone) if backbone else nn.Linear(3, 3))
        said = str(caught.value)
        assert '\n' not in said and all(word in said for word in words), said
    for missing in ('lr', 'weight_decay'):
        optimizer = {key: value for key, value in OPTIMIZER.items() if key != missing}
        with pytest.raises(ValueError, match=missing):
            LayerDecayOptimWrapperConstructor(dict(optimizer=optimizer), rate)
