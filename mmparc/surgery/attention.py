"""Attention exchanged for ParC mixers of the same width (Fast-ParC, arXiv 2210.04020).

What is left is convolution: no attention, no softmax over positions, and no fixed size. An adapter,
one function for each class, says how its attention is exchanged and what has to change around it.
There are adapters for timm (:mod:`.timm`), torchvision (:mod:`.torchvision`) and OpenMMLab
(:mod:`mmparc.models.adapters`); others can be registered.

Whatever only attention needs is removed with it: queries, keys, values and the projection, windows
and their shifts, tables of relative positions, reduced keys, class and distillation tokens.
Embeddings of absolute positions are removed too: each mixer has its own, which follow the size of
the map. Patch embeddings, norms, feed-forward networks, layer scales, the output's dropout and
DropPaths stay; what has weights keeps its names.
"""

import copy
import importlib
import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import nn

from mmparc.layers import ParCMixer
from mmparc.layers.channel_attention import ChannelAttention
from mmparc.layers.token_mixer import Placeholder, TokenChannelAttention, TokenMixer

from .stages import follow

logger = logging.getLogger(__name__)

Adapter = Callable[[nn.Module], nn.Module]
FeedForwardAdapter = Callable[[nn.Module, int], ChannelAttention]
Module = TypeVar('Module', bound=nn.Module)

# Where the adapters for a package's classes are. They are imported when one of its classes is met.
PACKAGES = {
    'timm': 'mmparc.surgery.timm',
    'torchvision': 'mmparc.surgery.torchvision',
    'mmpretrain': 'mmparc.models.adapters.mmpretrain',
    'mmdet': 'mmparc.models.adapters.mmdet',
    'mmseg': 'mmparc.models.adapters.mmseg',
}
ADAPTERS: dict[type, Adapter] = {}
FEED_FORWARD: dict[type, FeedForwardAdapter] = {}


def register_attention(kind: type) -> Callable[[Adapter], Adapter]:
    """A decorator that registers how modules of a class are exchanged. Subclasses are not included.

    The adapter takes a module of this class and returns what takes its place. For attention that
    is a :class:`mmparc.layers.token_mixer.TokenMixer`. A module around attention, up to the whole
    network, needs an adapter where its forward pass has to change, because it adds a class token or
    flattens the map to one sequence of tokens. An adapter must not change the given module; see
    :func:`adopt`.
    """
    return _register_in(ADAPTERS, kind)


def register_feed_forward(kind: type) -> Callable[[FeedForwardAdapter], FeedForwardAdapter]:
    """A decorator that registers how ``channel_attention`` is added to a feed-forward network.

    The adapter takes a network of this class and its channels, adds a ChannelAttention at its end,
    and returns that; see :func:`append_to`.
    """
    return _register_in(FEED_FORWARD, kind)


def append_to(
    part: str, kind: type[ChannelAttention] = TokenChannelAttention
) -> FeedForwardAdapter:
    """An adapter of feed-forward networks that end with a Sequential of this name."""

    def append(module: nn.Module, channels: int) -> ChannelAttention:
        attention = kind(channels)
        module.get_submodule(part).append(attention)
        return attention

    return append


def adopt(kind: type[Module], module: nn.Module) -> Module:
    """A module of another class with the parts and attributes of ``module``, which stays as it is.

    As unpickling makes it: from a state, without calling ``__init__``.
    """
    state = {k: copy.copy(v) if isinstance(v, dict | set) else v for k, v in vars(module).items()}
    new = kind.__new__(kind)
    new.__setstate__(state)
    return new


def forget(module: nn.Module, name: str) -> None:
    """Take a parameter out of a module. Its shape stays, for code that reads or fills it."""
    shape = torch.empty_like(getattr(module, name), device='meta')
    delattr(module, name)
    setattr(module, name, shape)


def exchange_attention(
    network: nn.Module,
    img_size: tuple[int, int],
    first_embedded: bool,
    channel_attention: bool,
    **options,
) -> nn.Module:
    """Exchange all attention of a network for ParC mixers, as :func:`mmparc.parcify` describes it.

    A class token's output becomes the mean over all positions of the normalized map, and so does a
    distillation token's. If this raises a ValueError, the network stays as it was.

    Args:
        network: as its constructor made it.
        img_size: (height, width) of the training images.
        first_embedded: whether only the first mixer at each resolution has embeddings.
        channel_attention: whether each feed-forward network ends with ParC-Net's channel attention.
            With gradient checkpointing its norms count each batch twice.
        options: ``resize`` and ``backend`` of the mixers.
    """
    before = [name for name, _ in network.named_parameters()]
    undo: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        exchanged = _exchange(network, undo)
        places = _places(exchanged, img_size)
        feed_forward = _feed_forward(exchanged, places) if channel_attention else []
    except ValueError as error:
        for parent, name, module in reversed(undo):
            setattr(parent, name, module)
        kind = f'{type(network).__module__.partition(".")[0]}.{type(network).__name__}'
        raise ValueError(f'the attention of {kind} cannot be exchanged: {error}') from error
    for module, channels in feed_forward:
        as_before(_adapter(FEED_FORWARD, module)(module, channels), module)
    embedded: set[tuple[int, int]] = set()
    mixers = []
    for name, mixer in places.items():
        place, (attention,) = mixer.mixer, mixer.mixer.attention
        pos_embed = not first_embedded or place.size not in embedded
        embedded.add(place.size)
        parc = ParCMixer(place.channels, place.size, pos_embed=pos_embed, **options)
        mixer.mixer = as_before(parc, attention)
        mixers.append((name, attention, parc))
    report(mixers)
    kept = {name for name, _ in exchanged.named_parameters()}
    attention = tuple(f'{name}.' for name in places)
    dropped = [name for name in before if name not in kept and not name.startswith(attention)]
    if dropped:
        logger.info('parcify: without %s', ', '.join(dropped))
    return exchanged


def _register_in(registry: dict[type, Callable], kind: type) -> Callable:
    def register(adapter: Callable) -> Callable:
        registry[kind] = adapter
        return adapter

    return register


def _adapter(registry: dict[type, Callable], module: nn.Module) -> Callable | None:
    package = type(module).__module__.partition('.')[0]
    if package in PACKAGES:
        importlib.import_module(PACKAGES[package])
    return registry.get(type(module))


def _exchange(module: nn.Module, undo: list[tuple[nn.Module, str, nn.Module]]) -> nn.Module:
    """What takes the module's place, after the same was done to all below it."""
    adapter = _adapter(ADAPTERS, module)
    if adapter is not None:
        module = adapter(module)
    for name, child in list(module.named_children()):
        new = _exchange(child, undo)
        if new is not child:
            undo.append((module, name, child))
            setattr(module, name, new)
    return module


def _places(network: nn.Module, img_size: tuple[int, int]) -> dict[str, TokenMixer]:
    """The new token mixers, whose placeholders know the map's size."""
    places = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, TokenMixer) and isinstance(module.mixer, Placeholder)
    }
    unknown = {type(m).__name__ for m in network.modules() if _looks_like_attention(m)}
    if unknown:
        raise ValueError(f'no adapter is registered for {", ".join(sorted(unknown))}')
    if not places:
        raise ValueError("it has no attention; replace='last' exchanges convolutions")
    follow(network, img_size)
    for name, mixer in places.items():
        if mixer.mixer.channels % 2:
            raise ValueError(
                f'ParC splits the channels in two halves, but {name} has {mixer.mixer.channels}: '
                'give it an even width'
            )
    return places


def _looks_like_attention(module: nn.Module) -> bool:
    name = type(module).__name__.lower()
    return not isinstance(module, ChannelAttention) and (
        name.endswith('msa') or 'attention' in name
    )


def _feed_forward(network: nn.Module, places: dict[str, TokenMixer]) -> list[tuple[nn.Module, int]]:
    """The feed-forward networks beside the mixers, each with its channels."""
    found = []
    for name, mixer in places.items():
        block = network.get_submodule(name.rpartition('.')[0])
        known = [m for m in block.modules() if _adapter(FEED_FORWARD, m)]
        if not known:
            kinds = ', '.join(type(m).__name__ for m in block.children())
            raise ValueError(
                f'channel_attention knows no feed-forward network beside {name}, among {kinds}: '
                'leave it out'
            )
        found += [(module, mixer.mixer.channels) for module in known]
    return found


def as_before(new: Module, before: nn.Module) -> Module:
    """A new module in the precision, mode and freezing of one that it joins or replaces."""
    weight = next(before.parameters())
    return new.to(weight).requires_grad_(weight.requires_grad).train(before.training)


def report(mixers: Iterable[tuple[str, nn.Module, ParCMixer]]) -> None:
    """Log what was exchanged, from (name, module before, mixer), in one line for what is alike."""
    groups: dict[tuple, list[str]] = {}
    for name, before, mixer in mixers:
        along_h, along_w = mixer.conv_h, mixer.conv_w
        kind = {1: 'dense', along_h.in_channels: 'depthwise'}.get(along_h.groups, 'grouped')
        frozen = not along_h.weight.requires_grad
        sizes = 2 * along_h.in_channels, along_h.kernel_size, along_w.kernel_size
        groups.setdefault((type(before).__name__, kind, *sizes, frozen), []).append(name)
    for (before, kind, channels, height, width, frozen), names in groups.items():
        logger.log(
            logging.WARNING if frozen else logging.INFO,
            'parcify: %d x %s, %s, %d channels, kernels of %d along H and %d along W: %s%s',
            *(len(names), before, kind, channels, height, width, ', '.join(names)),
            '; frozen, so they keep their initial values' * frozen,
        )
