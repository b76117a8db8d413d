"""parcify: ParC (arXiv 2203.03952) inside any network, for convolutions or for attention.

``mmparc.parcify(timm.create_model('resnet50'))`` is that network with ParC mixers for the spatial
convolutions of its deep stages; with ``replace='attention'`` those of a transformer take the place
of its attention (:mod:`.attention`). With the settings of the published models it gives the
networks of the backbones in :mod:`mmparc.models.backbones`.
"""

import re
from collections.abc import Sequence
from math import ceil

from torch import nn

from mmparc.layers import ParCMixer
from mmparc.layers.placement import (
    check_no_stride,
    check_parc_starts,
    image_size,
    mixer_groups,
)

from .attention import as_before, exchange_attention, report
from .stages import SpatialConv, Stage, find_stages

DEEP = 16  # the total stride from which the published models have ParC
SHARE = 1 / 3  # of a stage's blocks, as in ParC-ConvNeXt


def parcify(
    network: nn.Module,
    stages: int | Sequence[int] | None = None,
    share: float | Sequence[float] | None = None,
    replace: str = 'last',
    parc_starts: Sequence[int] | None = None,
    img_size: int | tuple[int, int] = 224,
    pos_embed: str = 'all',
    channel_attention: bool = False,
    resize: str = 'interpolate',
    backend: str = 'auto',
) -> nn.Module:
    """Exchange convolutions or attention in a network for ParC mixers.

    Names and weights of everything else stay, so that pretrained weights load into what is left. A
    depthwise convolution becomes a depthwise mixer, a full one a dense one, a grouped one a grouped
    one; all have a bias, as in the published models. New kernels and biases start as a Conv2d's,
    embeddings truncated normal with standard deviation 0.02. What was frozen stays frozen.

    A convolution can be exchanged if it is a ``torch.nn.Conv2d`` (or a subclass) with a kernel
    larger than 1, as many channels out as in, stride 1 and a map that keeps its size. Blocks and
    stages are as in the papers' tables: four stages in a ResNet or ConvNeXt, seven in a
    MobileNetV2, each branch of an HRNet; see :func:`mmparc.surgery.stages.find_stages`.

    Attention is exchanged as a whole, in all blocks, for depthwise mixers; what else goes with it,
    and how to add a class of attention: :mod:`mmparc.surgery.attention`.

    Args:
        network: any module that takes images (B, C, H, W).
        stages: the indices of the stages; by default those at a total stride of 16 or more.
        share: of the blocks of each chosen stage, the last that get ParC, rounded up: one number
            above 0 and up to 1, or one for each chosen stage; by default a third. A block that is
            among them but cannot be exchanged stays as it is, and no other takes its place.
        replace: which convolutions of a block: 'last', its last one (the 3x3 of a bottleneck, the
            second of a basic block); 'all'; or a regular expression that is searched in their
            names. Or 'attention', which leaves all convolutions as they are.
        parc_starts: instead of ``stages`` and ``share``, for every stage the index of its first
            ParC block; a stage's depth means none.
        img_size: the training resolution, one number or (height, width). It gives the kernels'
            lengths: the resolution of what a convolution sees at that size.
        pos_embed: 'all', or 'first' for embeddings only in a stage's first ParC block.
        channel_attention: with 'attention' alone, whether each feed-forward network ends with
            ParC-Net's channel attention, which in training needs at least two images.
        resize, backend: as in :class:`mmparc.layers.ParCConv`.

    Returns:
        The same network. For 'attention' it may be a new one with the parts of the given one, which
        no longer works.

    Raises:
        ValueError: if an argument is wrong, there is nothing to exchange, ``parc_starts`` asks for
            a convolution that cannot be exchanged, a number of channels is odd, a class of
            attention has no adapter, or the shapes in the network cannot be followed.
    """
    if parc_starts is not None and (stages is not None or share is not None):
        raise ValueError(
            'parc_starts takes the place of stages and share: leave out one or the other'
        )
    attention = replace == 'attention'
    if attention and any(v is not None for v in (stages, share, parc_starts)):
        raise ValueError(
            "replace='attention' exchanges all attention: leave out stages, share and parc_starts"
        )
    if channel_attention and not attention:
        raise ValueError("channel_attention is for feed-forward networks: set replace='attention'")
    try:
        re.compile(replace)
    except re.error as error:
        raise ValueError(
            "replace must be 'last', 'all', 'attention' or a regular expression, "
            f'got {replace!r}: {error}'
        ) from error
    if pos_embed not in ('all', 'first'):
        raise ValueError(f"pos_embed must be 'all' or 'first', got {pos_embed!r}")
    size, options = image_size(img_size), dict(resize=resize, backend=backend)
    if attention:
        return exchange_attention(network, size, pos_embed == 'first', channel_attention, **options)

    found = find_stages(network, size)
    if parc_starts is None:
        starts = _starts_by_share(found, stages, SHARE if share is None else share)
    else:
        starts = check_parc_starts(parc_starts, [len(stage.blocks) for stage in found])
    chosen = []  # of each stage the blocks, of each its convolutions
    for index, (stage, start) in enumerate(zip(found, starts, strict=True)):
        blocks = [_select(block, replace) for block in stage.blocks[start:]]
        if parc_starts is None:
            blocks = [[conv for conv in convs if conv.exchangeable] for convs in blocks]
        for block, convs in enumerate(blocks, start):
            for conv in convs:
                _check_exchangeable(conv, index, block)
        chosen.append([convs for convs in blocks if convs])
    if not any(chosen):
        raise ValueError(
            f'nothing to exchange in {type(network).__name__} with stages={stages}, '
            f"share={share}, parc_starts={parc_starts} and replace={replace!r} ('last', 'all', "
            f"'attention', or a regular expression of names): choose others among {_list(found)}"
        )

    mixers: dict[nn.Module, ParCMixer] = {}
    for blocks in chosen:
        for convs in blocks:
            embedded = pos_embed == 'all' or convs is blocks[0]
            mixers.update({c.conv: _mixer_for(c, pos_embed=embedded, **options) for c in convs})
    modules = list(network.named_modules(remove_duplicate=False))
    exchanged = [(name, module, mixers[module]) for name, module in modules if module in mixers]
    for name, _, mixer in exchanged:
        parent, _, key = name.rpartition('.')
        setattr(network.get_submodule(parent), key, mixer)
    report(exchanged)
    return network


def _starts_by_share(
    found: list[Stage], stages: int | Sequence[int] | None, share: float | Sequence[float]
) -> list[int]:
    """For each stage the index of its first ParC block, or the number of its blocks."""
    if stages is None:
        indices = [i for i, stage in enumerate(found) if stage.stride >= DEEP]
    else:
        indices = [stages] if isinstance(stages, int) else list(stages)
    if any(i not in range(len(found)) for i in indices) or len(set(indices)) < len(indices):
        raise ValueError(f'stages must be different indices of {_list(found)}, got {stages}')
    shares = [share] * len(indices) if isinstance(share, int | float) else list(share)
    if len(shares) != len(indices) or not all(0 < s <= 1 for s in shares):
        raise ValueError(
            f'share must be above 0 and up to 1, one number or one for each of the stages '
            f'{indices}, got {share}'
        )
    starts = [len(stage.blocks) for stage in found]
    for index, part in zip(indices, shares, strict=True):
        starts[index] -= ceil(round(part * starts[index], 6))  # 0.07 * 100 is more than 7
    return starts


def _check_exchangeable(conv: SpatialConv, stage: int, block: int) -> None:
    check_no_stride(conv.conv, stage, block)
    if not conv.exchangeable:
        raise ValueError(
            f"ParC keeps the map's size, but {conv.name} makes {conv.returned} of "
            f'{conv.received}: set parc_starts[{stage}] to {block + 1} or more, or leave it out by '
            'replace'
        )


def _select(block: list[SpatialConv], replace: str) -> list[SpatialConv]:
    """Those convolutions of a block that ``replace`` means."""
    if replace == 'last':
        return block[-1:]
    return [conv for conv in block if replace == 'all' or re.search(replace, conv.name)]


def _mixer_for(found: SpatialConv, **options) -> ParCMixer:
    conv = found.conv
    if conv.in_channels % 2:
        raise ValueError(
            f'ParC splits the channels in two halves, but {found.name} has {conv.in_channels}: '
            'leave it out by stages, share, parc_starts or replace, or give it an even width'
        )
    groups = mixer_groups(conv.in_channels, conv.groups)
    mixer = ParCMixer(conv.in_channels, found.received, groups=groups, **options)
    return as_before(mixer, conv)


def _list(found: list[Stage]) -> str:
    if not found:
        return "its stages, of which it has none; where it has attention, replace='attention'"
    return 'the stages ' + '; '.join(f'{i}: {stage}' for i, stage in enumerate(found))
