"""torch.compile: no graph break in ParC's code, and values and gradients as without it."""

import os
import re
import shutil

import pytest
import torch
from backbones import BACKBONES, TRANSFORMERS, build, image_of, in_eval
from helpers import assert_close, needs_compiler
from torch import nn
from torch._dynamo.exc import Unsupported
from torch._dynamo.testing import CompileCounter

from mmparc.layers import ParCMixer
from mmparc.ops import BACKENDS
from mmparc.ops.select import SHIPPED_TABLE

pytestmark = needs_compiler

CXX = any(map(shutil.which, [os.environ.get('CXX', 'g++'), 'clang++']))
SIZES = ((13, 17), (14, 14), (13, 17))


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


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


def check_mixer(
    groups, backend='auto', training=True, half=None, sizes=SIZES, compiler='aot_eager'
):
    """Whole graphs at two sizes, one after the other, and back."""
    torch._dynamo.reset()
    mixer = ParCMixer(6, (9, 14), groups, backend=backend)
    compiled = torch.compile(mixer, fullgraph=True, backend=compiler)
    for size in sizes:
        actual = run(mixer, compiled, size, half, training)
        expected = run(mixer, mixer, size, half, training)
        for a, b in zip(actual, expected, strict=True):
            assert a.dtype == b.dtype
            assert_close(a, b, 2e-2 if half else 1e-5)


def test_mixer():
    check_mixer(3, sizes=SIZES[:2])
    check_mixer(1, training=False, sizes=SIZES[:1])


@pytest.mark.full
@pytest.mark.parametrize('backend', [*BACKENDS, 'auto', str(SHIPPED_TABLE)])
def test_mixer_by_every_backend(backend):
    for groups in (3, 1):
        check_mixer(groups, backend)
        check_mixer(groups, backend, training=False)
        check_mixer(groups, backend, half=torch.bfloat16)


@pytest.mark.full
@pytest.mark.skipif(not CXX, reason='Inductor needs a C++ compiler')
@pytest.mark.parametrize('groups', [3, 1], ids=['depthwise', 'dense'])
def test_inductor(groups):
    for training in (True, False):
        check_mixer(groups, 'matmul', training, sizes=SIZES[:1], compiler='inductor')


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


@pytest.mark.full
@pytest.mark.parametrize('family', [*BACKBONES, *TRANSFORMERS])
def test_backbone(family):
    """No break of ours, and none of upstream's either; outputs and gradients as without."""
    model, x = in_eval(build(family).double()), image_of((96, 128))
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
