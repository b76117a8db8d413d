"""What all ParC backbones promise alike: image sizes, backends, gradients, half precision, loading.

Each backbone is a small one of its family beside the plain network of it, where there is one. That
is one independent side of the comparisons; others are the reference operator on what a block really
receives, and the same network with rows and columns exchanged.
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


@pytest.mark.parametrize(
    'change',
    [
        lambda depths: depths[:-1],
        lambda depths: (*depths, 1),
        lambda depths: (),
        lambda depths: (*depths[:2], -1, *depths[3:]),
        lambda depths: (depths[0] + 1, *depths[1:]),
        lambda depths: (*depths[:-1], depths[-1] + 1),
    ],
    ids=['too few', 'too many', 'none', 'below zero', 'beyond the first', 'beyond the last'],
)
@each_twin
def test_wrong_starts(family, change):
    depths = BACKBONES[family].depths
    build(family, parc_starts=depths)
    with pytest.raises(ValueError, match='parc_starts must'):
        build(family, parc_starts=change(depths))


@each_backbone
def test_misspelt_argument_is_refused(family):
    with pytest.raises(TypeError):
        build(family, img_sizes=224)


@pytest.mark.parametrize('family', [f for f, kind in BACKBONES.items() if kind.batch_norm])
def test_norm_eval(family):
    model = build(family, norm_eval=True)
    model.train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(m.training for m in norms)
    assert all(m.training for m in parc_layers(model).values())


# Forward


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize('size', WITH_SQUARE, ids=str)
@each_twin
def test_any_image_size(family, size, mode):
    """The pyramid of the plain twin, at any size."""
    kind, image = BACKBONES[family], image_of(size, batch=1, dtype=torch.float32)
    model, plain = build(family), kind.plain(out_indices=kind.pyramid)
    for m in (model, plain):
        m.train(mode == 'train')
    with torch.no_grad():
        outputs, plain_outputs = model(image), plain(image)
    assert [o.shape for o in outputs] == [o.shape for o in plain_outputs]
    assert all(o.isfinite().all() for o in outputs)


@pytest.mark.parametrize('resize', ['interpolate', 'interpolate_sum'])
@pytest.mark.parametrize('size', WITH_SQUARE, ids=str)
@each_twin
def test_blocks_compute_parc(family, size, resize):
    """The first half of a block's channels goes along H, the second along W."""
    model = in_eval(build(family, resize=resize).double())
    calls = calls_of_mixers(model, image_of(size, batch=1))
    assert calls and [mixer for mixer, _, _ in calls] == list(mixers(model).values())
    for mixer, x, output in calls:
        assert_close(output, mixer_reference(mixer, x, BACKBONES[family].dense, resize), 1e-10)


@each_twin
def test_without_parc_it_is_the_plain_network(family):
    kind = BACKBONES[family]
    model, plain = build(family, parc_starts=kind.depths), kind.plain(out_indices=kind.pyramid)
    plain.load_state_dict(model.state_dict(), strict=True)
    image = image_of(SIZES[0], dtype=torch.float32)
    for a, b in zip(model(image), plain(image), strict=True):
        assert torch.equal(a, b)


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
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_backends_agree(family, size):
    image, runs = image_of(size, batch=1), {}
    for backend in (*BACKENDS, 'auto'):
        model = in_eval(build(family, backend=backend).double())
        layers = list(parc_layers(model).values())
        assert {layer.backend for layer in layers} == {backend}
        with torch.no_grad():
            runs[backend] = model(image)
            # negative control: the comparison sees a kernel
            layers[0].weight.zero_()
            outputs = zip(model(image), runs[backend], strict=True)
            assert max(relative_error(a, b) for a, b in outputs) > 1e-3
    for backend, outputs in runs.items():
        for index, output in enumerate(outputs):
            assert_close(output, runs['direct'][index], 1e-10, f'{backend}, output {index}')


@pytest.mark.parametrize('size', WITH_SQUARE, ids=str)
@each_twin
def test_height_and_width_exchanged(family, size):
    """ParC-Net's halves exchange places as well, see test_parcnet.py."""
    model = in_eval(build(family, img_size=(192, 320)).double())
    image = image_of(size, batch=1)
    with torch.no_grad():
        expected = model(image)
        exchanged = with_axes_exchanged(model)(image.mT)
        for a, b in zip(exchanged, expected, strict=True):
            assert_close(a.mT, b, 1e-10)
        wrong = with_axes_exchanged(model, parc=False)(image.mT)
    assert torch.equal(wrong[1].mT, exchanged[1].mT)  # before any ParC
    assert relative_error(wrong[3].mT, expected[3]) > 1e-3


# Backward


@pytest.mark.parametrize(
    ('family', 'changes'),
    [
        *((family, {}) for family in BACKBONES),
        ('convnext', dict(layer_scale_init_value=1e-6)),
        ('convnext', dict(gap_before_final_norm=True)),
        ('convnext', dict(gap_before_final_norm=True, layer_scale_init_value=1e-6)),
    ],
    ids=str,
)
def test_every_parameter_gets_a_gradient(family, changes):
    """With the norms' own statistics: else a norm takes a constant such as ParC's bias out."""
    norms = dict(norm_eval=True) if BACKBONES[family].batch_norm else {}
    model = build(family, out_indices=every_output(family), **norms, **changes)
    model.init_weights()
    for name, grad in gradients(model, image_of(SIZES[0], dtype=torch.float32)).items():
        assert grad is not None and grad.isfinite().all() and grad.any(), name


@pytest.mark.parametrize(
    ('family', 'norms'),
    [(family, {}) for family in BACKBONES]
    + [(f, dict(norm_eval=True)) for f, kind in BACKBONES.items() if kind.batch_norm],
    ids=str,
)
def test_checkpointing_gives_the_same_gradients(family, norms):
    options = dict(out_indices=every_output(family), **norms)
    plain, checkpointed = (
        gradients(build(family, with_cp=with_cp, **options).double(), image_of(SIZES[0]))
        for with_cp in (False, True)
    )
    for name, grad in plain.items():
        if BACKBONES[family].batch_norm and not norms and name.endswith(('_h.bias', '_w.bias')):
            assert max(grad.abs().max(), checkpointed[name].abs().max()) < 1e-10  # see above
        else:
            assert grad.any()
            assert_close(checkpointed[name], grad, 1e-12, name)


@each_backbone
def test_checkpointing_runs_parc_again(family):
    """Negative control of the test above: with_cp really reaches the ParC blocks."""
    for with_cp in (False, True):
        model = build(family, with_cp=with_cp)
        # ParC-Net has no mixers; a mixer does not call the layers that it holds
        calls, layers = [], list((mixers(model) or parc_layers(model)).values())
        for layer in layers:
            layer.register_forward_hook(lambda *call, calls=calls: calls.append(call[0]))
        gradients(model, torch.randn(2, 3, 64, 64))
        assert layers and {calls.count(layer) for layer in layers} == {1 + with_cp}


# Memory formats, half precision, batches and loading


@each_backbone
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_channels_last(family, size):
    model, image = in_eval(build(family).double()), image_of(size)
    last = torch.channels_last
    with torch.no_grad():
        expected = model(image)
        outputs = model.to(memory_format=last)(image.contiguous(memory_format=last))
    for a, b in zip(outputs, expected, strict=True):
        assert_close(a, b, 1e-10)


@each_backbone
@pytest.mark.parametrize('dtype', HALVES, ids=str)
def test_autocast(family, dtype):
    """As far from float32 as the plain network is, within a factor of two."""
    kind, image = BACKBONES[family], image_of(SIZES[0], dtype=torch.float32)
    errors = {}
    for name, model in (('parc', build(family)), ('plain', kind.plain())):
        model.init_weights()
        model.eval()
        with torch.no_grad():
            expected = model(image)[-1]
            with torch.autocast('cpu', dtype):
                output = model(image)[-1]
        # a LayerNorm returns float32
        assert output.dtype is (torch.float32 if family == 'convnext' else dtype)
        errors[name] = relative_error(output, expected)
    assert errors['parc'] < 2 * errors['plain'] < 0.2, errors


@each_backbone
def test_training_under_autocast(family):
    model = build(family)
    with torch.autocast('cpu', torch.bfloat16):
        outputs = model(image_of(SIZES[0], dtype=torch.float32))
    sum(output.float().square().mean() for output in outputs).backward()
    reached = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(reached) > 20 and all(grad.isfinite().all() for grad in reached)


@each_backbone
def test_images_of_a_padded_batch_do_not_touch(family):
    """An image padded to the batch's size gives what it gives padded and alone."""
    model = in_eval(build(family).double())
    images = [image_of(size, batch=1) for size in ((97, 131), (128, 96))]
    height, width = 128, 160
    padded = [
        nn.functional.pad(image, (0, width - image.shape[3], 0, height - image.shape[2]))
        for image in images
    ]
    with torch.no_grad():
        together = model(torch.cat(padded))
        for i, image in enumerate(padded):
            for a, b in zip(together, model(image), strict=True):
                assert_close(a[i : i + 1], b, 1e-10)


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
    assert own == (
        {f'norm{i}.{kind}' for i in range(3) for kind in ('weight', 'bias')}
        if family == 'convnext'
        else set()
    )
    pyramid.load_state_dict({**pyramid.state_dict(), **source}, strict=True)
    back = build(family, out_indices=(BACKBONES[family].last,))
    back.load_state_dict(
        {name: value for name, value in pyramid.state_dict().items() if name not in own},
        strict=True,
    )
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
