"""ParCConvNeXt: which blocks hold ParC, initial values, and what mmpretrain's ConvNeXt promises.

What it shares with other families is in test_every_backbone.py. Except for counts and initial
values a small network is used.
"""

import pytest
import torch
from backbones import calls_of_mixers
from mmpretrain.models import ConvNeXt
from mmpretrain.registry import MODELS

from mmparc.layers import ParCMixer
from mmparc.models.backbones import ParCConvNeXt

SMALL = dict(depths=[1, 2, 3, 2], channels=[8, 12, 16, 24])
STARTS = (1, 2, 1, 1)
PARC_BLOCKS = [(2, 1), (2, 2), (3, 1)]
PYRAMID = dict(out_indices=(0, 1, 2, 3), gap_before_final_norm=False)
XT = dict(depths=[3, 3, 9, 3], channels=[48, 96, 192, 384])


def build(**changes):
    options = dict(arch=SMALL, parc_starts=STARTS, layer_scale_init_value=1.0, **PYRAMID)
    torch.manual_seed(0)
    return ParCConvNeXt(**{**options, **changes})


def classifier(backbone, channels, num_classes=10):
    head = dict(type='LinearClsHead', num_classes=num_classes, in_channels=channels)
    # the scope named: another test may have left its own as the default
    cfg = dict(type='ImageClassifier', backbone=backbone, head=head, _scope_='mmpretrain')
    return MODELS.build(cfg)


def parc_blocks(model):
    return [
        (s, b)
        for s, stage in enumerate(model.stages)
        for b, block in enumerate(stage)
        if isinstance(block.depthwise_conv, ParCMixer)
    ]


def kernel_sizes(model):
    """{(stage, block): (K along H, K along W)}"""
    mixers = {(s, b): model.stages[s][b].depthwise_conv for s, b in parc_blocks(model)}
    return {
        at: (mixer.conv_h.weight.shape[-1], mixer.conv_w.weight.shape[-1])
        for at, mixer in mixers.items()
    }


# ----------------------------------------------------------------------------------------------
# Structure


@pytest.mark.parametrize(
    ('backbone', 'channels', 'parameters'),
    [
        (dict(type='mmparc.ParCConvNeXt', arch='xtiny'), 384, 7_412_824),
        (dict(type='mmparc.ParCConvNeXt', arch='xtiny', parc_starts=(3, 3, 9, 3)), 384, 7_438_360),
        (dict(type='ConvNeXt', arch=XT), 384, 7_438_360),
        (dict(type='mmparc.ParCConvNeXt', arch='tiny'), 768, 28_538_056),
        (dict(type='mmparc.ParCConvNeXt'), 768, 28_538_056),
    ],
    ids=['xt', 'xt without parc', 'plain xt', 'tiny', 'default'],
)
def test_parameter_counts(backbone, channels, parameters):
    model = classifier(backbone, channels, 1000)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_published_blocks_hold_parc():
    model = ParCConvNeXt('xtiny')
    expected = {(2, 6): (14, 14), (2, 7): (14, 14), (2, 8): (14, 14), (3, 2): (7, 7)}
    assert kernel_sizes(model) == expected
    explicit = ParCConvNeXt('xtiny', parc_starts=(3, 3, 6, 2))
    assert kernel_sizes(explicit) == expected


@pytest.mark.parametrize(
    ('starts', 'blocks'),
    [
        (STARTS, PARC_BLOCKS),
        ((1, 2, 3, 2), []),
        ((0, 0, 0, 0), [(s, b) for s, depth in enumerate(SMALL['depths']) for b in range(depth)]),
        ((1, 1, 3, 2), [(1, 1)]),
        ([1, 2, 0, 2], [(2, 0), (2, 1), (2, 2)]),
    ],
    ids=str,
)
def test_starts_say_which_blocks(starts, blocks):
    model = build(parc_starts=starts)
    assert parc_blocks(model) == blocks
    plain = [block.depthwise_conv for stage in model.stages for block in stage]
    plain = [conv for conv in plain if not isinstance(conv, ParCMixer)]
    assert len(plain) + len(blocks) == sum(SMALL['depths'])
    assert all(type(c) is torch.nn.Conv2d and c.kernel_size == (7, 7) for c in plain)


@pytest.mark.parametrize(
    ('img_size', 'deep', 'deepest'),
    [
        (224, (14, 14), (7, 7)),
        (256, (16, 16), (8, 8)),
        ((192, 320), (12, 20), (6, 10)),
        ((320, 192), (20, 12), (10, 6)),
        ((97, 131), (6, 8), (3, 4)),
    ],
    ids=str,
)
def test_kernels_are_as_long_as_the_map(img_size, deep, deepest):
    """Also seen from the map itself: at that size nothing is resized."""
    model = build(img_size=img_size)
    assert kernel_sizes(model) == {(2, 1): deep, (2, 2): deep, (3, 1): deepest}
    size = img_size if isinstance(img_size, tuple) else (img_size, img_size)
    for mixer, received, _ in calls_of_mixers(model, torch.randn(1, 3, *size)):
        kernel = mixer.conv_h.weight.shape[-1], mixer.conv_w.weight.shape[-1]
        assert tuple(received.shape[2:]) == kernel


@pytest.mark.parametrize('changes', [dict(img_size=16), dict(img_size=(224, 31))], ids=str)
def test_image_smaller_than_a_parc_stage_asks_for(changes):
    with pytest.raises(ValueError):
        build(**changes)


def test_odd_width_cannot_be_halved():
    with pytest.raises(ValueError):
        build(arch=dict(depths=[1, 2, 3, 2], channels=[8, 12, 16, 25]))


# ----------------------------------------------------------------------------------------------
# What the parent promises


@pytest.mark.parametrize('indices', [(0,), (1, 3), (0, 1, 2, 3), [-1], 2], ids=str)
def test_out_indices(indices):
    model = build(out_indices=indices)
    indices = [indices] if isinstance(indices, int) else list(indices)
    outputs = model(torch.randn(1, 3, 64, 96))
    assert [o.shape[1] for o in outputs] == [SMALL['channels'][i] for i in indices]
    assert [tuple(o.shape[2:]) for o in outputs] == [(16 >> i % 4, 24 >> i % 4) for i in indices]


@pytest.mark.parametrize('frozen', [0, 1, 3, 4])
def test_frozen_stages(frozen):
    model = build(frozen_stages=frozen, parc_starts=(0, 1, 1, 1))
    for _ in range(2):
        for name, parameter in model.named_parameters():
            kind, stage = name.split('.')[:2]
            stays = kind in ('stages', 'downsample_layers') and int(stage) < frozen
            assert parameter.requires_grad is not stays, name
        model.train()
        for stage in range(4):
            modules = [*model.stages[stage].modules(), *model.downsample_layers[stage].modules()]
            assert all(m.training is (stage >= frozen) for m in modules)
    model(torch.randn(1, 3, 64, 64))[-1].sum().backward()
    grads = {name: p.grad for name, p in model.stages.named_parameters()}
    assert all((grad is None) is (int(name[0]) < frozen) for name, grad in grads.items())


@pytest.mark.parametrize('depths', [[1, 2, 3, 2], [1, 2, 12, 2]], ids=str)
@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_layer_depth_is_that_of_the_plain_block(prefix, depths):
    """Every parameter of a block, ParC's among them, decays as the plain block's do."""
    arch = dict(SMALL, depths=depths)
    model, plain = build(arch=arch), ConvNeXt(arch=arch, **PYRAMID)
    by_block = {}
    for name, _ in plain.named_parameters():
        block = tuple(name.split('.')[:3]) if name.startswith('stages') else name
        by_block.setdefault(block, set()).add(plain.get_layer_depth(prefix + name, prefix))
    for name, _ in model.named_parameters():
        block = tuple(name.split('.')[:3]) if name.startswith('stages') else name
        depth = model.get_layer_depth(prefix + name, prefix)
        assert by_block[block] == {depth}, name
        assert 0 <= depth[0] < depth[1]
    if prefix:
        depth, layers = model.get_layer_depth('head.fc.weight', prefix)
        assert depth == layers - 1


@pytest.mark.parametrize('inside', ['alone', 'classifier'])
def test_initial_values(inside):
    backbone = dict(type='mmparc.ParCConvNeXt', arch='xtiny')
    model = classifier(backbone, 384) if inside == 'classifier' else MODELS.build(backbone)
    model.init_weights()
    model = model.backbone if inside == 'classifier' else model

    values = {'embedding': [], 'kernel': []}
    for name, parameter in model.named_parameters():
        value = parameter.detach().flatten()
        if name.endswith('gamma'):
            assert torch.equal(value, torch.full_like(value, 1e-6)), name
        elif name.endswith('pos_embed'):
            values['embedding'].append(value)
        elif name.endswith('bias'):
            assert not value.any(), name
        elif parameter.dim() > 1:
            assert 0.0175 < value.std() < 0.0225, name
            assert value.mean().abs() < 0.003, name
            if '.conv_h.' in name or '.conv_w.' in name:
                values['kernel'].append(value)
        else:
            assert torch.equal(value, torch.ones_like(value)), name
    for kind, parts in values.items():
        assert len(parts) == 2 * 4, kind
        value = torch.cat(parts)
        assert abs(value.std() - 0.02) < 0.001, kind
        # a normal distribution, not a uniform one of that spread (which ends at 0.035)
        assert 0.05 < value.abs().max() < 0.15, kind
