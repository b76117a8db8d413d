"""The stages of any convolutional network, as papers' tables list them, and what lies in them.

Found by following one image's shape through the network, so that nothing needs to be known of its
family; so are the places of attention in :mod:`mmparc.surgery.attention`. Resolutions and sizes are
(height, width).
"""

from collections import Counter
from collections.abc import Iterable
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mmparc.layers.placement import is_spatial

Shape = tuple[int, ...]


class SpatialConv(NamedTuple):
    """A convolution that mixes positions and keeps the number of channels, and its resolutions."""

    name: str
    conv: nn.Conv2d
    received: tuple[int, int]
    returned: tuple[int, int]

    @property
    def exchangeable(self) -> bool:
        """Whether it has no stride and the map keeps its size, as with a ParC."""
        return max(self.conv.stride) == 1 and self.received == self.returned


class Stage(NamedTuple):
    """The blocks whose outputs have one total stride and one number of channels.

    ``blocks`` holds the spatial convolutions of each block; both in the order of execution.
    """

    stride: int
    channels: int
    blocks: list[list[SpatialConv]]

    def __str__(self) -> str:
        return f'stride {self.stride}, {self.channels} channels, {len(self.blocks)} blocks'


def find_stages(network: nn.Module, img_size: tuple[int, int]) -> list[Stage]:
    """The stages of a network with their blocks, in the order of execution.

    A block of a spatial convolution (kernel larger than 1, as many channels out as in) is the
    innermost module around it that is called and holds at least two convolutions or linear layers.
    A block within another one belongs to the outer one, if that has a convolution of its own that
    can be exchanged: CSPNeXt's block holds a depthwise separable convolution, but a stage with a
    strided convolution before its blocks is no block. Nor is what holds the network's first
    convolution (deep stems), or what ends at another resolution than its spatial convolutions (the
    chains of strided convolutions between HRNet's branches).

    Args:
        network: any module that takes images; neither it nor random states are changed.
        img_size: of the image followed. Total strides are told apart as far as it allows.

    Raises:
        ValueError: if the shapes cannot be followed.
    """
    calls = _calls(network, img_size)
    modules = dict(network.named_modules())
    executed = [name for name in calls if isinstance(modules[name], nn.Conv2d)]
    convs = {}
    for name in executed:
        conv, (received, returned) = modules[name], calls[name]
        if received and returned and is_spatial(received[1], returned[1], conv.kernel_size):
            convs[name] = SpatialConv(name, conv, received[2:], returned[2:])
    weighted = [name for name, m in modules.items() if isinstance(m, nn.Conv2d | nn.Linear)]
    layers = Counter(a for name in weighted for a in _ancestors(name))
    # The innermost called module of two layers, or none where that holds the first convolution.
    around = {name: [a for a in _ancestors(name) if a in calls and layers[a] > 1] for name in convs}
    homes = {name: a[0] for name, a in around.items() if a and not _within(executed[0], a[0])}
    own = {home for name, home in homes.items() if convs[name].exchangeable}
    blocks: dict[str, list[SpatialConv]] = {}
    for name, home in homes.items():
        outer = [b for b in own if b == home or _within(home, b)]
        if not outer and any(_within(b, home) for b in homes.values()):
            continue  # a strided convolution beside blocks
        block = min(outer, key=len, default=home)
        _, output = calls[block]
        if output and output[2:] == convs[name].returned:
            blocks.setdefault(block, []).append(convs[name])

    outputs = {block: calls[block][1] for block in calls if block in blocks}  # as they ended
    strides = _total_strides(img_size, {shape[2:] for shape in outputs.values()})
    stages: dict[tuple[int, int], Stage] = {}
    for block, shape in outputs.items():
        key = strides[shape[2:]], shape[1]
        stages.setdefault(key, Stage(*key, [])).blocks.append(blocks[block])
    return list(stages.values())


def follow(network: nn.Module, img_size: tuple[int, int]) -> None:
    """Send the shape of one image of this size through a network in evaluation mode.

    All tensors are on torch's meta device, which has shapes and no values: nothing is computed, no
    memory taken, no random number drawn and no running statistic changed. Hooks see the shapes.

    Raises:
        ValueError: if the network has no convolution, or its shapes cannot be followed.
    """
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise ValueError(f'{type(network).__name__} has no Conv2d: ParC has nothing to replace')
    tensors = {
        name: torch.empty_like(tensor, device='meta')
        for name, tensor in (*network.named_parameters(), *network.named_buffers())
    }
    # By hand: backbones' own train() freezes stages.
    modes = {m: m.training for m in network.modules()}
    try:
        for module in modes:
            module.training = False
        with torch.no_grad(), torch.device('meta'):
            image = torch.empty(1, first.in_channels, *img_size, dtype=first.weight.dtype)
            functional_call(network, tensors, (image,))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition('\n')[0]
        raise ValueError(
            f'the shapes in {type(network).__name__} cannot be followed for an image of {img_size} '
            '(too small an image, or an operation without a meta kernel); change img_size or leave '
            f'that operation out: {reason}'
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode


def _calls(
    network: nn.Module, img_size: tuple[int, int]
) -> dict[str, tuple[Shape | None, Shape | None]]:
    """Shapes of each module's first input and output maps, in the order in which calls ended."""
    calls: dict[str, tuple[Shape | None, Shape | None]] = {}

    def note(name: str) -> object:
        def hook(module: nn.Module, args: tuple, output: object) -> None:
            calls.setdefault(name, (_shape(args), _shape(output)))

        return hook

    hooks = [m.register_forward_hook(note(name)) for name, m in network.named_modules() if name]
    try:
        follow(network, img_size)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _shape(maps: object) -> Shape | None:
    """That of a map, or of the first one of a tuple or list."""
    if isinstance(maps, tuple | list):
        shapes = (_shape(m) for m in maps)
        return next((shape for shape in shapes if shape is not None), None)
    return tuple(maps.shape) if isinstance(maps, Tensor) and maps.dim() == 4 else None


def _within(name: str, module: str) -> bool:
    return name.startswith(module + '.')


def _ancestors(name: str) -> list[str]:
    """The modules around it, innermost first, without the network itself."""
    parts = name.split('.')
    return ['.'.join(parts[:i]) for i in range(len(parts) - 1, 0, -1)]


def _total_strides(
    img_size: tuple[int, int], resolutions: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], int]:
    """{resolution: total stride}, step by step, since each step rounds a map's size up or down."""
    strides, stride, before = {}, 1, img_size
    for size in sorted(resolutions, key=lambda size: -size[0] * size[1]):
        stride *= max(1, round(sqrt(before[0] * before[1] / (size[0] * size[1]))))
        strides[size], before = stride, size
    return strides
