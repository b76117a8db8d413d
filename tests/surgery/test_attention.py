"""Attention exchanged for ParC: what is left computes what is written here, and no attention.

Independent sides of the comparisons are the reference operator, blocks written out from their
weights, the same network with rows and columns exchanged, and the plain networks: their shapes,
their names, and what their own loading makes of a checkpoint.
"""

import copy
import dataclasses
import logging
import pickle
from collections.abc import Callable

import pytest
import torch
import torchvision.models.swin_transformer as torchvision_swin
from backbones import (
    gradients,
    image_of,
    in_eval,
    kernel_sizes,
    mixer_reference,
    mixers,
)
from helpers import assert_close, needs_compiler, relative_error
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from timm.models.deit import VisionTransformerDistilled
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import VisionTransformer as TorchvisionVisionTransformer
from torchvision.ops.misc import Permute

from mmparc.layers.channel_attention import ChannelAttention
from mmparc.layers.token_mixer import TokenMixer
from mmparc.surgery import parcify, register_attention

full = pytest.mark.full
IMG_SIZE = 64, 96  # of all converted networks here


@dataclasses.dataclass
class Kind:
    """A small network with attention.

    Attributes:
        cfg: a config, or what builds it.
        attention: {the name of each attention: the total stride of its map}.
        others: the names of what else goes.
    """

    cfg: dict | Callable[[], nn.Module]
    attention: dict[str, int]
    others: tuple[str, ...] = ()


def swin_names(pattern, stages=(0, 1, 2)):
    blocks = ((0, 0, 4), (0, 1, 4), (1, 0, 8), (2, 0, 16))
    return {pattern.format(stages[stage], block): stride for stage, block, stride in blocks}


def pyramid_names(first):
    blocks = ((0, 0, 4), (1, 0, 8), (1, 1, 8), (2, 0, 16), (3, 0, 32))
    return {f'layers.{stage}.1.{first + block}.attn': stride for stage, block, stride in blocks}


VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=24),
    img_size=64,
    patch_size=8,
    layer_scale_init_value=0.1,
)
DISTILLED = dict(VIT, type='mmpretrain.DistilledVisionTransformer')
VIT_LAYERS = {'layers.0.attn': 8, 'layers.1.attn': 8}
SWIN = dict(
    type='mmpretrain.SwinTransformer',
    arch=dict(embed_dims=8, depths=[2, 1, 1], num_heads=[1, 2, 2]),
    img_size=64,
    window_size=4,
    pad_small_map=True,
    out_indices=(0, 1, 2),
    use_abs_pos_embed=True,
)
SWIN_BLOCKS = swin_names('stages.{}.blocks.{}.attn')
SWIN_V2 = dict(
    SWIN,
    type='mmpretrain.SwinTransformerV2',
    arch=dict(embed_dims=8, depths=[2, 1, 1], num_heads=[1, 2, 2], extra_norm_every_n_blocks=0),
    use_abs_pos_embed=False,
)
MOBILEVIT = dict(
    type='mmpretrain.MobileViT',
    arch=[
        ['mobilenetv2', 8, 2, 1, 2],
        ['mobilevit', 12, 2, 16, 24, 2, 2],
        ['mobilevit', 16, 2, 24, 32, 1, 2],
    ],
    stem_channels=8,
    last_exp_factor=2,
    out_indices=(0, 1, 2),
)
MOBILEVIT_LAYERS = {
    'layers.1.1.global_rep.0.attn': 8,
    'layers.1.1.global_rep.1.attn': 8,
    'layers.2.1.global_rep.0.attn': 16,
}
DET_SWIN = dict(
    type='mmdet.SwinTransformer',
    embed_dims=8,
    depths=(2, 1, 1, 1),
    num_heads=(1, 2, 2, 2),
    window_size=4,
    pretrain_img_size=64,
    use_abs_pos_embed=True,
)
DET_SWIN_BLOCKS = {**SWIN_BLOCKS, 'stages.3.blocks.0.attn': 32}
SEG_SWIN = dict(DET_SWIN, type='mmseg.SwinTransformer')
PYRAMID = dict(embed_dims=8, num_layers=[1, 2, 1, 1], num_heads=[1, 2, 2, 4])
PVT = dict(type='mmdet.PyramidVisionTransformer', pretrain_img_size=64, **PYRAMID)
PVT_V2 = dict(type='mmdet.PyramidVisionTransformerV2', **PYRAMID)
MIT = dict(type='mmseg.MixVisionTransformer', **PYRAMID)
TIMM_VIT = dict(
    img_size=64, patch_size=8, embed_dim=16, depth=2, num_heads=2, init_values=0.1, num_classes=5
)
TIMM_SWIN = dict(
    img_size=64, embed_dim=8, depths=(2, 1, 1), num_heads=(1, 2, 2), window_size=4, num_classes=5
)
TIMM_BLOCKS = {'blocks.0.attn': 8, 'blocks.1.attn': 8}
TIMM_SWIN_BLOCKS = swin_names('layers.{}.blocks.{}.attn')
TORCHVISION_BLOCKS = swin_names('features.{}.{}.attn', (1, 3, 5))


def torchvision_swin_transformer(**options):
    sizes = [4, 4], 8, [2, 1, 1], [1, 2, 2], [4, 4]
    return torchvision_swin.SwinTransformer(*sizes, num_classes=5, **options)


TOKENS = 'cls_token', 'pos_embed'
ABSOLUTE = ('absolute_pos_embed',)
KINDS = {
    'vit': Kind(VIT, VIT_LAYERS, TOKENS),
    'deit, distilled': Kind(DISTILLED, VIT_LAYERS, (*TOKENS, 'dist_token')),
    'swin': Kind(SWIN, SWIN_BLOCKS, ABSOLUTE),
    'swin_v2': Kind(SWIN_V2, SWIN_BLOCKS),
    'mobilevit': Kind(MOBILEVIT, MOBILEVIT_LAYERS),
    'mmdet swin': Kind(DET_SWIN, DET_SWIN_BLOCKS, ABSOLUTE),
    'mmseg swin': Kind(SEG_SWIN, DET_SWIN_BLOCKS, ABSOLUTE),
    'pvt': Kind(PVT, pyramid_names(1), tuple(f'layers.{i}.1.0.pos_embed' for i in range(4))),
    'pvt_v2': Kind(PVT_V2, pyramid_names(0)),
    'mit': Kind(MIT, pyramid_names(0)),
    'timm vit': Kind(lambda: VisionTransformer(**TIMM_VIT), TIMM_BLOCKS, TOKENS),
    'timm deit, distilled': Kind(
        lambda: VisionTransformerDistilled(**TIMM_VIT), TIMM_BLOCKS, (*TOKENS, 'dist_token')
    ),
    'timm swin': Kind(lambda: SwinTransformer(**TIMM_SWIN), TIMM_SWIN_BLOCKS),
    'timm swin_v2': Kind(lambda: SwinTransformerV2(**TIMM_SWIN), TIMM_SWIN_BLOCKS),
    'torchvision vit': Kind(
        lambda: TorchvisionVisionTransformer(64, 8, 2, 2, 16, 24, num_classes=5),
        {f'encoder.layers.encoder_layer_{i}.self_attention': 8 for i in range(2)},
        ('class_token', 'encoder.pos_embedding'),
    ),
    'torchvision swin': Kind(torchvision_swin_transformer, TORCHVISION_BLOCKS),
    'torchvision swin_v2': Kind(
        lambda: torchvision_swin_transformer(
            block=torchvision_swin.SwinTransformerBlockV2,
            downsample_layer=torchvision_swin.PatchMergingV2,
        ),
        TORCHVISION_BLOCKS,
    ),
}
ONLY_FULL = {'swin_v2', 'mmseg swin', 'pvt_v2', 'timm swin_v2'}
each_kind = pytest.mark.parametrize(
    'name', [pytest.param(name, marks=full) if name in ONLY_FULL else name for name in KINDS]
)


def plain(cfg):
    torch.manual_seed(0)
    return MODELS.build(cfg) if isinstance(cfg, dict) else cfg()


def without_positions(cfg):
    """Of a Swin, whose embeddings of absolute positions upstream does not resize."""
    known = isinstance(cfg, dict) and 'use_abs_pos_embed' in cfg
    return dict(cfg, use_abs_pos_embed=False) if known else cfg


def convert(cfg, **options):
    """From text alone, as a config says it; networks of others by the function."""
    options = {'replace': 'attention', 'img_size': IMG_SIZE, **options}
    if not isinstance(cfg, dict):
        return parcify(plain(cfg), **options)
    torch.manual_seed(0)
    return MODELS.build(dict(type='mmparc.ParCify', backbone=cfg, **options))


def shaken(model):
    """The model in float64 with weights of which each one counts."""
    generator = torch.Generator().manual_seed(2)
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.2 * noise)
    return in_eval(model)


def outputs_of(model, image):
    with torch.no_grad():
        outputs = model(image)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    return [t for o in outputs for t in (o if isinstance(o, tuple) else (o,))]


def calls_of(model, names, image):
    """{name: (arguments, output)} of the modules' last calls."""
    calls = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda _, args, out, name=name: calls.update({name: (args, out)})
        )
        for name in names
    ]
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return calls


# What is exchanged


class Operations(TorchDispatchMode):
    """The names of all operations that are run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def products_of_attention(model):
    """Softmax, fused attention, and products of two matrices that both follow from the image."""
    with torch.no_grad(), Operations() as found:
        in_eval(model)(torch.randn(1, 3, 64, 64))
    assert 'convolution' in found.names
    return {
        n for n in found.names if any(k in n for k in ('softmax', 'attention', 'bmm', 'einsum'))
    }


def new_names(kind):
    parts = [f'conv_{axis}.{p}' for axis in 'hw' for p in ('weight', 'bias', 'pos_embed')]
    return {f'{name}.mixer.{part}' for name in kind.attention for part in parts}


def is_gone(kind, name):
    inside = name.startswith(tuple(f'{n}.' for n in kind.attention)) and '.gamma1.' not in name
    return inside or name in kind.others


def filled(cfg):
    """A plain network with values of which each is its own."""
    source = plain(cfg)
    with torch.no_grad():
        for name, value in source.state_dict().items():
            if 'running_var' in name:
                value.uniform_(0.5, 1.5)
            elif value.is_floating_point() and 'relative_coords' not in name:
                value.normal_()
    return source


@each_kind
def test_what_goes_and_what_stays(name):
    """By the table above: mixers, their kernels, names, weights and shapes; nothing of attention,
    by 'direct', since 'matmul' multiplies matrices too."""
    kind = KINDS[name]
    source, model = filled(kind.cfg), convert(kind.cfg, backend='direct')
    assert kernel_sizes(model) == {
        f'{n}.mixer': (64 // s, 96 // s) for n, s in kind.attention.items()
    }
    assert not products_of_attention(model)
    assert products_of_attention(source)  # negative control

    saved = {n: value.clone() for n, value in source.state_dict().items()}
    kept = {n: value for n, value in saved.items() if not is_gone(kind, n)}
    assert set(model.state_dict()) == kept.keys() | new_names(kind)
    # parcify changes no value of what stays.
    exchanged = parcify(source, replace='attention', img_size=IMG_SIZE).state_dict()
    assert all(torch.equal(exchanged[n], value) for n, value in kept.items())
    missing, unexpected = model.load_state_dict(saved, strict=False)
    assert set(missing) == new_names(kind)
    # Some of V2's buffers are deleted by its own loading.
    told = set(unexpected) | {n for n in saved if 'relative_' in n and 'swin_v2' in name}
    assert told == {n for n in saved if is_gone(kind, n)}

    twin = in_eval(plain(without_positions(kind.cfg)))
    for size in ((97, 131), (131, 97), (33, 65)):
        outputs = outputs_of(model, image_of(size, 1, torch.float32))
        assert all(o.isfinite().all() for o in outputs)
        if not isinstance(kind.cfg, dict):
            assert [o.shape for o in outputs] == [(1, 5)]
        elif size[0] > 64:
            expected = outputs_of(twin, image_of(size, 1, torch.float32))
            assert [o.shape for o in outputs] == [o.shape for o in expected]


# What it computes


def normalized(norm, x):
    """A LayerNorm of (B, C, H, W) over C, written out."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).square().mean(1, keepdim=True)
    x = (x - mean) / (variance + norm.eps).sqrt()
    return x * norm.weight[:, None, None] + norm.bias[:, None, None]


def pointwise(layer, x):
    return F.conv2d(x, layer.weight.reshape(*layer.weight.shape[:2], 1, 1), layer.bias)


def channel_weights(attention, x):
    """ParC-Net's channel attention: a value in [0, 1] for each image and channel."""
    y = x.mean((2, 3), keepdim=True)
    for i, module in enumerate(list(attention.fc)[:2]):
        y = F.conv2d(y, module.conv.weight)
        scale = module.bn.weight / (module.bn.running_var + module.bn.eps).sqrt()
        y = (y[..., 0, 0] - module.bn.running_mean) * scale + module.bn.bias
        y = (y * (y + 3).clamp(0, 6) / 6 if i == 0 else y)[..., None, None]
    return (y + 3).clamp(0, 6) / 6


def feed_forward(ffn, x, act):
    added = [m for m in ffn.modules() if isinstance(m, ChannelAttention)]
    inside = {m for attention in added for m in attention.modules()}
    layers = [m for m in ffn.modules() if isinstance(m, nn.Linear | nn.Conv2d) and m not in inside]
    fc1, *depthwise, fc2 = layers
    y = pointwise(fc1, x)
    for conv in depthwise:
        y = F.conv2d(y, conv.weight, conv.bias, padding=1, groups=conv.groups)
    y = pointwise(fc2, act(y))
    return y * channel_weights(added[0], y) if added else y


def one_of(module, *names):
    return next((getattr(module, n) for n in names if hasattr(module, n)), None)


def scale_of(module, *names):
    """A layer scale's values, for (B, C, H, W); 1 where it has none."""
    weight = one_of(one_of(module, *names), 'weight', 'scale', 'gamma')
    return 1.0 if weight is None else weight[:, None, None]


@each_kind
def test_a_block_is_what_is_written_here(name):
    """x + scale * ParC(norm(x)), then the feed-forward network the same way; V2 norms behind.

    Token i * W + j lies at row i and column j of the map that the reference operator takes.
    """
    kind = KINDS[name]
    act = F.silu if name == 'mobilevit' else F.gelu
    for channel_attention in (False, True):
        model = shaken(convert(kind.cfg, channel_attention=channel_attention))
        for module in model.modules():  # else all values between 0 and 1 are about a half
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        blocks = {n.rpartition('.')[0]: (n, stride) for n, stride in kind.attention.items()}
        for key, (args, output) in calls_of(model, blocks, image_of((96, 160), 1)).items():
            block, (attention, stride) = model.get_submodule(key), blocks[key]
            mixer = model.get_submodule(attention).mixer
            norm1, norm2 = (one_of(block, f'ln{i}', f'norm{i}', f'ln_{i}') for i in (1, 2))
            ffn = one_of(block, 'ffn', 'mlp')
            ls1 = scale_of(model.get_submodule(attention), 'gamma1') * scale_of(block, 'ls1')
            ls2 = scale_of(ffn, 'gamma2') * scale_of(block, 'ls2')
            height, width = 96 // stride, 160 // stride

            def as_map(tokens, height=height, width=width):
                return tokens.reshape(1, height, width, -1).permute(0, 3, 1, 2)

            x = as_map(args[0])
            if 'swin_v2' in name:
                x = x + normalized(norm1, mixer_reference(mixer, x))
                x = x + normalized(norm2, feed_forward(ffn, x, act))
            else:
                x = x + ls1 * mixer_reference(mixer, normalized(norm1, x))
                x = x + ls2 * feed_forward(ffn, normalized(norm2, x), act)
            assert_close(as_map(output), x, 1e-10, key)
            # negative control: with columns before rows, and without the ParC
            assert relative_error(as_map(output, width, height).mT, x) > 1e-2
            mixer.conv_h.weight.data.zero_()
            mixer.conv_w.weight.data.zero_()
            with torch.no_grad():
                assert relative_error(as_map(block(*args)), x) > 1e-3


def test_in_place_of_a_class_token_is_the_mean():
    for cfg in (VIT, DISTILLED):
        image = image_of((97, 131), 1)
        model = shaken(convert(cfg))
        _, last = calls_of(model, ['layers.1'], image)['layers.1']
        assert last.shape == (1, 13, 17, 16)
        maps = normalized(model.ln1, last.permute(0, 3, 1, 2))
        outputs = outputs_of(model, image)
        assert len(outputs) == 1 + (cfg is DISTILLED)
        for output in outputs:
            assert_close(output, maps.mean((2, 3)), 1e-10)
        # negative control: nor is it the first position, where a class token stands
        assert relative_error(maps[:, :, 0, 0], output) > 1e-2
        for out_type in ('featmap', 'raw', 'avg_featmap'):
            other = shaken(convert(dict(cfg, out_type=out_type)))
            other.load_state_dict({**other.state_dict(), **model.state_dict()}, strict=True)
            (output,) = outputs_of(other, image)
            if out_type == 'avg_featmap':
                expected = normalized(other.ln2, maps.mean((2, 3), keepdim=True))[..., 0, 0]
            else:
                expected = maps if out_type == 'featmap' else maps.flatten(2).mT
            assert_close(output, expected, 1e-10)


def test_heads_take_the_mean():
    """timm's and torchvision's; with two heads, for two tokens, both take it."""
    for name, last, norm in (
        ('timm vit', 'blocks', 'norm'),
        ('timm deit, distilled', 'blocks', 'norm'),
        ('torchvision vit', 'encoder.layers', 'encoder.ln'),
    ):
        model, image = shaken(convert(KINDS[name].cfg)), image_of((97, 131), 1)
        _, tokens = calls_of(model, [last], image)[last]
        mean = normalized(model.get_submodule(norm), tokens.permute(0, 3, 1, 2)).mean((2, 3))
        heads = [one_of(model, 'head', 'heads')]
        heads += [model.head_dist] if 'distilled' in name else []
        expected = sum(head(mean) for head in heads) / len(heads)
        assert_close(outputs_of(model, image)[0], expected, 1e-10, name)

    # This one would take two images for two tokens, if it got one tensor.
    head = MODELS.build(
        dict(type='mmpretrain.DeiTClsHead', num_classes=5, in_channels=16, init_cfg=None)
    ).double()
    features = shaken(convert(DISTILLED))(image_of((64, 96), 2))
    mean = features[-1][0]
    expected = (head.layers.head(mean) + head.layers.head_dist(mean)) / 2
    assert_close(in_eval(head)(features), expected, 1e-12)


def test_mobilevit_mixes_the_whole_map():
    """One pixel reaches its row and its column; in the plain network every second pixel."""
    reached = {}
    for kind, model in (('parc', convert(MOBILEVIT)), ('plain', plain(MOBILEVIT))):
        block = shaken(model).layers[2][1]
        block.local_rep = block.conv_proj = nn.Identity()
        block.conv_fusion = None
        maps = torch.randn(1, 24, 8, 12, dtype=torch.float64)
        changed = maps.clone()
        changed[:, 0, 2, 5] += 1  # a norm takes out what is added to all channels
        with torch.no_grad():
            reached[kind] = (block(changed) - block(maps)).abs().amax((0, 1)) > 1e-9
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(12), indexing='ij')
    assert torch.equal(reached['parc'], (rows == 2) | (columns == 5))
    assert torch.equal(reached['plain'], (rows % 2 == 0) & (columns % 2 == 1))


def test_dropouts_stay():
    """DropPath mixes all or nothing of an image in training, dropout takes out single values."""
    swin = dict(stage_cfgs=dict(block_cfgs=dict(attn_cfgs=dict(proj_drop=0.25))))
    for name in ('vit', 'swin', 'pvt', 'mit', 'mmseg swin'):
        kind = KINDS[name]
        drop = swin if name == 'swin' else dict(drop_rate=0.25)
        for changes, rate in ((dict(drop_path_rate=0.5), 0.5), (drop, 0.25)):
            key = list(kind.attention)[-1]
            module = shaken(convert(dict(kind.cfg, **{'drop_path_rate': 0.0, **changes})))
            module = module.get_submodule(key)
            width = 2 * module.mixer.conv_h.in_channels
            x = torch.randn(32, 6, width, dtype=torch.float64)
            arguments = (x.view(32, 2, 3, width),) if name == 'vit' else (x, (2, 3))
            with torch.no_grad():
                whole, mixed = (module.train(m)(*arguments).flatten(1) for m in (False, True))
            kept = mixed != 0
            if 'drop_path_rate' in changes:
                kept = kept.all(1)
                assert not mixed[~kept].any()
            assert abs(kept.double().mean() - (1 - rate)) < 0.3
            assert 0 < kept.sum() < kept.numel()
            assert_close(mixed[kept] * (1 - rate), whole[kept], 1e-12)


# Weights


def original_swin(weights):
    """Weights of mmdet's Swin under the names of its authors' code."""
    names = {}
    for name, value in weights.items():
        name = name.replace('stages.', 'layers.').replace('w_msa.', '')
        name = name.replace('ffn.layers.0.0.', 'mlp.fc1.').replace('ffn.layers.1.', 'mlp.fc2.')
        names[name.replace('projection.', 'proj.')] = value
    return names


def prefixed(weights):
    return {f'backbone.{n}': value for n, value in weights.items()}


def of_a_wrapper(weights):
    return {f'module.{n}': value for n, value in weights.items()}


def test_pretrained_weights(tmp_path):
    """What the plain network's own loading makes of a checkpoint."""
    for name, rule, changes, renamed in (
        ('vit', dict(prefix='backbone.'), {}, prefixed),
        ('swin', dict(prefix='backbone.'), {}, prefixed),
        ('mobilevit', {}, {}, dict),
        ('mmdet swin', {}, dict(convert_weights=False), prefixed),
        ('mmdet swin', {}, dict(convert_weights=True), original_swin),
        ('pvt', {}, dict(convert_weights=False), dict),
        ('mmseg swin', {}, {}, prefixed),
        ('mmseg swin', {}, {}, of_a_wrapper),
        ('mit', {}, {}, dict),
    ):
        kind, path = KINDS[name], str(tmp_path / 'plain.pth')
        source = filled(kind.cfg).state_dict()
        pretrained = ConfigDict(type='Pretrained', checkpoint=path, **rule)
        cfg = dict(kind.cfg, **changes, init_cfg=pretrained)
        twin = plain(without_positions(cfg) if name.startswith('mm') else cfg)
        model = convert(cfg)
        before = {n: value.clone() for n, value in model.state_dict().items()}
        # mmdet's and mmseg's own loading takes no embedding of absolute positions.
        for m, left_out in ((twin, 'absolute_pos_embed'), (model, None)):
            state = {n: value for n, value in source.items() if n != left_out}
            torch.save(dict(state_dict=renamed(state)), path)
            m.init_weights()
        expected = twin.state_dict()
        for n, value in model.state_dict().items():
            if n in new_names(kind):
                assert torch.equal(value, before[n]), n
            else:
                assert torch.equal(value, expected[n]), n
                # negative control: all that stays was loaded
                assert not value.is_floating_point() or not torch.equal(value, before[n]), n


# What the network had stays


def test_frozen_stages_stay_frozen():
    for cfg, stages, frozen in (
        (VIT, 1, ('patch_embed', 'layers.0.')),
        (SWIN, 0, ('patch_embed', 'stages.0.', 'norm0.')),
        (SWIN_V2, 0, ('patch_embed', 'stages.0.', 'norm0.')),
        (MOBILEVIT, 2, ('layers.0.', 'layers.1.')),
        (DET_SWIN, 1, ('patch_embed', 'stages.0.', 'norm0.')),
        (SEG_SWIN, 1, ('patch_embed', 'stages.0.', 'norm0.')),
    ):
        model = convert(dict(cfg, frozen_stages=stages), channel_attention=True)
        if cfg is not VIT:  # which freezes when it is built, and then alone
            model.train()
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad is not name.startswith(frozen), name
        for name, module in model.named_modules():
            if name in mixers(model) or (isinstance(module, nn.BatchNorm2d) and '.ffn.' in name):
                assert module.training is not name.startswith(frozen), name


@each_kind
def test_initial_values_mode_precision_and_gradients(name):
    """init_weights leaves kernels and embeddings as they began; every parameter has a gradient."""
    cfg = KINDS[name].cfg
    for training in (False, True):
        source = plain(cfg).double()
        source.train(training)
        model = parcify(source, replace='attention', img_size=IMG_SIZE, channel_attention=True)
        assert {m.training for m in model.modules()} == {training}
        assert {p.dtype for p in model.parameters()} == {torch.float64}
    before = {n: model.state_dict()[n].clone() for n in new_names(KINDS[name])}
    if isinstance(cfg, dict):
        model.init_weights()
    for n, value in before.items():
        assert torch.equal(model.state_dict()[n], value), n
        assert not n.endswith('pos_embed') or 0.005 < value.std() < 0.04
    for parameter in model.parameters():  # some heads and norms start at 0
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    for n, grad in gradients(model, image_of((97, 131), batch=3)).items():
        assert grad is not None and grad.isfinite().all(), n
        # Channel attention squeezes so few channels into one, which an activation may put out.
        assert grad.any() or '.fc.' in n, n


def test_copies_and_weights_for_other_images():
    """Copies share nothing; a model for larger images takes the weights and computes the same."""
    for name in ('vit', 'swin', 'pvt', 'timm swin', 'torchvision vit'):
        cfg, image = KINDS[name].cfg, image_of((128, 160), 1)
        model = shaken(convert(cfg, channel_attention=True))
        expected = outputs_of(model, image)[-1]
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(outputs_of(twin, image)[-1], expected)
            next(iter(mixers(twin).values())).conv_h.weight.data.zero_()
            assert relative_error(outputs_of(twin, image)[-1], expected) > 1e-6
            assert torch.equal(outputs_of(model, image)[-1], expected)
        larger = in_eval(convert(cfg, img_size=(128, 160), channel_attention=True).double())
        assert relative_error(outputs_of(larger, image)[-1], expected) > 1e-3
        larger.load_state_dict(model.state_dict(), strict=True)
        assert_close(outputs_of(larger, image)[-1], expected, 1e-10)


@full
@needs_compiler
def test_compiled():
    for name in ('timm vit', 'timm swin', 'torchvision vit'):
        model, image = shaken(convert(KINDS[name].cfg)), image_of((97, 131), 1)
        compiled = torch.compile(model, fullgraph=True, backend='eager')
        for a, b in zip(outputs_of(compiled, image), outputs_of(model, image), strict=True):
            assert_close(a, b, 1e-10, name)


# Choices


def test_options():
    model = convert(DET_SWIN, pos_embed='first', resize='interpolate_sum', backend='fft')
    embedded = [mixer.conv_h.pos_embed is not None for mixer in mixers(model).values()]
    assert embedded == [True, False, True, True, True]
    layers = [layer for mixer in mixers(model).values() for layer in mixer.children()]
    assert {(layer.resize, layer.backend) for layer in layers} == {('interpolate_sum', 'fft')}


def test_equal_to_the_dedicated_backbone():
    for cfg, kind in (
        (VIT, 'mmparc.ParCVisionTransformer'),
        (SWIN, 'mmparc.ParCSwinTransformer'),
        (MOBILEVIT, 'mmparc.ParCMobileViT'),
    ):
        for options in ({}, dict(channel_attention=True, pos_embed='first')):
            torch.manual_seed(1)
            dedicated = MODELS.build(dict(cfg, type=kind, img_size=IMG_SIZE, **options))
            model = convert(cfg, **options)
            shapes, expected = (
                {n: value.shape for n, value in m.state_dict().items()} for m in (model, dedicated)
            )
            assert shapes == expected and mixers(model)
            dedicated, model = shaken(dedicated), in_eval(model.double())
            image = image_of((97, 131), 1)
            before = outputs_of(model, image)[-1]
            model.load_state_dict(dedicated.state_dict(), strict=True)
            for a, b in zip(outputs_of(model, image), outputs_of(dedicated, image), strict=True):
                assert torch.equal(a, b)
            assert not torch.equal(before, outputs_of(model, image)[-1])  # negative control
        with pytest.raises(TypeError):
            MODELS.build(dict(cfg, type=kind, channel_atention=True))


class Attention(nn.Linear):
    """A user's own."""


class OtherAttention(Attention):
    pass


def test_users_can_register_their_own():
    def network(kind):
        return nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), Permute([0, 2, 3, 1]), kind(8, 8))

    @register_attention(Attention)
    def adapter(module):
        return TokenMixer(module, drops=[nn.Dropout(0.1)])

    model = parcify(network(Attention), replace='attention', img_size=IMG_SIZE)
    assert kernel_sizes(model) == {'2.mixer': (16, 24)} and model[2].drop[0].p == 0.1
    with pytest.raises(ValueError):  # a subclass may do something else
        parcify(network(OtherAttention), replace='attention', img_size=IMG_SIZE)


# Refusals

BEIT = dict(VIT, type='mmpretrain.BEiTViT', out_type='avg_featmap', layer_scale_init_value=0.0)
XCIT = dict(img_size=64, patch_size=16, embed_dims=16, depth=1, cls_attn_layers=1, num_heads=2)
ODD = dict(VIT, arch=dict(embed_dims=15, num_layers=1, num_heads=3, feedforward_channels=24))
SWIGLU = dict(VIT, layer_cfgs=dict(ffn_type='swiglu_fused'))


def test_refusals():
    """In one line; and the given network stays as it was."""
    for cfg, options, words in (
        # attention that is not known, or in a network that is not known
        (BEIT, {}, 'BEiTViT BEiTAttention'),
        (dict(type='mmpretrain.XCiT', **XCIT), {}, 'XCiT ClassAttention'),
        (dict(type='mmpretrain.EdgeNeXt', arch='xxsmall'), {}, 'EdgeNeXt'),
        (lambda: VisionTransformer(**TIMM_VIT, global_pool='map'), {}, 'AttentionPoolLatent'),
        (dict(type='mmpretrain.ResNet', depth=18), {}, 'ResNet'),
        # what cannot be
        (ODD, {}, '15'),
        (SWIGLU, dict(channel_attention=True), 'SwiGLUFFNFused'),
        (VIT, dict(stages=1), 'stages'),
        (VIT, dict(share=0.5), 'share'),
        (VIT, dict(parc_starts=(1, 1)), 'parc_starts'),
        (VIT, dict(pos_embed='none'), 'pos_embed'),
        (VIT, dict(replace='last', channel_attention=True), 'channel_attention'),
    ):
        network = plain(cfg)
        before = {n: value.clone() for n, value in network.state_dict().items()}
        kinds = [type(m) for m in network.modules()]
        with pytest.raises(ValueError) as refusal:
            parcify(network, **{'replace': 'attention', **options})
        message = str(refusal.value)
        assert '\n' not in message and all(w in message for w in words.split()), message
        assert [type(m) for m in network.modules()] == kinds
        after = network.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(value, before[n]) for n, value in after.items())
    convert(SWIGLU)  # without channel attention it can be exchanged
    for cfg in (VIT, SWIN, MOBILEVIT):
        with pytest.raises(ValueError):  # not twice
            parcify(convert(cfg), replace='attention')


def test_it_reports(caplog):
    """The kernels at each resolution, what is frozen, and what else goes."""
    caplog.set_level(logging.INFO, 'mmparc')
    convert(DET_SWIN)
    (first, *_, dropped) = caplog.messages
    for word in ('2 x ShiftWindowMSA', '8 channels', '16', '24', *list(DET_SWIN_BLOCKS)[:2]):
        assert word in first
    assert 'absolute_pos_embed' in dropped
    caplog.clear()
    convert(dict(DISTILLED, frozen_stages=1))
    levels = {
        name: level for _, level, m in caplog.record_tuples for name in VIT_LAYERS if name in m
    }
    assert levels == {'layers.0.attn': logging.WARNING, 'layers.1.attn': logging.INFO}
    assert all(word in caplog.messages[-1] for word in ('cls_token', 'pos_embed', 'dist_token'))
