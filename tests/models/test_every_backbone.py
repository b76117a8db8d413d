"""What all ParC backbones promise alike: image sizes, gradients, half precision, loading.

Each backbone is a small one of its family beside the plain network of it, where there is one. That
is one independent side of the comparisons; the other is the reference operator on what a block
really receives. What differs between the families is in test_structure.py.
"""

import pytest
import torch
from backbones import (
    BACKBONES,
    build,
    calls_of_mixers,
    gradients,
    image_of,
    in_eval,
    mixer_reference,
    mixers,
    parc_layers,
)
from helpers import HALVES, assert_close, relative_error
from torch import nn

each_backbone = pytest.mark.parametrize('family', BACKBONES)
each_twin = pytest.mark.parametrize('family', [f for f, kind in BACKBONES.items() if kind.depths])
SIZES = [(97, 131), (200, 336)]
WITH_SQUARE = [*SIZES, (224, 224)]


def every_output(family):
    kind = BACKBONES[family]
    return tuple(sorted({*kind.pyramid, kind.last}))


# Arguments


@each_backbone
def test_wrong_arguments(family):
    with pytest.raises(TypeError):
        build(family, img_sizes=224)
    with pytest.raises(ValueError):
        build(family, img_size=(224, 0))
    depths = BACKBONES[family].depths
    if not depths:
        return
    for starts in (depths[:-1], (), (*depths[:-1], -1), (depths[0] + 1, *depths[1:])):
        with pytest.raises(ValueError, match='parc_starts'):
            build(family, parc_starts=starts)


# Forward


@each_twin
def test_any_image_size(family):
    """The plain twin's pyramid, in training and in evaluation; without ParC its outputs too."""
    kind = BACKBONES[family]
    plain = kind.plain(out_indices=kind.pyramid)
    model = build(family, parc_starts=kind.depths)
    plain.load_state_dict(model.state_dict(), strict=True)
    image = image_of(SIZES[0], dtype=torch.float32)
    for a, b in zip(model(image), plain(image), strict=True):
        assert torch.equal(a, b)
    model = build(family)
    for size in WITH_SQUARE:
        image = image_of(size, batch=1, dtype=torch.float32)
        for training in (True, False):
            for m in (model, plain):
                m.train(training)
            with torch.no_grad():
                outputs, plain_outputs = model(image), plain(image)
            assert [o.shape for o in outputs] == [o.shape for o in plain_outputs]
            assert all(o.isfinite().all() for o in outputs)


@each_twin
def test_blocks_compute_parc(family):
    """The first half of a block's channels goes along H, the second along W."""
    for resize in ('interpolate', 'interpolate_sum'):
        model = in_eval(build(family, resize=resize).double())
        for size in WITH_SQUARE:
            calls = calls_of_mixers(model, image_of(size, batch=1))
            assert calls and [mixer for mixer, _, _ in calls] == list(mixers(model).values())
            for mixer, x, output in calls:
                expected = mixer_reference(mixer, x, BACKBONES[family].groups, resize)
                assert_close(output, expected, 1e-10)


@each_twin
def test_without_position_embeddings(family):
    """As with embeddings of zero, and not as with those that a network begins with."""
    model, without = in_eval(build(family)), in_eval(build(family, pos_embed=False))
    embeddings = {name for name, _ in model.named_parameters() if name.endswith('.pos_embed')}
    loaded = without.load_state_dict(model.state_dict(), strict=False)
    assert embeddings and set(loaded.unexpected_keys) == embeddings and not loaded.missing_keys
    image = image_of(SIZES[0], batch=1, dtype=torch.float32)
    with torch.no_grad():
        outputs = without(image)
        assert any(relative_error(a, b) > 1e-4 for a, b in zip(model(image), outputs, strict=True))
        for name in embeddings:
            model.get_parameter(name).zero_()
        for a, b in zip(model(image), outputs, strict=True):
            assert_close(a, b, 1e-5)


# Backward


@each_backbone
def test_every_parameter_gets_a_gradient(family):
    """With the norms' own statistics: else a norm takes a constant such as ParC's bias out."""
    if BACKBONES[family].batch_norm:
        variants = [dict(norm_eval=True)]
    else:
        variants = [
            dict(layer_scale_init_value=scale, gap_before_final_norm=gap)
            for scale in (1.0, 1e-6)
            for gap in (False, True)
        ]
    for changes in variants:
        model = build(family, out_indices=every_output(family), **changes)
        model.init_weights()
        for name, grad in gradients(model, image_of(SIZES[0], dtype=torch.float32)).items():
            assert grad is not None and grad.isfinite().all() and grad.any(), (name, changes)
        if 'norm_eval' in changes:
            norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
            assert norms and not any(m.training for m in norms)
            assert all(m.training for m in parc_layers(model).values())


# Half precision, batches and loading


@each_backbone
def test_autocast(family):
    """As far from float32 as the plain network is, within a factor of two; and it trains."""
    image = image_of(SIZES[0], dtype=torch.float32)
    networks = build(family), BACKBONES[family].plain()
    for half in HALVES:
        errors = []
        for model in networks:
            model.init_weights()
            in_eval(model)
            with torch.no_grad():
                expected = model(image)[-1]
                with torch.autocast('cpu', half):
                    output = model(image)[-1]
            # a LayerNorm returns float32
            assert output.dtype is (torch.float32 if family == 'convnext' else half)
            errors.append(relative_error(output, expected))
        assert errors[0] < 2 * errors[1] < 0.2, errors
    with torch.autocast('cpu', torch.bfloat16):
        grads = gradients(networks[0], image)
    reached = [grad for grad in grads.values() if grad is not None]
    assert len(reached) > 20 and all(grad.isfinite().all() for grad in reached)


@each_backbone
def test_weights_go_from_classification_to_a_pyramid_and_back(family):
    """Strictly, but for the output norms that a ConvNeXt adds for each output."""
    classification = build(family, out_indices=(BACKBONES[family].last,))
    with torch.no_grad():
        for parameter in classification.parameters():
            parameter.normal_()
    source = {name: value.clone() for name, value in classification.state_dict().items()}
    pyramid = build(family)
    own = {name for name in pyramid.state_dict() if name not in source}
    norms = {f'norm{i}.{kind}' for i in range(3) for kind in ('weight', 'bias')}
    assert own == (norms if family == 'convnext' else set())
    pyramid.load_state_dict({**pyramid.state_dict(), **source}, strict=True)
    back = build(family, out_indices=(BACKBONES[family].last,))
    state = {name: value for name, value in pyramid.state_dict().items() if name not in own}
    back.load_state_dict(state, strict=True)
    assert all(torch.equal(value, source[name]) for name, value in back.state_dict().items())
