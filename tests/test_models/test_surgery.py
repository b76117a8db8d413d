"""ParCify: what it exchanges in each family, and that it leaves everything else alone.

What is expected was written down from the architectures' tables; the dedicated backbones and the
plain networks are the other independent sides of the comparisons.
"""

import copy
import dataclasses
import random

import numpy as np
import pytest
import torch
from backbones import calls_of_mixers, gradients, in_eval, kernel_sizes, mixers
from helpers import assert_close, relative_error
from mmengine.registry import MODELS
from mmpretrain.models import ConvNeXt
from torch import nn

from mmparc.layers import ParCMixer
from mmparc.layers.exchange import mixer_groups
from mmparc.models import ParCConvNeXt, ParCMobileNetV2, ParCResNet, surgery
from mmparc.surgery.stages import find_stages

slow = pytest.mark.slow
SIZES = [(96, 96), (97, 131), (131, 97)]
WHOLE_SIZES = [(96, 96), (96, 160), (160, 96)]  # for networks that take no odd ones


def timm(name, **options):
    return dict(type='mmpretrain.TIMMBackbone', model_name=name, features_only=True, **options)


def plain(cfg):
    torch.manual_seed(0)
    return MODELS.build(cfg)


def parcify(cfg, **options):
    """From text alone, as a config says it."""
    torch.manual_seed(0)
    return MODELS.build(dict(type='mmparc.ParCify', backbone=cfg, **options))


RESNET18 = dict(type='mmpretrain.ResNet', depth=18, out_indices=(0, 1, 2, 3))
NARROW = dict(RESNET18, stem_channels=8, base_channels=8)
NARROW50 = dict(NARROW, depth=50)


# Families


@dataclasses.dataclass
class Family:
    """A backbone, its stages, and the default mixers.

    Attributes:
        stages: (total stride, channels, blocks) of each.
        mixers: {the convolution's name: shape of the mixer's kernel along H}, (C / 2, channels in a
            group, K); the one along W has the same, for square images.
        sizes: of images that the plain network takes.
    """

    cfg: dict
    stages: list[tuple[int, int, int]]
    mixers: dict[str, tuple[int, int, int]]
    sizes: list[tuple[int, int]] = dataclasses.field(default_factory=lambda: SIZES)


def numbered(pattern, indices, shape):
    return {pattern.format(i): shape for i in indices}


RESNET50_STAGES = [(4, 256, 3), (8, 512, 4), (16, 1024, 6), (32, 2048, 3)]
REGNET_STAGES = [(4, 32, 1), (8, 64, 2), (16, 160, 7), (32, 384, 12)]
MOBILENET_V2_STAGES = [
    (2, 16, 1),
    (4, 24, 2),
    (8, 32, 3),
    (16, 64, 4),
    (16, 96, 3),
    (32, 160, 3),
    (32, 320, 1),
]
MOBILENET_V3_STAGES = [(2, 16, 1), (4, 24, 2), (8, 40, 3), (16, 80, 4), (16, 112, 2), (32, 160, 3)]
EFFICIENTNET_STAGES = [
    (2, 16, 1),
    (4, 24, 2),
    (8, 40, 2),
    (16, 80, 3),
    (16, 112, 3),
    (32, 192, 4),
    (32, 320, 1),
]
ATTO_STAGES = [(4, 40, 2), (8, 80, 2), (16, 160, 6), (32, 320, 2)]
# Two branches in stage 2, three in stage 3, four in stage 4; one module each, of one or two blocks.
SMALL_HRNET = {
    f'stage{i}': dict(
        num_modules=1,
        num_branches=i,
        block='BOTTLENECK' if i == 1 else 'BASIC',
        num_blocks=(2 if i == 4 else 1,) * i,
        num_channels=(8, 16, 24, 32)[:i],
    )
    for i in range(1, 5)
}
SMALL_HRNET_STAGES = [(4, 32, 1), (4, 8, 4), (8, 16, 4), (16, 24, 3), (32, 32, 2)]
SMALL_HRNET_MIXERS = {
    'stage4.0.branches.2.1.conv2': (12, 12, 14),
    'stage4.0.branches.3.1.conv2': (16, 16, 7),
}
CSPNEXT_STAGES = [(4, 24, 1), (8, 48, 1), (16, 96, 1), (32, 192, 1)]


def mobilenet_v2_mixers(pattern):
    blocks = [(4, 2, 192, 14), (4, 3, 192, 14), (5, 2, 288, 14), (6, 2, 480, 7), (7, 0, 480, 7)]
    return {pattern(stage, block): (half, 1, length) for stage, block, half, length in blocks}


FAMILIES = {
    'resnet18': Family(
        RESNET18,
        [(4, 64, 2), (8, 128, 2), (16, 256, 2), (32, 512, 2)],
        {'layer3.1.conv2': (128, 128, 14), 'layer4.1.conv2': (256, 256, 7)},
    ),
    'resnet50': Family(
        dict(type='mmdet.ResNet', depth=50),
        RESNET50_STAGES,
        {
            **numbered('layer3.{}.conv2', (4, 5), (128, 128, 14)),
            'layer4.2.conv2': (256, 256, 7),
        },
    ),
    'resnet v1d, dilated': Family(
        dict(type='mmseg.ResNetV1d', depth=18, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
        [(4, 64, 2), (8, 128, 2), (16, 256, 2), (16, 512, 2)],
        {'layer3.1.conv2': (128, 128, 14), 'layer4.1.conv2': (256, 256, 14)},
    ),
    'resnext': Family(
        dict(type='mmpretrain.ResNeXt', depth=50, out_indices=(0, 1, 2, 3)),
        RESNET50_STAGES,
        {
            **numbered('layer3.{}.conv2', (4, 5), (256, 16, 14)),
            'layer4.2.conv2': (512, 32, 7),
        },
    ),
    'res2net': Family(
        dict(type='mmpretrain.Res2Net', depth=50, scales=4, base_width=26, deep_stem=True),
        RESNET50_STAGES,
        {
            **numbered('layer3.{}.convs.2', (4, 5), (52, 52, 14)),
            'layer4.2.convs.2': (104, 104, 7),
        },
    ),
    'mmdet res2net': Family(
        dict(type='mmdet.Res2Net', depth=50, scales=4, base_width=26),
        RESNET50_STAGES,
        {
            **numbered('layer3.{}.convs.2', (4, 5), (52, 52, 14)),
            'layer4.2.convs.2': (104, 104, 7),
        },
    ),
    'regnet': Family(
        dict(type='mmpretrain.RegNet', arch='regnetx_400mf', out_indices=(0, 1, 2, 3)),
        REGNET_STAGES,
        {
            **numbered('layer3.{}.conv2', (4, 5, 6), (80, 16, 14)),
            **numbered('layer4.{}.conv2', (8, 9, 10, 11), (192, 16, 7)),
        },
    ),
    'mobilenet_v2': Family(
        dict(type='mmpretrain.MobileNetV2', out_indices=(1, 2, 4, 7)),
        MOBILENET_V2_STAGES,
        mobilenet_v2_mixers('layer{}.{}.conv.1.conv'.format),
    ),
    'mmdet mobilenet_v2': Family(
        dict(type='mmdet.MobileNetV2'),
        MOBILENET_V2_STAGES,
        mobilenet_v2_mixers('layer{}.{}.depthwise_conv.conv'.format),
    ),
    'mobilenet_v3': Family(
        dict(type='mmpretrain.MobileNetV3', arch='large', out_indices=(3, 6, 12, 16)),
        MOBILENET_V3_STAGES,
        {
            **numbered('layer{}.depthwise_conv.conv', (9, 10), (92, 1, 14)),
            'layer12.depthwise_conv.conv': (336, 1, 14),
            'layer15.depthwise_conv.conv': (480, 1, 7),
        },
    ),
    'efficientnet': Family(
        dict(type='mmpretrain.EfficientNet', arch='b0', out_indices=(2, 3, 4, 6)),
        EFFICIENTNET_STAGES,
        {
            'layers.4.2.depthwise_conv.conv': (240, 1, 14),
            'layers.4.5.depthwise_conv.conv': (336, 1, 14),
            **numbered('layers.5.{}.depthwise_conv.conv', (2, 3, 4), (576, 1, 7)),
        },
    ),
    'mmdet efficientnet': Family(
        dict(type='mmdet.EfficientNet', arch='b0', out_indices=(3, 4, 5)),
        EFFICIENTNET_STAGES,
        {
            'layers.4.2.depthwise_conv.conv': (240, 1, 14),
            'layers.4.5.depthwise_conv.conv': (336, 1, 14),
            **numbered('layers.5.{}.depthwise_conv.conv', (2, 3, 4), (576, 1, 7)),
        },
    ),
    'convnext': Family(
        dict(type='mmpretrain.ConvNeXt', arch='atto', out_indices=(0, 1, 2, 3)),
        ATTO_STAGES,
        {
            **numbered('stages.2.{}.depthwise_conv', (4, 5), (80, 1, 14)),
            'stages.3.1.depthwise_conv': (160, 1, 7),
        },
    ),
    'convnext_v2': Family(
        dict(
            type='mmpretrain.ConvNeXt',
            arch='atto',
            use_grn=True,
            layer_scale_init_value=0.0,
            gap_before_final_norm=False,
        ),
        ATTO_STAGES,
        {
            **numbered('stages.2.{}.depthwise_conv', (4, 5), (80, 1, 14)),
            'stages.3.1.depthwise_conv': (160, 1, 7),
        },
    ),
    'hrnet': Family(
        dict(type='mmpretrain.HRNet', arch='w18'),
        [(4, 256, 4), (4, 18, 32), (8, 36, 32), (16, 72, 28), (32, 144, 12)],
        {
            **numbered('stage4.0.branches.2.{}.conv2', (2, 3), (36, 36, 14)),
            **numbered('stage4.1.branches.2.{}.conv2', range(4), (36, 36, 14)),
            **numbered('stage4.2.branches.2.{}.conv2', range(4), (36, 36, 14)),
            **numbered('stage4.2.branches.3.{}.conv2', range(4), (72, 72, 7)),
        },
        WHOLE_SIZES,
    ),
    'mmdet hrnet': Family(
        dict(type='mmdet.HRNet', extra=SMALL_HRNET),
        SMALL_HRNET_STAGES,
        SMALL_HRNET_MIXERS,
        WHOLE_SIZES,
    ),
    'mmseg hrnet': Family(
        dict(type='mmseg.HRNet', extra=SMALL_HRNET), SMALL_HRNET_STAGES, SMALL_HRNET_MIXERS
    ),
    'cspnext': Family(
        dict(type='mmdet.CSPNeXt', deepen_factor=0.167, widen_factor=0.375),
        CSPNEXT_STAGES,
        {
            'stage3.1.blocks.0.conv2.depthwise_conv.conv': (48, 1, 14),
            'stage4.2.blocks.0.conv2.depthwise_conv.conv': (96, 1, 7),
        },
    ),
    'timm resnet50': Family(
        timm('resnet50'),
        RESNET50_STAGES,
        {
            **numbered('timm_model.layer3.{}.conv2', (4, 5), (128, 128, 14)),
            'timm_model.layer4.2.conv2': (256, 256, 7),
        },
    ),
    'timm resnext50_32x4d': Family(
        timm('resnext50_32x4d'),
        RESNET50_STAGES,
        {
            **numbered('timm_model.layer3.{}.conv2', (4, 5), (256, 16, 14)),
            'timm_model.layer4.2.conv2': (512, 32, 7),
        },
    ),
    'timm res2net50_26w_4s': Family(
        timm('res2net50_26w_4s'),
        RESNET50_STAGES,
        {
            **numbered('timm_model.layer3.{}.convs.2', (4, 5), (52, 52, 14)),
            'timm_model.layer4.2.convs.2': (104, 104, 7),
        },
    ),
    'timm regnetx_004': Family(
        timm('regnetx_004'),
        REGNET_STAGES,
        {
            **numbered('timm_model.s3.b{}.conv2.conv', (5, 6, 7), (80, 16, 14)),
            **numbered('timm_model.s4.b{}.conv2.conv', (9, 10, 11, 12), (192, 16, 7)),
        },
    ),
    'timm mobilenetv2_100': Family(
        timm('mobilenetv2_100'),
        MOBILENET_V2_STAGES,
        mobilenet_v2_mixers(lambda s, b: f'timm_model.blocks.{s - 1}.{b}.conv_dw'),
    ),
    'timm mobilenetv3_large_100': Family(
        timm('mobilenetv3_large_100'),
        MOBILENET_V3_STAGES,
        {
            **numbered('timm_model.blocks.3.{}.conv_dw', (2, 3), (92, 1, 14)),
            'timm_model.blocks.4.1.conv_dw': (336, 1, 14),
            'timm_model.blocks.5.2.conv_dw': (480, 1, 7),
        },
    ),
    'timm efficientnet_b0': Family(
        timm('efficientnet_b0'),
        EFFICIENTNET_STAGES,
        {
            'timm_model.blocks.3.2.conv_dw': (240, 1, 14),
            'timm_model.blocks.4.2.conv_dw': (336, 1, 14),
            **numbered('timm_model.blocks.5.{}.conv_dw', (2, 3), (576, 1, 7)),
            'timm_model.blocks.6.0.conv_dw': (576, 1, 7),
        },
    ),
    # Its convolutions are of a class of timm's that pads as TensorFlow does.
    'timm tf_mobilenetv3_small_minimal_100': Family(
        timm('tf_mobilenetv3_small_minimal_100'),
        [(4, 16, 1), (8, 24, 2), (16, 40, 3), (16, 48, 2), (32, 96, 3)],
        {
            'timm_model.blocks.2.2.conv_dw': (120, 1, 14),
            'timm_model.blocks.3.1.conv_dw': (72, 1, 14),
            'timm_model.blocks.4.2.conv_dw': (288, 1, 7),
        },
    ),
    'timm convnext_atto': Family(
        timm('convnext_atto'),
        ATTO_STAGES,
        {
            **numbered('timm_model.stages_2.blocks.{}.conv_dw', (4, 5), (80, 1, 14)),
            'timm_model.stages_3.blocks.1.conv_dw': (160, 1, 7),
        },
    ),
    'timm convnextv2_atto': Family(
        timm('convnextv2_atto'),
        ATTO_STAGES,
        {
            **numbered('timm_model.stages_2.blocks.{}.conv_dw', (4, 5), (80, 1, 14)),
            'timm_model.stages_3.blocks.1.conv_dw': (160, 1, 7),
        },
    ),
    # Stage 1 and the first of the blocks that widen the outputs have 128 channels both.
    'timm hrnet_w18_small': Family(
        timm('hrnet_w18_small'),
        [
            (4, 128, 2),
            (4, 16, 6),
            (8, 32, 6),
            (16, 64, 4),
            (32, 128, 2),
            (8, 256, 1),
            (16, 512, 1),
            (32, 1024, 1),
        ],
        {
            **numbered('timm_model.stage4.0.branches.2.{}.conv2', (0, 1), (32, 32, 14)),
            'timm_model.stage4.0.branches.3.1.conv2': (64, 64, 7),
            'timm_model.incre_modules.2.0.conv2': (64, 64, 14),
            'timm_model.incre_modules.3.0.conv2': (128, 128, 7),
        },
        WHOLE_SIZES,
    ),
    'timm cspnext_tiny': Family(
        timm('cspnext_tiny'),
        CSPNEXT_STAGES,
        {
            'timm_model.model.stages.2.1.blocks.0.conv2.depthwise_conv.conv': (48, 1, 14),
            'timm_model.model.stages.3.2.blocks.0.conv2.depthwise_conv.conv': (96, 1, 7),
        },
    ),
    # Each stage has a strided convolution of its own beside its blocks.
    'timm cspresnext50': Family(
        timm('cspresnext50'),
        [(4, 128, 3), (8, 256, 3), (16, 512, 5), (32, 1024, 2)],
        {
            **numbered('timm_model.stages_2.blocks.{}.conv2.conv', (3, 4), (256, 16, 14)),
            'timm_model.stages_3.blocks.1.conv2.conv': (512, 32, 7),
        },
    ),
}
FAST = {'resnet18', 'convnext', 'cspnext'}
each_family = pytest.mark.parametrize(
    'name', [name if name in FAST else pytest.param(name, marks=slow) for name in FAMILIES]
)


@each_family
def test_family(name, monkeypatch):
    """Stages, mixers, the plain network's shapes at any size, and gradients."""
    family, stages = FAMILIES[name], []

    def find(backbone, size):
        assert size == (224, 224)
        stages.extend(find_stages(backbone, size))
        return stages

    monkeypatch.setattr(surgery, 'find_stages', find)
    twin, model = in_eval(plain(family.cfg)), parcify(family.cfg)
    assert [(s.stride, s.channels, len(s.blocks)) for s in stages] == family.stages
    found = mixers(model)
    assert {n: tuple(m.conv_h.weight.shape) for n, m in found.items()} == family.mixers
    for n, mixer in found.items():
        conv = twin.get_submodule(n)
        assert conv.stride == (1, 1) and max(conv.kernel_size) > 1
        assert type(mixer) is ParCMixer and mixer.conv_w.weight.shape == mixer.conv_h.weight.shape
        assert mixer.conv_h.bias is not None and mixer.conv_h.pos_embed is not None

    # The names of all else are the plain ones.
    own = {n for n in model.state_dict() if not n.startswith(tuple(f'{m}.' for m in found))}
    rest = {n for n in twin.state_dict() if not n.startswith(tuple(f'{m}.' for m in found))}
    assert own == rest

    in_eval(model)
    for size in family.sizes:
        image = torch.randn(1, 3, *size)
        with torch.no_grad():
            outputs, expected = model(image), twin(image)
        assert [o.shape for o in outputs] == [o.shape for o in expected]
        assert all(o.isfinite().all() for o in outputs)

    # A norm's own statistics would take ParC's bias out, and some norms' weights start at 0.
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.forward = lambda x, norm=module: nn.functional.batch_norm(
                x, norm.running_mean, norm.running_var
            )
    grads = gradients(model, torch.randn(1, 3, *family.sizes[1]))
    for n in found:
        for layer in ('conv_h', 'conv_w'):
            for kind in ('weight', 'bias', 'pos_embed'):
                grad = grads[f'{n}.{layer}.{kind}']
                assert grad.isfinite().all() and grad.any(), f'{n}.{layer}.{kind}'


@pytest.mark.parametrize(
    ('channels', 'groups', 'expected'),
    [
        (64, 1, 1),  # dense
        (64, 64, 32),  # depthwise
        (64, 2, 1),
        (64, 4, 2),
        (512, 32, 16),  # ResNeXt: groups of 16
        (432, 9, 9),  # RegNetX-3.2GF: groups of 48, of which a half has 4.5; now of 24
        (1008, 21, 21),
    ],
)
def test_groups_of_a_half(channels, groups, expected):
    assert mixer_groups(channels, groups) == expected
    weight = ParCMixer(channels, 7, groups=expected).conv_h.weight
    assert weight.shape == (channels // 2, channels // 2 // expected, 7)


@pytest.mark.parametrize(
    ('cfg', 'stages'),
    [
        (dict(NARROW, deep_stem=True, avg_down=True), [(4, 8), (8, 16), (16, 32), (32, 64)]),
        (dict(NARROW, strides=(1, 2, 1, 1)), [(4, 8), (8, 16), (8, 32), (8, 64)]),
    ],
    ids=['deep stem', 'dilated'],
)
@pytest.mark.parametrize('size', [(224, 224), (97, 131), (200, 336), (65, 33)], ids=str)
def test_total_strides_at_any_size(cfg, stages, size):
    found = find_stages(plain(cfg), size)
    assert [(stage.stride, stage.channels) for stage in found] == stages
    assert [len(stage.blocks) for stage in found] == [2, 2, 2, 2]


# The dedicated backbones


@pytest.mark.parametrize(
    ('dedicated', 'cfg', 'options'),
    [
        pytest.param(
            lambda: ParCResNet(50, parc_starts=(3, 4, 3, 2), img_size=(192, 320)),
            dict(type='mmpretrain.ResNet', depth=50),
            dict(parc_starts=(3, 4, 3, 2), img_size=(192, 320)),
            marks=slow,
        ),
        (
            lambda: ParCResNet(50, stem_channels=8, base_channels=8, out_indices=(0, 1, 2, 3)),
            NARROW50,
            dict(parc_starts=(3, 4, 3, 2)),
        ),
        (
            lambda: ParCResNet(18, out_indices=(0, 1, 2, 3)),
            RESNET18,
            dict(parc_starts=(2, 2, 1, 1)),
        ),
        (
            lambda: ParCResNet(18, stem_channels=8, base_channels=8, parc_starts=(2, 2, 2, 0)),
            dict(type='mmpretrain.ResNet', depth=18, stem_channels=8, base_channels=8),
            dict(parc_starts=(2, 2, 2, 0)),
        ),
        (
            lambda: ParCConvNeXt('xtiny', parc_starts=(3, 3, 6, 2)),
            dict(
                type='mmpretrain.ConvNeXt',
                arch=dict(depths=[3, 3, 9, 3], channels=[48, 96, 192, 384]),
            ),
            dict(parc_starts=(3, 3, 6, 2)),
        ),
        (
            lambda: ParCMobileNetV2(),
            dict(type='mmpretrain.MobileNetV2'),
            dict(parc_starts=(1, 2, 3, 2, 2, 2, 1), pos_embed='first'),
        ),
    ],
    ids=[
        'resnet50',
        'narrow resnet50',
        'resnet18',
        'resnet18 from block 0',
        'convnext',
        'mobilenet_v2',
    ],
)
def test_equal_to_the_dedicated_backbone(dedicated, cfg, options):
    dedicated, model = in_eval(dedicated()), in_eval(parcify(cfg, **options))
    shapes, expected = (
        {name: value.shape for name, value in m.state_dict().items()} for m in (model, dedicated)
    )
    assert shapes == expected and mixers(model)
    with torch.no_grad():
        for parameter in dedicated.parameters():  # else a layer scale of 1e-6 hides ParC
            parameter.copy_(0.2 * torch.randn_like(parameter) + (parameter == 1))
        before = model(torch.ones(1, 3, 64, 96))[-1]
        model.load_state_dict(dedicated.state_dict(), strict=True)
        for size in ((96, 96), (97, 131), (200, 336)):
            image = torch.randn(1, 3, *size)
            for a, b in zip(model(image), dedicated(image), strict=True):
                assert torch.equal(a, b)
        # negative control: the weights count
        assert not torch.equal(before, dedicated(torch.ones(1, 3, 64, 96))[-1])


@pytest.mark.parametrize('stage', [1, pytest.param(5, marks=slow)])
def test_a_strided_convolution_is_not_replaced(stage):
    depths = (1, 2, 3, 4, 3, 3, 1)
    starts = [0 if i == stage else depth for i, depth in enumerate(depths)]
    with pytest.raises(ValueError, match=rf'set parc_starts\[{stage}\] to 1 or more'):
        parcify(dict(type='mmpretrain.MobileNetV2', widen_factor=0.25), parc_starts=starts)


# What is exchanged


@pytest.mark.parametrize(
    ('cfg', 'options', 'names'),
    [
        (NARROW, dict(stages=3), ['layer4.1.conv2']),
        (NARROW, dict(stages=[0, 3]), ['layer1.1.conv2', 'layer4.1.conv2']),
        (NARROW, dict(stages=(3,), share=1), ['layer4.0.conv2', 'layer4.1.conv2']),
        (NARROW, dict(stages=(3,), share=0.51), ['layer4.0.conv2', 'layer4.1.conv2']),
        (
            NARROW50,
            dict(share=(0.5, 1 / 3)),
            ['layer3.3.conv2', 'layer3.4.conv2', 'layer3.5.conv2', 'layer4.2.conv2'],
        ),
        # the strided 3x3 of a bottleneck's first block stays
        (
            NARROW50,
            dict(stages=(3, 2), share=(1, 0.5)),
            ['layer3.3.conv2', '3.4.conv2', '3.5.conv2', 'layer4.1.conv2', 'layer4.2.conv2'],
        ),
        (NARROW, dict(replace='all', stages=3), ['layer4.1.conv1', 'layer4.1.conv2']),
        (NARROW, dict(replace='all', stages=3, share=1), ['4.0.conv2', '4.1.conv1', '4.1.conv2']),
        (NARROW, dict(replace=r'conv1$'), ['layer3.1.conv1', 'layer4.1.conv1']),
        (NARROW, dict(replace='layer4'), ['layer4.1.conv1', 'layer4.1.conv2']),
        (NARROW, dict(parc_starts=[2, 1, 2, 2]), ['layer2.1.conv2']),
        (
            FAMILIES['cspnext'].cfg,
            dict(stages=3, replace='all'),
            ['stage4.2.blocks.0.conv1.conv', 'stage4.2.blocks.0.conv2.depthwise_conv.conv'],
        ),
    ],
    ids=str,
)
def test_choice(cfg, options, names):
    found = list(mixers(parcify(cfg, **options)))
    assert len(found) == len(names) and all(f.endswith(n) for f, n in zip(found, names))


def test_embeddings_in_the_first_block_alone():
    options = dict(parc_starts=(2, 2, 0, 0), replace='all', pos_embed='first')
    model = parcify(dict(NARROW, strides=(1, 2, 1, 2)), **options)
    embedded = {name: mixer.conv_h.pos_embed is not None for name, mixer in mixers(model).items()}
    assert embedded == {
        'layer3.0.conv2': True,
        'layer3.1.conv1': False,
        'layer3.1.conv2': False,
        'layer4.0.conv2': True,
        'layer4.1.conv1': False,
        'layer4.1.conv2': False,
    }


@pytest.mark.parametrize(
    ('img_size', 'deep', 'deepest'),
    [((200, 336), (13, 21), (7, 11)), ((336, 200), (21, 13), (11, 7)), ((97, 131), (7, 9), (4, 5))],
    ids=str,
)
def test_kernels_are_as_long_as_the_map(img_size, deep, deepest):
    """Also seen from the map itself: at that size nothing is resized."""
    model = in_eval(parcify(NARROW, img_size=img_size))
    assert kernel_sizes(model) == {'layer3.1.conv2': deep, 'layer4.1.conv2': deepest}
    for mixer, received, _ in calls_of_mixers(model, torch.randn(1, 3, *img_size)):
        kernel = mixer.conv_h.weight.shape[-1], mixer.conv_w.weight.shape[-1]
        assert tuple(received.shape[2:]) == kernel


def test_options_reach_the_layers():
    model = parcify(NARROW, resize='interpolate_sum', backend='fft')
    layers = [layer for mixer in mixers(model).values() for layer in mixer.children()]
    assert {(layer.resize, layer.backend) for layer in layers} == {('interpolate_sum', 'fft')}


def test_it_reports(monkeypatch):
    lines = []
    monkeypatch.setattr(surgery, 'print_log', lambda line, logger: lines.append((line, logger)))
    parcify(NARROW50, img_size=(224, 320))
    assert lines == [
        (
            'ParCify: stage 2 (stride 16, 128 channels), 2 of 6 blocks: layer3.4.conv2, '
            'layer3.5.conv2 (dense, 32 channels, kernels of 14 along H and 20 along W)',
            'current',
        ),
        (
            'ParCify: stage 3 (stride 32, 256 channels), 1 of 3 blocks: layer4.2.conv2 '
            '(dense, 64 channels, kernels of 7 along H and 10 along W)',
            'current',
        ),
    ]


@pytest.mark.parametrize(
    ('cfg', 'options', 'message'),
    [
        (NARROW, dict(stages=4), r'3: stride 32, 64 channels, 2 blocks, got 4'),
        (NARROW, dict(stages=(2, 2)), 'stages must be different'),
        (NARROW, dict(stages=-1), 'stages must be'),
        (NARROW, dict(stages=()), 'nothing to exchange'),
        (NARROW, dict(share=0), 'share must be above 0'),
        (NARROW, dict(share=1.5), 'share must be above 0'),
        (NARROW, dict(share=(0.5, 0.5, 0.5)), r'each of the stages \[2, 3\]'),
        (NARROW, dict(parc_starts=(2, 2, 1, 1), stages=3), 'parc_starts stands instead'),
        (NARROW, dict(parc_starts=(2, 2, 1, 1), share=0.5), 'parc_starts stands instead'),
        (NARROW, dict(parc_starts=(2, 2, 1)), r'parc_starts must .* depths \[2, 2, 2, 2\]'),
        (NARROW, dict(parc_starts=(2, 2, 2, 2)), 'nothing to exchange'),
        (NARROW, dict(replace='conv7'), 'nothing to exchange in ResNet .* 0: stride 4, 8 channels'),
        (NARROW, dict(replace='('), 'regular expression'),
        (NARROW, dict(pos_embed='last'), 'pos_embed must be'),
        (dict(NARROW, strides=(1, 2, 1, 1)), {}, 'nothing to exchange .* 3: stride 8'),
        (dict(type='mmpretrain.VGG', depth=11), {}, 'of which it has none'),
        (dict(type='mmpretrain.MlpMixer', arch='s'), {}, 'of which it has none'),
        (
            dict(type='mmpretrain.ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 9])),
            {},
            r'stages\.3\.0\.depthwise_conv has 9',
        ),
        (
            dict(
                type='mmdet.ResNet',
                depth=50,
                base_channels=8,
                dcn=dict(type='DCNv2', deform_groups=1),
                stage_with_dcn=(False, True, True, True),
            ),
            {},
            'nothing to exchange|cannot be followed',  # by a compiled mmcv
        ),
        (dict(type='mmpretrain.LeNet5'), dict(img_size=4), 'cannot be followed'),
    ],
    ids=str,
)
def test_refusals(cfg, options, message):
    with pytest.raises(ValueError, match=message) as refusal:
        parcify(cfg, **options)
    assert '\n' not in str(refusal.value)


def test_misspelt_argument_is_refused():
    with pytest.raises(TypeError):
        parcify(NARROW, shares=0.5)


# What stays


def bits(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    'cfg',
    [
        NARROW,
        dict(type='mmdet.ResNet', depth=18, base_channels=8),
        dict(type='mmpretrain.ConvNeXt', arch='atto'),
        pytest.param(dict(type='mmpretrain.MobileNetV2', widen_factor=0.25), marks=slow),
        pytest.param(FAMILIES['mmseg hrnet'].cfg, marks=slow),
    ],
    ids=lambda cfg: cfg['type'],
)
def test_pretrained_weights_stay_to_the_bit(cfg, tmp_path):
    torch.manual_seed(1)
    source = MODELS.build(cfg)
    with torch.no_grad():
        for value in source.state_dict().values():
            if value.is_floating_point():
                value.normal_()
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'plain.pth')

    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'plain.pth'))
    model = parcify(dict(cfg, init_cfg=pretrained))
    names = tuple(f'{name}.' for name in mixers(model))
    before = bits(model)
    kept = {n: value for n, value in bits(source).items() if not n.startswith(names)}
    replaced = source.state_dict().keys() - kept.keys()
    assert names and replaced and not replaced & (before.keys() - {f'{n}bias' for n in names})

    def same(values):
        return [name for name, value in kept.items() if torch.equal(values[name], value)]

    # negative control: before they are loaded, only what counts batches agrees
    assert all(name.endswith('num_batches_tracked') for name in same(before))
    model.init_weights()
    after = bits(model)
    assert same(after) == list(kept)
    own = after.keys() - kept.keys()
    assert own == {n for n in after if n.startswith(names)}
    for name in own:  # the mixers keep their own start
        assert torch.equal(after[name], before[name])


@pytest.mark.parametrize(
    'cfg', [NARROW, FAMILIES['convnext'].cfg, FAMILIES['cspnext'].cfg], ids=lambda c: c['type']
)
def test_an_existing_network_is_left_as_it_was(cfg):
    """Its values and modes, and random states but for the mixers' initial values."""
    source = plain(cfg)
    source.train()
    with torch.no_grad():
        for value in source.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.5, 1.5)
    expected, modes = bits(source), {n: m.training for n, m in source.named_modules()}
    layers = [
        (mixer.conv_h.weight.shape[0] * 2, mixer.conv_h.weight.shape[-1], layer.groups)
        for mixer in mixers(parcify(cfg)).values()
        for layer in [mixer.conv_h]
    ]

    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    others = str(np.random.get_state()), random.getstate()
    model = surgery.ParCify(source)
    state = torch.get_rng_state()
    assert (str(np.random.get_state()), random.getstate()) == others
    torch.manual_seed(3)
    for channels, length, groups in layers:
        ParCMixer(channels, length, groups=groups)
    assert torch.equal(torch.get_rng_state(), state)
    torch.randn(1)  # negative control
    assert not torch.equal(torch.get_rng_state(), state)

    assert model is source and mixers(model)
    for name, value in model.state_dict().items():
        if name in expected and not name.startswith(tuple(mixers(model))):
            assert torch.equal(value, expected[name]), name
    for name, module in model.named_modules():
        assert module.training == modes.get(name, True)
        assert not module._forward_hooks


@pytest.mark.parametrize(
    ('cfg', 'std', 'normal'),
    [
        (NARROW, lambda w: (2 / (w.shape[0] * w.shape[2])) ** 0.5, True),
        (dict(type='mmdet.ResNet', depth=18), lambda w: (2 / w[:, 0].numel()) ** 0.5, True),
        (FAMILIES['convnext'].cfg, lambda w: 0.02, True),
        # one rule that names one layer, not a list: Kaiming uniform, fan in, a = sqrt(5)
        (FAMILIES['cspnext'].cfg, lambda w: (1 / 3 / w[0].numel()) ** 0.5, False),
    ],
    ids=['mmpretrain resnet', 'mmdet resnet', 'convnext', 'cspnext'],
)
def test_rules_for_convolutions_hold_for_kernels(cfg, std, normal):
    model = parcify(cfg)
    model.init_weights()
    for name, mixer in mixers(model).items():
        for conv in (mixer.conv_h, mixer.conv_w):
            weight = conv.weight.detach()
            assert weight.std().item() == pytest.approx(std(weight), rel=0.1), name
            assert (weight.abs().max() > 2.2 * weight.std()).item() is normal
            assert not conv.bias.any()
            assert conv.pos_embed.std().item() == pytest.approx(0.02, rel=0.2)


def test_rules_are_not_changed_for_others():
    default = copy.deepcopy(ConvNeXt('atto').init_cfg)
    parcify(FAMILIES['convnext'].cfg)
    assert ConvNeXt('atto').init_cfg == default


@pytest.mark.parametrize('package', ['mmpretrain', 'mmdet', pytest.param('mmseg', marks=slow)])
def test_frozen_stages_stay_frozen(package):
    cfg = dict(type=f'{package}.ResNet', depth=18, base_channels=8, frozen_stages=3, norm_eval=True)
    model = parcify(cfg, stages=(2, 3))
    for _ in range(2):
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad is name.startswith('layer4.'), name
        model.train()
        for name, mixer in mixers(model).items():
            assert mixer.conv_h.training is name.startswith('layer4.')
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert not any(norm.training for norm in norms)


def test_stages_frozen_when_set_to_training():
    cfg = dict(type='mmpretrain.MobileNetV2', widen_factor=0.25, frozen_stages=5)
    model = parcify(cfg)
    model.train()
    for name, mixer in mixers(model).items():
        frozen = int(name[5]) <= 5
        assert {p.requires_grad for p in mixer.parameters()} == {not frozen}


def test_layer_depth_is_that_of_the_plain_block():
    model, twin = parcify(NARROW50), plain(NARROW50)
    depths = {n.rpartition('.')[0]: twin.get_layer_depth(n) for n, _ in twin.named_parameters()}
    for name, mixer in mixers(model).items():
        for parameter, _ in mixer.named_parameters():
            assert model.get_layer_depth(f'{name}.{parameter}') == depths[name]


def test_checkpointing_gives_the_same_gradients():
    image = torch.randn(1, 3, 97, 131, dtype=torch.float64)
    runs = []
    for with_cp in (False, True):
        cfg = dict(NARROW, with_cp=with_cp, norm_eval=True, zero_init_residual=False)
        runs.append(gradients(parcify(cfg).double(), image))
    for name, grad in runs[0].items():
        assert grad.any(), name
        assert_close(runs[1][name], grad, 1e-12, name)


@slow
def test_compiled():
    model = in_eval(parcify(NARROW))
    compiled = torch.compile(model, fullgraph=True, backend='eager')
    image = torch.randn(1, 3, 97, 131)
    with torch.no_grad():
        expected = model(image)
        for a, b in zip(compiled(image), expected, strict=True):
            assert_close(a, b, 1e-5)
        next(iter(mixers(model).values())).conv_h.weight.zero_()
        assert relative_error(compiled(image)[2], expected[2]) > 1e-3  # negative control
