"""ParCNet: its block, outputs and resolutions.

The independent side of the comparisons is a block written out with the reference operator. What it
shares with other families is in test_every_backbone.py and test_structure.py.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from backbones import PARCNET as SMALL
from helpers import assert_close, relative_error

from mmparc.layers import ParCConv
from mmparc.models import ParCNet
from mmparc.models.backbones.local_global import ParCBlock
from mmparc.ops import parc_reference

SIZES = [(97, 131), (200, 336), (64, 64)]


def build(**changes):
    options = dict(arch=SMALL, img_size=64, out_indices=range(6))
    torch.manual_seed(0)
    return ParCNet(**{**options, **changes})


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


# Structure


@torch.no_grad()
def test_kernels_are_as_long_as_the_map():
    """Along H as high, along W as wide; also seen from the map itself: nothing is resized there."""
    odd = [(13, 17), (7, 9), (4, 5)]
    for arch, size, lengths in (
        ('s', (256, 256), [(32, 32), (16, 16), (8, 8)]),
        (SMALL, (192, 320), [(24, 40), (12, 20), (6, 10)]),
        (SMALL, (97, 131), odd),
        (dict(SMALL, stem_kernel=5), (97, 131), odd),
    ):
        model = build(arch=arch, img_size=size)
        for layer, (height, width) in zip(model.layers[2:], lengths, strict=True):
            for block in blocks_of(layer):
                along_h = [block.half1.conv1, block.half2.conv2]
                along_w = [block.half1.conv2, block.half2.conv1]
                assert all(c.axis == 'h' and c.weight.shape[-1] == height for c in along_h)
                assert all(c.axis == 'w' and c.weight.shape[-1] == width for c in along_w)
        outputs = model.eval()(torch.randn(1, 3, *size))
        assert [tuple(o.shape[2:]) for o in outputs[2:5]] == lengths


def test_wrong_arguments():
    for changes, what in (
        (dict(arch='l'), 'arch'),
        (dict(arch={**SMALL, 'fusion': 'product'}), 'fusion'),
        (dict(arch={**SMALL, 'depth': [1, 1, 1]}), 'depth'),
        (dict(arch={**SMALL, 'depths': [1, 1]}), 'depths'),
        (dict(arch={**SMALL, 'inner_channels': [16, 33, 48]}), '33'),
        (dict(img_size=0), 'img_size'),
        (dict(out_indices=(6,)), 'out_indices'),
        (dict(out_indices=()), 'out_indices'),
        (dict(frozen_stages=6), 'frozen_stages'),
        (dict(output_stride=64), 'output_stride'),
    ):
        with pytest.raises(ValueError, match=what) as caught:
            build(**changes)
        assert len(str(caught.value).splitlines()) == 1


# Forward and backward


@torch.no_grad()
def test_any_image_size():
    widths = [*SMALL['channels'], 128]
    for fusion, output_stride in (('concat', 32), ('sum', 32), ('concat', 16)):
        model = build(arch=dict(SMALL, fusion=fusion), output_stride=output_stride)
        strides = [min(stride, output_stride) for stride in (2, 4, 8, 16, 32, 32)]
        for height, width in SIZES:
            for training in (True, False):
                outputs = model.train(training)(torch.randn(2, 3, height, width))
                assert [tuple(o.shape) for o in outputs] == [
                    (2, c, math.ceil(height / s), math.ceil(width / s))
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
@pytest.mark.parametrize('pos_embed', [True, False])
@torch.no_grad()
def test_block_matches_reference(pos_embed, resize):
    block = ParCBlock(32, 24, (9, 5), pos_embed=pos_embed, resize=resize)
    block = randomized(block.double()).eval()
    for size in ((9, 5), (9, 9), (7, 20), (25, 42), (1, 4)):
        x = torch.randn(2, 32, *size, dtype=torch.float64)
        output = block(x)
        assert_close(output, block_reference(x, block.state_dict(), 'hw', resize), 1e-10)
        exchanged = block_reference(x, block.state_dict(), 'wh', resize)
        assert relative_error(output, exchanged) > 1e-3  # negative control: the axes matter


def training_steps(with_cp):
    """Gradients and statistics after two passes, and how often a ParC and a depthwise 3x3 ran."""
    model = build(with_cp=with_cp).double().train()
    calls = []
    for module in (model.layers[3][1].global_rep[0].half2.conv1, model.layers[1][1].conv[1]):
        module.register_forward_hook(lambda *call: calls.append(call[0]))
    torch.manual_seed(1)  # also dropout's
    for _ in range(2):
        outputs = model(torch.randn(2, 3, 97, 131, dtype=torch.float64))
        sum((o * o * o).mean() for o in outputs).backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    return grads, dict(model.named_buffers()), len(calls)


def test_checkpointing_changes_neither_gradients_nor_statistics():
    grads, buffers, calls = training_steps(False)
    grads_cp, buffers_cp, calls_cp = training_steps(True)
    assert (calls, calls_cp) == (4, 8)  # negative control
    for name, grad in grads.items():
        assert grad.any()
        assert_close(grads_cp[name], grad, 1e-12, name)
    for name, buffer in buffers.items():
        assert torch.equal(buffers_cp[name], buffer), name
        assert not name.endswith('num_batches_tracked') or buffer == 2


# What a backbone promises


def test_out_indices():
    """What no output depends on is not trained, and any output's state dict fits any other."""
    x = torch.randn(2, 3, 64, 96)
    for indices in ((0,), (1, 3), (2, 3, 4, 5), [-1], 2):
        model, whole = build(out_indices=indices), build()
        whole.load_state_dict(model.state_dict(), strict=True)
        indices = [i % 6 for i in ([indices] if isinstance(indices, int) else indices)]
        outputs, every = model.eval()(x), whole.eval()(x)
        assert len(outputs) == len(indices)
        assert all(torch.equal(o, every[i]) for o, i in zip(outputs, indices, strict=True))

        model.train()
        sum(o.square().sum() for o in model(x)).backward()
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad is (parameter.grad is not None), name
        assert whole.conv_1x1_exp.conv.weight.requires_grad
        assert model.conv_1x1_exp.conv.weight.requires_grad is (5 in indices)


@torch.no_grad()
def test_output_stride():
    """Layer 5 keeps layer 4's resolution; kernels and embeddings follow, from stride 32 too.

    The oracle is the model of stride 32 whose one strided convolution in layer 5 is set to 1: its
    kernels are then resized in each forward pass.
    """
    coarse, fine = randomized(build()).eval(), build(output_stride=16).eval()
    fine.load_state_dict(coarse.state_dict(), strict=True)
    lengths = [
        {m.kernel_size for m in layer.modules() if isinstance(m, ParCConv)} for layer in fine.layers
    ]
    assert lengths == [set(), set(), {8}, {4}, {4}]
    x = torch.randn(2, 3, 64, 64)
    before = coarse(x)
    coarse.layers[4][0].conv[1].conv.stride = (1, 1)
    for output, expected in zip(fine(x), coarse(x), strict=True):
        assert_close(output, expected, 1e-5)
    assert [o.shape[-1] for o in fine(x)] == [32, 16, 8, 4, 4, 4]
    assert [o.shape[-1] for o in before] == [32, 16, 8, 4, 2, 2]
    # negative control
    kernel = fine.layers[4][1].global_rep[0].half1.conv1.weight
    kernel.copy_(kernel.flip(-1))
    assert relative_error(fine(x)[4], coarse(x)[4]) > 1e-3
