"""ParCResNet: which blocks hold ParC, initial values, and what mmpretrain's ResNet promises.

What it shares with other families is in test_every_backbone.py. Except for counts and initial
values a narrow network is used.
"""

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
from mmpretrain.models import ResNet

from mmparc.layers import ParCMixer
from mmparc.models.backbones import ParCResNet

NARROW = dict(stem_channels=8, base_channels=8, out_indices=(0, 1, 2, 3))
PUBLISHED = {
    'layer3.3.conv2': (14, 14),
    'layer3.4.conv2': (14, 14),
    'layer3.5.conv2': (14, 14),
    'layer4.2.conv2': (7, 7),
}


def build(**changes):
    torch.manual_seed(0)
    return ParCResNet(**{**NARROW, **changes})


def count(model):
    return sum(p.numel() for p in model.parameters())


# Structure


@pytest.mark.parametrize(
    ('backbone', 'parameters'),
    [
        (dict(type='mmparc.ParCResNet'), 23_737_640),
        (dict(type='mmparc.ParCResNet', depth=50, parc_starts=(3, 4, 3, 2)), 23_737_640),
        (dict(type='mmparc.ParCResNet', depth=50, parc_starts=(3, 4, 6, 3)), 25_557_032),
        (dict(type='ResNet', depth=50), 25_557_032),
    ],
    ids=['default', 'published', 'without parc', 'plain'],
)
def test_published_parameter_counts(backbone, parameters):
    assert count(classifier(backbone, 2048, 1000)) == parameters


@pytest.mark.parametrize(
    ('depth', 'starts', 'in_stage_3', 'in_stage_4'),
    [
        (18, (2, 2, 1, 1), 1, 1),
        (34, (3, 4, 3, 2), 3, 1),
        (50, (3, 4, 3, 2), 3, 1),
        (101, (3, 4, 11, 2), 12, 1),
        (152, (3, 8, 18, 2), 18, 1),
    ],
)
def test_default_starts_and_counts(depth, starts, in_stage_3, in_stage_4):
    """The difference to the plain network's parameters, counted by hand for each replaced 3x3."""
    model, plain = build(depth=depth), ResNet(depth, **NARROW)
    assert model.parc_starts == starts
    difference = 0
    for width, length, blocks in ((32, 14, in_stage_3), (64, 7, in_stage_4)):
        half = width // 2
        mixer = 2 * (half * half * length + half + half * length)  # kernels, biases, embeddings
        difference += blocks * (mixer - 9 * width * width)
    assert count(model) - count(plain) == difference


def test_published_blocks_hold_dense_parc():
    model = ParCResNet()
    assert kernel_sizes(model) == PUBLISHED
    for name, mixer in mixers(model).items():
        half = model.get_submodule(name.removesuffix('.conv2')).mid_channels // 2
        for conv in (mixer.conv_h, mixer.conv_w):
            assert conv.weight.shape[:2] == (half, half)
            assert conv.bias.shape == (half,) and conv.pos_embed.shape[0] == half


@pytest.mark.parametrize(
    ('changes', 'blocks'),
    [
        (dict(parc_starts=(3, 4, 6, 3)), []),
        (dict(parc_starts=(0, 4, 6, 2)), ['layer1.0', 'layer1.1', 'layer1.2', 'layer4.2']),
        (dict(parc_starts=[3, 3, 6, 1]), ['layer2.3', 'layer4.1', 'layer4.2']),
        (dict(depth=18, parc_starts=(2, 2, 2, 1)), ['layer4.1']),
        # a basic block's stride is in its first convolution, a caffe bottleneck's in its 1x1
        (dict(depth=18, parc_starts=(2, 2, 2, 0)), ['layer4.0', 'layer4.1']),
        (dict(style='caffe', parc_starts=(3, 4, 6, 0)), ['layer4.0', 'layer4.1', 'layer4.2']),
        (dict(strides=(1, 2, 2, 1), parc_starts=(3, 4, 6, 1)), ['layer4.1', 'layer4.2']),
        (
            dict(strides=(1, 2, 2, 1), parc_starts=(3, 4, 6, 0)),
            ['layer4.0', 'layer4.1', 'layer4.2'],
        ),
        (
            dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,)),
            ['layer3.3', 'layer3.4', 'layer3.5'],
        ),
    ],
    ids=str,
)
def test_starts_say_which_blocks(changes, blocks):
    model = build(**changes)
    assert list(mixers(model)) == [f'{block}.conv2' for block in blocks]
    assert model(torch.randn(2, 3, 64, 64))[-1].isfinite().all()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(parc_starts=(3, 4, 0, 2)), r'block 0 in stage 3 has: set parc_starts\[2\] to 1'),
        (dict(parc_starts=(3, 0, 6, 3)), r'parc_starts\[1\]'),
        (dict(depth=101, parc_starts=(3, 4, 23, 0)), r'parc_starts\[3\]'),
        (dict(strides=(2, 2, 2, 2), parc_starts=(0, 4, 6, 3)), r'parc_starts\[0\]'),
        (dict(strides=(1, 2, 1, 2), parc_starts=(3, 4, 0, 0)), r'parc_starts\[3\]'),
    ],
    ids=str,
)
def test_a_strided_convolution_is_not_replaced(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


@pytest.mark.parametrize(
    ('changes', 'deep', 'deepest'),
    [
        (dict(), (14, 14), (7, 7)),
        (dict(img_size=256), (16, 16), (8, 8)),
        (dict(img_size=(192, 320)), (12, 20), (6, 10)),
        (dict(img_size=(320, 192)), (20, 12), (10, 6)),
        (dict(img_size=(97, 131)), (7, 9), (4, 5)),
        (dict(img_size=(97, 131), deep_stem=True, avg_down=True), (7, 9), (4, 5)),
        (dict(img_size=(97, 131), style='caffe'), (7, 9), (4, 5)),
        # as in segmentation
        (dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)), (28, 28), (28, 28)),
        (dict(img_size=16), (1, 1), (1, 1)),
    ],
    ids=str,
)
def test_kernels_are_as_long_as_the_map(changes, deep, deepest):
    """Also seen from the map itself: at that size nothing is resized."""
    model = in_eval(build(**changes))
    sizes = kernel_sizes(model)
    assert set(sizes) == set(PUBLISHED)
    assert all(size == (deep if name[5] == '3' else deepest) for name, size in sizes.items())
    size = changes.get('img_size', 224)
    size = size if isinstance(size, tuple) else (size, size)
    for mixer, received, _ in calls_of_mixers(model, torch.randn(1, 3, *size)):
        kernel = mixer.conv_h.weight.shape[-1], mixer.conv_w.weight.shape[-1]
        assert tuple(received.shape[2:]) == kernel


def test_no_image_has_no_kernel():
    with pytest.raises(ValueError):
        build(img_size=(224, 0))


# Forward and backward


def test_norm_and_activation_follow_the_mixer():
    model = in_eval(build().double())
    block = model.layer3[3]
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_()
        x = torch.randn(2, block.in_channels, 13, 9, dtype=torch.float64)
        mixed = mixer_reference(block.conv2, block.bn1(block.conv1(x)).relu(), True)
        expected = (block.bn3(block.conv3(block.bn2(mixed).relu())) + x).relu()
        assert_close(block(x), expected, 1e-10)


# What the parent promises


@pytest.mark.parametrize('frozen', [-1, 0, 1, 3, 4])
def test_frozen_stages(frozen):
    model = build(frozen_stages=frozen, parc_starts=(1, 1, 3, 2))
    assert 'layer1.1.conv2' in mixers(model)
    for _ in range(2):
        for name, parameter in model.named_parameters():
            stage = int(name[5]) if name.startswith('layer') else 0
            assert parameter.requires_grad is (stage > frozen), name
        model.train()
        for stage in range(1, 5):
            modules = getattr(model, f'layer{stage}').modules()
            assert all(m.training is (stage > frozen) for m in modules)


@pytest.mark.parametrize('depth', [50, 101, 152])
def test_layer_depth_is_that_of_the_plain_block(depth):
    model = classifier(dict(type='mmparc.ParCResNet', depth=depth, **NARROW), 256)
    plain = classifier(dict(type='ResNet', depth=depth, **NARROW), 256)
    by_block = {}
    for name, _ in plain.named_parameters():
        by_block.setdefault(tuple(name.split('.')[:3]), set()).add(plain.get_layer_depth(name)[0])
    for name, _ in model.named_parameters():
        depth, layers = model.get_layer_depth(name)
        assert by_block[tuple(name.split('.')[:3])] == {depth}, name
        assert 0 <= depth < layers


@pytest.mark.parametrize(
    ('changes', 'stages'),
    [
        (dict(depth=18), 4),
        (dict(depth=18, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,)), 3),
        (dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,)), 2),
    ],
    ids=str,
)
@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_layer_depth_where_the_parent_knows_none(changes, stages, prefix):
    model = build(**changes, parc_starts=(1,) * stages)
    assert mixers(model)
    for name, _ in model.named_parameters():
        depth = int(name[5]) if name.startswith('layer') else 0
        assert model.get_layer_depth(prefix + name, prefix) == (depth, stages + 2), name
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (stages + 1, stages + 2)
    with pytest.raises((NotImplementedError, IndexError)):
        super(ParCResNet, model).get_layer_depth('backbone.conv1.weight', 'backbone.')


@pytest.mark.parametrize('inside', ['alone', 'classifier'])
@pytest.mark.parametrize('zero_init_residual', [False, True])
def test_initial_values(inside, zero_init_residual):
    options = dict(zero_init_residual=zero_init_residual)
    if inside == 'classifier':
        model = classifier(dict(type='mmparc.ParCResNet', **options), 2048)
    else:
        model = ParCResNet(**options)
    model.init_weights()
    model = model.backbone if inside == 'classifier' else model
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            fan_out = module.out_channels * module.weight[0, 0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05), name
        elif isinstance(module, torch.nn.BatchNorm2d):
            zero = zero_init_residual and name.endswith('bn3')
            assert (module.weight == float(not zero)).all() and not module.bias.any()
    embeddings = []
    for mixer in mixers(model).values():
        for conv in (mixer.conv_h, mixer.conv_w):
            kernel, bias = conv.weight.detach(), conv.bias.detach()
            std = (2 / (kernel.shape[0] * kernel.shape[2])) ** 0.5
            assert kernel.std().item() == pytest.approx(std, rel=0.02)
            assert kernel.mean().abs() < 0.02 * std
            assert kernel.abs().max() > 3 * std  # normal: a uniform one ends at 1.7
            bound = (kernel.shape[1] * kernel.shape[2]) ** -0.5
            assert 0.8 * bound < bias.abs().max() <= bound
            assert bias.std().item() == pytest.approx(bound / 3**0.5, rel=0.2)
            embeddings.append(conv.pos_embed.detach().flatten())
    assert torch.cat(embeddings).std().item() == pytest.approx(0.02, rel=0.03)


def test_pretrained_weights_stay_whole(tmp_path):
    """A checkpoint's weights are not touched by what initialises the kernels."""
    source = build()
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'source.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'source.pth'))
    torch.manual_seed(1)
    model = ParCResNet(**NARROW, init_cfg=pretrained)
    assert not torch.equal(
        model.layer3[3].conv2.conv_h.weight, source.layer3[3].conv2.conv_h.weight
    )
    model.init_weights()
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_mixers_take_the_parents_place():
    """Only conv2 differs from the plain network, and by its name."""
    model, plain = build(), ResNet(50, **NARROW)
    changed = set(model.state_dict()) ^ set(plain.state_dict())
    assert {name.split('.conv2.')[0] + '.conv2' for name in changed} == set(PUBLISHED)
    assert all(isinstance(model.get_submodule(name), ParCMixer) for name in PUBLISHED)
