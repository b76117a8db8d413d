"""What the tests of the backbones share: the mixers of a model, and oracles for a whole one."""

import copy

import torch
from mmpretrain.registry import MODELS
from torch import nn

from mmparc.layers import ParCConv, ParCMixer
from mmparc.ops import parc_reference


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


def mixer_reference(mixer, x, dense, resize='interpolate'):
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
                groups=1 if dense else half,
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
        elif type(module).__name__ == 'PatchMerging':  # a norm and a linear layer on unfolded 2 x 2
            for parameter in (*module.norm.parameters(), module.reduction.weight):
                if parameter.shape[-1] == module.reduction.in_features:  # Swin V2's norm is behind
                    unfolded = parameter.data.unflatten(-1, (-1, 2, 2))
                    parameter.data = unfolded.transpose(-2, -1).flatten(-3).contiguous()
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
