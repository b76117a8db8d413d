"""The ParC operator: values, gradients, precision and errors of every backend.

Three rungs. A numpy oracle with plain loops, written from the operator's definition, checks
`parc_reference`. The reference in float64 checks every backend, forward and backward. Below
float64, a backend may err at most twice as much as the papers' own plain PyTorch in the same
precision. Wrong kernels must fail the same comparison.
"""

import functools
import itertools

import numpy as np
import pytest
import torch
from helpers import assert_close, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_cases import (
    HALVES,
    KINDS,
    NAMES,
    compare,
    compare_honestly,
    cotangent_of,
    expected_run,
    make_tensors,
    value_and_grads,
)

from mmparc.ops import BACKENDS, correlate, parc, parc_reference, prepare, resize_taps

AXES = ('h', 'w')
RESIZES = ('interpolate', 'interpolate_sum')
ANY_BACKEND = (*BACKENDS, 'auto')
# (H, W, K): the kernel as long as the axis, shorter, longer; odd, prime and single positions
SIZES = (
    (7, 7, 7),
    (14, 14, 14),
    (14, 14, 7),
    (7, 7, 14),
    (13, 17, 13),
    (1, 13, 5),
    (13, 1, 13),
    (9, 6, 1),
    (97, 131, 14),
)
LARGE = (200, 336, 14)
each_backend = pytest.mark.parametrize('backend', ANY_BACKEND)


def taps_by_hand(taps, n, resize):
    """(..., K) to (..., n): linear, end points aligned; 'interpolate_sum' multiplies by K / n."""
    length = taps.shape[-1]
    positions = np.linspace(0, length - 1, n)  # the first alone for n = 1
    rows = [np.interp(positions, np.arange(length), row) for row in taps.reshape(-1, length)]
    out = np.reshape(rows, (*taps.shape[:-1], n))
    return out * (length / n) if resize == 'interpolate_sum' else out


def parc_by_hand(x, w, bias=None, p=None, *, axis, groups=1, resize='interpolate'):
    """bias[o] + sum over c, k of w[o, c, k] * (x + p)[b, first(o) + c, (i + k) mod n, j]."""
    batch, c_in, height, width = x.shape
    c_out = w.shape[0]
    n = height if axis == 'h' else width
    w = taps_by_hand(w, n, resize)
    if p is not None:
        p = taps_by_hand(p, n, 'interpolate')
        x = x + (p[None, :, :, None] if axis == 'h' else p[None, :, None, :])
    y = np.zeros((batch, c_out, height, width))
    for o in range(c_out):
        first = o // (c_out // groups) * (c_in // groups)
        for c in range(c_in // groups):
            for k in range(n):
                for i in range(n):
                    if axis == 'h':
                        y[:, o, i, :] += w[o, c, k] * x[:, first + c, (i + k) % n, :]
                    else:
                        y[:, o, :, i] += w[o, c, k] * x[:, first + c, :, (i + k) % n]
        if bias is not None:
            y[:, o] += bias[o]
    return y


# Values and gradients

LAYOUTS = {
    'contiguous': lambda t: t.clone(),
    'channels_last': lambda t: t.contiguous(memory_format=torch.channels_last),
    'transposed': lambda t: t.mT.contiguous().mT,
    'strided': lambda t: t.repeat_interleave(2, -1)[..., ::2],
    'offset': lambda t: torch.cat([t, t], 1)[:, t.shape[1] :],
    'one row': lambda t: t[:, :, :1].expand_as(t),
}


@st.composite
def calls(draw):
    """The tensors of a call in float64, and its options."""
    groups, per_group_in, per_group_out = (draw(st.integers(1, high)) for high in (3, 2, 2))
    c_in, c_out = groups * per_group_in, groups * per_group_out
    height, width, kernel = (draw(st.integers(1, 20)) for _ in range(3))
    batch = draw(st.sampled_from([0, 1, 2, 2]))
    shapes = [(batch, c_in, height, width), (c_out, per_group_in, kernel), (c_out,), (c_in, kernel)]
    random = np.random.RandomState(draw(st.integers(0, 2**16)))
    tensors = [torch.from_numpy(random.standard_normal(shape)) for shape in shapes]
    tensors[0] = LAYOUTS[draw(st.sampled_from([*LAYOUTS]))](tensors[0])
    for optional in (2, 3):
        if draw(st.booleans()):
            tensors[optional] = None
    axis, resize = draw(st.sampled_from(AXES)), draw(st.sampled_from(RESIZES))
    return tensors, dict(axis=axis, groups=groups, resize=resize)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(calls())
def test_any_call_gives_the_definition(call):
    tensors, options = call
    arrays = [None if t is None else t.numpy().copy() for t in tensors]
    expected = parc_by_hand(*arrays, **options)
    assert_close(parc_reference(*tensors, **options), expected, 1e-12)
    for backend in ANY_BACKEND:
        assert_close(parc(*tensors, backend=backend, **options), expected, 1e-10, backend)
    for tensor, array in zip(tensors, arrays, strict=True):
        assert tensor is None or np.array_equal(tensor.numpy(), array)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(calls())
def test_any_call_has_the_gradients_of_the_reference(call):
    tensors, options = call
    given_ones = [t for t in tensors if t is not None]

    def run(op):
        leaves = [t.detach().requires_grad_() for t in given_ones]
        rest = iter(leaves)
        output = op(*(None if t is None else next(rest) for t in tensors), **options)
        return torch.autograd.grad(output, leaves, cotangent_of(output))

    expected = run(parc_reference)
    for backend in ANY_BACKEND:
        actual = run(functools.partial(parc, backend=backend))
        for a, b in zip(actual, expected, strict=True):
            assert_close(a, b, 1e-10, backend)


def test_definition_worked_out_by_hand():
    """Column (1, 2, 3), taps (10, 1, 0): tap 0 sits on the output row, tap 1 on the next."""
    x = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
    w = torch.tensor([10.0, 1.0, 0.0]).reshape(1, 1, 3)
    assert parc_reference(x, w, axis='h').flatten().tolist() == [12.0, 23.0, 31.0]
    assert parc_reference(x.mT, w, axis='w').flatten().tolist() == [12.0, 23.0, 31.0]


@pytest.mark.parametrize('backend', BACKENDS)
def test_gradient_of_one_tensor_alone(backend):
    """A frozen kernel, a first layer: the one tensor that asks for its gradient gets it."""
    options = dict(axis='h', groups=2, backend=backend)
    expected = value_and_grads(parc, make_tensors('grouped', (13, 17, 8)), **options)
    for needed in NAMES:
        tensors = dict(zip(NAMES, make_tensors('grouped', (13, 17, 8)), strict=True))
        tensors[needed].requires_grad_()
        output = parc(**tensors, **options)
        output.backward(cotangent_of(output))
        assert_close(tensors[needed].grad, expected[needed], 1e-12, needed)
        assert [name for name in NAMES if tensors[name].grad is not None] == [needed]


@each_backend
def test_fixed_sizes(backend):
    """float64 as the reference; float32 as good as plain torch; the sizes of detection too."""
    cases = [*itertools.product(KINDS, SIZES), ('depthwise', LARGE)]
    for (kind, size), axis in itertools.product(cases, AXES):
        batch = 1 if size[0] > 90 else 2
        options = dict(axis=axis, groups=KINDS[kind][2], backend=backend)
        case, exact, single = (kind, size, axis), torch.float64, torch.float32
        if size != LARGE:
            actual = value_and_grads(parc, make_tensors(kind, size, batch), **options)
            expected = expected_run(parc_reference, *case, exact, exact, batch=batch)
            compare(actual, expected, 1e-10)
        actual = value_and_grads(parc, make_tensors(kind, size, batch, single), **options)
        assert actual['output'].dtype == single
        compare_honestly(actual, case, single, single, ceiling=1e-5, batch=batch)


CONTROLS = {
    'zeros': torch.zeros_like,
    'shuffled': lambda w: w[
        ..., torch.randperm(w.shape[-1], generator=torch.Generator().manual_seed(3))
    ],
    'shifted': lambda w: w.roll(1, -1),
    'flipped': lambda w: w.flip(-1),
    'centred': lambda w: w.roll(w.shape[-1] // 2, -1),
    'other axis': lambda w: w,
}


@pytest.mark.parametrize('control', CONTROLS)
def test_wrong_kernels_are_noticed(control):
    """Negative controls of the comparison."""
    size = (14, 14, 14)
    for kind, axis, backend in itertools.product(KINDS, AXES, BACKENDS):
        expected = expected_run(parc_reference, kind, size, axis, torch.float64, torch.float64)
        x, w, *rest = make_tensors(kind, size)
        if control == 'other axis':
            axis = 'w' if axis == 'h' else 'h'
        options = dict(axis=axis, groups=KINDS[kind][2], backend=backend)
        actual = value_and_grads(parc, (x, CONTROLS[control](w), *rest), **options)
        for name in ('output', 'input'):
            assert relative_error(actual[name], expected[name]) > 0.2, name
        with pytest.raises(AssertionError, match='output: relative error'):
            compare(actual, expected, 1e-10)


# Resizing


def test_resized_values():
    for taps, expected in (
        ([3.0, 1.0, 4.0, 1.0, 5.0], [3.0, 4.0, 5.0]),
        ([3.0, 1.0, 4.0], [3.0]),
        ([3.0], [3.0, 3.0, 3.0, 3.0]),
        ([1.0, 4.0], [1.0, 2.0, 3.0, 4.0]),
    ):
        n = len(expected)
        taps, expected = torch.tensor(taps).double(), torch.tensor(expected).double()
        assert_close(resize_taps(taps, n, 'interpolate'), expected, 1e-15)
        assert_close(resize_taps(taps, n, 'interpolate_sum'), expected * len(taps) / n, 1e-15)


def test_resizes_the_last_axis_of_any_rank_in_its_dtype():
    for shape, n, resize in itertools.product(
        [(6,), (4, 6), (5, 2, 6)], [1, 2, 5, 6, 7, 97], RESIZES
    ):
        taps = torch.randn(shape, dtype=torch.float64)
        expected = taps_by_hand(taps.numpy(), n, resize)
        assert_close(resize_taps(taps, n, resize), expected, 1e-14)
        for dtype in (torch.float32, *HALVES):
            resized = resize_taps(taps.to(dtype), n, resize)
            assert resized.dtype == dtype
            if n == 6:
                assert torch.equal(resized, taps.to(dtype))


def test_interpolate_sum_keeps_the_response_to_a_constant_map():
    """The taps are rescaled, and not the embedding."""
    x, w, p = torch.ones(1, 1, 29, 1), torch.full((1, 1, 7), 0.5), torch.full((1, 7), 2.0)
    for backend in BACKENDS:
        for resize, total in (('interpolate_sum', 3.5), ('interpolate', 14.5)):
            options = dict(axis='h', resize=resize, backend=backend)
            assert_close(parc(x, w, **options), total * x, 1e-6)
            assert_close(parc(x, w, None, p, **options), 3 * total * x, 1e-6)


# Errors: one line of ValueError


def zeros(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


# what differs from a fitting call: input (2, 4, 6, 6), weight (4, 2, 5), bias (4,),
# pos_embed (4, 5), groups 2
MISFITS = [
    *(dict(axis=axis) for axis in ('x', 2)),
    dict(backend='cudnn'),
    dict(resize='nearest'),
    *(dict(input=zeros(*shape)) for shape in ((4, 6, 6), (2, 4, 6, 6, 1), (2, 4, 0, 6))),
    *(dict(input=zeros(2, 4, 6, 6, dtype=dtype)) for dtype in (torch.int64, torch.bfloat16)),
    dict(input=zeros(2, 5, 6, 6), pos_embed=zeros(5, 5)),  # no multiple of groups
    *(dict(weight=zeros(*s)) for s in ((4, 5), (4, 2, 5, 1), (4, 1, 5), (4, 4, 5), (5, 2, 5))),
    dict(weight=zeros(5, 2, 5), bias=zeros(5)),
    dict(weight=zeros(4, 2, 0), pos_embed=None),
    *(dict(bias=zeros(*shape)) for shape in ((4, 1), (), (2,), (1,))),
    *(dict(pos_embed=zeros(*s)) for s in ((5,), (1, 4, 5), (2, 5), (1, 5), (4, 6), (4, 1))),
    *(dict(groups=groups) for groups in (0, -2, 2.0)),
    dict(weight=zeros(4, 2, 5, dtype=torch.float64)),
    dict(bias=zeros(4, dtype=torch.float64)),
    dict(pos_embed=zeros(4, 5, dtype=torch.float64)),
]


def test_misfits_raise_one_line():
    fitting = dict(input=zeros(2, 4, 6, 6), weight=zeros(4, 2, 5), bias=zeros(4))
    fitting.update(pos_embed=zeros(4, 5), axis='h', groups=2)
    for backend, misfit in itertools.product(ANY_BACKEND, MISFITS):
        parc(**fitting, backend=backend)
        try:
            parc(**{**fitting, 'backend': backend, **misfit})
        except ValueError as error:
            assert len(str(error).splitlines()) == 1, misfit
        else:
            pytest.fail(f'{misfit} is accepted')


@each_backend
def test_a_kernel_of_another_length_raises(backend):
    x, w, bias, p = make_tensors('dense', (13, 17, 8))
    for axis in AXES:
        kernel = prepare(x, w, bias, p, axis=axis, backend=backend)
        expected = parc_reference(x, w, bias, p, axis=axis)
        assert_close(correlate([x], [kernel]), expected, 1e-10)
        with pytest.raises(ValueError, match=str(x.shape[2 if axis == 'h' else 3])):
            correlate([x.mT], [kernel])
