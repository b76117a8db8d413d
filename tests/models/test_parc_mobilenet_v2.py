"""ParCMobileNetV2: which blocks hold ParC, initial values, and what mmpretrain's class promises.

What it shares with other families is in test_every_backbone.py. Except for counts and initial
values a narrow network is used.
"""

import math

import pytest
import torch
from backbones import (
    calls_of_mixers,
    classifier,
    in_eval,
    kernel_sizes,
    mixer_reference,
    mixers,
)
from helpers import assert_close
from mmengine.registry import DefaultScope
from mmpretrain.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmseg.models import MobileNetV2

from mmparc.models.backbones import ParCMobileNetV2

NARROW = dict(widen_factor=0.25, out_indices=(1, 2, 4, 6))
DEPTHS = (1, 2, 3, 4, 3, 3, 1)
PUBLISHED = {
    'layer4.2.conv.1.conv': (14, 14),
    'layer4.3.conv.1.conv': (14, 14),
    'layer5.2.conv.1.conv': (14, 14),
    'layer6.2.conv.1.conv': (7, 7),
}


def build(**changes):
    torch.manual_seed(0)
    return ParCMobileNetV2(**{**NARROW, **changes})


# Structure


@pytest.mark.parametrize(
    ('backbone', 'parameters'),
    [
        (dict(type='mmparc.ParCMobileNetV2'), 3_532_136),
        (dict(type='mmparc.ParCMobileNetV2', parc_starts=DEPTHS), 3_504_872),
        (dict(type='MobileNetV2'), 3_504_872),
    ],
    ids=['published', 'without parc', 'plain'],
)
def test_published_parameter_counts(backbone, parameters):
    model = classifier(backbone, 1280, 1000)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize('widen_factor', [0.25, 0.35, 0.5, 0.75, 1.0, 1.4])
def test_published_blocks_hold_depthwise_parc(widen_factor):
    """At any width; only a stage's first ParC block has an embedding."""
    model = build(widen_factor=widen_factor)
    assert kernel_sizes(model) == PUBLISHED
    for name, mixer in mixers(model).items():
        half = model.get_submodule(name.removesuffix('.conv')).norm.num_features // 2
        for conv in (mixer.conv_h, mixer.conv_w):
            assert conv.weight.shape[:2] == (half, 1)
            assert conv.bias.shape == (half,)
            assert (conv.pos_embed is None) == (name == 'layer4.3.conv.1.conv')


@pytest.mark.parametrize(
    ('starts', 'blocks', 'embedded'),
    [
        (DEPTHS, [], []),
        ((0, 2, 3, 4, 3, 3, 1), ['layer1.0.conv.0.conv'], ['layer1.0.conv.0.conv']),
        (
            [1, 1, 3, 4, 0, 3, 0],
            ['layer2.1', 'layer5.0', 'layer5.1', 'layer5.2', 'layer7.0'],
            ['layer2.1', 'layer5.0', 'layer7.0'],
        ),
    ],
    ids=str,
)
def test_starts_say_which_blocks(starts, blocks, embedded):
    model = build(parc_starts=starts)
    full = {name: name if '.conv' in name else f'{name}.conv.1.conv' for name in blocks}
    assert list(mixers(model)) == list(full.values())
    found = [name for name, mixer in mixers(model).items() if mixer.conv_h.pos_embed is not None]
    assert found == [full[name] for name in embedded]
    assert model(torch.randn(2, 3, 64, 64))[-1].isfinite().all()


@pytest.mark.parametrize('stage', [1, 2, 3, 5])
def test_a_strided_convolution_is_not_replaced(stage):
    starts = [0 if i == stage else depth for i, depth in enumerate(DEPTHS)]
    with pytest.raises(ValueError, match=rf'set parc_starts\[{stage}\] to 1 or more'):
        build(parc_starts=starts)


@pytest.mark.parametrize(
    ('img_size', 'deep', 'deepest'),
    [
        (224, (14, 14), (7, 7)),
        (256, (16, 16), (8, 8)),
        ((192, 320), (12, 20), (6, 10)),
        ((320, 192), (20, 12), (10, 6)),
        ((97, 131), (7, 9), (4, 5)),
        (16, (1, 1), (1, 1)),
    ],
    ids=str,
)
def test_kernels_are_as_long_as_the_map(img_size, deep, deepest):
    """Also seen from the map itself: at that size nothing is resized."""
    model = in_eval(build(img_size=img_size))
    sizes = kernel_sizes(model)
    assert set(sizes) == set(PUBLISHED)
    assert all(size == (deepest if name[5] == '6' else deep) for name, size in sizes.items())
    size = img_size if isinstance(img_size, tuple) else (img_size, img_size)
    for mixer, received, _ in calls_of_mixers(model, torch.randn(1, 3, *size)):
        kernel = mixer.conv_h.weight.shape[-1], mixer.conv_w.weight.shape[-1]
        assert tuple(received.shape[2:]) == kernel


@pytest.mark.parametrize('strides', [(1, 2, 2, 1, 1, 1, 1), (2, 1, 1, 2, 1, 1, 2)], ids=str)
def test_strides(strides):
    """mmseg's MobileNetV2 takes them too."""
    model = in_eval(build(parc_starts=DEPTHS, strides=strides, out_indices=(1, 3, 4, 6)))
    plain = in_eval(MobileNetV2(0.25, strides=strides, out_indices=(1, 3, 4, 6)))
    missing, unexpected = plain.load_state_dict(model.state_dict(), strict=False)
    assert not missing and all(name.startswith('conv2.') for name in unexpected)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for a, b in zip(model(image), plain(image), strict=True):
            assert torch.equal(a, b)
    model = build(strides=strides, img_size=(64, 96))
    sides = 32 // math.prod(strides[:6]), 48 // math.prod(strides[:6])
    assert kernel_sizes(model)['layer6.2.conv.1.conv'] == sides
    with pytest.raises(ValueError, match='strides must give one stride for each of the 7 stages'):
        build(strides=strides[:6])


# Forward and backward


def test_norm_and_activation_follow_the_mixer():
    model = in_eval(build().double())
    block = model.layer4[2]
    expand, depthwise, project = block.conv
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_()
        x = torch.randn(2, expand.in_channels, 13, 9, dtype=torch.float64)
        mixed = mixer_reference(depthwise.conv, expand.bn(expand.conv(x)).clamp(0, 6), False)
        mixed = depthwise.bn(mixed)
        assert (mixed > 6).any()
        expected = project.bn(project.conv(mixed.clamp(0, 6))) + x
        assert_close(block(x), expected, 1e-10)


# What the parent promises


@pytest.mark.parametrize('frozen', [-1, 0, 2, 5, 7])
def test_frozen_stages(frozen):
    """The parent freezes when it is set to training."""
    model = build(frozen_stages=frozen)
    model.train()
    for name, parameter in model.named_parameters():
        part = name.partition('.')[0]
        stage = {'conv1': 0, 'conv2': 8}[part] if part[:4] == 'conv' else int(part[5:])
        assert parameter.requires_grad is (stage > frozen), name
    for stage in range(1, 8):
        modules = getattr(model, f'layer{stage}').modules()
        assert all(m.training is (stage > frozen) for m in modules)


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_layer_depth(prefix):
    """Stem, seven stages, final 1x1, and the rest: ten layers, in the order of the forward pass."""
    model = build()
    depths = [model.get_layer_depth(prefix + name, prefix) for name, _ in model.named_parameters()]
    assert [depth for depth, _ in depths] == sorted(depth for depth, _ in depths)
    assert {layers for _, layers in depths} == {10}
    at = {
        name: model.get_layer_depth(prefix + name, prefix)[0]
        for name, _ in model.named_parameters()
    }
    assert (at['conv1.conv.weight'], at['conv1.bn.bias']) == (0, 0)
    assert at['layer1.0.conv.0.conv.weight'] == 1
    assert at['layer4.0.conv.0.conv.weight'] == at['layer4.2.conv.1.conv.conv_h.pos_embed'] == 4
    assert at['layer7.0.conv.2.bn.weight'] == 7
    assert at['conv2.conv.weight'] == 8
    assert model.get_layer_depth('head.fc.weight', prefix) == (9, 10)
    # another module's name may begin like one of the backbone's
    assert model.get_layer_depth('neck.conv1.weight', 'backbone.') == (9, 10)


def test_layer_depth_drives_mmpretrains_decay():
    model = classifier(dict(type='mmparc.ParCMobileNetV2', **NARROW), 1280)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
            dict(
                type='LearningRateDecayOptimWrapperConstructor',
                optim_wrapper_cfg=dict(optimizer=dict(type='SGD', lr=1.0, weight_decay=0.1)),
                paramwise_cfg=dict(layer_decay_rate=0.5),
            )
        )
        wrapper = constructor(model)
    rates = {g['param_name']: g['lr'] for g in wrapper.optimizer.param_groups}
    assert rates['head.fc.weight'] == 1.0
    assert rates['backbone.conv2.conv.weight'] == 0.5
    assert rates['backbone.layer6.2.conv.1.conv.conv_w.weight'] == 0.5**3
    assert rates['backbone.conv1.conv.weight'] == 0.5**9
    assert len(rates) == len(list(model.parameters()))


@pytest.mark.parametrize('inside', ['alone', 'classifier'])
def test_initial_values(inside):
    if inside == 'classifier':
        model = classifier(dict(type='mmparc.ParCMobileNetV2'), 1280)
    else:
        model = ParCMobileNetV2()
    model.init_weights()
    if inside == 'classifier':
        assert model.head.fc.weight.std().item() == pytest.approx(0.01, rel=0.02)
        model = model.backbone
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            # torch's fan out of a depthwise convolution counts every output channel
            fan_out = module.out_channels * module.weight[0, 0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1), name
        elif isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any()
    embeddings = []
    for mixer in mixers(model).values():
        for conv in (mixer.conv_h, mixer.conv_w):
            kernel = conv.weight.detach()
            std = (2 / (kernel.shape[0] * kernel.shape[2])) ** 0.5
            assert kernel.std().item() == pytest.approx(std, rel=0.05)
            assert kernel.abs().max() > 2.5 * std  # normal: a uniform one ends at 1.7
            assert not conv.bias.any()
            if conv.pos_embed is not None:
                embeddings.append(conv.pos_embed.detach().flatten())
    assert torch.cat(embeddings).std().item() == pytest.approx(0.02, rel=0.03)
