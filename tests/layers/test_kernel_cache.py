"""Kernels kept in evaluation: when they are used again, and that no change leaves a stale one.

What a layer returns is compared with the reference operator in float64 on the parameters that it
has at that moment; the same comparison must fail where values are not compared.
"""

import copy
import pickle

import pytest
import torch
from backbones import mixer_reference
from helpers import HALVES, OLD_TORCH, assert_close, relative_error
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

from mmparc.layers import ParCMixer, parc
from mmparc.layers.kernel_cache import LENGTHS as KEPT
from mmparc.ops import BACKENDS

SIZES = ((13, 17), (17, 13), (14, 14))
each_groups = pytest.mark.parametrize('groups', [3, 1], ids=['depthwise', 'dense'])


def build(groups, backend='auto'):
    mixer = ParCMixer(6, (14, 9), groups, backend=backend)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_()
    return mixer.eval()


def kept(mixer):
    return [len(conv._kernels) for conv in mixer.children()]


def image(size, dtype=torch.float32):
    return torch.randn(2, 6, *size, generator=torch.Generator().manual_seed(1)).to(dtype)


def reference(mixer, x):
    """In float64, from the parameters as they are now."""
    mixer = copy.deepcopy(mixer).double()
    conv = mixer.conv_h
    return mixer_reference(mixer, x.double(), groups=conv.groups, resize=conv.resize)


@torch.no_grad()
def check(mixer):
    """At each size, twice: prepared and kept."""
    for size in SIZES:
        x = image(size, mixer.conv_h.weight.dtype)
        expected = reference(mixer, x)
        for _ in range(2):
            assert_close(mixer(x), expected, 1e-5, str(size))


@pytest.fixture
def prepared(monkeypatch):
    """What has been prepared so far, one entry a kernel."""
    calls, prepare = [], parc.prepare
    monkeypatch.setattr(
        parc, 'prepare', lambda *args, **kwargs: calls.append(1) or prepare(*args, **kwargs)
    )
    return calls


@each_groups
@torch.no_grad()
def test_the_second_call_prepares_nothing(groups, prepared):
    """Of any batch and memory format; other lengths and dtypes have kernels of their own."""
    for backend in (*BACKENDS, 'auto'):
        mixer, x = build(groups, backend), image((13, 17))
        prepared.clear()
        first = mixer(x)
        assert torch.equal(mixer(x), first)
        assert_close(mixer(x.clone(memory_format=torch.channels_last)), first, 1e-6)
        assert_close(mixer(x[:1]), first[:1], 1e-6)
        assert len(prepared) == 2 and kept(mixer) == [1, 1]
        mixer(image((13, 20)))  # of the same height
        assert len(prepared) == 3
        for half in HALVES:
            with torch.autocast('cpu', half):
                assert_close(mixer(x), first, 0.05)
                assert mixer.conv_h.kernel(x[:, :3]).dtype == half
        assert torch.equal(mixer(x), first)
        check(mixer)


@each_groups
def test_nothing_is_kept_with_gradients_or_by_compilers(groups, prepared):
    cases = [
        (False, lambda mixer, x: mixer.train()),
        (True, lambda mixer, x: mixer.requires_grad_(False)),
        (False, lambda mixer, x: torch.jit.trace(mixer, x, check_trace=False)),
    ]
    if not OLD_TORCH:
        torch._dynamo.reset()
        compiled = (False, lambda mixer, x: torch.compile(mixer, backend='eager', fullgraph=True))
        cases.append(compiled)
    for grad, prepare in cases:
        mixer, x = build(groups), image((13, 17))
        expected = reference(mixer, x)
        with torch.set_grad_enabled(grad):
            run = prepare(mixer, x)
            for _ in range(2):
                assert_close(run(x), expected, 1e-5)
        assert kept(mixer) == [0, 0]
    mixer = build(groups)  # nor is what was kept used for gradients
    with torch.inference_mode():
        mixer(x)
    mixer(x).sum().backward()
    assert all(p.grad.any() for p in mixer.parameters())


@torch.no_grad()
def test_no_more_than_a_few_sizes(prepared):
    mixer = build(3)
    sizes = [(7 + i, 7 + i) for i in range(KEPT + 2)]
    for size in (*sizes, sizes[-1]):  # the last is still there
        mixer(image(size))
    assert kept(mixer) == [KEPT] * 2 and len(prepared) == 2 * len(sizes)
    mixer(image(sizes[0]))  # not any more
    assert len(prepared) == 2 * (len(sizes) + 1)


def test_copies_hold_none():
    mixer = build(1)
    for copied in (copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
        check(mixer)
        other = copied(mixer)
        assert kept(mixer) == [len(SIZES)] * 2 and kept(other) == [0, 0]


# After a change


def each_parameter(change):
    def to_all(mixer):
        for parameter in mixer.parameters():
            change(parameter, torch.randn_like(parameter))

    return to_all


def load(mixer, assign):
    state = {name: torch.randn_like(p) for name, p in mixer.state_dict().items()}
    mixer.load_state_dict(state, assign=assign)


def set_attribute(name, value):
    return lambda mixer: [setattr(conv, name, value) for conv in mixer.children()]


class Twice(nn.Module):
    def forward(self, weight):
        return 2 * weight


CHANGES = {
    'load_state_dict': lambda mixer: load(mixer, assign=False),
    'assign': lambda mixer: load(mixer, assign=True),
    'in place': each_parameter(torch.Tensor.add_),  # as an optimizer
    'one value': lambda mixer: next(mixer.parameters())[0].add_(1),
    'data.copy_': each_parameter(lambda p, value: p.data.copy_(value)),  # as mmengine's EMAHook
    'data =': each_parameter(lambda p, value: setattr(p, 'data', value)),
    'resize': set_attribute('resize', 'interpolate_sum'),
    'no embedding': set_attribute('pos_embed', None),
    'no bias': set_attribute('bias', None),
    'parametrized': lambda mixer: [
        register_parametrization(conv, 'weight', Twice()) for conv in mixer.children()
    ],
}
# The weights keep their values.
HARMLESS = {
    'double': nn.Module.double,
    'train and eval': lambda mixer: mixer.train().eval(),
    **{backend: set_attribute('backend', backend) for backend in BACKENDS},
}


@torch.no_grad()
def check_change(name, groups):
    mixer, x = build(groups), image((13, 17))
    check(mixer)
    before = reference(mixer, x)
    (CHANGES | HARMLESS)[name](mixer)
    if name in CHANGES:
        assert relative_error(reference(mixer, x), before) > 1e-3
    check(mixer)


@each_groups
def test_after_a_change(groups):
    for name in (*CHANGES, *HARMLESS):
        check_change(name, groups)


def test_a_stale_kernel_is_noticed(monkeypatch):
    """Negative control: with the comparison of values switched off."""
    monkeypatch.setattr(torch, 'equal', lambda *tensors: True)
    for name in ('in place', 'one value', 'data.copy_', 'data ='):
        with pytest.raises(AssertionError, match='relative error'):
            check_change(name, 3)
