"""Prepared kernels, kept while the parameters that they were made from hold the same values.

Preparing a circulant matrix or a spectrum takes longer than using it on a small map. In evaluation
the weights stay, but nothing tells when they do not: writing through ``.data``, as mmengine's
EMAHook does when it exchanges the weights for their averages, leaves no trace on the parameter. So
the values themselves are compared, each time. On a GPU that would make the host wait for it;
there nothing is kept.
"""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from mmparc.ops import ParCKernel

# Maps of many lengths follow each other in a test of a detector; each has a kernel of its own. Only
# a dense 'matmul', which 'auto' takes for no map longer than a few pixels, is large: 655 MB for 256
# channels and length 50.
LENGTHS = 4


class KernelCache:
    """A layer's last few prepared kernels. Copies and pickles of it are empty."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Drop all kernels."""
        self._kernels: dict[Hashable, ParCKernel] = {}
        self._values: list[Tensor | None] = []

    def __len__(self) -> int:
        return len(self._kernels)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return KernelCache, ()

    def get(
        self, key: Hashable, parameters: Sequence[Tensor | None], prepare: Callable[[], ParCKernel]
    ) -> ParCKernel:
        """The kernel kept under ``key``, or the one that ``prepare`` returns.

        Args:
            key: what the kernel follows from besides the values of the parameters.
            parameters: those, on the CPU; always as many.
            prepare: makes it.
        """
        if not self._values or not all(map(_same, parameters, self._values)):
            self.clear()
            self._values = [None if p is None else p.detach().clone() for p in parameters]
        kernel = self._kernels.get(key)
        if kernel is None:
            if len(self._kernels) == LENGTHS:
                del self._kernels[next(iter(self._kernels))]
            kernel = self._kernels[key] = prepare()
        return kernel


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
