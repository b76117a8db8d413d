"""What tests of backbones share: small networks, their mixers, and oracles for whole ones."""

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from mmpretrain.models import ConvNeXt, MobileNetV2, MobileViT, ResNet
from mmpretrain.registry import MODELS
from torch import nn

from mmparc.layers import ParCConv, ParCMixer
from mmparc.models import (
    ParCConvNeXt,
    ParCMobileNetV2,
    ParCMobileViT,
    ParCNet,
    ParCResNet,
    ParCSwinTransformer,
    ParCVisionTransformer,
)
from mmparc.ops import parc_reference


@dataclass
class Backbone:
    """A small ParC network, its plain twin, and the indices of a pyramid and of a classifier.

    ``depths`` are the stages' numbers of blocks, for ``parc_starts``. Where there are none, the
    plain network has other widths and no ParC mixers stand in for its convolutions.
    """

    parc: Callable[..., nn.Module]
    plain: Callable[..., nn.Module]
    pyramid: tuple[int, ...] = (0, 1, 2, 3)
    last: int = 3
    depths: tuple[int, ...] = ()
    batch_norm: bool = True
    groups: int | None = None  # of a mixer's halves


# At a layer scale of 1e-6 the blocks would hardly show in the output, and not at all at ResNet's 0.
CONVNEXT = dict(
    arch=dict(depths=[1, 1, 2, 1], channels=[8, 12, 16, 24]),
    gap_before_final_norm=False,
    layer_scale_init_value=1.0,
)
RESNET = dict(stem_channels=8, base_channels=8, zero_init_residual=False)
PARCNET = dict(
    stem_kernel=3,
    stem_channels=16,
    channels=[16, 16, 24, 24, 32],
    inner_channels=[24, 32, 32],
    depths=[1, 1, 1],
    ffn_channels=[32, 32, 32],
    fusion='concat',
)
BACKBONES = {
    'convnext': Backbone(
        functools.partial(ParCConvNeXt, **CONVNEXT),
        functools.partial(ConvNeXt, **CONVNEXT),
        depths=(1, 1, 2, 1),
        batch_norm=False,
    ),
    'resnet': Backbone(
        functools.partial(ParCResNet, depth=50, **RESNET),
        functools.partial(ResNet, depth=50, **RESNET),
        depths=(3, 4, 6, 3),
        groups=1,
    ),
    'resnet18': Backbone(
        functools.partial(ParCResNet, depth=18, **RESNET),
        functools.partial(ResNet, depth=18, **RESNET),
        depths=(2, 2, 2, 2),
        groups=1,
    ),
    'mobilenet_v2': Backbone(
        functools.partial(ParCMobileNetV2, widen_factor=0.25),
        functools.partial(MobileNetV2, widen_factor=0.25),
        (1, 2, 4, 6),
        7,
        depths=(1, 2, 3, 4, 3, 3, 1),
    ),
    'parcnet': Backbone(
        functools.partial(ParCNet, arch=PARCNET),
        functools.partial(MobileViT, 'xx_small'),
        (1, 2, 3, 4),
        5,
    ),
}
# With ParC in place of attention; their surgery has tests of its own.
TRANSFORMERS = {
    'vit': functools.partial(
        ParCVisionTransformer,
        arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=24),
        img_size=(64, 96),
        patch_size=8,
        out_type='featmap',
        layer_scale_init_value=0.1,
    ),
    'swin': functools.partial(
        ParCSwinTransformer,
        arch=dict(embed_dims=8, depths=[2, 1, 1], num_heads=[1, 2, 2]),
        img_size=(64, 96),
        out_indices=(0, 1, 2),
    ),
    'mobilevit': functools.partial(
        ParCMobileViT,
        arch=[
            ['mobilenetv2', 8, 2, 1, 2],
            ['mobilevit', 12, 2, 16, 24, 2, 2],
            ['mobilevit', 16, 2, 24, 32, 1, 2],
        ],
        img_size=(64, 96),
        stem_channels=8,
        last_exp_factor=2,
        out_indices=(0, 1, 2),
    ),
}


def build(family, **changes):
    """A small network of ``BACKBONES`` with the outputs of a pyramid, or of ``TRANSFORMERS``."""
    torch.manual_seed(0)
    if family in TRANSFORMERS:
        return TRANSFORMERS[family](**changes)
    kind = BACKBONES[family]
    return kind.parc(**{'out_indices': kind.pyramid, **changes})


def image_of(size, batch=2, dtype=torch.float64):
    return torch.randn(batch, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(1))


def parc_layers(model):
    """{name: layer along one axis}"""
    return {name: m for name, m in model.named_modules() if isinstance(m, ParCConv)}


def classifier(backbone, channels, num_classes=10):
    cfg = dict(
        type='ImageClassifier',
        backbone=backbone,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=num_classes, in_channels=channels),
        _scope_='mmpretrain',  # named: another test may have left its own as the default
    )
    return MODELS.build(cfg)


def in_eval(model):
    """Some of mmpretrain's backbones return None from train() and eval()."""
    model.eval()
    return model


def mixers(model):
    """{name: mixer}"""
    return {name: m for name, m in model.named_modules() if isinstance(m, ParCMixer)}


def kernel_sizes(model):
    """{name: (K along H, K along W)}"""
    return {
        name: (mixer.conv_h.weight.shape[-1], mixer.conv_w.weight.shape[-1])
        for name, mixer in mixers(model).items()
    }


def calls_of_mixers(model, image):
    """(mixer, what it receives, what it returns) for each call."""
    calls = []
    hooks = [
        m.register_forward_hook(lambda *call: calls.append(call)) for m in mixers(model).values()
    ]
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return [(mixer, args[0], output) for mixer, args, output in calls]


def mixer_reference(mixer, x, groups=None, resize='interpolate'):
    """The first half of the channels along H, the second along W, by the reference operator."""
    half = x.shape[1] // 2
    halves = ((x[:, :half], mixer.conv_h, 'h'), (x[:, half:], mixer.conv_w, 'w'))
    return torch.cat(
        [
            parc_reference(
                part,
                conv.weight,
                conv.bias,
                conv.pos_embed,
                axis=axis,
                groups=groups or half,
                resize=resize,
            )
            for part, conv, axis in halves
        ],
        dim=1,
    )


def with_axes_exchanged(model, parc=True):
    """A copy that does to a transposed image what ``model`` does to the image.

    Kernels of two dimensions are transposed, and the ParC layers change their axes (``parc=False``
    leaves them: what a model would do that takes one axis for the other).
    """
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.transpose(2, 3).contiguous()
        elif parc and isinstance(module, ParCConv):
            module.axis = {'h': 'w', 'w': 'h'}[module.axis]
    return model


def gradients(model, image):
    """{name: gradient} of a sum that weighs all outputs, of which one may be several tensors."""
    model.train()
    generator = torch.Generator().manual_seed(1)
    total = 0.0
    for output in (t for o in model(image) for t in (o if isinstance(o, tuple) else (o,))):
        total = total + (output * torch.randn(output.shape, generator=generator).to(output)).sum()
    total.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}
