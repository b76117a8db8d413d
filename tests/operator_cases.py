"""What the operator's tests share: seeded cases, their gradients, and the honest comparison.

Below float64 the bound is twice the error of the papers' own plain PyTorch in that precision.
"""

import functools

import torch
import torch.nn.functional as F
from helpers import assert_close, relative_error

from mmparc.ops import parc_reference

# name: (C_in, C_out, groups)
KINDS = {
    'depthwise': (2, 2, 2),
    'multiplier': (3, 6, 3),
    'grouped': (4, 6, 2),
    'dense': (3, 5, 1),
}
# fp16 on a CPU needs a newer torch than the oldest supported one
HALVES = (torch.bfloat16,) + (
    (torch.float16,) if torch.__version__ >= torch.torch_version.TorchVersion('2.3') else ()
)
NAMES = ('input', 'weight', 'bias', 'pos_embed')


def parc_as_published(input, weight, bias, pos_embed, *, axis, groups, resize):
    """The plain PyTorch of the papers' code: F.interpolate, x + p, wrap-around cat, F.conv2d."""
    n = input.shape[2 if axis == 'h' else 3]
    along, across = (2, 3) if axis == 'h' else (3, 2)
    scale = weight.shape[-1] / n if resize == 'interpolate_sum' else 1
    weight = F.interpolate(weight, n, mode='linear', align_corners=True) * scale
    pos_embed = F.interpolate(pos_embed[None], n, mode='linear', align_corners=True)
    x = input + pos_embed.unsqueeze(across)
    x = torch.cat([x, x.narrow(along, 0, n - 1)], along)
    return F.conv2d(x, weight.unsqueeze(across), bias, groups=groups)


def make_tensors(kind, size, batch=2, dtype=torch.float64):
    """input, weight, bias, pos_embed of a kind and a size (H, W, K), standard normal."""
    c_in, c_out, groups = KINDS[kind]
    height, width, kernel = size
    generator = torch.Generator().manual_seed(height * 10007 + width * 101 + kernel)
    shapes = (
        (batch, c_in, height, width),
        (c_out, c_in // groups, kernel),
        (c_out,),
        (c_in, kernel),
    )
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]


def value_and_grads(op, tensors, **kwargs):
    """{'output': y, 'input': dy/dinput, ...} under a fixed cotangent, which fp16 and bf16 hold."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    output = op(*leaves, **kwargs)
    grads = torch.autograd.grad(output, leaves, cotangent_of(output))
    return {'output': output.detach(), **dict(zip(NAMES, grads, strict=True))}


def cotangent_of(output):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(-8, 9, output.shape, generator=generator).to(output.dtype) / 4


def compare(actual, expected, bounds):
    """Every entry of two `value_and_grads` within its bound (one number, or one an entry)."""
    for name, value in expected.items():
        assert_close(
            actual[name], value, bounds if isinstance(bounds, float) else bounds[name], name
        )


def batch_of(size):
    return 1 if size[0] * size[1] > 10_000 else 2


@functools.lru_cache(maxsize=4096)
def expected_run(op, kind, size, axis, stored, computed, resize='interpolate', batch=None):
    """`op` computed in one dtype from values that were rounded to another."""
    tensors = [t.to(computed) for t in make_tensors(kind, size, batch or batch_of(size), stored)]
    return value_and_grads(op, tensors, axis=axis, groups=KINDS[kind][2], resize=resize)


def compare_honestly(actual, case, stored, computed, ceiling, batch=None):
    """At most twice the error of plain PyTorch in the same precision, and two last places.

    The bounds stay far below the signal: above `ceiling` the comparison itself would be void.
    """
    exact = expected_run(parc_reference, *case, stored, torch.float64, batch=batch)
    plain = expected_run(parc_as_published, *case, computed, computed, batch=batch)
    last_place = torch.finfo(computed).eps
    bounds = {name: 2 * relative_error(plain[name], exact[name]) + 2 * last_place for name in exact}
    assert max(bounds.values()) < ceiling, bounds
    compare(actual, exact, bounds)
