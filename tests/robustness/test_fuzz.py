"""The operator on generated arguments, valid and invalid ones.

Valid: each backend agrees with `parc_reference` in float64 within a bound, in a third of the calls
with all gradients. An error counts in units in the last place (ulp) of the largest sum of absolute
terms, which no cancellation makes small. Half precision sums in float32: 3 ulp. float32 and float64
add up to 120 terms one after another: half an ulp more for each. Where K taps are resized, torch
rounds positions up to K: K / 2 more.

Invalid: ValueError in one line that names an argument, for exactly the calls that `misfits`,
written from the docstring, does not allow.
"""

import functools
import math

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from operator_cases import HALVES, cotangent_of

from mmparc.models import ParCConv, ParCMixer, ParCNet
from mmparc.ops import BACKENDS, parc, parc_reference

FLOATS = (torch.float64, torch.float32, *HALVES)
OTHERS = (torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn)
RESIZES = ('interpolate', 'interpolate_sum')
ANY_BACKEND = (*BACKENDS, 'auto')
TENSORS = ('input', 'weight', 'bias', 'pos_embed')

QUICK, FULL = 150, 6000
NUMBERS = [QUICK, pytest.param(FULL, marks=pytest.mark.full)]


def examples(number: int, **options):
    """Settings for a number of examples, the same ones each time."""
    return settings(
        max_examples=number,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **options,
    )


# --------------------------------------------------------------------------------------------------
# Calls that fit

LAYOUTS = {
    'contiguous': lambda t: t.contiguous(),
    'transposed': lambda t: t.mT.contiguous().mT if t.dim() > 1 else t,
    'channels first to last': lambda t: (
        t.movedim(1, -1).contiguous().movedim(-1, 1) if t.dim() > 1 else t
    ),
    'strided': lambda t: t.repeat_interleave(2, -1)[..., ::2],
    'cut out': lambda t: torch.cat([t, t, t], -1)[..., t.shape[-1] : 2 * t.shape[-1]],
    'expanded': lambda t: t[..., :1].expand_as(t),
}
layouts = st.sampled_from(list(LAYOUTS))


@st.composite
def calls(draw, smallest_batch=0):
    """Arguments of :func:`parc` that fit, without the backend."""
    side = st.integers(1, 40)
    kind = draw(st.sampled_from(['dense', 'depthwise', 'grouped']))
    groups = 1 if kind == 'dense' else draw(st.integers(1, 4))
    small = st.just(1) if kind == 'depthwise' else st.integers(1, 3)
    c_in, c_out = groups * draw(small), groups * draw(st.integers(1, 3))
    height, width, kernel = draw(side), draw(side), draw(side)
    dtype = draw(st.sampled_from(FLOATS))
    shapes = dict(
        input=(draw(st.integers(smallest_batch, 3)), c_in, height, width),
        weight=(c_out, c_in // groups, kernel),
        bias=(c_out,) if draw(st.booleans()) else None,
        pos_embed=(c_in, kernel) if draw(st.booleans()) else None,
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    tensors = {}
    for name, shape in shapes.items():
        if shape is not None:
            t = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
            t = LAYOUTS[draw(layouts)](t)
        tensors[name] = None if shape is None else t
    options = dict(axis=draw(st.sampled_from('hw')), groups=groups)
    return {**tensors, **options, 'resize': draw(st.sampled_from(RESIZES))}


def run(op, call: dict, differentiate: bool) -> dict[str, torch.Tensor]:
    """The output and, if asked for, the gradient of each tensor, under a fixed cotangent."""
    if not differentiate:
        with torch.no_grad():
            return dict(output=op(**call))
    leaves = {name: t.detach().requires_grad_() for name, t in tensors_of(call).items()}
    output = op(**{**call, **leaves})
    grads = torch.autograd.grad(output, list(leaves.values()), cotangent_of(output))
    return dict(output=output.detach(), **dict(zip(leaves, grads, strict=True)))


def tensors_of(call: dict) -> dict[str, torch.Tensor]:
    return {name: call[name] for name in TENSORS if call[name] is not None}


def sums_of_absolutes(call: dict, differentiate: bool) -> dict[str, float]:
    """The largest sum of absolute terms of each result: all is a sum of products, so |.| of all."""
    positive = {**call, **{name: t.double().abs() for name, t in tensors_of(call).items()}}
    with torch.no_grad():
        sums = dict(output=parc_reference(**positive))
    if differentiate:
        leaves = {name: t.requires_grad_() for name, t in tensors_of(positive).items()}
        output = parc_reference(**positive)
        grads = torch.autograd.grad(output, list(leaves.values()), cotangent_of(output).abs())
        sums.update(zip(leaves, grads, strict=True))
    return {name: t.max().item() if t.numel() else 0.0 for name, t in sums.items()}


def bound_of(call: dict) -> float:
    """In last places of the largest sum of absolute terms."""
    if call['input'].dtype in HALVES:
        return 3
    n = call['input'].shape[2 if call['axis'] == 'h' else 3]
    _, channels, kernel = call['weight'].shape
    return 3 + channels * n / 2 + (kernel / 2 if kernel != n else 0)


def check_values(op, call: dict, differentiate: bool) -> float:
    """Fail unless every backend agrees with the reference; the largest share of the bound."""
    before = {name: t.clone() for name, t in tensors_of(call).items()}
    double = {**call, **{name: t.double() for name, t in tensors_of(call).items()}}
    expected = run(parc_reference, double, differentiate)
    sums = sums_of_absolutes(call, differentiate)
    last_place = torch.finfo(call['input'].dtype).eps
    largest = 0.0
    for backend in ANY_BACKEND:
        actual = run(functools.partial(op, backend=backend), call, differentiate)
        assert actual.keys() == expected.keys()
        for name, value in actual.items():
            assert value.shape == expected[name].shape and value.dtype == call['input'].dtype
            if value.numel() == 0:
                continue
            error = (value.double() - expected[name]).abs().max().item()
            places = error / (last_place * sums[name]) if error else 0.0
            assert places <= bound_of(call), f'{backend}, {name}: {places:.3g} last places'
            largest = max(largest, places / bound_of(call))
    assert all(torch.equal(t, before[name]) for name, t in tensors_of(call).items()), 'changed'
    return largest


def fuzz_values(op, number: int, count: list[float], **options) -> None:
    """Try as many calls; ``count`` gets the error of each that holds, for others math.inf."""

    @examples(number, **options)
    @given(calls(), st.sampled_from([True, False, False]))
    def trial(call, differentiate):
        count.append(math.inf)
        count[-1] = check_values(op, call, differentiate)

    trial()


@pytest.mark.parametrize('number', NUMBERS)
def test_equal_to_the_reference(number, record):
    count = []
    try:
        fuzz_values(parc, number, count)
    finally:
        held = [error for error in count if error < math.inf]
        print(f'the largest error is {max(held, default=0):.0%} of its bound')
        record('calls equal to the reference', len(count), len(held))


def rolled(input, weight, *rest, **call):
    return parc(input, weight.roll(1, -1), *rest, **call)


def of_less_precision(input, weight, *rest, **call):
    error = 64 * torch.finfo(weight.dtype).eps * torch.arange(weight.shape[-1]).cos()
    return parc(input, weight * (1 + error).to(weight.dtype), *rest, **call)


def wrong_at_one_length(input, weight, *rest, **call):
    y = parc(input, weight, *rest, **call)
    return y + 0.1 if input.shape[2] == 17 else y


@pytest.mark.parametrize('wrong', [rolled, of_less_precision, wrong_at_one_length])
def test_a_wrong_operator_is_found(wrong):
    """Negative control."""
    with pytest.raises(AssertionError, match='last places'):
        fuzz_values(wrong, QUICK, [], phases=[Phase.generate])


# --------------------------------------------------------------------------------------------------
# Calls that may not fit


def retyped(t, dtype):
    return t if t is None else t.real.to(dtype)


def reshaped(t, dim, change):
    """With one side longer or shorter by ``change``, or with a dimension less or more."""
    if t is None:
        return None
    if change in ('more', 'less'):
        return t.unsqueeze(dim % (t.dim() + 1)) if change == 'more' else t.sum(dim % t.dim())
    shape = list(t.shape)
    if shape:
        shape[dim % t.dim()] = max(0, shape[dim % t.dim()] + change)
    return torch.ones(shape, dtype=t.dtype)


names = st.sampled_from(TENSORS)
mistakes = st.one_of(
    st.tuples(st.just('axis'), st.sampled_from(['x', 'H', '', 'hw', 0, 2, None, ('h',), ['h']])),
    st.tuples(st.just('backend'), st.sampled_from(['cudnn', '', 'FFT', None, 3, 'absent.json'])),
    st.tuples(st.just('resize'), st.sampled_from(['nearest', '', None, 1])),
    st.tuples(st.just('groups'), st.sampled_from([-1, 0, 1, 2, 3, 4, 5, 1.0, 2.0, '1', None])),
    st.tuples(st.just('dtype'), names, st.sampled_from(FLOATS + OTHERS)),
    st.tuples(
        st.just('shape'),
        names,
        st.integers(0, 4),
        st.sampled_from([-40, -2, -1, 1, 2, 'more', 'less']),
    ),
    st.tuples(st.just('absent'), st.sampled_from(['bias', 'pos_embed'])),
)


def with_mistakes(call: dict, made) -> dict:
    call = {**call, 'backend': call.get('backend', 'auto')}
    for what, *how in made:
        if what == 'dtype':
            call[how[0]] = retyped(call[how[0]], how[1])
        elif what == 'shape':
            call[how[0]] = reshaped(call[how[0]], *how[1:])
        elif what == 'absent':
            call[how[0]] = None
        else:
            call[what] = how[0]
    return call


def misfits(call: dict) -> set[str]:
    """The arguments that do not fit, as the docstring of :func:`parc` has it; empty if all do."""
    wrong = set()
    if call['axis'] not in ('h', 'w'):
        wrong.add('axis')
    if call['backend'] not in ANY_BACKEND:  # there is no file of a table
        wrong |= {'backend', 'absent.json'}
    if call['resize'] not in RESIZES:
        wrong.add('resize')
    x, w, bias, pos, groups = (call[k] for k in (*TENSORS, 'groups'))
    if x.dtype not in FLOATS:
        wrong.add('input')
    wrong |= {
        name for name, t in tensors_of(call).items() if t.dtype != x.dtype and name != 'input'
    }
    if x.dim() != 4 or min(x.shape[1:]) < 1:
        return wrong | {'input'}
    if w.dim() != 3 or min(w.shape) < 1:
        return wrong | {'weight'}
    if type(groups) is not int or groups < 1:
        wrong.add('groups')
    elif x.shape[1] % groups or w.shape[0] % groups or w.shape[1] * groups != x.shape[1]:
        wrong |= {'groups', 'weight'}
    if bias is not None and tuple(bias.shape) != (w.shape[0],):
        wrong.add('bias')
    if pos is not None and tuple(pos.shape) != (x.shape[1], w.shape[2]):
        wrong.add('pos_embed')
    return wrong


def check_refusal(op, call: dict) -> bool:
    """Fail unless a call that fits is computed, and another refused clearly; whether it was."""
    wrong = misfits(call)
    if not wrong:
        backend = call.pop('backend')
        check_values(lambda **call: op(**{**call, 'backend': backend}), call, False)
        return False
    try:
        op(**call)
    except ValueError as error:
        said = str(error)
    else:
        raise AssertionError(f'computed, though {wrong} do not fit')
    assert said and '\n' not in said, 'not in one line'
    assert any(name in said for name in wrong), f'{said!r} names none of {wrong}'
    return True


def fuzz_refusals(op, number: int, count: list[bool | None], **options) -> None:
    """Try as many calls; whether each that holds was refused is added to ``count``, else None."""

    @examples(number, **options)
    @given(calls(), st.sampled_from(ANY_BACKEND), st.lists(mistakes, min_size=1, max_size=3))
    def trial(call, backend, made):
        count.append(None)
        count[-1] = check_refusal(op, with_mistakes({**call, 'backend': backend}, made))

    trial()


@pytest.mark.parametrize('number', NUMBERS)
def test_refused_where_it_does_not_fit(number, record):
    count = []
    try:
        fuzz_refusals(parc, number, count)
    finally:
        computed = len([refused for refused in count if refused is False])
        print(f'{computed} calls fitted after all and were computed')
        held = len(count) - count.count(None)
        record('calls with mistakes refused, or computed where they fit', len(count), held)
    assert 0 < computed < len(count) / 2


def refuses_a_length(**call):
    if call['input'].dim() == 4 and call['input'].shape[2] == 1:
        raise ValueError('input of one row')
    return parc(**call)


def takes_any_resize(**call):
    return parc(**{**call, 'resize': call['resize'] if call['resize'] in RESIZES else RESIZES[0]})


def mumbles(**call):
    try:
        return parc(**call)
    except ValueError:
        raise ValueError('cannot') from None


def does_not_look(**call):
    if call['groups'] == 0:
        return call['input'] % 0
    try:
        return parc(**call)
    except ValueError as error:
        raise RuntimeError(error) from None


@pytest.mark.parametrize('wrong', [refuses_a_length, takes_any_resize, mumbles, does_not_look])
def test_a_wrong_refusal_is_found(wrong):
    """Negative control."""
    with pytest.raises((AssertionError, ValueError, RuntimeError)):
        fuzz_refusals(wrong, QUICK, [], phases=[Phase.generate])


# --------------------------------------------------------------------------------------------------
# Layers refuse when they are built

LAYERS = [
    lambda axis='h', **options: ParCConv(4, 4, 7, axis, **options),
    lambda **options: ParCMixer(4, 7, **options),
    lambda **options: ParCNet('xs', **options),
]
CHOICES = [('backend', 'cudnn'), ('backend', None), ('resize', 'nearest')]


def test_layers_refuse_when_they_are_built():
    for layer in LAYERS:
        layer()
        for name, value in [*CHOICES, ('axis', 'x')] if layer is LAYERS[0] else CHOICES:
            with pytest.raises(ValueError) as caught:
                layer(**{name: value})
            assert name in str(caught.value) and repr(value) in str(caught.value)
