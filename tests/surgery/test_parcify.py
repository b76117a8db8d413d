"""parcify on convolutions: what it exchanges in each family, and that it leaves all else alone.

What is expected was written down from the architectures' tables; the dedicated backbones and the
plain networks are the other independent sides of the comparisons.
"""

import copy
import dataclasses
import logging
import random

import numpy as np
import pytest
import torch
from backbones import calls_of_mixers, gradients, in_eval, kernel_sizes, mixers
from mmengine.registry import MODELS
from mmpretrain.models import ConvNeXt
from torch import nn

from mmparc.layers import ParCMixer
from mmparc.layers.placement import mixer_groups
from mmparc.surgery.stages import find_stages

full = pytest.mark.full


def timm(name):
    return dict(type='mmpretrain.TIMMBackbone', model_name=name, features_only=True)


def plain(cfg):
    torch.manual_seed(0)
    return MODELS.build(cfg)


def convert(cfg, **options):
    """From text alone, as a config says it."""
    torch.manual_seed(0)
    return MODELS.build(dict(type='mmparc.ParCify', backbone=cfg, **options))


RESNET18 = dict(type='mmpretrain.ResNet', depth=18, out_indices=(0, 1, 2, 3))
NARROW = dict(RESNET18, stem_channels=8, base_channels=8)
NARROW50 = dict(NARROW, depth=50)
ATTO = dict(type='mmpretrain.ConvNeXt', arch='atto', out_indices=(0, 1, 2, 3))


# Families


@dataclasses.dataclass
class Family:
    """A backbone, its stages, and the default mixers.

    Attributes:
        stages: (total stride, channels, blocks) of each.
        mixers: {the convolution's name: shape of the mixer's kernel along H}, (C / 2, channels in a
            group, K); the one along W has the same, for square images.
    """

    cfg: dict
    stages: list[tuple[int, int, int]]
    mixers: dict[str, tuple[int, int, int]]


def numbered(pattern, indices, shape):
    return {pattern.format(i): shape for i in indices}


RESNET50_STAGES = [(4, 256, 3), (8, 512, 4), (16, 1024, 6), (32, 2048, 3)]
MOBILENET_V2_STAGES = [
    *((2, 16, 1), (4, 24, 2), (8, 32, 3)),
    *((16, 64, 4), (16, 96, 3), (32, 160, 3), (32, 320, 1)),
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
CSPNEXT_STAGES = [(4, 24, 1), (8, 48, 1), (16, 96, 1), (32, 192, 1)]


def resnet50_mixers(pattern, deep, deepest):
    return {
        **{pattern.format(3, i): (*deep, 14) for i in (4, 5)},
        pattern.format(4, 2): (*deepest, 7),
    }


FAMILIES = {
    'resnet18': Family(
        RESNET18,
        [(4, 64, 2), (8, 128, 2), (16, 256, 2), (32, 512, 2)],
        {'layer3.1.conv2': (128, 128, 14), 'layer4.1.conv2': (256, 256, 7)},
    ),
    'resnext': Family(
        dict(type='mmpretrain.ResNeXt', depth=50, out_indices=(0, 1, 2, 3)),
        RESNET50_STAGES,
        resnet50_mixers('layer{}.{}.conv2', (256, 16), (512, 32)),
    ),
    'mmdet res2net': Family(
        dict(type='mmdet.Res2Net', depth=50, scales=4, base_width=26),
        RESNET50_STAGES,
        resnet50_mixers('layer{}.{}.convs.2', (52, 52), (104, 104)),
    ),
    'mobilenet_v2': Family(
        dict(type='mmpretrain.MobileNetV2', out_indices=(1, 2, 4, 7)),
        MOBILENET_V2_STAGES,
        {
            **numbered('layer4.{}.conv.1.conv', (2, 3), (192, 1, 14)),
            'layer5.2.conv.1.conv': (288, 1, 14),
            'layer6.2.conv.1.conv': (480, 1, 7),
            'layer7.0.conv.1.conv': (480, 1, 7),
        },
    ),
    'convnext': Family(
        ATTO,
        ATTO_STAGES,
        {
            **numbered('stages.2.{}.depthwise_conv', (4, 5), (80, 1, 14)),
            'stages.3.1.depthwise_conv': (160, 1, 7),
        },
    ),
    'mmseg hrnet': Family(
        dict(type='mmseg.HRNet', extra=SMALL_HRNET),
        [(4, 32, 1), (4, 8, 4), (8, 16, 4), (16, 24, 3), (32, 32, 2)],
        {
            'stage4.0.branches.2.1.conv2': (12, 12, 14),
            'stage4.0.branches.3.1.conv2': (16, 16, 7),
        },
    ),
    'cspnext': Family(
        dict(type='mmdet.CSPNeXt', deepen_factor=0.167, widen_factor=0.375),
        CSPNEXT_STAGES,
        {
            'stage3.1.blocks.0.conv2.depthwise_conv.conv': (48, 1, 14),
            'stage4.2.blocks.0.conv2.depthwise_conv.conv': (96, 1, 7),
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


def stages_of(network, size=(224, 224)):
    return [(s.stride, s.channels, len(s.blocks)) for s in find_stages(network, size)]


@pytest.mark.parametrize(
    'name', [name if name in FAST else pytest.param(name, marks=full) for name in FAMILIES]
)
def test_family(name):
    """Stages, mixers, names, the plain network's shapes at any size, and gradients."""
    family = FAMILIES[name]
    twin, model = in_eval(plain(family.cfg)), convert(family.cfg)
    assert stages_of(twin) == family.stages
    found = mixers(model)
    assert {n: tuple(m.conv_h.weight.shape) for n, m in found.items()} == family.mixers
    for n, mixer in found.items():
        conv = twin.get_submodule(n)
        assert conv.stride == (1, 1) and max(conv.kernel_size) > 1
        assert mixer.conv_w.weight.shape == mixer.conv_h.weight.shape
        assert mixer.conv_h.bias is not None and mixer.conv_h.pos_embed is not None
    own, rest = (
        {n for n in m.state_dict() if not n.startswith(tuple(f'{m}.' for m in found))}
        for m in (model, twin)
    )
    assert own == rest

    in_eval(model)
    for size in ((97, 131), (131, 97)):
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
    grads = gradients(model, torch.randn(1, 3, 97, 131))
    for n, mixer in found.items():
        for parameter, _ in mixer.named_parameters():
            grad = grads[f'{n}.{parameter}']
            assert grad.isfinite().all() and grad.any(), f'{n}.{parameter}'


def test_groups_of_a_half():
    for channels, groups, expected in [
        (64, 1, 1),  # dense
        (64, 64, 32),  # depthwise
        (64, 2, 1),
        (64, 4, 2),
        (512, 32, 16),  # ResNeXt: groups of 16
        (432, 9, 9),  # RegNetX-3.2GF: groups of 48, of which a half has 4.5; now of 24
        (1008, 21, 21),
    ]:
        assert mixer_groups(channels, groups) == expected
        weight = ParCMixer(channels, 7, groups=expected).conv_h.weight
        assert weight.shape == (channels // 2, channels // 2 // expected, 7)


def test_total_strides_at_any_size():
    deep_stem = plain(dict(NARROW, deep_stem=True, avg_down=True))
    dilated = plain(dict(NARROW, strides=(1, 2, 1, 1)))
    for size in [(224, 224), (97, 131), (200, 336), (65, 33)]:
        for network, strides in ((deep_stem, (4, 8, 16, 32)), (dilated, (4, 8, 8, 8))):
            expected = [(s, c, 2) for s, c in zip(strides, (8, 16, 32, 64), strict=True)]
            assert stages_of(network, size) == expected


CONVNEXT_XT = dict(depths=[3, 3, 9, 3], channels=[48, 96, 192, 384])
DEDICATED = {
    'narrow resnet50': ('ParCResNet', NARROW50, dict(parc_starts=(3, 4, 3, 2))),
    'narrow resnet18': ('ParCResNet', NARROW, dict(parc_starts=(2, 2, 2, 0), img_size=(192, 320))),
    'convnext': (
        'ParCConvNeXt',
        dict(type='mmpretrain.ConvNeXt', arch=CONVNEXT_XT),
        dict(parc_starts=(3, 3, 6, 2)),
    ),
    'mobilenet_v2': (
        'ParCMobileNetV2',
        dict(type='mmpretrain.MobileNetV2'),
        dict(parc_starts=(1, 2, 3, 2, 2, 2, 1), pos_embed='first'),
    ),
}


@pytest.mark.parametrize('name', DEDICATED)
def test_equal_to_the_dedicated_backbone(name):
    kind, cfg, options = DEDICATED[name]
    starts = {n: value for n, value in options.items() if n != 'pos_embed'}
    dedicated = in_eval(plain(dict(cfg, type=f'mmparc.{kind}', **starts)))
    model = in_eval(convert(cfg, **options))
    shapes, expected = (
        {name: value.shape for name, value in m.state_dict().items()} for m in (model, dedicated)
    )
    assert shapes == expected and mixers(model)
    with torch.no_grad():
        for parameter in dedicated.parameters():  # else a layer scale of 1e-6 hides ParC
            parameter.copy_(0.2 * torch.randn_like(parameter) + (parameter == 1))
        before = model(torch.ones(1, 3, 64, 96))[-1]
        model.load_state_dict(dedicated.state_dict(), strict=True)
        for size in ((97, 131), (200, 336)):
            image = torch.randn(1, 3, *size)
            for a, b in zip(model(image), dedicated(image), strict=True):
                assert torch.equal(a, b)
        # negative control: the weights count
        assert not torch.equal(before, dedicated(torch.ones(1, 3, 64, 96))[-1])


# What is exchanged


def test_choice():
    cspnext = FAMILIES['cspnext'].cfg
    for cfg, options, names in [
        (NARROW, dict(stages=3), '4.1.conv2'),
        (NARROW, dict(stages=[0, 3]), '1.1.conv2 4.1.conv2'),
        (NARROW, dict(stages=(3,), share=1), '4.0.conv2 4.1.conv2'),
        (NARROW, dict(stages=(3,), share=0.51), '4.0.conv2 4.1.conv2'),
        (NARROW50, dict(share=(0.5, 1 / 3)), '3.3.conv2 3.4.conv2 3.5.conv2 4.2.conv2'),
        # the strided 3x3 of a bottleneck's first block stays
        (NARROW50, dict(stages=(3, 2), share=(1, 1 / 6)), '3.5.conv2 4.1.conv2 4.2.conv2'),
        (NARROW, dict(replace='all', stages=3), '4.1.conv1 4.1.conv2'),
        (NARROW, dict(replace='all', stages=3, share=1), '4.0.conv2 4.1.conv1 4.1.conv2'),
        (NARROW, dict(replace=r'conv1$'), '3.1.conv1 4.1.conv1'),
        (NARROW, dict(replace='layer4'), '4.1.conv1 4.1.conv2'),
        (NARROW, dict(parc_starts=[2, 1, 2, 2]), '2.1.conv2'),
        (cspnext, dict(stages=3, replace='all'), 'conv1.conv conv2.depthwise_conv.conv'),
    ]:
        found = list(mixers(convert(cfg, **options)))
        assert len(found) == len(names.split()), (options, found)
        assert all(f.endswith(n) for f, n in zip(found, names.split())), (options, found)


def test_embeddings_in_the_first_block_alone():
    options = dict(parc_starts=(2, 2, 0, 0), replace='all', pos_embed='first')
    model = convert(dict(NARROW, strides=(1, 2, 1, 2)), **options)
    assert {name for name, mixer in mixers(model).items() if mixer.conv_h.pos_embed is None} == {
        *('layer3.1.conv1', 'layer3.1.conv2', 'layer4.1.conv1', 'layer4.1.conv2')
    }


def test_kernels_are_as_long_as_the_map():
    """Also seen from the map itself: at that size nothing is resized."""
    for img_size, deep, deepest in [
        ((200, 336), (13, 21), (7, 11)),
        ((336, 200), (21, 13), (11, 7)),
        ((97, 131), (7, 9), (4, 5)),
    ]:
        options = dict(img_size=img_size, resize='interpolate_sum', backend='fft')
        model = in_eval(convert(NARROW, **options))
        assert kernel_sizes(model) == {'layer3.1.conv2': deep, 'layer4.1.conv2': deepest}
        for mixer, received, _ in calls_of_mixers(model, torch.randn(1, 3, *img_size)):
            kernel = mixer.conv_h.weight.shape[-1], mixer.conv_w.weight.shape[-1]
            assert tuple(received.shape[2:]) == kernel
            for layer in mixer.children():
                assert (layer.resize, layer.backend) == ('interpolate_sum', 'fft')


def test_it_reports(caplog):
    """The convolutions, the lengths of their kernels, and which are frozen."""
    caplog.set_level(logging.INFO, 'mmparc')
    convert(dict(NARROW50, frozen_stages=3), img_size=(224, 320))
    for record, level, words in zip(
        caplog.records,
        (logging.WARNING, logging.INFO),
        ('2 x, 32 channels, layer3.4.conv2, layer3.5.conv2, dense, 14, 20', '64, layer4.2.conv2'),
        strict=True,
    ):
        assert record.levelno == level
        assert all(word in record.getMessage() for word in words.split(', ')), record


ODD = dict(type='mmpretrain.ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 9]))
WITH_DCN = dict(
    type='mmdet.ResNet',
    depth=50,
    base_channels=8,
    dcn=dict(type='DCNv2', deform_groups=1),
    stage_with_dcn=(False, True, True, True),
)
NARROW_MOBILENET = dict(type='mmpretrain.MobileNetV2', widen_factor=0.25)


def test_refusals():
    """One line, with what has to be changed."""
    for cfg, options, words in [
        (NARROW, dict(stages=4), '3: stride 32, 64 channels, 2 blocks; got 4'),
        (NARROW, dict(stages=(2, 2)), 'stages; (2, 2)'),
        (NARROW, dict(stages=-1), 'stages; -1'),
        (NARROW, dict(stages=()), 'nothing to exchange; stages=()'),
        (NARROW, dict(share=0), 'share; got 0'),
        (NARROW, dict(share=1.5), 'share; 1.5'),
        (NARROW, dict(share=(0.5, 0.5, 0.5)), 'share; [2, 3]'),
        (NARROW, dict(parc_starts=(2, 2, 1, 1), stages=3), 'parc_starts; stages'),
        (NARROW, dict(parc_starts=(2, 2, 1, 1), share=0.5), 'parc_starts; share'),
        (NARROW, dict(parc_starts=(2, 2, 1)), 'parc_starts; [2, 2, 2, 2]'),
        (NARROW, dict(parc_starts=(2, 2, 2, 2)), 'nothing to exchange'),
        (NARROW, dict(replace='conv7'), 'ResNet; conv7; 0: stride 4, 8 channels'),
        (NARROW, dict(replace='('), "replace; '('"),
        (NARROW, dict(pos_embed='last'), "pos_embed; 'last'"),
        (dict(NARROW, strides=(1, 2, 1, 1)), {}, 'nothing to exchange; 3: stride 8'),
        (dict(type='mmpretrain.VGG', depth=11), {}, 'nothing to exchange; none'),
        (dict(type='mmpretrain.MlpMixer', arch='s'), {}, 'nothing to exchange; none'),
        (ODD, {}, 'stages.3.0.depthwise_conv; 9'),
        (WITH_DCN, {}, 'ResNet'),
        (dict(type='mmpretrain.LeNet5'), dict(img_size=4), 'LeNet5; (4, 4)'),
        (NARROW_MOBILENET, dict(parc_starts=(1, 0, 3, 4, 3, 3, 1)), 'parc_starts[1]; 1'),
    ]:
        with pytest.raises(ValueError) as refusal:
            convert(cfg, **options)
        message = str(refusal.value)
        assert '\n' not in message and all(w in message for w in words.split('; ')), message
    with pytest.raises(TypeError):
        convert(NARROW, shares=0.5)


# What stays


def bits(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_pretrained_weights_stay_to_the_bit(tmp_path):
    for cfg in (NARROW, ATTO):
        source = plain(cfg)
        with torch.no_grad():
            for value in source.state_dict().values():
                if value.is_floating_point():
                    value.normal_()
        torch.save(dict(state_dict=source.state_dict()), tmp_path / 'plain.pth')
        pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'plain.pth'))
        model = convert(dict(cfg, init_cfg=pretrained))
        before = bits(model)
        model.init_weights()
        names = tuple(f'{name}.' for name in mixers(model))
        for name, value in model.state_dict().items():
            if name.startswith(names):  # the mixers keep their own start
                assert torch.equal(value, before[name]), name
            else:
                assert torch.equal(value, source.state_dict()[name]), name
                # negative control: it was loaded; what counts batches is 0 before and after
                counts = name.endswith('num_batches_tracked')
                assert counts or not torch.equal(value, before[name]), name


def test_an_existing_network_is_left_as_it_was():
    """Its values and modes, and random states but for the mixers' initial values."""
    source = plain(NARROW)
    source.train()
    expected, modes = bits(source), {n: m.training for n, m in source.named_modules()}
    layers = [mixer.conv_h for mixer in mixers(convert(NARROW)).values()]

    torch.manual_seed(3)
    others = str(np.random.get_state()), random.getstate()
    model = MODELS.build(dict(type='mmparc.ParCify', backbone=source))
    state = torch.get_rng_state()
    assert (str(np.random.get_state()), random.getstate()) == others
    torch.manual_seed(3)
    for layer in layers:
        ParCMixer(2 * layer.in_channels, layer.kernel_size, groups=layer.groups)
    assert torch.equal(torch.get_rng_state(), state)
    torch.randn(1)  # negative control
    assert not torch.equal(torch.get_rng_state(), state)

    assert model is source and mixers(model)
    for name, value in model.state_dict().items():
        if name in expected and not name.startswith(tuple(mixers(model))):
            assert torch.equal(value, expected[name]), name
    for name, module in model.named_modules():
        assert module.training == modes.get(name, True)


@pytest.mark.parametrize(
    ('cfg', 'std', 'normal'),
    [
        (NARROW, lambda w: (2 / (w.shape[0] * w.shape[2])) ** 0.5, True),
        (ATTO, lambda w: 0.02, True),
        # one rule that names one layer, not a list: Kaiming uniform, fan in, a = sqrt(5)
        (FAMILIES['cspnext'].cfg, lambda w: (1 / 3 / w[0].numel()) ** 0.5, False),
    ],
    ids=['resnet', 'convnext', 'cspnext'],
)
def test_rules_for_convolutions_hold_for_kernels(cfg, std, normal):
    default = copy.deepcopy(ConvNeXt('atto').init_cfg)
    model = convert(cfg)
    model.init_weights()
    for name, mixer in mixers(model).items():
        for conv in (mixer.conv_h, mixer.conv_w):
            weight = conv.weight.detach()
            assert weight.std().item() == pytest.approx(std(weight), rel=0.1), name
            assert (weight.abs().max() > 2.2 * weight.std()).item() is normal
            assert not conv.bias.any()
            assert conv.pos_embed.std().item() == pytest.approx(0.02, rel=0.2)
    assert ConvNeXt('atto').init_cfg == default  # others keep their rules


def test_frozen_stages_stay_frozen():
    resnet = dict(NARROW, frozen_stages=3, norm_eval=True)
    for cfg, prefix in ((resnet, 'layer4.'), (dict(NARROW_MOBILENET, frozen_stages=6), 'layer7.')):
        model = convert(cfg, stages=(2, 3) if cfg is resnet else None)
        for _ in range(2):
            model.train()  # which is when a MobileNetV2 freezes
            for name, mixer in mixers(model).items():
                assert mixer.conv_h.training is name.startswith(prefix)
                for parameter in mixer.parameters():
                    assert parameter.requires_grad is name.startswith(prefix), name
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert cfg is not resnet or not any(norm.training for norm in norms)
