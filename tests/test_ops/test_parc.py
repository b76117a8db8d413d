"""The ParC operator: values, gradients, precision and errors of every backend.

Three rungs. A numpy oracle with plain loops, written from the operator's definition, checks
`parc_reference`. The reference in float64 checks every backend, forward and backward, over axes,
groups, sizes and precisions; below float64, a backend may err at most twice as much as the papers'
own plain PyTorch does in the same precision. Wrong kernels (zeros, shuffled, shifted, flipped, the
other axis) must fail the same comparison.
"""

import functools
import math

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
    batch_of,
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
    (1, 1, 7),
    (1, 13, 5),
    (13, 1, 13),
    (9, 6, 1),
    (97, 131, 14),
    (200, 336, 14),
)
SLOW = [((200, 336, 14), kind) for kind in KINDS if kind != 'depthwise']
each_backend = pytest.mark.parametrize('backend', ANY_BACKEND)
each_axis = pytest.mark.parametrize('axis', AXES)
each_kind = pytest.mark.parametrize('kind', KINDS)
each_case = pytest.mark.parametrize(
    ('kind', 'size'),
    [
        # one kind of the large map is enough for every day
        pytest.param(kind, size, marks=[pytest.mark.slow] if (size, kind) in SLOW else [])
        for size in SIZES
        for kind in KINDS
    ],
    ids=str,
)
each_resize = pytest.mark.parametrize('resize', RESIZES)


# --------------------------------------------------------------------------------------------------
# The oracle, from the definition


def taps_by_hand(taps, n, resize):
    """(..., K) to (..., n): linear, end points aligned; 'interpolate_sum' multiplies by K / n."""
    length = taps.shape[-1]
    out = np.empty((*taps.shape[:-1], n))
    for i in range(n):
        position = i * (length - 1) / (n - 1) if n > 1 else 0.0
        low = min(int(position), length - 1)
        high = min(low + 1, length - 1)
        share = position - low
        out[..., i] = (1 - share) * taps[..., low] + share * taps[..., high]
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


# --------------------------------------------------------------------------------------------------
# The reference against the oracle


@each_resize
@each_kind
@each_axis
@pytest.mark.parametrize('size', [s for s in SIZES if s[0] * s[1] < 300], ids=str)
def test_reference_is_the_definition(size, axis, kind, resize):
    tensors = make_tensors(kind, size)
    arrays = [t.numpy() for t in tensors]
    options = dict(axis=axis, groups=KINDS[kind][2], resize=resize)
    assert_close(parc_reference(*tensors, **options), parc_by_hand(*arrays, **options), 1e-13)
    # neither the bias nor the embedding is needed
    assert_close(
        parc_reference(*tensors[:2], **options), parc_by_hand(*arrays[:2], **options), 1e-13
    )


def test_definition_worked_out_by_hand():
    """Column (1, 2, 3), taps (10, 1, 0): tap 0 sits on the output row, tap 1 on the next."""
    x = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
    w = torch.tensor([10.0, 1.0, 0.0]).reshape(1, 1, 3)
    for op in (parc_reference, *(functools.partial(parc, backend=b) for b in BACKENDS)):
        assert_close(op(x, w, axis='h').flatten(), torch.tensor([12.0, 23.0, 31.0]), 1e-6)
        assert_close(op(x.mT, w, axis='w').flatten(), torch.tensor([12.0, 23.0, 31.0]), 1e-6)


# --------------------------------------------------------------------------------------------------
# Every backend against the reference


@each_backend
@each_axis
@each_case
def test_float64_matches_reference(kind, size, axis, backend):
    tensors = make_tensors(kind, size, batch_of(size))
    actual = value_and_grads(parc, tensors, axis=axis, groups=KINDS[kind][2], backend=backend)
    double = torch.float64
    compare(actual, expected_run(parc_reference, kind, size, axis, double, double), 1e-10)


@each_backend
@each_axis
@each_case
def test_float32_is_as_good_as_plain_torch(kind, size, axis, backend):
    single = torch.float32
    tensors = make_tensors(kind, size, batch_of(size), single)
    actual = value_and_grads(parc, tensors, axis=axis, groups=KINDS[kind][2], backend=backend)
    assert actual['output'].dtype == single
    compare_honestly(actual, (kind, size, axis), single, single, ceiling=1e-5)


@each_backend
@each_kind
@each_axis
@pytest.mark.parametrize('size', [(14, 14, 14), (13, 17, 8)], ids=str)
@pytest.mark.parametrize('inputs', ['half', 'autocast', 'autocast_half_input'])
@pytest.mark.parametrize('half', HALVES, ids=str)
def test_half_is_as_good_as_plain_torch(half, inputs, size, axis, kind, backend):
    """Half tensors; float32 ones under autocast; there, too, a half input from the layer before."""
    stored = half if inputs == 'half' else torch.float32
    tensors = make_tensors(kind, size, dtype=stored)
    if inputs == 'autocast_half_input':
        tensors[0] = tensors[0].to(half)
    with torch.autocast('cpu', half, enabled=inputs != 'half'):
        actual = value_and_grads(parc, tensors, axis=axis, groups=KINDS[kind][2], backend=backend)
    assert actual['output'].dtype == half
    compare_honestly(actual, (kind, size, axis), stored, half, ceiling=0.05)


@each_backend
@each_axis
@each_kind
@each_resize
@pytest.mark.parametrize('kernel', [2, 3, 5])
def test_gradcheck(kernel, resize, kind, axis, backend):
    tensors = [t.requires_grad_() for t in make_tensors(kind, (3, 4, kernel), batch=1)]
    options = dict(axis=axis, groups=KINDS[kind][2], resize=resize, backend=backend)
    assert torch.autograd.gradcheck(lambda *t: parc(*t, **options), tensors, fast_mode=True)


@each_axis
@each_kind
def test_reference_gradcheck(kind, axis):
    tensors = [t.requires_grad_() for t in make_tensors(kind, (3, 4, 3), batch=1)]
    options = dict(axis=axis, groups=KINDS[kind][2])
    assert torch.autograd.gradcheck(
        lambda *t: parc_reference(*t, **options), tensors, fast_mode=True
    )


@each_backend
@pytest.mark.parametrize(
    'missing', [('bias',), ('pos_embed',), ('bias', 'pos_embed')], ids='+'.join
)
def test_bias_and_embedding_are_optional(missing, backend):
    named = dict(zip(NAMES, make_tensors('grouped', (13, 17, 8)), strict=True))
    named = {name: None if name in missing else tensor for name, tensor in named.items()}
    arrays = [None if t is None else t.numpy() for t in named.values()]
    expected = parc_by_hand(*arrays, axis='w', groups=2)
    assert_close(parc(**named, axis='w', groups=2, backend=backend), expected, 1e-12)


@pytest.mark.parametrize('needed', NAMES)
@pytest.mark.parametrize('backend', BACKENDS)
def test_gradient_of_one_tensor_alone(backend, needed):
    """A frozen kernel, a first layer: the one tensor that asks for its gradient gets it."""
    tensors = make_tensors('grouped', (13, 17, 8))
    options = dict(axis='h', groups=2, backend=backend)
    expected = value_and_grads(parc, tensors, **options)
    leaves = [t.requires_grad_(name == needed) for name, t in zip(NAMES, tensors, strict=True)]
    output = parc(*leaves, **options)
    output.backward(cotangent_of(output))
    assert_close(leaves[NAMES.index(needed)].grad, expected[needed], 1e-12)
    assert all(t.grad is None for name, t in zip(NAMES, leaves, strict=True) if name != needed)


# --------------------------------------------------------------------------------------------------
# Properties


def sizes(high=20):
    return st.integers(1, high)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    height=sizes(),
    width=sizes(),
    kernel=sizes(),
    batch=sizes(2),
    groups=sizes(3),
    per_group=st.tuples(sizes(2), sizes(2)),
    axis=st.sampled_from(AXES),
    backend=st.sampled_from(ANY_BACKEND),
    resize=st.sampled_from(RESIZES),
    with_bias=st.booleans(),
    with_pos=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_any_shape(
    height,
    width,
    kernel,
    batch,
    groups,
    per_group,
    axis,
    backend,
    resize,
    with_bias,
    with_pos,
    seed,
):
    random = np.random.RandomState(seed)
    c_in, c_out = groups * per_group[0], groups * per_group[1]
    x = random.standard_normal((batch, c_in, height, width))
    w = random.standard_normal((c_out, per_group[0], kernel))
    bias = random.standard_normal(c_out) if with_bias else None
    pos = random.standard_normal((c_in, kernel)) if with_pos else None
    options = dict(axis=axis, groups=groups, resize=resize)
    tensors = [None if a is None else torch.from_numpy(a) for a in (x, w, bias, pos)]
    assert_close(
        parc(*tensors, backend=backend, **options), parc_by_hand(x, w, bias, pos, **options), 1e-10
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(n=sizes(), kernel=sizes(), shift=st.integers(0, 40), backend=st.sampled_from(BACKENDS))
def test_rolls_with_its_input(n, kernel, shift, backend):
    """Without an embedding the operator is circular: a rolled map gives the rolled output."""
    x, w, bias, _ = make_tensors('dense', (n, 3, kernel))
    expected = parc(x, w, bias, axis='h', backend=backend).roll(shift, 2)
    assert_close(parc(x.roll(shift, 2), w, bias, axis='h', backend=backend), expected, 1e-11)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(n=sizes(), kernel=sizes(), backend=st.sampled_from(BACKENDS))
def test_backends_agree_in_float64(n, kernel, backend):
    tensors = make_tensors('grouped', (n, 3, kernel))
    compare(
        value_and_grads(parc, tensors, axis='h', groups=2, backend=backend),
        value_and_grads(parc, tensors, axis='h', groups=2, backend='direct'),
        1e-11,
    )


@each_backend
@each_kind
def test_height_and_width_exchanged(kind, backend):
    x, *rest = make_tensors(kind, (13, 17, 8))
    options = dict(groups=KINDS[kind][2], backend=backend)
    for this, other in (AXES, AXES[::-1]):
        expected = parc(x.transpose(2, 3), *rest, axis=other, **options).transpose(2, 3)
        assert_close(parc(x, *rest, axis=this, **options), expected, 1e-12)


@each_axis
@each_backend
def test_embedding_needs_no_pass_over_the_input(backend, axis):
    """ParC(x + p) = ParC(x) + ParC(p), with p constant along the other axis."""
    x, w, bias, p = make_tensors('dense', (13, 17, 8))
    options = dict(axis=axis, backend=backend)
    n = x.shape[2 if axis == 'h' else 3]
    p_map = (
        resize_taps(p, n, 'interpolate')[None].unsqueeze(3 if axis == 'h' else 2).expand_as(x[:1])
    )
    expected = parc(x, w, bias, **options) + parc(p_map, w, **options)
    assert_close(parc(x, w, bias, p, **options), expected, 1e-12)


# --------------------------------------------------------------------------------------------------
# Resizing


@pytest.mark.parametrize(
    ('taps', 'n', 'expected'),
    [
        ([0.0, 1.0, 2.0], 5, [0.0, 0.5, 1.0, 1.5, 2.0]),
        ([3.0, 1.0, 4.0, 1.0, 5.0], 3, [3.0, 4.0, 5.0]),
        ([3.0, 1.0, 4.0, 1.0, 5.0], 2, [3.0, 5.0]),
        ([3.0, 1.0, 4.0], 1, [3.0]),
        ([3.0], 4, [3.0, 3.0, 3.0, 3.0]),
        ([3.0, 1.0, 4.0], 3, [3.0, 1.0, 4.0]),
        ([1.0, 4.0], 4, [1.0, 2.0, 3.0, 4.0]),
    ],
)
def test_resize_taps_values(taps, n, expected):
    taps, expected = torch.tensor(taps).double(), torch.tensor(expected).double()
    assert_close(resize_taps(taps, n, 'interpolate'), expected, 1e-15)
    assert_close(resize_taps(taps, n, 'interpolate_sum'), expected * len(taps) / n, 1e-15)


@each_resize
@pytest.mark.parametrize('shape', [(6,), (4, 6), (5, 2, 6)], ids=str)
@pytest.mark.parametrize('n', [1, 2, 5, 6, 7, 97])
def test_resize_taps_last_axis_of_any_rank(n, shape, resize):
    taps = torch.randn(shape, dtype=torch.float64)
    assert_close(resize_taps(taps, n, resize), taps_by_hand(taps.numpy(), n, resize), 1e-14)


@each_resize
def test_resize_taps_keeps_the_dtype_and_the_values_of_its_own_length(resize):
    for dtype in (torch.float64, torch.float32, *HALVES):
        taps = torch.randn(3, 7).to(dtype)
        assert torch.equal(resize_taps(taps, 7, resize), taps)
        assert resize_taps(taps, 11, resize).dtype == dtype


def test_interpolate_sum_keeps_the_response_of_a_constant_kernel():
    x, w = torch.ones(1, 1, 29, 1), torch.full((1, 1, 7), 0.5)
    for backend in BACKENDS:
        assert_close(parc(x, w, axis='h', resize='interpolate_sum', backend=backend), 3.5 * x, 1e-6)
        assert_close(parc(x, w, axis='h', resize='interpolate', backend=backend), 14.5 * x, 1e-6)


@each_axis
@each_kind
@each_backend
@pytest.mark.parametrize('kernel', [5, 14, 20])
def test_interpolate_sum_scales_the_taps_and_not_the_embedding(kernel, backend, kind, axis):
    """The whole response gains K / n once, also where the embedding is all there is."""
    x, w, _, p = make_tensors(kind, (14, 14, kernel))
    options = dict(axis=axis, groups=KINDS[kind][2], backend=backend)
    for image in (x, torch.zeros_like(x)):
        expected = parc(image, w, None, p, resize='interpolate', **options) * (kernel / 14)
        assert_close(parc(image, w, None, p, resize='interpolate_sum', **options), expected, 1e-12)


@each_axis
@each_kind
@each_backend
@pytest.mark.parametrize('size', [(14, 14, 7), (7, 7, 14), (13, 17, 8)], ids=str)
def test_interpolate_sum_matches_reference(size, backend, kind, axis):
    double, resize = torch.float64, 'interpolate_sum'
    expected = expected_run(parc_reference, kind, size, axis, double, double, resize)
    options = dict(axis=axis, groups=KINDS[kind][2], resize='interpolate_sum', backend=backend)
    compare(value_and_grads(parc, make_tensors(kind, size), **options), expected, 1e-10)


# --------------------------------------------------------------------------------------------------
# Memory layouts and empty batches

LAYOUTS = {
    'channels_last': lambda t: t.contiguous(memory_format=torch.channels_last),
    'transposed': lambda t: t.mT.contiguous().mT,
    'strided': lambda t: t.repeat_interleave(2, -1)[..., ::2],
    'offset': lambda t: torch.cat([t, t], 1)[:, t.shape[1] :],
}


@each_backend
@each_axis
@each_kind
@pytest.mark.parametrize('layout', LAYOUTS)
def test_memory_layouts(layout, kind, axis, backend):
    tensors = make_tensors(kind, (13, 17, 8))
    options = dict(axis=axis, groups=KINDS[kind][2], backend=backend)
    expected = value_and_grads(parc, tensors, **options)
    tensors[0] = LAYOUTS[layout](tensors[0])
    assert not tensors[0].is_contiguous()
    compare(value_and_grads(parc, tensors, **options), expected, 1e-12)


@each_backend
def test_expanded_tensors(backend):
    """Views that repeat one element: an input constant along W, one kernel for all channels."""
    x, w, bias, p = make_tensors('depthwise', (13, 1, 8))
    views = (
        x.expand(-1, -1, -1, 5),
        w[:1].expand_as(w),
        bias[:1].expand_as(bias),
        p[:1].expand_as(p),
    )
    options = dict(axis='h', groups=2, backend=backend)
    expected = parc_by_hand(*(v.numpy() for v in views), axis='h', groups=2)
    assert_close(parc(*views, **options), expected, 1e-12)


@each_backend
@each_axis
@each_kind
def test_inputs_are_left_alone(kind, axis, backend):
    tensors = make_tensors(kind, (13, 17, 8))
    before = [t.clone() for t in tensors]
    parc(*tensors, axis=axis, groups=KINDS[kind][2], backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


@each_backend
@each_axis
@each_kind
def test_empty_batch(kind, axis, backend):
    tensors = make_tensors(kind, (13, 17, 8), batch=0)
    result = value_and_grads(parc, tensors, axis=axis, groups=KINDS[kind][2], backend=backend)
    assert result['output'].shape == (0, KINDS[kind][1], 13, 17)
    assert result['input'].shape == tensors[0].shape
    assert not any(result[name].any() for name in NAMES)


# --------------------------------------------------------------------------------------------------
# Negative controls: what the comparison above must not let pass

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


@each_axis
@each_kind
@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('control', CONTROLS)
def test_wrong_kernels_are_noticed(control, backend, kind, axis):
    size = (14, 14, 14)
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


def test_nan_fails_the_comparison():
    with pytest.raises(AssertionError):
        assert_close(torch.tensor([1.0, math.nan]), torch.ones(2), 0.5)


# --------------------------------------------------------------------------------------------------
# Errors: one line of ValueError


def zeros(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


# what differs from a fitting call: input (2, 4, 6, 6), weight (4, 2, 5), bias (4,),
# pos_embed (4, 5), groups 2
MISFITS = {
    'unknown axis': dict(axis='x'),
    'axis by number': dict(axis=2),
    'unknown backend': dict(backend='cudnn'),
    'unknown resize': dict(resize='nearest'),
    'input of 3 dimensions': dict(input=zeros(4, 6, 6)),
    'input of 5 dimensions': dict(input=zeros(2, 4, 6, 6, 1)),
    'weight of 2 dimensions': dict(weight=zeros(4, 5)),
    'weight of 4 dimensions': dict(weight=zeros(4, 2, 5, 1)),
    'bias of 2 dimensions': dict(bias=zeros(4, 1)),
    'bias of no dimension': dict(bias=zeros()),
    'pos_embed of 1 dimension': dict(pos_embed=zeros(5)),
    'pos_embed of 3 dimensions': dict(pos_embed=zeros(1, 4, 5)),
    'input channels not divisible': dict(input=zeros(2, 5, 6, 6), pos_embed=zeros(5, 5)),
    'output channels not divisible': dict(weight=zeros(5, 2, 5), bias=zeros(5)),
    'weight of too few channels a group': dict(weight=zeros(4, 1, 5)),
    'weight of too many channels a group': dict(weight=zeros(4, 4, 5)),
    'no groups': dict(groups=0),
    'negative groups': dict(groups=-2),
    'bias of another length': dict(bias=zeros(2)),
    'bias of one value': dict(bias=zeros(1)),
    'pos_embed of other channels': dict(pos_embed=zeros(2, 5)),
    'pos_embed of one channel': dict(pos_embed=zeros(1, 5)),
    'pos_embed of another length': dict(pos_embed=zeros(4, 6)),
    'pos_embed of one position': dict(pos_embed=zeros(4, 1)),
    'weight of another dtype': dict(weight=zeros(4, 2, 5, dtype=torch.float64)),
    'bias of another dtype': dict(bias=zeros(4, dtype=torch.float64)),
    'pos_embed of another dtype': dict(pos_embed=zeros(4, 5, dtype=torch.float64)),
    'half input': dict(input=zeros(2, 4, 6, 6, dtype=torch.bfloat16)),
}


def call_with(**changes):
    fitting = dict(input=zeros(2, 4, 6, 6), weight=zeros(4, 2, 5), bias=zeros(4))
    fitting.update(pos_embed=zeros(4, 5), axis='h', groups=2)
    return parc(**{**fitting, **changes})


@pytest.mark.parametrize('misfit', MISFITS)
@each_backend
def test_misfits_raise_one_line(backend, misfit):
    call_with(backend=backend)
    with pytest.raises(ValueError) as error:
        call_with(**{'backend': backend, **MISFITS[misfit]})
    message = str(error.value)
    assert message and '\n' not in message


@each_backend
@each_axis
def test_a_kernel_of_another_length_raises(axis, backend):
    x, w, bias, p = make_tensors('dense', (13, 17, 8))
    kernel = prepare(x, w, bias, p, axis=axis, backend=backend)
    expected = parc_reference(x, w, bias, p, axis=axis)
    assert_close(correlate([x], [kernel]), expected, 1e-10)
    with pytest.raises(ValueError, match='prepared for length'):
        correlate([x.mT], [kernel])


def test_resize_taps_refuses_an_unknown_way():
    for n in (5, 6):
        with pytest.raises(ValueError, match='nearest'):
            resize_taps(zeros(4, 5), n, 'nearest')


def test_backends_are_named():
    assert BACKENDS == ('direct', 'matmul', 'fft')
