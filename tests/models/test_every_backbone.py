"""What all ParC backbones promise alike: image sizes, backends, gradients, half precision, loading.

Each backbone is a small one of its family beside the plain network of it, where there is one. That
is one independent side of the comparisons; others are the reference operator on what a block really
receives, and the same network with rows and columns exchanged. What differs between the families is
in test_structure.py.
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
    with_axes_exchanged,
)
from helpers import HALVES, assert_close, relative_error
from torch import nn

from mmparc.ops import BACKENDS

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


@each_backbone
@torch.no_grad()
def test_backends_and_memory_formats_agree(family):
    for size in SIZES:
        image = image_of(size, batch=1)
        expected = in_eval(build(family, backend='direct').double())(image)
        for backend in (*BACKENDS, 'auto'):
            model = in_eval(build(family, backend=backend).double())
            layers = list(parc_layers(model).values())
            assert {layer.backend for layer in layers} == {backend}
            for index, output in enumerate(model(image)):
                assert_close(output, expected[index], 1e-10, f'{backend}, output {index}')
        last = torch.channels_last
        outputs = model.to(memory_format=last)(image.contiguous(memory_format=last))
        for a, b in zip(outputs, expected, strict=True):
            assert_close(a, b, 1e-10)
        # negative control: the comparison sees a kernel
        layers[0].weight.zero_()
        outputs = zip(model(image), expected, strict=True)
        assert max(relative_error(a, b) for a, b in outputs) > 1e-3


@each_twin
@torch.no_grad()
def test_height_and_width_exchanged(family):
    model = in_eval(build(family, img_size=(192, 320)).double())
    other, wrong = with_axes_exchanged(model), with_axes_exchanged(model, parc=False)
    for size in WITH_SQUARE:
        image = image_of(size, batch=1)
        expected, exchanged, wrongly = model(image), other(image.mT), wrong(image.mT)
        for a, b in zip(exchanged, expected, strict=True):
            assert_close(a.mT, b, 1e-10)
        assert torch.equal(wrongly[1].mT, exchanged[1].mT)  # before any ParC
        assert relative_error(wrongly[3].mT, expected[3]) > 1e-3


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


@each_backbone
def test_checkpointing_gives_the_same_gradients(family):
    batch_norm = BACKBONES[family].batch_norm
    for norms in ({}, dict(norm_eval=True))[: 1 + batch_norm]:
        runs = []
        for with_cp in (False, True):
            model = build(family, out_indices=every_output(family), with_cp=with_cp, **norms)
            # ParC-Net has no mixers; a mixer does not call the layers that it holds
            calls, layers = [], list((mixers(model) or parc_layers(model)).values())
            for layer in layers:
                layer.register_forward_hook(lambda *call, calls=calls: calls.append(call[0]))
            runs.append(gradients(model.double(), image_of(SIZES[0])))
            # negative control: with_cp reaches the ParC blocks
            assert layers and {calls.count(layer) for layer in layers} == {1 + with_cp}
        plain, checkpointed = runs
        for name, grad in plain.items():
            if batch_norm and not norms and name.endswith(('_h.bias', '_w.bias')):
                assert max(grad.abs().max(), checkpointed[name].abs().max()) < 1e-10  # see above
            else:
                assert grad.any()
                assert_close(checkpointed[name], grad, 1e-12, name)


# Half precision, batches and loading


@each_backbone
def test_autocast(family):
    """As far from float32 as the plain network is, within a factor of two; and it trains."""
    image = image_of(SIZES[0], dtype=torch.float32)
    networks = {'parc': build(family), 'plain': BACKBONES[family].plain()}
    for model in networks.values():
        model.init_weights()
        model.eval()
    for half in HALVES:
        errors = {}
        for name, model in networks.items():
            with torch.no_grad():
                expected = model(image)[-1]
                with torch.autocast('cpu', half):
                    output = model(image)[-1]
            # a LayerNorm returns float32
            assert output.dtype is (torch.float32 if family == 'convnext' else half)
            errors[name] = relative_error(output, expected)
        assert errors['parc'] < 2 * errors['plain'] < 0.2, errors

    model = networks['parc']
    model.train()
    with torch.autocast('cpu', torch.bfloat16):
        outputs = model(image)
    sum(output.float().square().mean() for output in outputs).backward()
    reached = [p.grad for p in model.parameters() if p.grad is not None]
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


@each_backbone
def test_weights_fit_a_model_for_another_image_size(family):
    """A model for larger images takes the kernels resized, and they are used."""
    saved = build(family)
    larger = build(family, img_size=(384, 320))
    assert any(a.shape != b.shape for a, b in zip(saved.parameters(), larger.parameters()))
    larger.load_state_dict(saved.state_dict(), strict=True)
    image = image_of((384, 320), batch=1, dtype=torch.float32)
    with torch.no_grad():
        expected = in_eval(saved)(image)[-1]  # resizes its kernels for each image
        assert_close(in_eval(larger)(image)[-1], expected, 1e-5)
        other = in_eval(build(family, img_size=(384, 320)))(image)[-1]
    assert relative_error(other, expected) > 1e-2
