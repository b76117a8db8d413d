"""What all ParC backbones promise alike: memory formats, half precision, batches, loading by tasks.

Each backbone is a small one of its family beside the plain network of it, where there is one.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from backbones import in_eval, with_axes_exchanged
from helpers import assert_close, relative_error
from mmpretrain.models import ConvNeXt, MobileNetV2, MobileViT, ResNet
from torch import nn

from mmparc.models import ParCConvNeXt, ParCMobileNetV2, ParCNet, ParCResNet

ARCH = dict(depths=[1, 1, 2, 1], channels=[8, 12, 16, 24])
PARCNET = dict(
    stem_kernel=3,
    stem_channels=16,
    channels=[16, 16, 24, 24, 32],
    inner_channels=[24, 32, 32],
    depths=[1, 1, 1],
    ffn_channels=[32, 32, 32],
    fusion='concat',
)


@dataclass
class Backbone:
    """A small ParC network, its plain twin, and the indices of a pyramid and of a classifier."""

    parc: Callable[..., nn.Module]
    plain: Callable[..., nn.Module]
    pyramid: tuple[int, ...]
    last: int
    img_size: int


CONVNEXT = dict(arch=ARCH, gap_before_final_norm=False, layer_scale_init_value=1.0)
RESNET = dict(depth=50, stem_channels=8, base_channels=8)
BACKBONES = {
    'convnext': Backbone(
        functools.partial(ParCConvNeXt, **CONVNEXT),
        functools.partial(ConvNeXt, **CONVNEXT),
        (0, 1, 2, 3),
        3,
        224,
    ),
    'resnet': Backbone(
        functools.partial(ParCResNet, **RESNET),
        functools.partial(ResNet, **RESNET),
        (0, 1, 2, 3),
        3,
        224,
    ),
    'mobilenet_v2': Backbone(
        functools.partial(ParCMobileNetV2, widen_factor=0.25),
        functools.partial(MobileNetV2, widen_factor=0.25),
        (1, 2, 4, 6),
        7,
        224,
    ),
    'parcnet': Backbone(
        functools.partial(ParCNet, arch=PARCNET),
        functools.partial(MobileViT, 'xx_small'),
        (1, 2, 3, 4),
        5,
        256,
    ),
}
each_backbone = pytest.mark.parametrize('family', BACKBONES)
SIZES = [(97, 131), (200, 336)]


def build(family, **changes):
    torch.manual_seed(0)
    kind = BACKBONES[family]
    return kind.parc(**{'out_indices': kind.pyramid, **changes})


def image_of(size, batch=2, dtype=torch.float64):
    return torch.randn(batch, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(1))


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
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
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


@pytest.mark.parametrize('size', SIZES, ids=str)
def test_height_and_width_of_convnext_exchanged(size):
    """The other families' tests are in their own files."""
    model = in_eval(build('convnext', img_size=(192, 320)).double())
    image = image_of(size, batch=1)
    with torch.no_grad():
        expected = model(image)
        exchanged = with_axes_exchanged(model)(image.mT)
        for a, b in zip(exchanged, expected, strict=True):
            assert_close(a.mT, b, 1e-10)
        wrong = with_axes_exchanged(model, parc=False)(image.mT)
    assert relative_error(wrong[3].mT, expected[3]) > 1e-3


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
