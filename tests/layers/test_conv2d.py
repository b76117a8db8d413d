"""mmparc.ParCConv2d as a conv_cfg: what becomes a mixer, in mm's own building blocks."""

import pytest
import torch
from backbones import in_eval, mixer_reference, mixers
from helpers import assert_close, relative_error
from mmcv.cnn import ConvModule, build_conv_layer
from mmengine.registry import MODELS
from torch import nn

from mmparc.layers import ParCMixer

PARC = dict(type='mmparc.ParCConv2d', taps=7)


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
    """To the bit, with nothing else drawn; and a mixer draws its own initial values alone."""
    for arguments in (
        dict(kernel_size=1),
        dict(kernel_size=3, padding=1, stride=(1, 2)),
        dict(kernel_size=3, padding=1, out_channels=32),
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

    torch.manual_seed(1)
    layer = build_conv_layer(dict(PARC, taps=(5, 9)), 16, 16, 3, padding=1, bias=False)
    torch.manual_seed(1)
    expected = ParCMixer(16, (5, 9), groups=1, bias=False).state_dict()
    assert layer.state_dict().keys() == expected.keys()
    assert all(torch.equal(layer.state_dict()[name], value) for name, value in expected.items())


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


def flat(outputs):
    return [outputs] if torch.is_tensor(outputs) else [t for o in outputs for t in flat(o)]


RESNET = dict(type='mmpretrain.ResNet', depth=18, stem_channels=8, base_channels=8)
FCOS = dict(type='mmdet.FCOSHead', num_classes=3, in_channels=12, feat_channels=12, stacked_convs=1)


def test_backbone_neck_and_heads():
    """The plain network's shapes, the mixers where they can be, and ParC's gradients."""
    pyramid, maps = (
        [torch.randn(1, c, *s) for c, s in zip(widths, ((20, 14), (10, 7)), strict=True)]
        for widths in ((8, 16), (12, 12))
    )
    # Of a ResNet's blocks both convolutions, but for the strided ones.
    stages = [f'layer{i}.{j}.conv{k}' for i in range(1, 5) for j in (0, 1) for k in (1, 2)]
    fcos = dict(norm_cfg=dict(type='BN'), _scope_='mmdet', loss_bbox=dict(type='mmdet.IoULoss'))
    for cfg, inputs, names in (
        (
            dict(RESNET, zero_init_residual=False, norm_eval=True),
            torch.randn(1, 3, 97, 131),
            [n for n in stages if n[6:] != '.0.conv1' or n[5] == '1'],
        ),
        (
            dict(type='mmdet.FPN', in_channels=[8, 16], out_channels=12, num_outs=2),
            pyramid,
            ['fpn_convs.0.conv', 'fpn_convs.1.conv'],
        ),
        (
            # its last convolution makes 12 channels of 24
            dict(type='mmseg.FCNHead', in_channels=12, channels=12, num_classes=3, num_convs=2),
            maps,
            ['convs.0.conv', 'convs.1.conv'],
        ),
        ({**FCOS, **fcos}, maps, ['cls_convs.0.conv', 'reg_convs.0.conv']),
    ):
        torch.manual_seed(0)
        model, plain = MODELS.build(dict(cfg, conv_cfg=PARC)), MODELS.build(cfg)
        assert set(names) == set(mixers(model))
        model.init_weights()
        outputs, expected = flat(in_eval(model)(inputs)), flat(in_eval(plain)(inputs))
        assert [o.shape for o in outputs] == [o.shape for o in expected]
        sum(o.square().sum() for o in outputs).backward()
        for name in names:
            assert model.get_submodule(name).conv_h.weight.grad.any(), name
