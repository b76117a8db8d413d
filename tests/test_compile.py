"""torch.compile: no graph break in ParC's code, and values and gradients as without it."""

import functools

import pytest
import torch
from helpers import assert_close
from mmengine.registry import MODELS
from test_models.test_attention import DEDICATED, IMG_SIZE
from test_models.test_every_backbone import BACKBONES, build, image_of, in_eval
from torch import nn
from torch._dynamo.testing import CompileCounter

from mmparc.models.layers import ParCMixer
from mmparc.ops import BACKENDS
from mmparc.ops.select import SHIPPED_TABLE

SIZES = ((13, 17), (14, 14))
NETWORKS = {family: functools.partial(build, family) for family in BACKBONES}
for name in ('vit', 'vit, maps', 'swin', 'mobilevit'):
    NETWORKS[name] = functools.partial(MODELS.build, dict(DEDICATED[name], img_size=IMG_SIZE))
each_backend = pytest.mark.parametrize(
    'backend', [*BACKENDS, 'auto', str(SHIPPED_TABLE)], ids=[*BACKENDS, 'auto', 'table']
)
each_width = pytest.mark.parametrize('dense', [False, True], ids=['depthwise', 'dense'])


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def mixer(dense, backend):
    return ParCMixer(6, (9, 14), dense=dense, backend=backend)


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
@each_width
@each_backend
@pytest.mark.parametrize(
    ('training', 'half'),
    [(True, None), (False, None), (True, torch.bfloat16)],
    ids=['training', 'evaluation', 'autocast'],
)
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


def breaks_of(model, x):
    """Where dynamo breaks the graph: (files of the user's stack, the reason)."""
    with torch.no_grad():
        found = torch._dynamo.explain(model)(x).break_reasons
    return [([frame.filename for frame in b.user_stack], b.reason) for b in found]


class Broken(ParCMixer):
    """A graph break below ParC's forward pass: a choice by values."""

    def forward(self, x):
        y = super().forward(x)
        return -y if torch.equal(x, y) else y


def test_a_break_is_noticed():
    """Negative control, through the same check; this class stands in for ParC's code."""
    breaks = breaks_of(nn.Sequential(Broken(6, 7)), torch.randn(1, 6, 13, 17))
    assert any(__file__ in files for files, _ in breaks)
    assert breaks_of(nn.Sequential(ParCMixer(6, 7)), torch.randn(1, 6, 13, 17)) == []


@pytest.mark.slow
@pytest.mark.parametrize('name', NETWORKS)
def test_backbone(name):
    """No break of ours, and none of upstream's either; outputs and gradients as without."""
    torch.manual_seed(0)
    model, x = NETWORKS[name]().double(), image_of((96, 128))
    in_eval(model)
    assert breaks_of(model, x) == []
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(model, backend='aot_eager')
    counted = torch.compile(model, backend=counter)
    with torch.no_grad():
        expected = model(x)
        for outputs in (compiled(x), counted(x)):
            for a, b in zip(outputs, expected, strict=True):
                assert_close(a, b, 1e-10)
    assert counter.frame_count == 1
    parameters = [p for p in model.parameters() if p.requires_grad]

    def grads(function):
        loss = sum(y.square().mean() for y in function(x))
        return torch.autograd.grad(loss, parameters, allow_unused=True)

    for a, b in zip(grads(compiled), grads(model), strict=True):
        assert (a is None) == (b is None)
        if b is not None and b.abs().max() > 1e-10:  # else noise alone
            assert_close(a, b, 1e-6)


@pytest.mark.slow
@each_width
def test_inductor(dense):
    layer = mixer(dense, 'matmul')
    compiled = torch.compile(layer, fullgraph=True)
    for training in (True, False):
        actual, expected = (run(layer, f, (13, 17), None, training) for f in (compiled, layer))
        for a, b in zip(actual, expected, strict=True):
            assert_close(a, b, 1e-5)
