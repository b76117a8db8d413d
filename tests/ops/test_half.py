"""bf16 and fp16, forward and backward, at short and long lengths.

The maps are thin, so that many lengths are affordable. The bound is that of the other precisions:
twice the error of plain PyTorch in the same one.
"""

import itertools

import pytest
import torch
from operator_cases import HALVES, KINDS, compare_honestly, make_tensors, value_and_grads

from mmparc.ops import BACKENDS, parc

LENGTHS = (2, 3, 7, 13, 14, 16, 31, 32, 64)
DETECTION = (25, 42, 50, 84, 100, 168, 200, 336)
INPUTS = ('half', 'autocast', 'autocast of a half input')

each_half = pytest.mark.parametrize('half', HALVES, ids=str)
each_backend = pytest.mark.parametrize('backend', [*BACKENDS, 'auto'])


def check(kind, size, axis, backend, half, inputs, op=parc):
    """Half tensors; float32 ones under autocast, where the input may come as a half."""
    stored = half if inputs == 'half' else torch.float32
    tensors = make_tensors(kind, size, batch=1, dtype=stored)
    if inputs == 'autocast of a half input':
        tensors[0] = tensors[0].to(half)
    with torch.autocast('cpu', half, enabled=inputs != 'half'):
        actual = value_and_grads(op, tensors, axis=axis, groups=KINDS[kind][2], backend=backend)
    assert actual['output'].dtype == half
    dtypes = {name: value.dtype for name, value in actual.items() if name != 'output'}
    assert dtypes.pop('input') == tensors[0].dtype and set(dtypes.values()) == {stored}
    assert all(value.isfinite().all() for value in actual.values())
    compare_honestly(actual, (kind, size, axis), stored, half, ceiling=0.2, batch=1)


def check_lengths(lengths, kinds, width, backend, half):
    """Maps of n x width or width x n, and a kernel of their length or of another one."""
    for n, kind, axis, inputs in itertools.product(lengths, kinds, 'hw', INPUTS):
        size = (n, width) if axis == 'h' else (width, n)
        check(kind, (*size, n if n % 2 else 14), axis, backend, half, inputs)


@each_half
@each_backend
def test_lengths(backend, half):
    check_lengths(LENGTHS, KINDS, 3, backend, half)
    check_lengths((200,), ['depthwise'], 8, backend, half)


@pytest.mark.full
@each_half
@each_backend
def test_every_length(backend, half):
    check_lengths(range(2, 65), ['depthwise', 'dense'], 3, backend, half)
    check_lengths(DETECTION, ['depthwise', 'dense'], 8, backend, half)


@each_half
@pytest.mark.parametrize('wrong', ['kernel', 'precision'])
def test_the_bound_notices(wrong, half):
    """Negative control: one tap further, and a kernel of fewer digits."""

    def op(x, weight, *rest, **options):
        if wrong == 'kernel':
            weight = weight.roll(1, -1)
        else:
            weight = weight + weight * (torch.rand_like(weight) - 0.5) * 16 * torch.finfo(half).eps
        return parc(x, weight, *rest, **options)

    with pytest.raises(AssertionError, match='relative error'):
        check('depthwise', (20, 3, 20), 'h', 'matmul', half, 'half', op)
