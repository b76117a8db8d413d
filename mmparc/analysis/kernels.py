"""What ParC layers have learned: their kernels and position embeddings, as a checkpoint has them.

Tap k of a kernel looks k positions ahead, around the end of the map (mmparc/ops/reference.py), so
that those of its second half look back: tap K - 1 at the position just before. By offset, from
-(K // 2) on, neighbours stand beside each other.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmparc.layers import ResizedOnLoad
from mmparc.models import ParCConv


@dataclass(frozen=True)
class Learned:
    """A kernel or a position embedding.

    Attributes:
        name: in the model's state dict.
        kind: 'kernel' or 'embedding'.
        axis: 'h' or 'w'.
        values: (C_out, C_in / groups, K) of a kernel, (C, K) of an embedding.
    """

    name: str
    kind: str
    axis: str
    values: Tensor

    @property
    def positions(self) -> list[int]:
        """Of a kernel the offsets of its taps in order, of an embedding the positions from 0."""
        length = self.values.shape[-1]
        first = -(length // 2) if self.kind == 'kernel' else 0
        return list(range(first, first + length))

    @property
    def by_position(self) -> Tensor:
        """The values, their last axis in the order of :attr:`positions`."""
        if self.kind == 'embedding':
            return self.values
        return self.values.roll(self.values.shape[-1] // 2, dims=-1)

    @property
    def is_dense(self) -> bool:
        """Whether it has kernels for pairs of channels."""
        return self.kind == 'kernel' and self.values.shape[1] > 1

    @property
    def channels(self) -> Tensor:
        """By channel: (C, K) in the order of positions.

        Of dense kernels instead the norm over the taps for each pair of channels,
        (C_out, C_in / groups).
        """
        if self.is_dense:
            return torch.linalg.vector_norm(self.values, dim=-1)
        return self.by_position.flatten(0, -2)

    @property
    def profile(self) -> Tensor:
        """(K,): at each of the positions, the root of the mean square over (pairs of) channels."""
        return self.by_position.flatten(0, -2).square().mean(0).sqrt()


def learned_layers(model: nn.Module) -> dict[str, list[Learned]]:
    """{layer: its kernels and then its embeddings}, in the model's order.

    What has a common parent is one layer: the two halves of a ParCMixer, and ParC-Net's pair along
    one axis and then the other.
    """
    layers: dict[str, list[Learned]] = {}
    for name, module in model.named_modules():
        if not isinstance(module, ResizedOnLoad):
            continue
        # An embedding of a layer's own, in front of its norm, is the parent's (ParC-Net).
        layer = name.rpartition('.')[0] if isinstance(module, ParCConv) else name
        for key in module.resized_on_load():
            parameter = getattr(module, key)
            if parameter is not None:
                kind = 'kernel' if key == 'weight' else 'embedding'
                path = f'{name}.{key}' if name else key
                learned = Learned(path, kind, module.axis, parameter.detach().cpu())
                layers.setdefault(layer, []).append(learned)
    for parts in layers.values():
        parts.sort(key=lambda part: part.kind, reverse=True)  # stable: kernels first
    return layers
