"""Gradient checkpointing of blocks that hold batch norms.

Checkpointing runs a block's forward pass again in the backward pass. In mmpretrain's blocks each
batch norm then counts a batch twice in its running statistics. Here the second pass changes copies
of them, so that training gives the same state with and without checkpointing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recompute(block: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Run ``forward(x)``, and run it again in the backward pass instead of storing activations.

    Args:
        block: the module whose forward pass it is; its batch norms count a batch once.
        forward: the pass itself; not the call of ``block`` where that calls this function.
    """
    if not torch.is_grad_enabled():
        return forward(x)
    return checkpoint(
        forward, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_kept(block))
    )


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """In this context the norms of ``block`` use and change copies of their running statistics."""
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
