"""ParCNet: any image size, what a backbone of mmpretrain promises.

The independent sides of the comparisons: parameter counts of the published models, a block written
out with the reference operator, and a network whose rows and columns are exchanged. Except for
counts a small network is used.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_close, relative_error
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from mmpretrain.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmparc.layers import ParCConv
from mmparc.models.backbones import ParCNet
from mmparc.models.backbones.local_global import ParCBlock
from mmparc.ops import BACKENDS, parc_reference

SMALL = dict(
    stem_kernel=3,
    stem_channels=8,
    channels=[8, 16, 24, 32, 40],
    inner_channels=[16, 32, 48],
    depths=[2, 1, 2],
    ffn_channels=[24, 40, 56],
    fusion='concat',
)
# batch, height, width: the odd sizes of detection and segmentation
IMAGES = [(2, 97, 131), (2, 200, 336), (2, 64, 64)]


def build(**changes):
    options = dict(arch=SMALL, img_size=64, out_indices=range(6))
    torch.manual_seed(0)
    return ParCNet(**{**options, **changes})


def classifier(channels=640, **backbone):
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(type='mmparc.ParCNet', **backbone),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=channels),
        # the scope named: another test may have left its own as the default
        _scope_='mmpretrain',
    )
    return MODELS.build(cfg)


def randomized(model):
    """Every value and statistic drawn anew: no zero, one or tiny value hides an error."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.normal_() if value.dim() > 1 else value.uniform_(0.5, 1.5)
            if value.dim() > 1 and not name.endswith('pos_embed'):
                value.mul_(value[0].numel() ** -0.5)
    return model


def blocks_of(model):
    return [module for module in model.modules() if isinstance(module, ParCBlock)]


# ----------------------------------------------------------------------------------------------
# The published network


@pytest.mark.parametrize(
    ('arch', 'channels', 'parameters'),
    [('xs', 640, 2_185_384), ('s', 640, 5_037_088), ('h', 960, 20_403_940)],
)
def test_parameter_counts(arch, channels, parameters):
    model = classifier(channels, arch=arch)
    assert sum(p.numel() for p in model.parameters()) == parameters


# ----------------------------------------------------------------------------------------------
# Structure


@pytest.mark.parametrize(
    ('arch', 'img_size', 'lengths'),
    [
        ('s', 256, [(32, 32), (16, 16), (8, 8)]),
        (SMALL, (192, 320), [(24, 40), (12, 20), (6, 10)]),
        (SMALL, (320, 192), [(40, 24), (20, 12), (10, 6)]),
        (SMALL, (97, 131), [(13, 17), (7, 9), (4, 5)]),
        (dict(SMALL, stem_kernel=5), (97, 131), [(13, 17), (7, 9), (4, 5)]),
    ],
    ids=str,
)
def test_kernels_are_as_long_as_the_map(arch, img_size, lengths):
    """Along H as high, along W as wide; also seen from the map itself: nothing is resized there."""
    model = build(arch=arch, img_size=img_size)
    for layer, (height, width) in zip(model.layers[2:], lengths, strict=True):
        for block in blocks_of(layer):
            along_h = [block.half1.conv1, block.half2.conv2]
            along_w = [block.half1.conv2, block.half2.conv1]
            assert all(c.axis == 'h' and c.weight.shape[-1] == height for c in along_h)
            assert all(c.axis == 'w' and c.weight.shape[-1] == width for c in along_w)
    size = img_size if isinstance(img_size, tuple) else (img_size, img_size)
    with torch.no_grad():
        outputs = model.eval()(torch.randn(1, 3, *size))
    assert [tuple(o.shape[2:]) for o in outputs[2:5]] == lengths


def test_only_a_unit_s_first_block_holds_embeddings():
    model = build()
    embeddings = [n for n, _ in model.named_parameters() if 'pos' in n or 'embed' in n]
    assert set(embeddings) == {
        f'layers.{layer}.1.global_rep.0.half{half}.{step}pos_embed'
        for layer in (2, 3, 4)
        for half in (1, 2)
        for step in ('', 'conv2.')
    }


@pytest.mark.parametrize(
    ('changes', 'what'),
    [
        (dict(arch='l'), 'arch'),
        (dict(arch={**SMALL, 'fusion': 'product'}), 'fusion'),
        (dict(arch={**SMALL, 'depth': [1, 1, 1]}), 'keys'),
        (dict(arch={**SMALL, 'depths': [1, 1]}), 'depths'),
        (dict(arch={**SMALL, 'inner_channels': [16, 33, 48]}), '33 is odd'),
        (dict(img_size=0), 'img_size'),
        (dict(out_indices=(6,)), 'out_indices'),
        (dict(out_indices=()), 'out_indices'),
        (dict(frozen_stages=6), 'frozen_stages'),
    ],
    ids=str,
)
def test_wrong_arguments(changes, what):
    with pytest.raises(ValueError, match=what):
        build(**changes)


# ----------------------------------------------------------------------------------------------
# Forward and backward


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize('image', IMAGES, ids=str)
@pytest.mark.parametrize('fusion', ['concat', 'sum'])
def test_any_image_size(fusion, image, mode):
    batch, height, width = image
    model = build(arch=dict(SMALL, fusion=fusion)).train(mode == 'train')
    with torch.no_grad():
        outputs = model(torch.randn(batch, 3, height, width))
    strides, widths = [2, 4, 8, 16, 32, 32], [*SMALL['channels'], 160]
    assert [tuple(o.shape) for o in outputs] == [
        (batch, c, math.ceil(height / s), math.ceil(width / s))
        for c, s in zip(widths, strides, strict=True)
    ]
    assert all(o.isfinite().all() for o in outputs)


def block_reference(x, state, axes, resize):
    """A block in eval mode from its state, written out anew: 'hw' is half 1's order of the axes."""

    def norm(x, name):
        statistics = state[f'{name}.running_mean'], state[f'{name}.running_var']
        return F.batch_norm(x, *statistics, state[f'{name}.weight'], state[f'{name}.bias'])

    def embed(x, name, axis):
        if name not in state:
            return x
        rows = x.shape[2 if axis == 'h' else 3]
        p = F.interpolate(state[name][None], rows, mode='linear', align_corners=True)
        return x + (p[..., None] if axis == 'h' else p[:, :, None])

    halves = []
    for number, part in enumerate(x.chunk(2, 1), 1):
        half = f'half{number}'
        first, second = axes if number == 1 else axes[::-1]
        options = dict(groups=part.shape[1], resize=resize)
        t = norm(embed(part, f'{half}.pos_embed', first), f'{half}.norm')
        t = parc_reference(t, state[f'{half}.conv1.weight'], axis=first, **options)
        t = embed(t, f'{half}.conv2.pos_embed', second)
        t = parc_reference(t, state[f'{half}.conv2.weight'], axis=second, **options)
        halves.append(part + t)
    x = torch.cat(halves, 1)
    t = F.conv2d(norm(x, 'ffn.0'), state['ffn.1.weight'], state['ffn.1.bias'])
    t = t * (t + 3).clamp(0, 6) / 6
    t = F.conv2d(t, state['ffn.3.weight'], state['ffn.3.bias'])
    a = t.mean(3).mean(2)[..., None, None]
    a = norm(F.conv2d(a, state['attention.fc.0.conv.weight']), 'attention.fc.0.bn')
    a = a * (a + 3).clamp(0, 6) / 6
    a = norm(F.conv2d(a, state['attention.fc.1.conv.weight']), 'attention.fc.1.bn')
    return x + t * (a + 3).clamp(0, 6) / 6


@pytest.mark.parametrize('resize', ['interpolate', 'interpolate_sum'])
@pytest.mark.parametrize('size', [(9, 5), (9, 9), (7, 20), (25, 42), (1, 4)], ids=str)
@pytest.mark.parametrize('pos_embed', [True, False])
def test_block_matches_reference(pos_embed, size, resize):
    block = ParCBlock(32, 24, (9, 5), pos_embed=pos_embed, resize=resize)
    block = randomized(block.double()).eval()
    x = torch.randn(2, 32, *size, dtype=torch.float64)
    with torch.no_grad():
        output = block(x)
    expected = block_reference(x, block.state_dict(), 'hw', resize)
    assert_close(output, expected, 1e-10)
    exchanged = block_reference(x, block.state_dict(), 'wh', resize)
    assert relative_error(output, exchanged) > 1e-3  # negative control: the axes matter


def exchanged(model, **changes):
    """The network that does with columns what ``model`` does with rows.

    The halves exchange places, so that half 1 goes along W first, with the kernels and embeddings
    that half 1 of ``model`` has along H; convolutions are transposed.
    """
    other = build(**changes).double().eval()
    for block in blocks_of(other):
        block.half1, block.half2 = block.half2, block.half1
    state = {
        name: value.transpose(2, 3) if value.dim() == 4 else value
        for name, value in model.state_dict().items()
    }
    other.load_state_dict(state, strict=True)
    return other


@pytest.mark.parametrize('img_size', [(64, 64), (64, 96), (97, 131)], ids=str)
@pytest.mark.parametrize('image', IMAGES, ids=str)
def test_height_and_width_exchanged(image, img_size):
    model = randomized(build(img_size=img_size).double()).eval()
    x = torch.randn(image[0], 3, *image[1:], dtype=torch.float64)
    with torch.no_grad():
        outputs = model(x)
        mirrored = exchanged(model, img_size=img_size[::-1])(x.transpose(2, 3))
        # negative control: the same network turns no image into its own transpose
        itself = model(x.transpose(2, 3))
    for output, other, own in zip(outputs, mirrored, itself, strict=True):
        assert_close(other.transpose(2, 3), output, 1e-10)
        assert relative_error(own.transpose(2, 3), output) > 1e-3


def test_backends_agree():
    x = torch.randn(2, 3, 97, 131, dtype=torch.float64)
    runs = {}
    for backend in (*BACKENDS, 'auto'):
        model = build(backend=backend).double().eval()
        assert {m.backend for m in model.modules() if isinstance(m, ParCConv)} == {backend}
        with torch.no_grad():
            runs[backend] = model(x)
    for backend, outputs in runs.items():
        for output, expected in zip(outputs, runs['direct'], strict=True):
            assert_close(output, expected, 1e-10, backend)


@pytest.mark.parametrize('fusion', ['concat', 'sum'])
@pytest.mark.parametrize('image', [(97, 131), (64, 64)], ids=str)
def test_every_parameter_gets_a_gradient(image, fusion):
    model = build(arch=dict(SMALL, fusion=fusion))
    model.init_weights()
    outputs = model.train()(torch.randn(4, 3, *image))
    sum((o * torch.randn_like(o)).sum() for o in outputs).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


def training_steps(with_cp):
    """Gradients and statistics after two passes, and how often a ParC and a depthwise 3x3 ran."""
    model = build(with_cp=with_cp).double().train()
    watched = model.layers[3][1].global_rep[0].half2.conv1, model.layers[1][1].conv[1]
    calls = []
    for module in watched:
        module.register_forward_hook(lambda *call: calls.append(call[0]))
    torch.manual_seed(1)  # also dropout's
    for _ in range(2):
        outputs = model(torch.randn(2, 3, 97, 131, dtype=torch.float64))
        sum((o * o * o).mean() for o in outputs).backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    return grads, dict(model.named_buffers()), [calls.count(module) for module in watched]


def test_checkpointing_changes_neither_gradients_nor_statistics():
    grads, buffers, _ = training_steps(False)
    grads_cp, buffers_cp, _ = training_steps(True)
    for name, grad in grads.items():
        assert grad.any()
        assert_close(grads_cp[name], grad, 1e-12, name)
    for name, buffer in buffers.items():
        assert torch.equal(buffers_cp[name], buffer), name
    counts = [b for name, b in buffers.items() if name.endswith('num_batches_tracked')]
    assert counts and all(count == 2 for count in counts)


def test_checkpointing_runs_the_blocks_again():
    """Negative control of the test above: with_cp reaches ParC blocks and inverted residuals."""
    assert training_steps(False)[2] == [2, 2]
    assert training_steps(True)[2] == [4, 4]


def test_checkpointing_without_gradients():
    model = build(with_cp=True).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        outputs = model(x)
    for output, expected in zip(outputs, build().eval()(x), strict=True):
        assert_close(output, expected, 1e-6)


# ----------------------------------------------------------------------------------------------
# What a backbone promises


@pytest.mark.parametrize('indices', [(0,), (1, 3), (2, 3, 4, 5), [-1], (-2,), 2], ids=str)
def test_out_indices(indices):
    """What no output depends on is not trained, and any output's state dict fits any other."""
    model, whole = build(out_indices=indices), build()
    whole.load_state_dict(model.state_dict(), strict=True)
    indices = [i % 6 for i in ([indices] if isinstance(indices, int) else indices)]
    x = torch.randn(2, 3, 64, 96)
    outputs, every = model.eval()(x), whole.eval()(x)
    assert len(outputs) == len(indices)
    assert all(torch.equal(o, every[i]) for o, i in zip(outputs, indices, strict=True))

    model.train()
    sum(o.square().sum() for o in model(x)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad is (parameter.grad is not None), name
    assert whole.conv_1x1_exp.conv.weight.requires_grad
    assert model.conv_1x1_exp.conv.weight.requires_grad is (5 in indices)


@pytest.mark.parametrize('frozen', [-1, 0, 1, 3, 5])
def test_frozen_stages(frozen):
    model = build(frozen_stages=frozen)
    parts = [model.stem, *model.layers, model.conv_1x1_exp]
    for _ in range(2):
        for i, part in enumerate(parts):
            assert all(p.requires_grad is (i > frozen) for p in part.parameters()), i
        assert model.train() is model
        for i, part in enumerate(parts):
            assert all(m.training is (i > frozen) for m in part.modules()), i
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(2, 3, 64, 64))[-1].sum().backward()
    stems = ('stem.', *(f'layers.{i}.' for i in range(frozen)))
    for name, value in model.named_buffers():
        stays = frozen >= 0 and name.startswith(stems)
        assert torch.equal(value, before[name]) is stays, name
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) is (frozen >= 0 and name.startswith(stems)), name


def test_norm_eval():
    model = build(norm_eval=True).train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert norms and not any(norm.training for norm in norms)
    assert model.training and model.layers[4][1].global_rep[0].ffn[4].training
    model(torch.randn(1, 3, 64, 64))  # one image, which training refuses otherwise
    with pytest.raises(ValueError, match='more than 1 value'):
        build().train()(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_layer_depth(prefix):
    model = build()
    for name, _ in model.named_parameters():
        part, index = name.split('.')[:2]
        depth = {'stem': 0, 'conv_1x1_exp': 6}.get(part)
        depth = int(index) + 1 if depth is None else depth
        assert model.get_layer_depth(prefix + name, prefix) == (depth, 8), name
    if prefix:
        assert model.get_layer_depth('head.fc.weight', prefix) == (7, 8)


def test_layer_wise_decay():
    """mmpretrain's constructor takes the backbone: rates, and no weight decay on embeddings."""
    model = classifier(160, arch=SMALL, img_size=64)
    constructor = LearningRateDecayOptimWrapperConstructor(
        dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1.0, weight_decay=0.1)),
        dict(layer_decay_rate=0.5, custom_keys={'.pos_embed': dict(decay_mult=0.0)}),
    )
    groups = {g['param_name']: g for g in constructor(model).optimizer.param_groups}
    assert groups.keys() == dict(model.named_parameters()).keys()
    assert groups['head.fc.weight']['lr'] == 1.0
    assert groups['backbone.stem.conv.weight']['lr'] == 0.5**7
    assert groups['backbone.layers.2.1.global_rep.0.half1.conv1.weight']['lr'] == 0.5**4
    undecayed = {name for name, group in groups.items() if group['weight_decay'] == 0}
    assert undecayed == {name for name in groups if name.endswith('pos_embed')} and undecayed


def test_initial_values():
    model = classifier(arch='s')
    # what was there before must not show
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, _BatchNorm)):
                module.weight.fill_(9.0)
    model.init_weights()
    parcs, embeddings = [], []
    for name, module in model.backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            out, _, *kernel = module.weight.shape
            std = math.sqrt(2 / (out * math.prod(kernel)))
            spread = 4 / math.sqrt(2 * module.weight.numel())
            assert abs(module.weight.std() / std - 1) < spread, name
            # normal, not uniform, which ends at 1.73 standard deviations
            assert module.weight.abs().max() > 2 * std, name
            assert module.bias is None or not module.bias.any(), name
        elif isinstance(module, _BatchNorm):
            assert (module.weight == 1).all() and not module.bias.any(), name
        elif isinstance(module, ParCConv):
            assert module.bias is None
            parcs.append(module.weight.flatten() * module.kernel_size**0.5)
    for name, parameter in model.backbone.named_parameters():
        if name.endswith('pos_embed'):
            embeddings.append(parameter.flatten())
    assert len(parcs) == 4 * 9 and len(embeddings) == 4 * 3
    # uniform up to 1 / sqrt(fan in), which is the depthwise kernel's length
    parc = torch.cat(parcs)
    assert 0.99 < parc.abs().max() <= 1 and abs(parc.std() * math.sqrt(3) - 1) < 0.02
    embedding = torch.cat(embeddings)
    assert abs(embedding.std() - 1) < 0.02 and embedding.mean().abs() < 0.02
    assert embedding.abs().max() > 3.5


# ----------------------------------------------------------------------------------------------
# Output stride 16


def test_output_stride():
    """Layer 5 keeps layer 4's resolution; kernels and embeddings follow, from stride 32 too.

    The oracle is the model of stride 32 whose one strided convolution in layer 5 is set to 1: its
    kernels are then resized in each forward pass.
    """
    coarse, fine = build().eval(), build(output_stride=16).eval()
    randomized(coarse)
    fine.load_state_dict(coarse.state_dict(), strict=True)
    lengths = [
        {m.kernel_size for m in layer.modules() if isinstance(m, ParCConv)} for layer in fine.layers
    ]
    assert lengths == [set(), set(), {8}, {4}, {4}]
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = coarse(x)
        coarse.layers[4][0].conv[1].conv.stride = (1, 1)
        for output, expected in zip(fine(x), coarse(x), strict=True):
            assert_close(output, expected, 1e-5)
        assert [o.shape[-1] for o in fine(x)] == [32, 16, 8, 4, 4, 4]
        assert [o.shape[-1] for o in before] == [32, 16, 8, 4, 2, 2]
        # control
        kernel = fine.layers[4][1].global_rep[0].half1.conv1.weight
        kernel.copy_(kernel.flip(-1))
        assert relative_error(fine(x)[4], coarse(x)[4]) > 1e-3


@pytest.mark.parametrize('image', IMAGES, ids=str)
def test_output_stride_any_size(image):
    outputs = build(output_stride=16).eval()(torch.randn(image[0], 3, *image[1:]))
    assert outputs[3].shape[2:] == outputs[4].shape[2:] == outputs[5].shape[2:]
    assert outputs[3].shape[2:] == tuple(-(-size // 16) for size in image[1:])


def test_unknown_output_stride():
    with pytest.raises(ValueError, match='output_stride must be 16 or 32'):
        build(output_stride=64)
