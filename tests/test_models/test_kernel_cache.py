"""Kernels kept in evaluation: when they are used again, and that no change leaves a stale one.

What a layer returns is compared with the reference operator in float64 on the parameters that it
has at that moment; the same comparison must fail where the values of the parameters are not
compared.
"""

import copy
import io
import pickle

import pytest
import torch
from backbones import mixer_reference
from helpers import HALVES, assert_close, needs_compiler, relative_error
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.nn.utils.parametrize import register_parametrization
from torch.utils.data import DataLoader

from mmparc.layers import ParCConv, ParCMixer, parc
from mmparc.layers.kernel_cache import LENGTHS as KEPT
from mmparc.ops import BACKENDS, parc_reference

SIZES = ((13, 17), (17, 13), (14, 14))
CHANNELS = 6

each_layer = pytest.mark.parametrize('kind', ['h', 'w', 'mixer'])
each_width = pytest.mark.parametrize('dense', [False, True], ids=['depthwise', 'dense'])
each_backend = pytest.mark.parametrize('backend', [*BACKENDS, 'auto'])


def build(kind, dense, backend='auto'):
    if kind == 'mixer':
        layer = ParCMixer(CHANNELS, (14, 9), groups=1 if dense else None, backend=backend)
    else:
        groups = 1 if dense else CHANNELS
        layer = ParCConv(CHANNELS, CHANNELS, 14, kind, groups=groups, backend=backend)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer.eval()


def convs(layer):
    return [m for m in layer.modules() if isinstance(m, ParCConv)]


def kept(layer):
    return [len(conv._kernels) for conv in convs(layer)]


def image(size, like=None):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, CHANNELS, *size, generator=generator)
    return x if like is None else x.to(next(like.parameters()).dtype)


def reference(layer, x):
    """In float64, from the parameters as they are now."""
    layer, x = copy.deepcopy(layer).double(), x.double()
    dense = convs(layer)[0].groups == 1
    if isinstance(layer, ParCMixer):
        return mixer_reference(layer, x, dense, layer.conv_h.resize)
    tensors = layer.weight, layer.bias, layer.pos_embed
    return parc_reference(x, *tensors, axis=layer.axis, groups=layer.groups, resize=layer.resize)


@torch.no_grad()
def check(layer):
    """At each size, twice: prepared and kept."""
    for size in SIZES:
        x = image(size, layer)
        expected = reference(layer, x)
        for _ in range(2):
            assert_close(layer(x), expected, 1e-5, str(size))


@pytest.fixture
def prepared(monkeypatch):
    """What has been prepared so far, one entry a kernel."""
    calls, prepare = [], parc.prepare

    def counted(*args, **kwargs):
        calls.append(kwargs['axis'])
        return prepare(*args, **kwargs)

    monkeypatch.setattr(parc, 'prepare', counted)
    return calls


# When it is used again


@each_layer
@each_width
@each_backend
def test_the_second_call_prepares_nothing(kind, dense, backend, prepared):
    layer = build(kind, dense, backend)
    x = image((13, 17))
    once = 2 if kind == 'mixer' else 1
    with torch.no_grad():
        first = layer(x)
        assert len(prepared) == once and kept(layer) == [1] * once
        assert torch.equal(layer(x), first)
        assert_close(layer(x.clone(memory_format=torch.channels_last)), first, 1e-6)
        assert len(prepared) == once
        layer(image((17, 13)))
        assert len(prepared) == 2 * once
    check(layer)


def compiled(layer):
    torch._dynamo.reset()
    return torch.compile(layer, backend='eager', fullgraph=True)


@each_layer
@each_width
@pytest.mark.parametrize(
    ('grad', 'prepare'),
    [
        (False, lambda layer, x: layer.train()),
        (True, lambda layer, x: layer),
        (True, lambda layer, x: layer.requires_grad_(False)),
        pytest.param(False, lambda layer, x: compiled(layer), marks=needs_compiler),
        (False, lambda layer, x: torch.jit.trace(layer, x, check_trace=False)),
    ],
    ids=['training', 'gradients', 'frozen', 'compiling', 'tracing'],
)
def test_nothing_is_kept(kind, dense, grad, prepare, prepared):
    layer, x = build(kind, dense), image((13, 17))
    expected = reference(layer, x)
    with torch.set_grad_enabled(grad):
        run = prepare(layer, x)
        for _ in range(2):
            assert_close(run(x), expected, 1e-5)
    assert set(kept(layer)) == {0}


@each_width
def test_what_was_kept_is_not_used_where_gradients_are(dense, prepared):
    layer, x = build('mixer', dense), image((13, 17))
    with torch.inference_mode():
        first = layer(x)
    with torch.no_grad():
        assert torch.equal(layer(x), first)
    assert len(prepared) == 2
    layer(x).sum().backward()
    assert len(prepared) == 4 and all(p.grad.any() for p in layer.parameters())


@pytest.mark.parametrize(('axis', 'other'), [('h', (13, 20)), ('w', (20, 17))])
def test_a_kernel_serves_maps_of_its_length(axis, other, prepared):
    layer = build(axis, dense=False)
    with torch.no_grad():
        layer(image((13, 17)))
        for x in (image((13, 17))[:1], image(other)):
            assert_close(layer(x), reference(layer, x), 1e-5)
    assert len(prepared) == 1


@each_layer
def test_no_more_than_a_few_sizes(kind, prepared):
    layer = build(kind, dense=False)
    once = len(convs(layer))
    sizes = [(7 + i, 7 + i) for i in range(KEPT + 2)]
    with torch.no_grad():
        for size in sizes:
            layer(image(size))
            assert max(kept(layer)) <= KEPT
        assert kept(layer) == [KEPT] * once and len(prepared) == once * len(sizes)
        layer(image(sizes[-1]))  # still there
        assert len(prepared) == once * len(sizes)
        layer(image(sizes[0]))  # not any more
        assert len(prepared) == once * (len(sizes) + 1)
    check(layer)


@pytest.mark.parametrize(
    'copied',
    [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: saved_and_loaded(m)],
    ids=['deepcopy', 'pickle', 'torch.save'],
)
@each_layer
def test_copies_hold_none(kind, copied):
    layer = build(kind, dense=True)
    check(layer)
    other = copied(layer)
    assert set(kept(layer)) == {len(SIZES)} and set(kept(other)) == {0}
    check(other)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    check(other)
    check(layer)


def saved_and_loaded(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@each_width
@each_backend
def test_autocast_and_back(dense, backend):
    layer, x = build('mixer', dense, backend), image((13, 17))
    with torch.no_grad():
        full = layer(x)
        for half in HALVES:
            with torch.autocast('cpu', half):
                assert layer(x).dtype == layer(x).dtype == half
                assert_close(layer(x), full, 0.05)
                assert layer.conv_h.kernel(x[:, :3]).dtype == half
        assert torch.equal(layer(x), full)


# After a change


def each_parameter(change):
    def to_all(layer):
        for parameter in layer.parameters():
            change(parameter, torch.randn_like(parameter))

    return to_all


def optimizer_step(layer):
    optimizer = torch.optim.SGD(layer.parameters(), 1.0)
    with torch.enable_grad():
        layer(image((13, 17))).square().mean().backward()
    optimizer.step()


def load(layer, assign):
    layer.load_state_dict(
        {name: torch.randn_like(p) for name, p in layer.state_dict().items()}, assign=assign
    )


def set_attribute(name, value):
    return lambda layer: [setattr(conv, name, value) for conv in convs(layer)]


def exchange_axes(layer):
    for conv in convs(layer):
        conv.axis = {'h': 'w', 'w': 'h'}[conv.axis]
    if isinstance(layer, ParCMixer):
        layer.conv_h, layer.conv_w = layer.conv_w, layer.conv_h


def replace(parameter, value):
    parameter.data = value


class Twice(nn.Module):
    def forward(self, weight):
        return 2 * weight


def parametrize(layer):
    for conv in convs(layer):
        register_parametrization(conv, 'weight', Twice())


CHANGES = {
    'optimizer': optimizer_step,
    'load_state_dict': lambda layer: load(layer, assign=False),
    'assign': lambda layer: load(layer, assign=True),
    'in place': each_parameter(torch.Tensor.add_),
    'one value': lambda layer: next(layer.parameters())[0].add_(1),
    'data.copy_': each_parameter(lambda p, value: p.data.copy_(value)),
    'data =': each_parameter(replace),
    'resize': set_attribute('resize', 'interpolate_sum'),
    'axes': exchange_axes,
    'no embedding': set_attribute('pos_embed', None),
    'no bias': set_attribute('bias', None),
    'parametrized': parametrize,
}
# The weights keep their values.
HARMLESS = {
    'double': nn.Module.double,
    'data = double': each_parameter(lambda p, _: replace(p, p.data.double())),
    'double and float': lambda layer: layer.double().float(),
    'memory format': lambda layer: layer.to(memory_format=torch.channels_last),
    'train and eval': lambda layer: layer.train().eval(),
    **{backend: set_attribute('backend', backend) for backend in BACKENDS},
}


@each_layer
@each_width
@pytest.mark.parametrize('change', [*CHANGES, *HARMLESS])
def test_after_a_change(kind, dense, change):
    layer, x = build(kind, dense), image((13, 17))
    with torch.no_grad():
        check(layer)
        before = reference(layer, x)
        (CHANGES | HARMLESS)[change](layer)
        difference = relative_error(reference(layer, x), before)
        if change in CHANGES:
            assert difference > 1e-3
        check(layer)


def same(*tensors):
    return True


@pytest.mark.parametrize('change', ['in place', 'one value', 'data.copy_', 'data ='])
def test_a_stale_kernel_is_noticed(change, monkeypatch):
    """Negative control: with the comparison of values switched off."""
    monkeypatch.setattr(torch, 'equal', same)
    with pytest.raises(AssertionError, match='relative error'):
        test_after_a_change('mixer', False, change)


# mmengine's moving average of the weights, which writes through .data


class Model(BaseModel):
    def __init__(self, dense):
        super().__init__()
        self.mixer = build('mixer', dense)

    def forward(self, inputs, mode='tensor'):
        outputs = self.mixer(torch.stack(inputs) if isinstance(inputs, list) else inputs)
        if mode == 'loss':
            return dict(loss=outputs.square().mean())
        return list(outputs) if mode == 'predict' else outputs


class Compared(Hook):
    """Compares with a freshly built model that has the weights now in force."""

    priority = 'LOWEST'

    def __init__(self, dense):
        self.dense = dense
        self.weights = {}

    def compare(self, runner, when):
        model = runner.model
        fresh = Model(self.dense)
        fresh.load_state_dict(model.state_dict())
        x = image((13, 17))
        with torch.no_grad():
            assert_close(model(x), fresh.eval()(x), 1e-6, when)
            assert_close(model(x), reference(fresh.mixer, x), 1e-5, when)
        self.weights[when] = model.mixer.conv_h.weight.detach().clone()

    def after_val_iter(self, runner, *args, **kwargs):
        assert not runner.model.training and kept(runner.model) == [1, 1]
        self.compare(runner, 'val')

    def after_val_epoch(self, runner, *args, **kwargs):
        self.compare(runner, 'after val')  # the average is out again

    def after_test_iter(self, runner, *args, **kwargs):
        assert not runner.model.training and kept(runner.model) == [1, 1]
        self.compare(runner, 'test')


class NoMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {}


def run_with_average(dense, folder):
    compared = Compared(dense)
    images = list(image((13, 17)))

    def loader():
        return DataLoader(images, batch_size=2, collate_fn=lambda batch: dict(inputs=batch))

    runner = Runner(
        Model(dense),
        str(folder),
        train_dataloader=loader(),
        val_dataloader=loader(),
        test_dataloader=loader(),
        train_cfg=dict(by_epoch=True, max_epochs=3, val_interval=1),
        val_cfg={},
        test_cfg={},
        val_evaluator=Evaluator(NoMetric()),
        test_evaluator=Evaluator(NoMetric()),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.5)),
        default_hooks=dict(checkpoint=None, logger=None, timer=None, param_scheduler=None),
        custom_hooks=[EMAHook(momentum=0.3), compared],
        default_scope='mmengine',
        experiment_name=f'average_{dense}',
        log_level='ERROR',
    )
    runner.train()
    compared.compare(runner, 'trained')
    runner.test()
    compared.compare(runner, 'tested')  # with the weights of training, still in evaluation
    weights = compared.weights
    assert relative_error(weights['val'], weights['after val']) > 1e-3, 'no average was validated'
    # runner.test() starts a new average from the weights
    assert all(torch.equal(weights[when], weights['after val']) for when in ('trained', 'tested'))


@each_width
def test_moving_average(dense, tmp_path):
    run_with_average(dense, tmp_path)


def test_moving_average_without_the_comparison(tmp_path, monkeypatch):
    """Negative control."""
    monkeypatch.setattr(torch, 'equal', same)
    with pytest.raises(AssertionError, match='after val: relative error'):
        run_with_average(False, tmp_path)
