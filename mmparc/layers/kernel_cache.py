"""A cache of prepared kernels, valid while their parameters hold the same values.

Preparing a circulant matrix or a spectrum takes longer than using it on a small map. In evaluation
the weights rarely change, but a change may leave no trace: mmengine's EMAHook writes through
``.data``, for example. So the cache compares the values, each time. On a GPU the host would have to
wait for that comparison, so the layers use the cache on a CPU only.
"""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from mmparc.ops import ParCKernel

# A detector's test has maps of many lengths, each with its kernel. Only that of a dense 'matmul' is
# large (655 MB for 256 channels and length 50); 'auto' avoids it but for very short maps.
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
            key: what the kernel depends on besides the values of the parameters.
            parameters: on the CPU, and in each call as many.
            prepare: computes the kernel.
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
