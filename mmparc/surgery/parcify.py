"""ParCify: ParC (arXiv 2203.03952) inside any convolutional backbone, or in place of attention.

``backbone=dict(type='mmparc.ParCify', backbone=dict(type='mmpretrain.ResNeXt', depth=50))`` is that
ResNeXt with ParC mixers for the spatial convolutions of its deep stages; with
``replace='attention'`` those of a transformer take the place of its attention
(:mod:`.attention`). With the settings of the published models it gives the networks of
the backbones in :mod:`mmparc.models.backbones`.
"""

import logging
import re
from collections.abc import Sequence
from math import ceil

from mmengine.logging import print_log
from torch import nn

from mmparc.layers import ParCMixer
from mmparc.layers.exchange import mixer_groups
from mmparc.layers.placement import check_no_stride, check_parc_starts, image_size

from .attention import exchange_attention
from .stages import SpatialConv, Stage, find_stages

DEEP = 16  # the total stride from which the published models have ParC
SHARE = 1 / 3  # of a stage's blocks, as in ParC-ConvNeXt

Chosen = dict[int, list[list[SpatialConv]]]  # of each stage the blocks, of each its convolutions


def ParCify(
    backbone: nn.Module,
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
    """Build a backbone and exchange convolutions or attention in it for ParC mixers.

    It returns the backbone itself, so that names in state dicts, out_indices, get_layer_depth and
    everything else stay, and pretrained weights load into what is left. A depthwise convolution
    becomes a depthwise mixer, a full one a dense one, a grouped one a grouped one; all have a bias,
    as those of the published models.

    Of convolutions, what can be exchanged is a ``torch.nn.Conv2d`` (or a subclass) with a kernel
    larger than 1, as many channels out as in, stride 1 and a map that keeps its size. Those with a
    stride count in their stage but cannot be exchanged. Its **block** is the innermost module
    around it that is called and holds at least two convolutions or linear layers, a bottleneck for
    instance; for blocks within blocks and what is none see
    :func:`mmparc.surgery.stages.find_stages`. A **stage** is all blocks whose outputs have the same
    total stride and the same number of channels, in the order of execution. So papers' tables list
    them: four in a ResNet or ConvNeXt, seven in a MobileNetV2, each branch of an HRNet.

    Attention is exchanged as a whole, in all blocks, for depthwise mixers; which backbones are
    known and what else goes with it: :func:`mmparc.surgery.attention.exchange_attention`.

    Initial values: rules of the backbone's ``init_cfg`` for Conv2d hold for the ParC kernels too
    that take a convolution's place. Where there are none, as with Pretrained, and in place of
    attention, kernels and biases start as a Conv2d's, embeddings truncated normal with standard
    deviation 0.02. What was frozen stays frozen.

    Args:
        backbone: the config of any backbone that takes (B, C, H, W), whose type may name its scope
            ('mmdet.ResNet'), or a module. Pretrained weights are named in its own ``init_cfg``:
            mmseg's older ``model.pretrained`` must be None.
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
        pos_embed: 'all', or 'first' for embeddings only in a stage's first ParC block, as in
            ParC-MobileNetV2.
        channel_attention: with 'attention' alone, whether each feed-forward network ends with
            ParC-Net's channel attention, which in training needs at least two images.
        resize, backend: as in :class:`mmparc.models.ParCConv`.

    Returns:
        The backbone.

    Raises:
        ValueError: if an argument is wrong, there is nothing to exchange, ``parc_starts`` asks for
            a convolution that cannot be exchanged, a number of channels is odd, the attention is
            of a kind that is not known, or the shapes in the backbone cannot be followed
            (operations of C++ such as deformable convolutions).
    """
    if parc_starts is not None and (stages is not None or share is not None):
        raise ValueError(
            'parc_starts stands instead of stages and share: leave out one or the other'
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
            f"replace must be 'last', 'all' or a regular expression, got {replace!r}: {error}"
        ) from error
    if attention:
        exchange_attention(
            backbone, image_size(img_size), pos_embed, channel_attention, resize, backend
        )
        return backbone

    if pos_embed not in ('all', 'first'):
        raise ValueError(f"pos_embed must be 'all' or 'first', got {pos_embed!r}")
    found = find_stages(backbone, image_size(img_size))
    if parc_starts is None:
        chosen = _choose_by_share(found, stages, SHARE if share is None else share, replace)
    else:
        chosen = _choose_by_starts(found, parc_starts, replace)
    if not any(convs for blocks in chosen.values() for convs in blocks):
        raise ValueError(
            f'nothing to exchange in {type(backbone).__name__} with stages={stages}, '
            f'share={share}, replace={replace!r}, parc_starts={parc_starts}: choose others among '
            f'{_list(found)}'
        )

    mixers: dict[nn.Module, ParCMixer] = {}
    for blocks in chosen.values():
        exchanged = [convs for convs in blocks if convs]
        for convs in exchanged:
            embedded = pos_embed == 'all' or convs is exchanged[0]
            for conv in convs:
                mixers[conv.conv] = _mixer_for(
                    conv, pos_embed=embedded, resize=resize, backend=backend
                )
    for parent in list(backbone.modules()):
        for name, child in parent._modules.items():  # named_children leaves out second names
            if child in mixers:
                setattr(parent, name, mixers[child])
    _extend_init_cfg(backbone)
    for index, blocks in chosen.items():
        _report(index, found[index], [convs for convs in blocks if convs])
    return backbone


def _choose_by_share(
    found: list[Stage],
    stages: int | Sequence[int] | None,
    share: float | Sequence[float],
    replace: str,
) -> Chosen:
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
    chosen = {}
    for index, part in sorted(zip(indices, shares, strict=True)):
        blocks = found[index].blocks
        count = ceil(round(part * len(blocks), 6))  # 0.07 * 100 is more than 7
        chosen[index] = [
            [conv for conv in _select(block, replace) if conv.exchangeable]
            for block in blocks[-count:]
        ]
    return chosen


def _choose_by_starts(found: list[Stage], parc_starts: Sequence[int], replace: str) -> Chosen:
    starts = check_parc_starts(parc_starts, [len(stage.blocks) for stage in found])
    chosen = {}
    for index, start in enumerate(starts):
        chosen[index] = []
        for block in range(start, len(found[index].blocks)):
            convs = _select(found[index].blocks[block], replace)
            for conv in convs:
                check_no_stride(conv.conv, index, block)
                if not conv.exchangeable:
                    raise ValueError(
                        f"ParC keeps the map's size, but {conv.name} makes {conv.returned} of "
                        f'{conv.received}: set parc_starts[{index}] to {block + 1} or more, or '
                        'leave it out by replace'
                    )
            chosen[index].append(convs)
    return chosen


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
    mixer.to(conv.weight)
    mixer.train(conv.training)
    if not conv.weight.requires_grad:
        print_log(
            f'ParCify: {found.name} is frozen, so its ParC will stay as it begins: lower the '
            "backbone's frozen_stages, or leave it out by stages",
            logger='current',
            level=logging.WARNING,
        )
    return mixer.requires_grad_(conv.weight.requires_grad)  # the stage may be frozen already


def _extend_init_cfg(backbone: nn.Module) -> None:
    """Have the rules for Conv2d, which know layers by the names of their classes, hold for ParC."""
    for module in backbone.modules():
        rules = getattr(module, 'init_cfg', None)
        if isinstance(rules, dict):  # one stays one: backbones ask whether theirs is Pretrained
            module.init_cfg = _extended(rules)
        elif rules:
            module.init_cfg = [_extended(rule) for rule in rules]


def _extended(rule: dict) -> dict:
    layers = rule.get('layer') or []
    layers = [layers] if isinstance(layers, str) else list(layers)
    if 'Conv2d' not in layers or 'ParCConv' in layers:
        return rule
    return {**rule, 'layer': [*layers, 'ParCConv']}


def _report(index: int, stage: Stage, blocks: list[list[SpatialConv]]) -> None:
    if not blocks:
        return
    kinds: dict[str, list[str]] = {}
    for found in (conv for convs in blocks for conv in convs):
        conv, (height, width) = found.conv, found.received
        channels = conv.in_channels
        kind = {1: 'dense', channels: 'depthwise'}.get(conv.groups, 'grouped')
        what = f'{kind}, {channels} channels, kernels of {height} along H and {width} along W'
        kinds.setdefault(what, []).append(found.name)
    exchanged = '; '.join(f'{", ".join(names)} ({what})' for what, names in kinds.items())
    print_log(
        f'ParCify: stage {index} (stride {stage.stride}, {stage.channels} channels), '
        f'{len(blocks)} of {len(stage.blocks)} blocks: {exchanged}',
        logger='current',
    )


def _list(found: list[Stage]) -> str:
    if not found:
        return "its stages, of which it has none; where it has attention, replace='attention'"
    return 'the stages ' + '; '.join(f'{i}: {stage}' for i, stage in enumerate(found))
