"""Attention exchanged for ParC mixers of the same width (Fast-ParC, arXiv 2210.04020).

What is left is convolution: no attention, no softmax over positions, and no fixed size. Known are
mmpretrain's VisionTransformer (DeiT, distilled too), Swin (V2 too) and MobileViT, mmdet's Swin and
PVT (V2 too), and mmseg's Swin and MiT.

With the attention goes what it alone needs: queries, keys, values and the projection, windows and
their shifts, tables of relative positions, reduced keys, class and distillation tokens. Embeddings
of absolute positions go too: each mixer has its own, which follow the size of the map. Patch
embeddings, norms, feed-forward networks, layer scales, the output's dropout and DropPaths stay;
what has weights keeps its names.
"""

import functools
import importlib
import logging
from operator import attrgetter
from typing import NamedTuple

from mmcv.cnn.bricks import DropPath
from mmengine.logging import MMLogger, print_log
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.models import DistilledVisionTransformer, VisionTransformer
from mmpretrain.models.backbones.mobilevit import MobileVitBlock
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, nn

from mmparc.layers import ParCMixer
from mmparc.layers.channel_attention import ChannelAttention
from mmparc.layers.token_mixer import (
    MapDistilledVisionTransformer,
    MapMobileVitBlock,
    MapVisionTransformer,
    TokenChannelAttention,
    TokenMixer,
)

from .stages import follow

# By the names of their classes, since the packages have one each: where they keep the output's
# dropout and DropPath.
_DROPS = {
    'MultiheadAttention': ('proj_drop', 'out_drop'),
    'ShiftWindowMSA': ('w_msa.proj_drop', 'drop'),
    'SpatialReductionAttention': ('proj_drop', 'dropout_layer'),
    'EfficientMultiheadAttention': ('proj_drop', 'dropout_layer'),
}


class _Attention(NamedTuple):
    name: str
    parent: nn.Module
    module: nn.Module

    @property
    def key(self) -> str:
        return self.name.rpartition('.')[2]


class _Probe(nn.Module):
    """Stands where attention stood, to see the tokens that come there."""

    def forward(
        self, x: Tensor, hw_shape: tuple[int, int] | None = None, identity: Tensor | None = None
    ) -> Tensor:
        self.size = tuple(x.shape[1:3] if hw_shape is None else hw_shape)
        self.channels = x.shape[-1]
        return x if identity is None else identity + x


class NoPositionEmbedding(nn.Module):
    """In place of PVT's AbsolutePositionEmbedding, whose dropout it keeps."""

    def __init__(self, drop: nn.Module) -> None:
        super().__init__()
        self.drop = drop
        self.training = drop.training

    def forward(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        return self.drop(x)


def exchange_attention(
    backbone: nn.Module,
    img_size: tuple[int, int],
    pos_embed: str = 'all',
    channel_attention: bool = False,
    resize: str = 'interpolate',
    backend: str = 'auto',
) -> None:
    """Exchange, in place, all attention of a backbone for ParC mixers, and log what was done.

    A class token's output becomes the mean over all positions of the normalized map, and so does a
    distillation token's. MobileViT's attention, which sees every fourth position at a time, becomes
    a mixer of the whole map.

    Args:
        backbone: as its constructor made it.
        img_size: (height, width) of the training images. It gives the kernels' lengths: the
            resolution of what each attention sees at that size.
        pos_embed: 'all', or 'first' for embeddings only in the first mixer at each resolution.
        channel_attention: whether each feed-forward network ends with ParC-Net's channel attention,
            which in training needs at least two images. With a backbone's own ``with_cp`` its norms
            count each batch twice, as all do in upstream's blocks.
        resize, backend: as in :class:`mmparc.models.ParCConv`.

    Raises:
        ValueError: if there is no attention, or some of a kind that is not known; a number of
            channels is odd; ``channel_attention`` is asked for and a feed-forward network cannot
            take it; or the shapes cannot be followed. The backbone may be of no use then.
    """
    if pos_embed not in ('all', 'first'):
        raise ValueError(f"pos_embed must be 'all' or 'first', got {pos_embed!r}")
    found = _find(backbone)
    dropped = _drop_tokens_and_positions(backbone)
    if channel_attention:
        _add_channel_attention(backbone)
    probes = {attention.name: _Probe() for attention in found}
    for attention in found:
        setattr(attention.parent, attention.key, probes[attention.name])
    follow(backbone, img_size)
    embedded: set[tuple[int, int]] = set()
    for attention in found:
        probe = probes[attention.name]
        if probe.channels % 2:
            raise ValueError(
                f'ParC splits the channels in two halves, but {attention.name} has '
                f'{probe.channels}: give it an even width'
            )
        mixer = ParCMixer(
            probe.channels,
            probe.size,
            pos_embed=pos_embed == 'all' or probe.size not in embedded,
            resize=resize,
            backend=backend,
        )
        embedded.add(probe.size)
        setattr(attention.parent, attention.key, _token_mixer(mixer, attention.module))
    _report(found, probes, dropped)


def _find(backbone: nn.Module) -> list[_Attention]:
    """All attention of a backbone, outermost modules, if all of it is known."""
    found, strange = [], set()
    inside: set[nn.Module] = set()
    for path, parent in backbone.named_modules():
        for key, child in parent.named_children():
            if child in inside:
                continue
            if _is_known(backbone, parent, child):
                found.append(_Attention(f'{path}.{key}'.lstrip('.'), parent, child))
                inside.update(child.modules())
            elif _looks_like_attention(child):
                strange.add(type(child).__name__)
                inside.update(child.modules())
    kind = f'{type(backbone).__module__.partition(".")[0]}.{type(backbone).__name__}'
    if strange:
        raise ValueError(
            f'{kind} has attention that cannot be exchanged: {", ".join(sorted(strange))}; take '
            "mmpretrain's VisionTransformer, SwinTransformer or MobileViT, mmdet's SwinTransformer "
            "or PyramidVisionTransformer, or mmseg's SwinTransformer or MixVisionTransformer"
        )
    if not found:
        raise ValueError(
            f"nothing to exchange in {kind}: it has no attention; replace='last' exchanges "
            'convolutions'
        )
    return found


def _is_known(backbone: nn.Module, parent: nn.Module, module: nn.Module) -> bool:
    if type(module) is MultiheadAttention:  # tokens whose (H, W) only these know
        return _is_vision_transformer(backbone) or any(
            type(block) is MobileVitBlock and parent in block.global_rep
            for block in backbone.modules()
        )
    name = type(module).__name__
    return name in _DROPS and name != MultiheadAttention.__name__  # others' have that name too


def _looks_like_attention(module: nn.Module) -> bool:
    name = type(module).__name__.lower()
    known = isinstance(module, ChannelAttention)
    return not known and (name.endswith('msa') or 'attention' in name)


def _is_vision_transformer(backbone: nn.Module) -> bool:
    plain = VisionTransformer, DistilledVisionTransformer  # others have other forward passes
    return type(backbone) in plain or isinstance(backbone, MapVisionTransformer)


def _drop_tokens_and_positions(backbone: nn.Module) -> list[str]:
    """Let the backbone work on maps without what only attention needs; the parameters that go."""
    before = dict(backbone.named_parameters())
    if _is_vision_transformer(backbone):
        if not isinstance(backbone, MapVisionTransformer):
            distilled = isinstance(backbone, DistilledVisionTransformer)
            backbone.__class__ = (
                MapDistilledVisionTransformer if distilled else MapVisionTransformer
            )
        backbone.cls_token = backbone.pos_embed = None
        backbone.with_cls_token, backbone.num_extra_tokens = False, 0
        if hasattr(backbone, 'dist_token'):
            del backbone.dist_token
        for module in backbone.modules():
            if isinstance(module, DropPath):  # of numpy's, by which torch.compile breaks its graph
                module.drop_prob = float(module.drop_prob)
    if getattr(backbone, 'use_abs_pos_embed', False):  # Swin
        backbone.use_abs_pos_embed = False
        del backbone.absolute_pos_embed
    for module in list(backbone.modules()):
        if type(module) is MobileVitBlock:
            module.__class__ = MapMobileVitBlock
        for key, child in module.named_children():
            if type(child).__name__ == 'AbsolutePositionEmbedding':  # PVT
                setattr(module, key, NoPositionEmbedding(child.drop))
    # Upstream's, which resize what is in a checkpoint to an embedding that is no more.
    hooks = backbone._load_state_dict_pre_hooks
    for key in [k for k, h in hooks.items() if getattr(h, '__name__', '').endswith('pos_embed')]:
        del hooks[key]
    if _swin_module(backbone):
        backbone.init_weights = functools.partial(_start_swin, backbone)
    after = dict(backbone.named_parameters())
    return [name for name in before if name not in after]


def _swin_module(backbone: nn.Module) -> str | None:
    """Where mmdet's or mmseg's Swin is defined, if this is one of them."""
    names = 'mmdet.models.backbones.swin', 'mmseg.models.backbones.swin'
    kinds = type(backbone).__mro__
    return next((kind.__module__ for kind in kinds if kind.__module__ in names), None)


def _start_swin(backbone: nn.Module) -> None:
    """``init_weights`` of mmdet's and mmseg's Swin: theirs asks the model for the embedding and the
    tables of relative positions that the checkpoint holds."""
    if 'checkpoint' not in (backbone.init_cfg or {}):
        type(backbone).init_weights(backbone)
        return
    path = backbone.init_cfg['checkpoint']
    checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    weights = checkpoint.get('state_dict', checkpoint.get('model', checkpoint))
    if getattr(backbone, 'convert_weights', False):
        package = importlib.import_module(_swin_module(backbone))
        weights = package.swin_converter(weights)
    own = {k.removeprefix('backbone.'): v for k, v in weights.items() if k.startswith('backbone.')}
    own = {k.removeprefix('module.'): v for k, v in (own or weights).items()}
    load_state_dict(backbone, own, strict=False, logger=MMLogger.get_current_instance())


def _add_channel_attention(backbone: nn.Module) -> None:
    for name, module in list(backbone.named_modules()):
        kind = type(module).__name__
        if kind in ('FFN', 'MixFFN'):  # the latter is PVT's and MiT's, on maps
            attention = TokenChannelAttention if kind == 'FFN' else ChannelAttention
            module.layers.append(_as_before(attention(module.embed_dims), module))
        elif kind.endswith(('FFN', 'FFNFused')):
            raise ValueError(f'channel_attention knows no {kind} ({name}): leave it out')


def _token_mixer(mixer: ParCMixer, attention: nn.Module) -> TokenMixer:
    """The mixer with what stays of this attention."""
    drops = [attrgetter(path)(attention) for path in _DROPS[type(attention).__name__]]
    scale = attention.gamma1 if type(attention) is MultiheadAttention else None
    module = TokenMixer(_as_before(mixer, attention), scale, nn.Sequential(*drops))
    for part in (module, module.gamma1, module.drop):  # what is below these has its mode
        part.training = attention.training
    return module


def _as_before(new: nn.Module, before: nn.Module) -> nn.Module:
    """A new module in the precision, mode and freezing of one that it joins or replaces."""
    weight = next(before.parameters())
    return new.to(weight).requires_grad_(weight.requires_grad).train(before.training)


def _report(found: list[_Attention], probes: dict[str, _Probe], dropped: list[str]) -> None:
    by_shape: dict[tuple, list[_Attention]] = {}
    for attention in found:
        probe = probes[attention.name]
        frozen = not next(attention.module.parameters()).requires_grad
        key = probe.channels, *probe.size, frozen
        by_shape.setdefault(key, []).append(attention)
    for (channels, height, width, frozen), group in by_shape.items():
        print_log(
            f'ParCify: {len(group)} x {type(group[0].module).__name__} of {channels} channels, '
            f'kernels of {height} along H and {width} along W: {group[0].name} to '
            f'{group[-1].name}' + ', frozen as they begin' * frozen,
            logger='current',
            level=logging.WARNING if frozen else logging.INFO,
        )
    if dropped:
        print_log(f'ParCify: without {", ".join(dropped)}', logger='current')
