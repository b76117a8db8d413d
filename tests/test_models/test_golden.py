"""ParC-ConvNeXt-XT gives the published code's outputs for seeded weights and images.

`data/golden/parc_convnext_xt.json` lists the parameters of the reference code by its own names,
and the cases; the .npz beside it holds the logits (2, 1000) and, of the first image, four channels
after each stage before any norm, computed in float64 and stored as float32. Weights and images are
drawn anew from their names and seeds.
"""

import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_close, relative_error
from mmpretrain.registry import MODELS

from mmparc.ops import BACKENDS

GOLDEN = Path(__file__).parents[1] / 'data' / 'golden' / 'parc_convnext_xt'
SPECIFICATION = json.loads(GOLDEN.with_suffix('.json').read_text())
BOUNDS = {torch.float32: 5e-6, torch.float64: 2e-7}
# names of the published code to names in an ImageClassifier of mmpretrain
RENAMES = (
    (r'^head\.', 'head.fc.'),
    (r'^norm\.', 'backbone.norm3.'),
    (r'^(stages|downsample_layers)\.', r'backbone.\1.'),
    (r'\.dwconv\.', '.depthwise_conv.'),
    (r'\.pwconv', '.pointwise_conv'),
    (r'\.gcc_H\.', '.depthwise_conv.conv_h.'),
    (r'\.gcc_W\.', '.depthwise_conv.conv_w.'),
    (r'\.gcc_conv\.', '.'),
    (r'\.pe$', '.pos_embed'),
)


def seeded_value(name, shape):
    """A parameter's value by its name in the published code."""
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    if name.endswith('gamma'):
        value = random.uniform(0.1, 0.5, shape)
    elif name.endswith('bias'):
        value = 0.1 * random.standard_normal(shape)
    elif len(shape) <= 1:
        value = random.uniform(0.5, 1.5, shape)
    elif name.endswith('pe'):
        value = 0.5 * random.standard_normal(shape)
    else:
        value = random.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    return torch.from_numpy(value.astype(np.float32))


def renamed(name):
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def state_of(model):
    """The seeded values under the names and shapes of ``model``, nothing more and nothing less."""
    own = model.state_dict()
    state = {}
    for name, shape in SPECIFICATION['state_dict']:
        value = seeded_value(name, tuple(shape))
        if re.search(r'\.gcc_[HW]\.', name):
            # (C, 1, K, 1) kernels and (1, C, K, 1) embeddings: only sizes of one go
            rank = own[renamed(name)].dim()
            value = value.reshape([s for s in shape if s > 1])
            value = value if rank == value.dim() else value.unsqueeze(1)
        state[renamed(name)] = value
    return state


@pytest.fixture(scope='module')
def build():
    def build(backend):
        backbone = dict(type='mmparc.ParCConvNeXt', arch='xtiny', backend=backend)
        head = dict(type='LinearClsHead', num_classes=1000, in_channels=384)
        # the scope named: another test may have left its own as the default
        cfg = dict(type='ImageClassifier', backbone=backbone, head=head, _scope_='mmpretrain')
        model = MODELS.build(cfg)
        model.load_state_dict(state_of(model), strict=True)
        return model.eval()

    return build


def image_of(case, dtype):
    random = np.random.RandomState(case['image_seed'])
    image = random.standard_normal((2, 3, *case['size'])).astype(np.float32)
    return torch.from_numpy(image).to(dtype)


def errors_of(model, case, dtype):
    """Relative errors of the logits and of each stage."""
    model = model.to(dtype)
    stages = []
    hooks = [
        stage.register_forward_hook(lambda module, args, output: stages.append(output))
        for stage in model.backbone.stages
    ]
    with torch.no_grad():
        logits = model(image_of(case, dtype), mode='tensor')
    for hook in hooks:
        hook.remove()
    assert [list(stage.shape) for stage in stages] == case['stage_shapes']
    actual = {'logits': logits}
    actual.update((f'stage{i}', stage[:1, :4]) for i, stage in enumerate(stages, 1))
    with np.load(GOLDEN.with_suffix('.npz')) as golden:
        return {k: relative_error(v, golden[f'{k}_{case["index"]}']) for k, v in actual.items()}


@pytest.mark.parametrize('case', SPECIFICATION['cases'], ids=lambda case: str(case['size']))
@pytest.mark.parametrize('dtype', BOUNDS, ids=str)
@pytest.mark.parametrize('backend', [*BACKENDS, 'auto'])
def test_golden_outputs(build, backend, dtype, case):
    errors = errors_of(build(backend), case, dtype)
    assert len(errors) == 5
    assert all(error <= BOUNDS[dtype] for error in errors.values()), errors


def test_golden_parameters(build):
    """The published count, and each value in its place."""
    model = build('auto')
    assert sum(p.numel() for p in model.parameters()) == SPECIFICATION['params']
    name = 'stages.2.6.gcc_W.gcc_conv.weight'
    loaded = model.backbone.stages[2][6].depthwise_conv.conv_w.weight
    assert_close(loaded[:, 0], seeded_value(name, (96, 1, 1, 14))[:, 0, 0], 0.0)


CONTROLS = {
    'shuffled': lambda mixer: mixer.conv_h.weight.copy_(
        mixer.conv_h.weight[..., torch.randperm(mixer.conv_h.weight.shape[-1])]
    ),
    'shifted': lambda mixer: mixer.conv_w.weight.copy_(mixer.conv_w.weight.roll(1, -1)),
    'flipped': lambda mixer: mixer.conv_h.weight.copy_(mixer.conv_h.weight.flip(-1)),
    'zero': lambda mixer: mixer.conv_w.weight.zero_(),
    'no embedding': lambda mixer: mixer.conv_h.pos_embed.zero_(),
}


@pytest.mark.parametrize(('stage', 'block'), [(2, 6), (3, 2)])
@pytest.mark.parametrize('control', CONTROLS)
def test_a_wrong_kernel_is_noticed(build, control, stage, block):
    """Negative control: one wrong kernel of one block, and its stage and the logits are far off."""
    model = build('auto')
    with torch.no_grad():
        CONTROLS[control](model.backbone.stages[stage][block].depthwise_conv)
    errors = errors_of(model, SPECIFICATION['cases'][0], torch.float32)
    assert errors[f'stage{stage}'] <= BOUNDS[torch.float32]  # the stage before it
    for name in (f'stage{stage + 1}', 'logits'):
        assert errors[name] > 100 * BOUNDS[torch.float32], (name, errors)
