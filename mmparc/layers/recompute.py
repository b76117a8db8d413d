"""Gradient checkpointing of blocks that hold batch norms.

Checkpointing runs a block's forward pass a second time, in the backward pass. As mmpretrain's
blocks do it, each batch norm then counts a batch twice in its running statistics; here the second
pass works on copies of them, so that training with and without it ends in the same state.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recompute(block: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``forward(x)``, its activations computed again in the backward pass instead of kept.

    Args:
        block: the module whose forward pass it is; the batch norms in it count a batch once.
        forward: the pass itself, not ``block``'s own call if that would come back here.
        x: its input.
    """
    if not torch.is_grad_enabled():
        return forward(x)
    return checkpoint(
        forward, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_kept(block))
    )


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Inside, the norms of ``block`` see and change copies of their running statistics."""
    kept = [
        (norm, name, buffer)
        for norm in block.modules()
        if hasattr(norm, 'track_running_stats')
        for name, buffer in norm.named_buffers(recurse=False)
    ]
    try:
        for norm, name, buffer in kept:
            setattr(norm, name, buffer.clone())
        yield
    finally:
        for norm, name, buffer in kept:
            setattr(norm, name, buffer)
