"""ParCConv (one axis) and ParCMixer (both), arXiv 2203.03952.

Maps are (B, C, H, W) of any size. A layer resizes its kernel to the map in each forward pass. It
resizes a checkpoint's kernel of another length once, when that is loaded.
"""

import logging
from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor, nn

from mmparc.ops import (
    ParCKernel,
    check_choices,
    compute_dtype,
    correlate,
    load_table,
    prepare,
    resize_taps,
)
from mmparc.ops.older_torch import is_compiling

from .kernel_cache import KernelCache

logger = logging.getLogger(__name__)


class ResizedOnLoad(nn.Module):
    """A module that resizes some of its parameters along their last axis when it loads them.

    A model built for another ``img_size`` has kernels of other lengths. mmengine only logs a size
    mismatch and leaves the parameter at its random value.
    """

    def resized_on_load(self) -> dict[str, str]:
        """{parameter: rule}, see :func:`mmparc.ops.resize_taps`."""
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args) -> None:
        # A private name, but the one that torch and mmengine call; load hooks are public only from
        # torch 2.5 on. ``state_dict`` is the caller's copy of the user's.
        for name, rule in self.resized_on_load().items():
            key, parameter = prefix + name, getattr(self, name)
            saved = state_dict.get(key)
            if saved is None or parameter is None or saved.shape == parameter.shape:
                continue
            before, after = tuple(saved.shape), tuple(parameter.shape)
            if before[:-1] != after[:-1] or not saved.numel():
                raise ValueError(
                    f'{key} is {before} in the checkpoint and {after} in the model: only the last '
                    'axis, the length, can be resized'
                )
            state_dict[key] = resize_taps(saved, after[-1], rule)
            logger.info('resized %s from %d to %d (%s)', key, before[-1], after[-1], rule)
        super()._load_from_state_dict(state_dict, prefix, *args)


class ParCConv(ResizedOnLoad):
    """Position-aware circular convolution along one axis: (B, C_in, H, W) to (B, C_out, H, W).

    Kernels and bias start as those of a ``torch.nn.Conv2d``, embeddings truncated normal with
    standard deviation 0.02.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel_size: K, the map's length along the axis at the training resolution.
        axis: 'h' or 'w'.
        groups: as in a convolution; C_in for a depthwise one.
        bias: whether to add one value per output channel.
        pos_embed: whether to add a learned (C_in, K) embedding to the input.
        resize: how kernel and embedding follow a map of another length, see
            :func:`mmparc.ops.resize_taps`.
        backend: 'auto', one of :data:`mmparc.ops.BACKENDS`, or the path of a table of backends,
            see :func:`mmparc.ops.choose_backend`.

    Raises:
        ValueError: if ``groups`` does not divide both channel counts, K is not positive, ``axis``,
            ``resize`` or ``backend`` is unknown, or the table cannot be read.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        axis: str,
        groups: int = 1,
        bias: bool = True,
        pos_embed: bool = True,
        resize: str = 'interpolate',
        backend: str = 'auto',
    ) -> None:
        super().__init__()
        check_choices(axis, backend, resize)
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f'groups={groups} must divide {in_channels} in, {out_channels} out')
        if not isinstance(kernel_size, Integral) or kernel_size < 1:
            raise ValueError(
                f'kernel_size must be positive, got {kernel_size!r}; '
                'in a backbone img_size has to be larger'
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.axis = axis
        self.groups = groups
        self.resize = resize
        self.backend = backend
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.pos_embed = nn.Parameter(torch.empty(in_channels, kernel_size)) if pos_embed else None
        self._kernels = KernelCache()
        if backend.endswith('.json'):
            load_table(backend)  # here and not in the first forward pass, which may be compiled
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        if self.bias is not None:
            bound = self.weight[0].numel() ** -0.5
            nn.init.uniform_(self.bias, -bound, bound)
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def resized_on_load(self) -> dict[str, str]:
        return {'weight': self.resize, 'pos_embed': 'interpolate'}

    def forward(self, x: Tensor) -> Tensor:
        return correlate([x], [self.kernel(x)])

    def kernel(self, x: Tensor) -> ParCKernel:
        """The kernel for a map like ``x``, for :func:`mmparc.ops.correlate`.

        In evaluation, without gradients and on the CPU, it comes from a cache.
        """

        tensors = self.weight, self.bias, self.pos_embed
        options = dict(axis=self.axis, groups=self.groups, backend=self.backend, resize=self.resize)
        if (
            self.training
            or torch.is_grad_enabled()
            or x.device.type != 'cpu'
            or type(x) is not Tensor  # a fake one has no values to compare
            or is_compiling()
            or torch.jit.is_tracing()
        ):
            return prepare(x, *tensors, **options)
        size = x.shape[1:3] if self.axis == 'h' else x.shape[1::2]  # channels and length
        key = x.dim(), size, x.dtype, compute_dtype(x), *options.values()
        return self._kernels.get(key, tensors, lambda: prepare(x, *tensors, **options))

    def train(self, mode: bool = True) -> 'ParCConv':
        self._kernels.clear()
        return super().train(mode)

    def extra_repr(self) -> str:
        return (
            f'{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, '
            f'axis={self.axis!r}, groups={self.groups}, bias={self.bias is not None}, '
            f'pos_embed={self.pos_embed is not None}, resize={self.resize!r}, '
            f'backend={self.backend!r}'
        )


class ParCMixer(nn.Module):
    """The first half of the channels through a ParC along H, the second through one along W.

    It replaces a spatial convolution of the same width and stride 1. Both halves are one step,
    which saves a copy of the map: ``conv_h`` and ``conv_w`` are not called, nor are their hooks.

    Args:
        channels: C, even.
        kernel_size: K, or (K along H, K along W).
        groups: of each half; C / 2 (depthwise) by default, 1 for a dense mixer (ParC-ResNet).
        bias, pos_embed, resize, backend: as in :class:`ParCConv`.

    Raises:
        ValueError: if ``channels`` is odd, or ``groups`` does not divide a half.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | tuple[int, int],
        groups: int | None = None,
        bias: bool = True,
        pos_embed: bool = True,
        resize: str = 'interpolate',
        backend: str = 'auto',
    ) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f'ParCMixer splits its channels in two halves; {channels} is odd')
        half = channels // 2
        sizes = kernel_size if isinstance(kernel_size, Sequence) else (kernel_size, kernel_size)
        height, width = sizes
        options = dict(
            groups=half if groups is None else groups,
            bias=bias,
            pos_embed=pos_embed,
            resize=resize,
            backend=backend,
        )
        self.conv_h = ParCConv(half, half, height, axis='h', **options)
        self.conv_w = ParCConv(half, half, width, axis='w', **options)

    def forward(self, x: Tensor) -> Tensor:
        x_h, x_w = x.chunk(2, dim=1)
        return correlate([x_h, x_w], [self.conv_h.kernel(x_h), self.conv_w.kernel(x_w)])
