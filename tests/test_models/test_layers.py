"""ParCConv and ParCMixer: parameters, halves and axes, against the reference in float64."""

import pytest
import torch
from helpers import assert_close, relative_error

from mmparc.layers import ParCConv, ParCMixer
from mmparc.ops import BACKENDS, parc_reference
from mmparc.registry import MODELS

SIZES = [(14, 14), (7, 20), (13, 17), (1, 5)]


def randomized(module):
    """In float64, every parameter standard normal: no bias of zero hides an error."""
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module


def mixer_reference(mixer, x, dense=False, resize='interpolate', groups=None):
    """The first half of the channels along H, the second along W."""
    half = x.shape[1] // 2
    groups = groups or (1 if dense else half)
    return torch.cat(
        [
            parc_reference(
                part,
                conv.weight,
                conv.bias,
                conv.pos_embed,
                axis=axis,
                groups=groups,
                resize=resize,
            )
            for part, conv, axis in (
                (x[:, :half], mixer.conv_h, 'h'),
                (x[:, half:], mixer.conv_w, 'w'),
            )
        ],
        dim=1,
    )


def shapes(module):
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def test_conv_parameters():
    assert shapes(ParCConv(4, 6, 9, 'h', groups=2)) == {
        'weight': (6, 2, 9),
        'bias': (6,),
        'pos_embed': (4, 9),
    }
    bare = ParCConv(4, 6, 9, 'w', bias=False, pos_embed=False)
    assert shapes(bare) == {'weight': (6, 4, 9)}
    assert bare.bias is None and bare.pos_embed is None


@pytest.mark.parametrize(('dense', 'per_group'), [(False, 1), (True, 3)])
def test_mixer_parameters(dense, per_group):
    """An asymmetric kernel: (height, width)."""
    assert shapes(ParCMixer(6, (9, 5), groups=1 if dense else None)) == {
        'conv_h.weight': (3, per_group, 9),
        'conv_h.bias': (3,),
        'conv_h.pos_embed': (3, 9),
        'conv_w.weight': (3, per_group, 5),
        'conv_w.bias': (3,),
        'conv_w.pos_embed': (3, 5),
    }
    bare = ParCMixer(6, 7, groups=1 if dense else None, bias=False, pos_embed=False)
    assert shapes(bare) == {
        'conv_h.weight': (3, per_group, 7),
        'conv_w.weight': (3, per_group, 7),
    }


@pytest.mark.parametrize('backend', [*BACKENDS, 'auto'])
@pytest.mark.parametrize('resize', ['interpolate', 'interpolate_sum'])
@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('axis', ['h', 'w'])
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_conv_matches_reference(size, axis, groups, resize, backend):
    conv = randomized(ParCConv(4, 6, 7, axis, groups=groups, resize=resize, backend=backend))
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    parameters = conv.weight, conv.bias, conv.pos_embed
    expected = parc_reference(x, *parameters, axis=axis, groups=groups, resize=resize)
    assert_close(conv(x), expected, 1e-10)


@pytest.mark.parametrize('backend', [*BACKENDS, 'auto'])
@pytest.mark.parametrize('resize', ['interpolate', 'interpolate_sum'])
@pytest.mark.parametrize('dense', [False, True])
@pytest.mark.parametrize('kernel', [7, (9, 14)], ids=str)
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_mixer_matches_reference(size, kernel, dense, resize, backend):
    mixer = randomized(
        ParCMixer(6, kernel, groups=1 if dense else None, resize=resize, backend=backend)
    )
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    expected = mixer_reference(mixer, x, dense, resize)
    assert_close(mixer(x), expected, 1e-10)


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('pos_embed', [False, True])
@pytest.mark.parametrize('dense', [False, True])
def test_mixer_without_bias_or_embedding(dense, pos_embed, bias):
    mixer = randomized(ParCMixer(6, 7, groups=1 if dense else None, bias=bias, pos_embed=pos_embed))
    x = torch.randn(2, 6, 13, 17, dtype=torch.float64)
    assert_close(mixer(x), mixer_reference(mixer, x, dense), 1e-10)


@pytest.mark.parametrize('backend', [*BACKENDS, 'auto'])
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_mixer_with_groups_matches_reference(size, backend):
    """Two groups of three channels in each half."""
    mixer = randomized(ParCMixer(12, (9, 14), groups=2, backend=backend))
    assert mixer.conv_h.weight.shape == (6, 3, 9) and mixer.conv_w.weight.shape == (6, 3, 14)
    x = torch.randn(2, 12, *size, dtype=torch.float64)
    expected = mixer_reference(mixer, x, groups=2)
    assert_close(mixer(x), expected, 1e-10)
    # negative control: other channels in each group
    assert relative_error(mixer(x.roll(1, 1)).roll(-1, 1), expected) > 0.1


@pytest.mark.parametrize(('dense', 'groups'), [(True, 1), (False, 3)])
def test_groups_at_the_ends_are_dense_and_depthwise(dense, groups):
    mixer, grouped = ParCMixer(6, 7, groups=1 if dense else None), ParCMixer(6, 7, groups=groups)
    assert shapes(mixer) == shapes(grouped)
    assert mixer.conv_h.groups == grouped.conv_h.groups == groups


def test_mixer_exchanged_halves_or_axes_are_noticed():
    """Negative control on a square map, where no shape gives the exchange away."""
    mixer = randomized(ParCMixer(6, 14))
    x = torch.randn(2, 6, 14, 14, dtype=torch.float64)
    expected = mixer_reference(mixer, x)
    assert relative_error(mixer(x.mT).mT, expected) > 0.2
    assert relative_error(mixer(x.roll(3, 1)).roll(3, 1), expected) > 0.2
    mixer.conv_h, mixer.conv_w = mixer.conv_w, mixer.conv_h
    assert relative_error(mixer(x), expected) > 0.2


def test_mixer_halves_do_not_mix():
    """A change in the second half leaves the first half's output alone, and the other way round."""
    mixer = randomized(ParCMixer(6, 7, groups=1))
    x = torch.randn(2, 6, 13, 17, dtype=torch.float64)
    before = mixer(x)
    for changed, kept in ((slice(3), slice(3, 6)), (slice(3, 6), slice(3))):
        other = x.clone()
        other[:, changed] += 1
        assert torch.equal(mixer(other)[:, kept], before[:, kept])
        assert relative_error(mixer(other)[:, changed], before[:, changed]) > 0.1


@pytest.mark.parametrize('backend', [*BACKENDS, 'auto'])
@pytest.mark.parametrize('dense', [False, True])
def test_every_parameter_gets_its_gradient(dense, backend):
    mixer = randomized(ParCMixer(6, (9, 14), groups=1 if dense else None, backend=backend))
    x = torch.randn(2, 6, 13, 17, dtype=torch.float64)
    cotangent = torch.randn(2, 6, 13, 17, dtype=torch.float64)
    names, parameters = zip(*mixer.named_parameters(), strict=True)
    actual = torch.autograd.grad(mixer(x), parameters, cotangent)
    expected = torch.autograd.grad(mixer_reference(mixer, x, dense), parameters, cotangent)
    assert len(names) == 6
    for name, a, b in zip(names, actual, expected, strict=True):
        assert b.abs().max() > 0
        assert_close(a, b, 1e-10, name)


@pytest.mark.parametrize('layer', ['conv', 'mixer'])
def test_initial_values_are_drawn_and_seeded(layer):
    """Nothing is left as the memory was found."""

    def build():
        torch.manual_seed(7)
        return ParCConv(64, 64, 9, 'h') if layer == 'conv' else ParCMixer(64, 9)

    first, second = build().state_dict(), build().state_dict()
    for name, value in first.items():
        assert torch.equal(value, second[name])
        assert value.isfinite().all() and value.abs().max() < 10
        if not name.endswith('bias'):
            assert value.std() > 1e-3, name


@pytest.mark.parametrize(
    'build',
    [
        lambda: ParCMixer(7, 5),
        lambda: ParCMixer(6, 0),
        lambda: ParCMixer(8, 5, groups=3),
        lambda: ParCConv(4, 6, 0, 'h'),
        lambda: ParCConv(4, 6, 5, 'h', groups=4),
        lambda: ParCConv(4, 6, 5, 'h', groups=3),
        lambda: ParCConv(4, 6, 5, 'h', groups=0),
        lambda: ParCConv(4, 4, 5, 'x')(torch.zeros(1, 4, 5, 5)),
        lambda: ParCConv(4, 4, 5, 'h', resize='nearest')(torch.zeros(1, 4, 5, 5)),
        lambda: ParCConv(4, 4, 5, 'h', backend='cudnn')(torch.zeros(1, 4, 5, 5)),
        lambda: ParCMixer(4, 5, resize='nearest')(torch.zeros(1, 4, 5, 5)),
        lambda: ParCMixer(4, 5, backend='cudnn')(torch.zeros(1, 4, 5, 5)),
        lambda: ParCMixer(4, 5)(torch.zeros(1, 6, 5, 5)),
    ],
    ids=[
        'odd channels',
        'mixer without a kernel',
        'groups and a half',
        'conv without a kernel',
        'groups and output',
        'groups and input',
        'no groups',
        'axis',
        'resize',
        'backend',
        'mixer resize',
        'mixer backend',
        'other channels',
    ],
)
def test_misfits(build):
    with pytest.raises(ValueError):
        build()


def test_registered():
    conv = MODELS.build(
        dict(type='mmparc.ParCConv', in_channels=4, out_channels=6, kernel_size=5, axis='h')
    )
    mixer = MODELS.build(dict(type='mmparc.ParCMixer', channels=6, kernel_size=5))
    assert type(conv) is ParCConv and type(mixer) is ParCMixer
