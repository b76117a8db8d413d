"""bf16 and fp16 at every length from 2 to 64 and those of detection, forward and backward.

The maps are thin, so that all lengths are affordable; the bound is that of the other precisions,
twice the error of plain PyTorch in the same one.
"""

import pytest
import torch
from operator_cases import HALVES, KINDS, compare_honestly, make_tensors, value_and_grads

from mmparc.ops import BACKENDS, parc

EVERY = range(2, 65)
DETECTION = ((200, 336), (100, 168), (50, 84), (25, 42))

each_half = pytest.mark.parametrize('half', HALVES, ids=str)
each_backend = pytest.mark.parametrize('backend', [*BACKENDS, 'auto'])
each_kind = pytest.mark.parametrize('kind', ['depthwise', 'dense'])
each_axis = pytest.mark.parametrize('axis', ['h', 'w'])
each_input = pytest.mark.parametrize('inputs', ['half', 'autocast'])


def check(kind, size, axis, backend, half, inputs, op=parc):
    """Half tensors; or float32 ones under autocast."""
    stored = half if inputs == 'half' else torch.float32
    tensors = make_tensors(kind, size, batch=1, dtype=stored)
    with torch.autocast('cpu', half, enabled=inputs == 'autocast'):
        actual = value_and_grads(op, tensors, axis=axis, groups=KINDS[kind][2], backend=backend)
    assert actual['output'].dtype == half
    assert all(actual[name].dtype == stored for name in actual if name != 'output')
    assert all(value.isfinite().all() for value in actual.values())
    compare_honestly(actual, (kind, size, axis), stored, half, ceiling=0.2, batch=1)


def size_of(n, axis):
    """A map of n x 3 or 3 x n, and a kernel of its length or of another one."""
    return (*((n, 3) if axis == 'h' else (3, n)), n if n % 2 else 14)


@each_half
@each_input
@each_kind
@each_axis
@each_backend
def test_every_length(backend, axis, kind, inputs, half):
    for n in EVERY:
        check(kind, size_of(n, axis), axis, backend, half, inputs)


@each_half
@each_input
@each_kind
@each_axis
@each_backend
@pytest.mark.parametrize('size', DETECTION, ids=str)
def test_detection_sizes(size, backend, axis, kind, inputs, half):
    # the one axis as long as there, the other cut to 8
    height, width = (size[0], 8) if axis == 'h' else (8, size[1])
    check(kind, (height, width, 14), axis, backend, half, inputs)


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
