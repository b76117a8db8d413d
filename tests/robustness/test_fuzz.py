"""The operator on generated arguments, valid and invalid ones, in every dtype.

Valid: each backend agrees with `parc_reference` in float64 within a bound, in a third of the calls
with all gradients. An error counts in units in the last place (ulp) of the largest sum of absolute
terms, which no cancellation makes small. Half precision sums in float32: 3 ulp. float32 and float64
add up to 120 terms one after another: half an ulp more for each. Where K taps are resized, torch
rounds positions up to K: K / 2 more.

Invalid: ValueError in one line that names an argument, for exactly the calls that `misfits`,
written from the docstring, does not allow.
"""

import functools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operator_cases import HALVES, cotangent_of

from mmparc.ops import BACKENDS, parc, parc_reference, resize_taps
from mmparc.ops.backends import exported

FLOATS = (torch.float64, torch.float32, *HALVES)
OTHERS = (torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn)
RESIZES = ('interpolate', 'interpolate_sum')
ANY_BACKEND = (*BACKENDS, 'auto')
TENSORS = ('input', 'weight', 'bias', 'pos_embed')
QUICK, FULL = 150, 6000
NUMBERS = [QUICK, pytest.param(FULL, marks=pytest.mark.full)]
examples = functools.partial(
    settings,
    derandomize=True,
    database=None,
    report_multiple_bugs=False,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

# Calls that fit

LAYOUTS = {
    'contiguous': lambda t: t,
    'transposed': lambda t: t.mT.contiguous().mT if t.dim() > 1 else t,
    'strided': lambda t: t.repeat_interleave(2, -1)[..., ::2],
    'expanded': lambda t: t[..., :1].expand_as(t),
}


@st.composite
def calls(draw):
    """Arguments of :func:`parc` that fit, without the backend."""
    side, layouts = st.integers(1, 40), st.sampled_from(list(LAYOUTS))
    kind = draw(st.sampled_from(['dense', 'depthwise', 'grouped']))
    groups = 1 if kind == 'dense' else draw(st.integers(1, 4))
    small = st.just(1) if kind == 'depthwise' else st.integers(1, 3)
    c_in, c_out = groups * draw(small), groups * draw(st.integers(1, 3))
    height, width, kernel = draw(side), draw(side), draw(side)
    shapes = dict(
        input=(draw(st.integers(0, 3)), c_in, height, width),
        weight=(c_out, c_in // groups, kernel),
        bias=(c_out,) if draw(st.booleans()) else None,
        pos_embed=(c_in, kernel) if draw(st.booleans()) else None,
    )
    dtype = draw(st.sampled_from(FLOATS))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    call = dict.fromkeys(shapes)
    for name, shape in shapes.items():
        if shape is not None:
            t = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
            call[name] = LAYOUTS[draw(layouts)](t)
    options = dict(axis=draw(st.sampled_from('hw')), groups=groups)
    return {**call, **options, 'resize': draw(st.sampled_from(RESIZES))}


def tensors_of(call: dict) -> dict[str, torch.Tensor]:
    return {name: call[name] for name in TENSORS if call[name] is not None}


def run(op, call: dict, differentiate: bool, change=lambda t: t) -> dict[str, torch.Tensor]:
    """The output and, if asked for, each gradient; of changed tensors and a changed cotangent."""
    leaves = {name: change(t).detach().requires_grad_() for name, t in tensors_of(call).items()}
    output = op(**{**call, **leaves})
    if not differentiate:
        return dict(output=output.detach())
    grads = torch.autograd.grad(output, list(leaves.values()), change(cotangent_of(output)))
    return dict(output=output.detach(), **dict(zip(leaves, grads, strict=True)))


def bound_of(call: dict) -> float:
    """In last places of the largest sum of absolute terms."""
    if call['input'].dtype in HALVES:
        return 3
    n = call['input'].shape[2 if call['axis'] == 'h' else 3]
    _, channels, kernel = call['weight'].shape
    return 3 + channels * n / 2 + (kernel / 2 if kernel != n else 0)


def check_values(op, call: dict, differentiate: bool, backends=ANY_BACKEND) -> None:
    """Fail unless every backend agrees with the reference."""
    before = {name: t.clone() for name, t in tensors_of(call).items()}
    expected = run(parc_reference, call, differentiate, torch.Tensor.double)
    sums = run(parc_reference, call, differentiate, lambda t: t.double().abs())
    last_place = torch.finfo(call['input'].dtype).eps
    for backend in backends:
        actual = run(functools.partial(op, backend=backend), call, differentiate)
        for name, value in actual.items():
            assert value.shape == expected[name].shape and value.dtype == call['input'].dtype
            if value.numel():
                error = (value.double() - expected[name]).abs().max().item()
                bound = bound_of(call) * last_place * sums[name].max().item()
                assert error <= bound, f'{backend}, {name}: {error:.3g} exceeds {bound:.3g}'
    assert all(torch.equal(t, before[name]) for name, t in tensors_of(call).items()), 'changed'


def fuzz_values(op, number: int) -> None:
    @examples(max_examples=number)
    @given(calls(), st.sampled_from([True, False, False]))
    def trial(call, differentiate):
        check_values(op, call, differentiate)

    trial()


@pytest.mark.parametrize('number', NUMBERS)
def test_equal_to_the_reference(number, record):
    fuzz_values(parc, number)
    record('calls equal to the reference', number, number)


def of_less_precision(input, weight, *rest, **call):
    error = 64 * torch.finfo(weight.dtype).eps * torch.arange(weight.shape[-1]).cos()
    return parc(input, weight * (1 + error).to(weight.dtype), *rest, **call)


def wrong_on_long_maps(input, weight, *rest, **call):
    y = parc(input, weight, *rest, **call)
    return y + 0.1 if input.shape[2] > 30 else y


@pytest.mark.parametrize('wrong', [of_less_precision, wrong_on_long_maps])
def test_a_wrong_operator_is_found(wrong):
    """Negative control."""
    with pytest.raises(AssertionError, match='exceeds'):
        fuzz_values(wrong, QUICK)


# Calls that may not fit

tensor_names = st.sampled_from(TENSORS)
mistakes = st.one_of(
    st.tuples(st.just('axis'), st.sampled_from(['x', 'H', '', 'hw', 0, None, ('h',), ['h']])),
    st.tuples(st.just('backend'), st.sampled_from(['cudnn', '', 'FFT', None, 3])),
    st.tuples(st.just('resize'), st.sampled_from(['nearest', '', None, 1])),
    st.tuples(st.just('groups'), st.sampled_from([-1, 0, 1, 2, 3, 4, 5, 1.0, 2.0, '1', None])),
    st.tuples(tensor_names, st.sampled_from(FLOATS + OTHERS)),
    st.tuples(tensor_names, st.integers(-40, 2), st.integers(0, 4)),  # a longer or shorter side
    st.tuples(tensor_names, st.sampled_from(['unsqueeze', 'sum', 'absent'])),
)


def with_mistakes(call: dict, made) -> dict:
    call = dict(call)
    for what, how, *dim in made:
        if what not in TENSORS:
            call[what] = how
        elif how == 'absent' and what in ('bias', 'pos_embed'):
            call[what] = None
        elif (t := call[what]) is None or how == 'absent' or not t.dim():
            continue
        elif dim:
            shape = list(t.shape)
            shape[dim[0] % t.dim()] = max(0, shape[dim[0] % t.dim()] + how)
            call[what] = torch.ones(shape, dtype=t.dtype)
        else:
            call[what] = getattr(t, how)(0) if isinstance(how, str) else t.real.to(how)
    return call


def misfits(call: dict) -> set[str]:
    """The arguments that do not fit, as the docstring of :func:`parc` has it; empty if all do."""
    choices = dict(axis=('h', 'w'), backend=ANY_BACKEND, resize=RESIZES)
    wrong = {name for name, valid in choices.items() if call[name] not in valid}
    x, w, bias, pos, groups = (call[k] for k in (*TENSORS, 'groups'))
    if x.dtype not in FLOATS:
        wrong.add('input')
    wrong |= {name for name, t in tensors_of(call).items() if t.dtype != x.dtype} - {'input'}
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


def fuzz_refusals(op, number: int) -> int:
    """Fail unless calls that fit are computed, and others refused clearly; how many fitted."""
    computed = []

    @examples(max_examples=number)
    @given(calls(), st.sampled_from(ANY_BACKEND), st.lists(mistakes, min_size=1, max_size=3))
    def trial(call, backend, made):
        call = with_mistakes({**call, 'backend': backend}, made)
        wrong = misfits(call)
        if not wrong:
            computed.append(call)
            check_values(op, call, False, [call.pop('backend')])
            return
        with pytest.raises(ValueError, match=r'^[^\n]+$') as refused:
            op(**call)
        assert any(name in str(refused.value) for name in wrong), f'{refused.value}: {wrong}'

    trial()
    return len(computed)


@pytest.mark.parametrize('number', NUMBERS)
def test_refused_where_it_does_not_fit(number, record):
    assert 0 < fuzz_refusals(parc, number) < number / 2
    record('calls with mistakes refused, or computed where they fit', number, number)


def takes_any_resize(**call):
    return parc(**{**call, 'resize': call['resize'] if call['resize'] in RESIZES else RESIZES[0]})


def mumbles(**call):
    try:
        return parc(**call)
    except ValueError:
        raise ValueError('cannot') from None


@pytest.mark.parametrize('wrong', [takes_any_resize, mumbles])
def test_a_wrong_refusal_is_found(wrong):
    """Negative control."""
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        fuzz_refusals(wrong, QUICK)


# Deterministic algorithms


def test_deterministic_gradients_of_resizing(monkeypatch):
    """On other devices than a CPU torch has none for F.interpolate: there a product is used."""
    used = []
    run = exported.resize_taps
    monkeypatch.setattr(exported, 'resize_taps', lambda *args: used.append(args) or run(*args))
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        try:
            resize_taps(torch.randn(3, 7, device='meta'), 12, 'interpolate_sum')
        finally:
            torch.use_deterministic_algorithms(False)
        assert len(used) == deterministic
