"""ParCConv and ParCMixer: parameters, halves and axes, against the reference in float64."""

import itertools

import pytest
import torch
from backbones import mixer_reference
from helpers import assert_close, relative_error

from mmparc.layers import ParCConv, ParCMixer
from mmparc.ops import BACKENDS

SIZES = [(14, 14), (7, 20), (13, 17), (1, 5)]
RESIZES = ('interpolate', 'interpolate_sum')
each_backend = pytest.mark.parametrize('backend', (*BACKENDS, 'auto'))


def randomized(module):
    """In float64, every parameter standard normal: no bias of zero hides an error."""
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module


def image(size, channels):
    return torch.randn(2, channels, *size, dtype=torch.float64)


def shapes(module):
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def test_parameters():
    full = dict(weight=(6, 2, 9), bias=(6,), pos_embed=(4, 9))
    assert shapes(ParCConv(4, 6, 9, 'h', groups=2)) == full
    assert shapes(ParCConv(4, 6, 9, 'w', bias=False, pos_embed=False)) == dict(weight=(6, 4, 9))
    for groups, per_group in ((None, 1), (3, 1), (1, 3)):
        for bare in (False, True):
            mixer = ParCMixer(6, (9, 5), groups, bias=not bare, pos_embed=not bare)
            for conv, length in ((mixer.conv_h, 9), (mixer.conv_w, 5)):
                rest = {} if bare else dict(bias=(3,), pos_embed=(3, length))
                assert shapes(conv) == dict(weight=(3, per_group, length), **rest)


@each_backend
def test_mixer_matches_reference(backend):
    """Output, and the gradient of every parameter."""
    for size, kernel, groups, resize in itertools.product(SIZES, [7, (9, 14)], [1, 2, 6], RESIZES):
        mixer = randomized(ParCMixer(12, kernel, groups, resize=resize, backend=backend))
        x = image(size, 12)
        actual, expected = mixer(x), mixer_reference(mixer, x, groups=groups, resize=resize)
        assert_close(actual, expected, 1e-10)
        cotangent = torch.randn_like(expected)
        names, parameters = zip(*mixer.named_parameters(), strict=True)
        grads, wanted = (
            torch.autograd.grad(output, parameters, cotangent) for output in (actual, expected)
        )
        for name, a, b in zip(names, grads, wanted, strict=True):
            assert b.any()
            assert_close(a, b, 1e-10, name)


def test_exchanged_halves_axes_and_groups_are_noticed():
    """Negative controls on a square map, where no shape gives the exchange away."""
    for groups in (1, 2):
        mixer = randomized(ParCMixer(12, 14, groups))
        x = image((14, 14), 12)
        expected = mixer_reference(mixer, x, groups=groups)
        assert relative_error(mixer(x.mT).mT, expected) > 0.2
        for channels in (1, 3, 6):
            assert relative_error(mixer(x.roll(channels, 1)).roll(-channels, 1), expected) > 0.1
        mixer.conv_h, mixer.conv_w = mixer.conv_w, mixer.conv_h
        assert relative_error(mixer(x), expected) > 0.2


def test_initial_values_are_drawn_and_seeded():
    """Nothing is left as the memory was found."""
    for build in (lambda: ParCConv(64, 64, 9, 'h'), lambda: ParCMixer(64, 9)):
        torch.manual_seed(7)
        first = build().state_dict()
        torch.manual_seed(7)
        second = build().state_dict()
        for name, value in first.items():
            assert torch.equal(value, second[name])
            assert value.isfinite().all() and value.abs().max() < 10
            assert name.endswith('bias') or value.std() > 1e-3, name


def test_misfits():
    for build in (
        lambda: ParCMixer(7, 5),
        lambda: ParCMixer(6, 0),
        lambda: ParCMixer(8, 5, groups=3),
        lambda: ParCConv(4, 6, 5, 'h', groups=4),
        lambda: ParCConv(4, 6, 5, 'h', groups=0),
        lambda: ParCConv(4, 4, 5, 'x'),
        lambda: ParCMixer(4, 5, resize='nearest'),
        lambda: ParCMixer(4, 5, backend='cudnn'),
        lambda: ParCMixer(6, 5)(torch.zeros(1, 4, 5, 5)),
    ):
        with pytest.raises(ValueError) as caught:
            build()
        assert len(str(caught.value).splitlines()) == 1


def test_checkpoints_of_another_length_are_resized(caplog):
    """As the layer itself resizes; a tensor of other channels is refused."""
    small, large = randomized(ParCConv(4, 6, 7, 'h')), ParCConv(4, 6, 11, 'h').double()
    with caplog.at_level('INFO', 'mmparc'):
        large.load_state_dict(small.state_dict())
    assert len(caplog.records) == 2  # weight and embedding
    x = image((11, 5), 4)
    assert_close(large(x), small(x), 1e-12)
    with pytest.raises(ValueError, match='weight') as caught:
        ParCConv(2, 6, 7, 'h').load_state_dict(small.state_dict())
    assert len(str(caught.value).splitlines()) == 1
