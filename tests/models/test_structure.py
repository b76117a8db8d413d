"""Which blocks of each family hold ParC, their kernels, initial values, and the parents' promises.

What the families have in common is in test_every_backbone.py, what only ParC-Net has in
test_parcnet.py. Except for initial values small networks are used.
"""

import math
import re

import pytest
import torch
from backbones import (
    build,
    calls_of_mixers,
    classifier,
    in_eval,
    kernel_sizes,
    mixers,
    parc_layers,
)
from mmpretrain.models import ConvNeXt, ResNet
from mmseg.models import MobileNetV2
from torch import nn

from mmparc.models import ParCMobileNetV2

# As deep as the published network, so that its default blocks hold ParC.
DEEP = dict(arch=dict(depths=[3, 3, 9, 3], channels=[8, 12, 16, 24]))
PUBLISHED = {
    'convnext': {
        **{f'stages.2.{i}.depthwise_conv': 14 for i in (6, 7, 8)},
        'stages.3.2.depthwise_conv': 7,
    },
    'resnet': {**{f'layer3.{i}.conv2': 14 for i in (3, 4, 5)}, 'layer4.2.conv2': 7},
    'mobilenet_v2': {
        **{f'layer{i}.conv.1.conv': 14 for i in ('4.2', '4.3', '5.2')},
        'layer6.2.conv.1.conv': 7,
    },
}


def make(family, **changes):
    return build(family, **{**(DEEP if family == 'convnext' else {}), **changes})


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


# Which blocks


def test_published_parameter_counts():
    """With 1000 classes; those of golden models are in test_golden.py."""
    for backbone, channels, parameters in (
        (dict(type='mmparc.ParCConvNeXt'), 768, 28_538_056),
        (dict(type='mmparc.ParCConvNeXt', arch='xtiny', parc_starts=(3, 3, 9, 3)), 384, 7_438_360),
        (dict(type='mmparc.ParCResNet', parc_starts=(3, 4, 6, 3)), 2048, 25_557_032),
        (dict(type='mmparc.ParCMobileNetV2', parc_starts=(1, 2, 3, 4, 3, 3, 1)), 1280, 3_504_872),
        (dict(type='mmparc.ParCNet', arch='xs'), 640, 2_185_384),
        (dict(type='mmparc.ParCNet', arch='h'), 960, 20_403_940),
    ):
        assert count(classifier(backbone, channels, 1000)) == parameters, backbone


def test_published_blocks_hold_parc_at_other_widths_and_depths():
    for widen_factor in (0.35, 0.5, 0.75, 1.4):
        sizes = kernel_sizes(build('mobilenet_v2', widen_factor=widen_factor))
        assert list(sizes) == list(PUBLISHED['mobilenet_v2'])
    for depth, starts in (
        *((18, (2, 2, 1, 1)), (34, (3, 4, 3, 2))),
        *((50, (3, 4, 3, 2)), (101, (3, 4, 11, 2))),
    ):
        assert build('resnet', depth=depth).parc_starts == starts
    assert make('convnext').parc_starts == (3, 3, 6, 2)


def test_starts_say_which_blocks():
    three_stages = dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,))
    for family, changes, blocks in (
        ('convnext', dict(parc_starts=(1, 1, 2, 1)), []),
        ('convnext', dict(parc_starts=(0, 1, 0, 1)), ['stages.0.0', 'stages.2.0', 'stages.2.1']),
        ('resnet', dict(parc_starts=[3, 3, 6, 1]), ['layer2.3', 'layer4.1', 'layer4.2']),
        # a basic block's stride is in its first convolution, a caffe bottleneck's in its 1x1
        ('resnet18', dict(parc_starts=(2, 2, 2, 0)), ['layer4.0', 'layer4.1']),
        ('resnet', dict(style='caffe', parc_starts=(3, 4, 6, 1)), ['layer4.1', 'layer4.2']),
        (
            'resnet',
            dict(strides=(1, 2, 2, 1), parc_starts=(3, 4, 6, 0)),
            [f'layer4.{i}' for i in range(3)],
        ),
        ('resnet', three_stages, ['layer3.3', 'layer3.4', 'layer3.5']),
        ('mobilenet_v2', dict(parc_starts=(0, 2, 3, 4, 3, 3, 1)), ['layer1.0']),
        (
            'mobilenet_v2',
            dict(parc_starts=[1, 1, 3, 4, 0, 3, 0]),
            ['layer2.1', 'layer5.0', 'layer5.1', 'layer5.2', 'layer7.0'],
        ),
    ):
        model = build(family, **changes)
        assert [re.match(r'(?:stages\.)?\w+\.\d+', name)[0] for name in mixers(model)] == blocks
        assert model(torch.randn(2, 3, 64, 64))[-1].isfinite().all()
    # the last of these: embeddings in each stage's first ParC block
    embedded = [
        name[:8] for name, mixer in mixers(model).items() if mixer.conv_h.pos_embed is not None
    ]
    assert embedded == ['layer2.1', 'layer5.0', 'layer7.0']


def test_a_strided_convolution_is_not_replaced():
    for family, changes, stage in (
        ('resnet', dict(parc_starts=(3, 4, 0, 2)), 2),
        ('resnet', dict(parc_starts=(3, 0, 6, 3)), 1),
        ('resnet', dict(strides=(2, 2, 2, 2), parc_starts=(0, 4, 6, 3)), 0),
        ('resnet', dict(strides=(1, 2, 1, 2), parc_starts=(3, 4, 0, 0)), 3),
        ('mobilenet_v2', dict(parc_starts=(1, 0, 3, 4, 3, 3, 1)), 1),
        ('mobilenet_v2', dict(parc_starts=(1, 2, 3, 4, 3, 0, 1)), 5),
    ):
        with pytest.raises(ValueError, match=rf'parc_starts\[{stage}\] to 1') as caught:
            build(family, **changes)
        assert len(str(caught.value).splitlines()) == 1


def test_no_room_for_a_mixer():
    for changes in (
        dict(img_size=16),
        dict(img_size=(224, 31)),
        dict(arch=dict(depths=[1, 2, 3, 2], channels=[8, 12, 16, 25])),
    ):
        with pytest.raises(ValueError):
            build('convnext', **changes)


def test_kernels_are_as_long_as_the_map():
    """Also seen from the map itself: at that size nothing is resized."""
    padded = (7, 9), (4, 5)
    for family, changes, deep, deepest in (
        ('convnext', dict(img_size=(192, 320)), (12, 20), (6, 10)),
        ('convnext', dict(img_size=(97, 131)), (6, 8), (3, 4)),
        ('resnet', dict(img_size=(97, 131)), *padded),
        ('resnet', dict(img_size=(97, 131), deep_stem=True, avg_down=True), *padded),
        ('resnet', dict(img_size=(97, 131), style='caffe'), *padded),
        # as in segmentation
        ('resnet', dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)), (28, 28), (28, 28)),
        ('resnet', dict(img_size=16), (1, 1), (1, 1)),
        ('mobilenet_v2', dict(img_size=(192, 320)), (12, 20), (6, 10)),
        ('mobilenet_v2', dict(img_size=(97, 131)), *padded),
        ('mobilenet_v2', dict(img_size=16), (1, 1), (1, 1)),
    ):
        model = in_eval(make(family, **changes))
        assert kernel_sizes(model) == {
            name: deep if k == 14 else deepest for name, k in PUBLISHED[family].items()
        }, (family, changes)
        size = changes.get('img_size', 224)
        size = size if isinstance(size, tuple) else (size, size)
        for mixer, received, _ in calls_of_mixers(model, torch.randn(1, 3, *size)):
            kernel = mixer.conv_h.weight.shape[-1], mixer.conv_w.weight.shape[-1]
            assert tuple(received.shape[2:]) == kernel, (family, changes)


def test_strides_of_mobilenet():
    """mmseg's MobileNetV2 takes them too."""
    image = torch.randn(1, 3, 64, 96)
    for strides in ((1, 2, 2, 1, 1, 1, 1), (2, 1, 1, 2, 1, 1, 2)):
        options = dict(widen_factor=0.25, strides=strides, out_indices=(1, 3, 4, 6))
        model = in_eval(ParCMobileNetV2(parc_starts=(1, 2, 3, 4, 3, 3, 1), **options))
        plain = in_eval(MobileNetV2(**options))
        missing, unexpected = plain.load_state_dict(model.state_dict(), strict=False)
        assert not missing and all(name.startswith('conv2.') for name in unexpected)
        with torch.no_grad():
            for a, b in zip(model(image), plain(image), strict=True):
                assert torch.equal(a, b)
        sides = 32 // math.prod(strides[:6]), 48 // math.prod(strides[:6])
        sizes = kernel_sizes(ParCMobileNetV2(img_size=(64, 96), **options))
        assert sizes['layer6.2.conv.1.conv'] == sides
    with pytest.raises(ValueError, match='strides'):
        ParCMobileNetV2(strides=strides[:6])


# What the parents promise

# The stage of a parameter, counted as ``frozen_stages`` does: the stages up to that one are frozen.
STAGES = {
    'convnext': {'downsample_layers.': 1, 'stages.': 1, 'norm': 9},
    'resnet': {'conv1': 0, 'bn1': 0, 'layer': 0},
    'mobilenet_v2': {'conv1': 0, 'layer': 0, 'conv2': 8},
    'parcnet': {'stem': 0, 'layers.': 1, 'conv_1x1_exp': 6},
}


def stage_of(family, name):
    for prefix, first in STAGES[family].items():
        if name.startswith(prefix):
            index = re.match(r'(?:layer|layers\.|stages\.|downsample_layers\.)(\d+)', name)
            return first + int(index[1]) if index else first
    raise AssertionError(name)


@pytest.mark.parametrize('family', STAGES)
def test_frozen_stages(family):
    """The mixers too, from the start and after train(); MobileNetV2 freezes in train() alone."""
    none = 0 if family == 'convnext' else -1
    for frozen in (none, 1, 3, 4):
        outputs = dict(out_indices=range(6)) if family == 'parcnet' else {}  # else parts are unused
        model = build(family, frozen_stages=frozen, **outputs)
        for _ in range(2):
            if family == 'mobilenet_v2':
                model.train()
            for name, parameter in model.named_parameters():
                assert parameter.requires_grad is (stage_of(family, name) > frozen), name
            model.train()
            for name, module in model.named_modules():
                if re.search(r'\d\.', name) and stage_of(family, name) > 0:
                    assert module.training is (stage_of(family, name) > frozen), name
    assert any(stage_of(family, name) <= 4 for name in parc_layers(model))


def test_layer_depth():
    """Every parameter of a block, ParC's among them, decays as the plain block's do.

    MobileNetV2, ParC-Net, and ResNets of which the parent knows no depth decay by stage.
    """
    for family, plain, part in (
        ('convnext', ConvNeXt(**DEEP, out_indices=(0, 1, 2, 3)), 'stages'),
        ('resnet', ResNet(50, stem_channels=8, base_channels=8), 'layer'),
    ):
        model = make(family)
        for prefix in ('', 'backbone.'):
            by_block = {}
            for network in (plain, model):
                for name, _ in network.named_parameters():
                    block = '.'.join(name.split('.')[:3]) if name.startswith(part) else name
                    depth = network.get_layer_depth(prefix + name, prefix)
                    assert by_block.setdefault(block, depth) == depth, name
                    assert 0 <= depth[0] < depth[1]

    two = dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,))
    for family, changes, depths in (
        ('mobilenet_v2', {}, 10),
        ('parcnet', {}, 8),
        ('resnet18', {}, 6),
        ('resnet', dict(two, parc_starts=(1, 1)), 4),
    ):
        model = build(family, **changes)
        for prefix in ('', 'backbone.'):
            for name, _ in model.named_parameters():
                stage = stage_of(family.removesuffix('18'), name)
                assert model.get_layer_depth(prefix + name, prefix) == (stage, depths), name
        # another module's name may begin like one of the backbone's
        for name in ('head.fc.weight', 'neck.conv1.weight'):
            assert model.get_layer_depth(name, 'backbone.') == (depths - 1, depths)


# Initial values


def fan_out(weight):
    """The standard deviation of Kaiming's normal rule; torch counts every output channel."""
    return (2 / (weight.shape[0] * weight[0, 0].numel())) ** 0.5


def check_normal(values, what):
    """Standard normal, and not uniform, which ends at 1.73."""
    values = torch.cat(values)
    spread = 5 / values.numel() ** 0.5
    assert abs(values.std() - 1) < spread and values.mean().abs() < spread, what
    assert 2.5 < values.abs().max() < 7, what


INITIAL = {
    'convnext': (dict(type='mmparc.ParCConvNeXt', arch='xtiny'), 384),
    'resnet': (dict(type='mmparc.ParCResNet', zero_init_residual=False), 2048),
    'mobilenet_v2': (dict(type='mmparc.ParCMobileNetV2'), 1280),
    'parcnet': (dict(type='mmparc.ParCNet', arch='s'), 640),
}


@pytest.mark.parametrize('family', INITIAL)
@torch.no_grad()
def test_initial_values(family):
    """Inside a classifier; what was there before must not show."""
    model = classifier(*INITIAL[family])
    for module in model.backbone.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.weight.fill_(9.0)
    model.init_weights()
    backbone = model.backbone
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            std = 0.02 if family == 'convnext' else fan_out(module.weight)
            spread = 5 / (2 * module.weight.numel()) ** 0.5
            assert abs(module.weight.std() / std - 1) < max(spread, 0.05), name
            assert module.bias is None or not module.bias.any(), name
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            assert (module.weight == 1).all() and not module.bias.any(), name
    for name, parameter in backbone.named_parameters():
        assert not name.endswith('gamma') or (parameter == 1e-6).all(), name

    layers = parc_layers(backbone).values()
    kernels = [(layer.weight, layer.weight.numel() // layer.out_channels) for layer in layers]
    if family == 'parcnet':
        # PyTorch's default for Conv2d, uniform
        for weight, fan_in in kernels:
            assert 0.8 < weight.abs().max() * fan_in**0.5 <= 1
    else:
        stds = [
            0.02 if family == 'convnext' else fan_out(weight[..., None]) for weight, _ in kernels
        ]
        check_normal([w.flatten() / std for (w, _), std in zip(kernels, stds)], 'kernels')
    for layer, (_, fan_in) in zip(layers, kernels):
        if family == 'resnet':  # PyTorch's default
            assert 0.8 < layer.bias.abs().max() * fan_in**0.5 <= 1
        else:
            assert layer.bias is None or not layer.bias.any()
    embeddings = [p.flatten() for n, p in backbone.named_parameters() if n.endswith('pos_embed')]
    check_normal([e / (1 if family == 'parcnet' else 0.02) for e in embeddings], 'embeddings')
