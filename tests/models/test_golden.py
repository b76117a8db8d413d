"""The backbones give the published code's outputs for seeded weights and images.

`data/golden/NAME.json` lists the parameters of the reference code by its own names, and the cases;
the .npz beside it holds the logits (2, 1000) and, of the first image, four channels after each of
four stages before any norm, computed in float64 and stored as float32. Weights and images are drawn
anew from their names and seeds. The weights come in through the converter, so its names and shapes
are tested here, too; its errors in tests/converters.
"""

import copy
import functools
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from backbones import parc_layers
from helpers import relative_error
from mmpretrain.registry import MODELS

from mmparc.converters import backbone_config, convert_official, convert_to_official
from mmparc.ops import BACKENDS

FOLDER = Path(__file__).parents[1] / 'data' / 'golden'
BOUNDS = {torch.float32: 5e-6, torch.float64: 2e-7}


@dataclass
class Golden:
    """One reference model.

    Args:
        model: its name for the converter.
        config: the backbone's config, which the converter must find.
        stages: the modules of the backbone whose outputs are the golden stages 1 to 4.
        controls: ParCConv modules of the backbone, with the first golden stage that each changes.
        neck: pools the backbone's map, where the backbone does not.
        copies: prefixes of second copies in the state dict, to the prefix that counts.
    """

    model: str
    config: dict
    stages: tuple[str, ...]
    controls: dict[str, int]
    neck: dict | None = field(default_factory=lambda: dict(type='GlobalAveragePooling'))
    copies: dict[str, str] = field(default_factory=dict)


MODEL = {
    'parc_convnext_xt': Golden(
        model='parc_convnext',
        config=dict(
            type='mmparc.ParCConvNeXt', arch='xtiny', parc_starts=(3, 3, 6, 2), img_size=224
        ),
        stages=('stages.0', 'stages.1', 'stages.2', 'stages.3'),
        controls={
            'stages.2.6.depthwise_conv.conv_h': 3,
            'stages.3.2.depthwise_conv.conv_w': 4,
        },
        neck=None,
    ),
    'parc_resnet50': Golden(
        model='parc_resnet',
        config=dict(type='mmparc.ParCResNet', depth=50, parc_starts=(3, 4, 3, 2), img_size=224),
        stages=('layer1', 'layer2', 'layer3', 'layer4'),
        controls={'layer3.3.conv2.conv_h': 3, 'layer4.2.conv2.conv_w': 4},
    ),
    'parc_mobilenetv2': Golden(
        model='parc_mobilenetv2',
        config=dict(
            type='mmparc.ParCMobileNetV2',
            widen_factor=1.0,
            parc_starts=(1, 2, 3, 2, 2, 2, 1),
            img_size=224,
        ),
        stages=('layer2', 'layer3', 'layer5', 'layer7'),
        controls={
            'layer4.2.conv.1.conv.conv_h': 3,
            'layer5.2.conv.1.conv.conv_w': 3,
            'layer6.2.conv.1.conv.conv_w': 4,
        },
    ),
    'parcnet_s': Golden(
        model='parcnet',
        config=dict(type='mmparc.ParCNet', arch='s', img_size=256),
        stages=('layers.1', 'layers.2', 'layers.3', 'layers.4'),
        controls={
            'layers.2.1.global_rep.0.half1.conv2': 2,
            'layers.3.1.global_rep.0.half2.conv2': 3,
        },
        copies={'residual.': 'layer_5.0.'},
    ),
}


@functools.cache
def specification(name):
    return json.loads((FOLDER / f'{name}.json').read_text())


def seeded_value(name, shape):
    """A parameter's value by its name in the published code."""
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    if name.endswith('num_batches_tracked'):
        return torch.tensor(0)
    if name.endswith('running_var'):
        value = random.uniform(0.5, 1.5, shape)
    elif name.endswith('running_mean'):
        value = 0.1 * random.standard_normal(shape)
    elif name.endswith('gamma'):
        value = random.uniform(0.1, 0.5, shape)
    elif name.endswith('bias'):
        value = 0.1 * random.standard_normal(shape)
    elif len(shape) <= 1:
        value = random.uniform(0.5, 1.5, shape)
    elif name.endswith('pe') or '_pe_' in name:
        value = 0.5 * random.standard_normal(shape)
    else:
        value = random.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    return torch.from_numpy(value.astype(np.float32))


@functools.cache
def official_state(name):
    """The seeded state dict under the reference's names."""
    state = {n: seeded_value(n, tuple(s)) for n, s in specification(name)['state_dict']}
    for copied, original in MODEL[name].copies.items():
        # one module under two names; in the reference the values loaded last stayed
        for key in [key for key in state if key.startswith(copied)]:
            state[key] = state[original + key.removeprefix(copied)]
    return state


@functools.cache
def converted_state(name):
    return convert_official(official_state(name), MODEL[name].model)


def build(name):
    state = converted_state(name)
    num_classes, channels = state['head.fc.weight'].shape
    cfg = dict(
        type='ImageClassifier',
        backbone=MODEL[name].config,
        neck=MODEL[name].neck,
        head=dict(type='LinearClsHead', num_classes=num_classes, in_channels=channels),
        _scope_='mmpretrain',  # named: another test may have left its own as the default
    )
    model = MODELS.build(cfg)
    model.load_state_dict(state, strict=True)
    return model.eval()


def image_of(case, dtype):
    random = np.random.RandomState(case['image_seed'])
    image = random.standard_normal((2, 3, *case['size'])).astype(np.float32)
    return torch.from_numpy(image).to(dtype)


def errors_of(name, model, case, dtype):
    """Relative errors of the logits and of each stage."""
    model = model.to(dtype)
    stages = []
    hooks = [
        model.backbone.get_submodule(stage).register_forward_hook(
            lambda module, args, output: stages.append(output)
        )
        for stage in MODEL[name].stages
    ]
    with torch.no_grad():
        logits = model(image_of(case, dtype), mode='tensor')
    for hook in hooks:
        hook.remove()
    assert [list(stage.shape) for stage in stages] == case['stage_shapes']
    actual = {'logits': logits}
    actual.update((f'stage{i}', stage[:1, :4]) for i, stage in enumerate(stages, 1))
    with np.load(FOLDER / f'{name}.npz') as golden:
        return {k: relative_error(v, golden[f'{k}_{case["index"]}']) for k, v in actual.items()}


each_model = pytest.mark.parametrize('name', MODEL)


@each_model
def test_golden_outputs(name):
    """At each size of image, in both precisions, by every backend."""
    model = build(name)
    assert len(specification(name)['cases']) >= 1
    for dtype, bound in BOUNDS.items():
        for case in specification(name)['cases']:
            for backend in (*BACKENDS, 'auto'):
                for layer in parc_layers(model).values():
                    layer.backend = backend
                errors = errors_of(name, model, case, dtype)
                assert len(errors) == 5
                assert all(error <= bound for error in errors.values()), (case, backend, errors)


@each_model
def test_golden_parameters(name):
    """The published count and config, and both round trips."""
    golden, state, model = MODEL[name], official_state(name), build(name)
    assert sum(p.numel() for p in model.parameters()) == specification(name)['params']
    assert backbone_config(state, golden.model) == golden.config
    back = convert_to_official(converted_state(name), golden.model)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())
    again = convert_official(back, golden.model)
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(again[key], value) for key, value in converted_state(name).items())


CONTROLS = {
    'shuffled': lambda conv: conv.weight.copy_(
        conv.weight[..., torch.randperm(conv.weight.shape[-1])]
    ),
    'shifted': lambda conv: conv.weight.copy_(conv.weight.roll(1, -1)),
    'flipped': lambda conv: conv.weight.copy_(conv.weight.flip(-1)),
    'zero': lambda conv: conv.weight.zero_(),
    'no embedding': lambda conv: conv.pos_embed.zero_(),
}


@each_model
def test_a_wrong_kernel_is_noticed(name):
    """Negative controls: one wrong layer, and its stage and the logits are far off."""
    bound, model = BOUNDS[torch.float32], build(name)
    for conv, stage in MODEL[name].controls.items():
        layer = model.backbone.get_submodule(conv)
        whole = copy.deepcopy(layer.state_dict())
        for control, damage in CONTROLS.items():
            with torch.no_grad():
                damage(layer)
            errors = errors_of(name, model, specification(name)['cases'][0], torch.float32)
            layer.load_state_dict(whole)
            assert errors[f'stage{stage - 1}'] <= bound  # the stage before it
            for output in (f'stage{stage}', 'logits'):
                assert errors[output] > 100 * bound, (control, output, errors)
