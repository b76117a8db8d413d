"""torch.compile: no graph break in ParC's code, and values and gradients as without it."""

import functools
import os
import re
import shutil

import pytest
import torch
from helpers import assert_close, needs_compiler
from mmengine.registry import MODELS
from test_models.test_attention import DEDICATED, IMG_SIZE
from test_models.test_every_backbone import BACKBONES, build, image_of, in_eval
from torch import nn
from torch._dynamo.exc import Unsupported
from torch._dynamo.testing import CompileCounter

from mmparc.layers import ParCMixer
from mmparc.ops import BACKENDS
from mmparc.ops.select import SHIPPED_TABLE

pytestmark = needs_compiler

CXX = any(map(shutil.which, [os.environ.get('CXX', 'g++'), 'clang++']))
SIZES = ((13, 17), (14, 14))
NETWORKS = {family: functools.partial(build, family) for family in BACKBONES}
for name in ('vit', 'vit, maps', 'swin', 'mobilevit'):
    NETWORKS[name] = functools.partial(MODELS.build, dict(DEDICATED[name], img_size=IMG_SIZE))
EVERY = [*BACKENDS, 'auto', str(SHIPPED_TABLE)]
WAYS = [(True, None), (False, None), (True, torch.bfloat16)]
# Each pair of a width, a backend and a way to run it is there, half of all triples.
MIXERS = {
    f'{("depthwise", "dense")[(i + j) % 2]}, {name}, {way}': ((i + j) % 2 == 1, EVERY[i], *WAYS[j])
    for i, name in enumerate([*BACKENDS, 'auto', 'table'])
    for j, way in enumerate(['training', 'evaluation', 'autocast'])
}
each_width = pytest.mark.parametrize('dense', [False, True], ids=['depthwise', 'dense'])


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def mixer(dense, backend):
    return ParCMixer(6, (9, 14), groups=1 if dense else None, backend=backend)


def run(layer, function, size, half, training):
    """Output and gradients; in evaluation the output alone."""
    x = torch.randn(2, 6, *size, generator=torch.Generator().manual_seed(1))
    layer.train(training)
    with (
        torch.set_grad_enabled(training),
        torch.autocast('cpu', half or torch.bfloat16, bool(half)),
    ):
        x.requires_grad_(training)
        y = function(x)
    if not training:
        return [y]
    return [y, *torch.autograd.grad(y.float().square().sum(), [x, *layer.parameters()])]


@pytest.mark.slow
@pytest.mark.parametrize(('dense', 'backend', 'training', 'half'), MIXERS.values(), ids=MIXERS)
def test_mixer(dense, backend, training, half):
    """Whole graphs at two sizes, one after the other, and back."""
    layer = mixer(dense, backend)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    for size in (*SIZES, SIZES[0]):
        actual = run(layer, compiled, size, half, training)
        expected = run(layer, layer, size, half, training)
        for a, b in zip(actual, expected, strict=True):
            assert a.dtype == b.dtype
            assert_close(a, b, 2e-2 if half else 1e-5)


def compiled_whole(model):
    """The model as dynamo takes it apart, with an error at a graph break; and a count of graphs."""
    counter = CompileCounter()
    return torch.compile(model, fullgraph=True, backend=counter), counter


class Broken(ParCMixer):
    """A graph break below ParC's forward pass: a choice by values."""

    def forward(self, x):
        y = super().forward(x)
        return -y if torch.equal(x, y) else y


def test_a_break_is_noticed():
    """Negative control, through the same check; this class stands in for ParC's code."""
    x = torch.randn(1, 6, 13, 17)
    compiled, _ = compiled_whole(nn.Sequential(Broken(6, 7)))
    with pytest.raises(Unsupported, match=re.escape(__file__)), torch.no_grad():
        compiled(x)
    compiled, counter = compiled_whole(nn.Sequential(ParCMixer(6, 7)))
    with torch.no_grad():
        compiled(x)
    assert counter.frame_count == 1


@pytest.mark.slow
@pytest.mark.parametrize('name', NETWORKS)
def test_backbone(name):
    """No break of ours, and none of upstream's either; outputs and gradients as without."""
    torch.manual_seed(0)
    model, x = NETWORKS[name]().double(), image_of((96, 128))
    in_eval(model)
    compiled, counter = compiled_whole(model)
    with torch.no_grad():
        for a, b in zip(compiled(x), model(x), strict=True):
            assert_close(a, b, 1e-10)
    assert counter.frame_count == 1

    parameters = [p for p in model.parameters() if p.requires_grad]

    def run_with(function):
        outputs = function(x)
        loss = sum(y.square().mean() for y in outputs)
        return outputs, torch.autograd.grad(loss, parameters, allow_unused=True)

    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    (outputs, grads), (expected, expected_grads) = run_with(compiled), run_with(model)
    for a, b in zip(outputs, expected, strict=True):
        assert_close(a, b, 1e-10)
    for a, b in zip(grads, expected_grads, strict=True):
        assert (a is None) == (b is None)
        if b is not None and b.abs().max() > 1e-10:  # else noise alone
            assert_close(a, b, 1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not CXX, reason='Inductor needs a C++ compiler')
@each_width
def test_inductor(dense):
    layer = mixer(dense, 'matmul')
    compiled = torch.compile(layer, fullgraph=True)
    for training in (True, False):
        actual, expected = (run(layer, f, (13, 17), None, training) for f in (compiled, layer))
        for a, b in zip(actual, expected, strict=True):
            assert_close(a, b, 1e-5)
