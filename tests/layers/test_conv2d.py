"""mmparc.ParCConv2d as a conv_cfg: what becomes a mixer, in mm's own building blocks."""

import pytest
import torch
from backbones import gradients, in_eval, kernel_sizes, mixer_reference, mixers
from helpers import assert_close, relative_error
from mmcv.cnn import ConvModule, build_conv_layer
from mmengine.registry import MODELS
from torch import nn

from mmparc.layers import ParCMixer

PARC = dict(type='mmparc.ParCConv2d', taps=7)
RESNET = dict(
    type='mmpretrain.ResNet',
    depth=18,
    stem_channels=8,
    base_channels=8,
    out_indices=(0, 1, 2, 3),
    norm_eval=True,
)


def test_spatial_convolutions_become_mixers():
    for arguments, expected in (
        (dict(), (8, 8)),  # full to dense
        (dict(groups=16), (8, 1)),  # depthwise
        (dict(groups=4), (8, 4)),
        (dict(kernel_size=(1, 7), padding=(0, 3)), (8, 8)),
        (dict(dilation=2, padding=2), (8, 8)),
        (dict(padding='same'), (8, 8)),
        (dict(kernel_size=5, padding=2, stride=(1, 1)), (8, 8)),
    ):
        arguments = dict(in_channels=16, out_channels=16, kernel_size=3, padding=1) | arguments
        layer = MODELS.build({**PARC, **arguments})
        assert isinstance(layer, ParCMixer), arguments
        assert layer.conv_h.weight.shape == layer.conv_w.weight.shape == (*expected, 7)
        assert layer(torch.randn(2, 16, 13, 9)).shape == (2, 16, 13, 9)
        # What is read from a convolution is what was asked for.
        asked = nn.Conv2d(**arguments)
        names = 'in_channels out_channels kernel_size stride padding dilation groups transposed'
        for name in [*names.split(), 'output_padding', 'padding_mode']:
            assert getattr(layer, name) == getattr(asked, name), name


def test_others_are_the_convolution_asked_for():
    """To the bit, with nothing else drawn."""
    for arguments in (
        dict(kernel_size=1),
        dict(kernel_size=3, padding=1, stride=2),
        dict(kernel_size=3, padding=1, stride=(1, 2)),
        dict(kernel_size=3, padding=1, out_channels=32),
        dict(kernel_size=3, padding=0),
        dict(kernel_size=3, padding='valid'),
        dict(kernel_size=3, padding=1, dilation=2),
        dict(kernel_size=4, padding=2),
        dict(kernel_size=3, padding=(1, 0), groups=16, bias=False, padding_mode='reflect'),
    ):
        arguments = dict(in_channels=16, out_channels=16) | arguments
        torch.manual_seed(1)
        layer = build_conv_layer(PARC, **arguments)
        torch.manual_seed(1)
        expected = nn.Conv2d(**arguments)
        assert type(layer) is nn.Conv2d and repr(layer) == repr(expected)
        for a, b in zip(layer.parameters(), expected.parameters(), strict=True):
            assert torch.equal(a, b), arguments
    # The convolution of such a module sees a padded map, which it makes smaller.
    module = ConvModule(6, 6, 3, padding=1, padding_mode='reflect', conv_cfg=PARC)
    assert type(module.conv) is nn.Conv2d


def test_a_mixer_draws_its_own_initial_values_alone():
    torch.manual_seed(1)
    layer = build_conv_layer(dict(PARC, taps=(5, 9)), 16, 16, 3, padding=1, bias=False)
    torch.manual_seed(1)
    expected = ParCMixer(16, (5, 9), groups=1, bias=False)
    assert layer.state_dict().keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(layer.state_dict()[name], value), name


def test_wrong_arguments():
    options = dict(in_channels=8, out_channels=8, kernel_size=3, padding=1)
    for change in (dict(in_channels=7, out_channels=7), dict(taps=0)):
        with pytest.raises(ValueError):
            MODELS.build({**PARC, **options, **change})
    for change in (dict(tap=7), dict(taps=7, image_size=7), dict()):
        with pytest.raises(TypeError):
            MODELS.build(dict(type='mmparc.ParCConv2d', **options, **change))


def test_conv_module():
    """Norm and activation follow the mixer, on any map."""
    for groups, halves in ((1, 1), (6, 3)):
        conv_cfg = dict(PARC, taps=(9, 5))
        module = ConvModule(
            6, 6, 3, padding=1, groups=groups, conv_cfg=conv_cfg, norm_cfg=dict(type='BN')
        )
        assert isinstance(module.conv, ParCMixer) and module.conv.conv_h.bias is None
        in_eval(module.double())
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_()
            for size in ((13, 13), (14, 9), (9, 14)):
                x = torch.randn(2, 6, *size, dtype=torch.float64)
                expected = module.bn(mixer_reference(module.conv, x, groups=halves)).relu()
                assert_close(module(x), expected, 1e-10)
                wrong = module.bn(mixer_reference(module.conv, x.mT, groups=halves).mT).relu()
                assert relative_error(wrong, expected) > 0.05  # negative control


@pytest.mark.parametrize('depth', [18, pytest.param(50, marks=pytest.mark.full)])
def test_resnet(depth):
    """The plain network's shapes at any size, the rule of ParCify, and ParC's gradients."""
    torch.manual_seed(0)
    cfg = dict(RESNET, depth=depth, zero_init_residual=False)
    model, plain = MODELS.build(dict(cfg, conv_cfg=PARC)), MODELS.build(cfg)
    with torch.no_grad():
        for size in ((96, 96), (97, 131)):
            image = torch.randn(1, 3, *size)
            outputs, expected = in_eval(model)(image), in_eval(plain)(image)
            assert [o.shape for o in outputs] == [o.shape for o in expected]
    # Of the 2 blocks of each stage two convolutions but for the strided one of the first, and in
    # stage 1 all four; of bottlenecks one each but for the strided ones.
    assert len(mixers(model)) == {18: 4 + 3 * 3, 50: 3 + 3 + 5 + 2}[depth]
    every = dict(stages=(0, 1, 2, 3), share=1, replace='all')
    surgery = MODELS.build(dict(type='mmparc.ParCify', backbone=cfg, **every))
    assert list(mixers(surgery)) == list(mixers(model))
    found = tuple(f'{name}.' for name in mixers(model))
    for name, grad in gradients(model, torch.randn(1, 3, 97, 131)).items():
        if name.startswith(found):
            assert grad.isfinite().all() and grad.any(), name


def flat(outputs):
    return [outputs] if torch.is_tensor(outputs) else [t for o in outputs for t in flat(o)]


def test_neck_and_heads():
    fcos = dict(type='mmdet.FCOSHead', num_classes=3, in_channels=12, feat_channels=12)
    fcos.update(stacked_convs=1, norm_cfg=dict(type='BN'), _scope_='mmdet')
    fcos.update(loss_bbox=dict(type='mmdet.IoULoss'))
    for cfg, names in (
        (
            dict(type='mmdet.FPN', in_channels=[8, 16], out_channels=12, num_outs=2),
            ['fpn_convs.0.conv', 'fpn_convs.1.conv'],
        ),
        (
            # its last convolution makes 12 channels of 24
            dict(type='mmseg.FCNHead', in_channels=12, channels=12, num_classes=3, num_convs=2),
            ['convs.0.conv', 'convs.1.conv'],
        ),
        (fcos, ['cls_convs.0.conv', 'reg_convs.0.conv']),
    ):
        widths = (12, 12) if 'Head' in cfg['type'] else (8, 16)
        maps = [torch.randn(1, c, *s) for c, s in zip(widths, ((20, 14), (10, 7)), strict=True)]
        torch.manual_seed(0)
        model, plain = MODELS.build(dict(cfg, conv_cfg=PARC)), MODELS.build(cfg)
        assert set(names) == set(mixers(model))
        assert set(kernel_sizes(model).values()) == {(7, 7)}
        model.init_weights()
        outputs, expected = flat(in_eval(model)(maps)), flat(in_eval(plain)(maps))
        assert [o.shape for o in outputs] == [o.shape for o in expected]
        sum(o.square().sum() for o in outputs).backward()
        for name in names:
            assert model.get_submodule(name).conv_h.weight.grad.any(), name
