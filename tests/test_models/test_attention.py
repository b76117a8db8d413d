"""Attention exchanged for ParC: what is left computes what is written here, and no attention.

Independent sides of the comparisons are the reference operator, blocks written out from their
weights, the same network with rows and columns exchanged, and upstream's plain networks: their
shapes, their names, and what their own loading makes of a checkpoint.
"""

import copy
import dataclasses
import logging
import pickle

import pytest
import torch
from backbones import (
    calls_of_mixers,
    gradients,
    in_eval,
    kernel_sizes,
    mixer_reference,
    mixers,
    with_axes_exchanged,
)
from helpers import assert_close, relative_error
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mmparc import engine
from mmparc.layers.token_mixer import TokenMixer
from mmparc.models import ParCify
from mmparc.ops import BACKENDS

slow = pytest.mark.slow
SIZES = [(97, 131), (131, 97), (72, 64)]
IMG_SIZE = 64, 96  # of all converted networks here


@dataclasses.dataclass
class Kind:
    """A small backbone with attention.

    Attributes:
        attention: {the name of each attention: the total stride of its map}.
        others: the names of what else goes.
        twin: the plain network whose outputs have the converted one's shapes, if it is another.
        blocks: the name of the class of its blocks; none if two kinds have the same.
    """

    cfg: dict
    attention: dict[str, int]
    others: tuple[str, ...] = ()
    twin: dict | None = None
    block: str = ''


VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=24),
    img_size=64,
    patch_size=8,
    layer_scale_init_value=0.1,
)
VIT_LAYERS = {'layers.0.attn': 8, 'layers.1.attn': 8}
SWIN = dict(
    type='mmpretrain.SwinTransformer',
    arch=dict(embed_dims=8, depths=[2, 1, 1], num_heads=[1, 2, 2]),
    img_size=64,
    window_size=4,
    pad_small_map=True,
    out_indices=(0, 1, 2),
)
SWIN_BLOCKS = {
    'stages.0.blocks.0.attn': 4,
    'stages.0.blocks.1.attn': 4,
    'stages.1.blocks.0.attn': 8,
    'stages.2.blocks.0.attn': 16,
}
SWIN_V2 = dict(
    SWIN,
    type='mmpretrain.SwinTransformerV2',
    arch=dict(embed_dims=8, depths=[2, 1, 1], num_heads=[1, 2, 2], extra_norm_every_n_blocks=0),
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
)
DET_SWIN_BLOCKS = {**SWIN_BLOCKS, 'stages.3.blocks.0.attn': 32}
SEG_SWIN = dict(DET_SWIN, type='mmseg.SwinTransformer')
PYRAMID = dict(embed_dims=8, num_layers=[1, 2, 1, 1], num_heads=[1, 2, 2, 4])
PVT = dict(type='mmdet.PyramidVisionTransformer', pretrain_img_size=64, **PYRAMID)
PVT_V2 = dict(type='mmdet.PyramidVisionTransformerV2', **PYRAMID)
MIT = dict(type='mmseg.MixVisionTransformer', **PYRAMID)
PYRAMID_BLOCKS = {
    'layers.0.1.0.attn': 4,
    'layers.1.1.0.attn': 8,
    'layers.1.1.1.attn': 8,
    'layers.2.1.0.attn': 16,
    'layers.3.1.0.attn': 32,
}

KINDS = {
    'vit': Kind(VIT, VIT_LAYERS, ('cls_token', 'pos_embed'), block='TransformerEncoderLayer'),
    'vit, mean': Kind(
        dict(VIT, out_type='avg_featmap', with_cls_token=False), VIT_LAYERS, ('pos_embed',)
    ),
    'vit, maps': Kind(
        dict(VIT, out_type='featmap', out_indices=[0, 1]), VIT_LAYERS, ('cls_token', 'pos_embed')
    ),
    'vit, tokens': Kind(
        dict(VIT, out_type='raw', pre_norm=True),
        VIT_LAYERS,
        ('cls_token', 'pos_embed'),
        dict(VIT, out_type='raw', pre_norm=True, with_cls_token=False),
    ),
    'deit, distilled': Kind(
        dict(VIT, type='mmpretrain.DistilledVisionTransformer'),
        VIT_LAYERS,
        ('cls_token', 'pos_embed', 'dist_token'),
    ),
    'swin': Kind(SWIN, SWIN_BLOCKS, block='SwinBlock'),
    'swin, embedded': Kind(
        dict(SWIN, use_abs_pos_embed=True, out_after_downsample=True),
        SWIN_BLOCKS,
        ('absolute_pos_embed',),
    ),
    'swin_v2': Kind(SWIN_V2, SWIN_BLOCKS, block='SwinBlockV2'),
    'swin_v2, embedded': Kind(
        dict(SWIN_V2, use_abs_pos_embed=True), SWIN_BLOCKS, ('absolute_pos_embed',)
    ),
    'mobilevit': Kind(MOBILEVIT, MOBILEVIT_LAYERS, block='TransformerEncoderLayer'),
    'mmdet swin': Kind(DET_SWIN, DET_SWIN_BLOCKS, block='SwinBlock'),
    'mmdet swin, embedded': Kind(
        dict(DET_SWIN, use_abs_pos_embed=True),
        DET_SWIN_BLOCKS,
        ('absolute_pos_embed',),
        DET_SWIN,  # the other takes images of one size
    ),
    'mmseg swin': Kind(SEG_SWIN, DET_SWIN_BLOCKS, block='SwinBlock'),
    'pvt': Kind(
        PVT,
        {
            'layers.0.1.1.attn': 4,
            'layers.1.1.1.attn': 8,
            'layers.1.1.2.attn': 8,
            'layers.2.1.1.attn': 16,
            'layers.3.1.1.attn': 32,
        },
        tuple(f'layers.{i}.1.0.pos_embed' for i in range(4)),
        block='PVTEncoderLayer',
    ),
    'pvt_v2': Kind(PVT_V2, PYRAMID_BLOCKS, block='PVTEncoderLayer'),
    'mit': Kind(MIT, PYRAMID_BLOCKS, block='TransformerEncoderLayer'),
}
each_kind = pytest.mark.parametrize('name', KINDS)
MAIN = {'vit', 'deit, distilled', 'swin', 'swin_v2', 'mobilevit', 'mmdet swin', 'pvt', 'mit'}
most_kinds = pytest.mark.parametrize(
    'name', [n if n in MAIN else pytest.param(n, marks=slow) for n in KINDS]
)
each_block = pytest.mark.parametrize('name', [n for n, kind in KINDS.items() if kind.block])
with_and_without = pytest.mark.parametrize(
    'channel_attention', [False, pytest.param(True, marks=slow)]
)
# One of each forward pass.
FEW = ('vit', 'swin', 'mobilevit', 'mmdet swin, embedded', 'pvt')
each_family = pytest.mark.parametrize('name', FEW)


def plain(cfg):
    torch.manual_seed(0)
    return MODELS.build(cfg)


def convert(cfg, **options):
    """From text alone, as a config says it."""
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='mmparc.ParCify',
            backbone=cfg,
            replace='attention',
            **{'img_size': IMG_SIZE, **options},
        )
    )


MADE = {}


def converted(cfg, **options):
    """The same made once, in ten times the time that a copy takes, and the random state behind."""
    key = repr((cfg, options))
    if key not in MADE:
        MADE[key] = convert(cfg, **options), torch.get_rng_state()
    model, state = MADE[key]
    torch.set_rng_state(state)
    return copy.deepcopy(model)


def shaken(model):
    """The model in float64 with weights of which each one counts."""
    generator = torch.Generator().manual_seed(2)
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.2 * noise)
    return in_eval(model)


def image_of(size, batch=1, dtype=torch.float64):
    return torch.randn(batch, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(1))


def outputs_of(model, image):
    with torch.no_grad():
        outputs = model(image)
    return [t for o in outputs for t in (o if isinstance(o, tuple) else (o,))]


def calls_of(model, chosen, image):
    """{name: (arguments, output)} of the modules' last calls."""
    calls = {}
    hooks = [
        m.register_forward_hook(lambda _, args, out, name=n: calls.update({name: (args, out)}))
        for n, m in model.named_modules()
        if chosen(m)
    ]
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return calls


@pytest.fixture
def log():
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append((record.levelno, record.getMessage()))
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


# No attention, no fixed size


class Operations(TorchDispatchMode):
    """The names of all operations that are run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def operations(model):
    with torch.no_grad(), Operations() as found:
        model(torch.randn(1, 3, 64, 64))
    return found.names


ATTENTION = {
    'MultiheadAttention',
    'WindowMSA',
    'WindowMSAV2',
    'ShiftWindowMSA',
    'SpatialReductionAttention',
    'EfficientMultiheadAttention',
    'AbsolutePositionEmbedding',
}


def is_attention(module):
    return type(module).__name__ in ATTENTION or isinstance(
        module, nn.Softmax | nn.MultiheadAttention
    )


def products_of_attention(names):
    """Softmax, fused attention, and products of two matrices that both follow from the image."""
    return {n for n in names if any(k in n for k in ('softmax', 'attention', 'bmm', 'einsum'))}


@with_and_without
@each_kind
def test_no_attention_is_left(name, channel_attention):
    """No module, nor an operation; by 'direct', since 'matmul' multiplies matrices too."""
    kind = KINDS[name]
    model = converted(kind.cfg, backend='direct', channel_attention=channel_attention)
    assert not [n for n, m in model.named_modules() if is_attention(m)]
    assert list(mixers(model)) == [f'{n}.mixer' for n in kind.attention]
    names = operations(in_eval(model))
    assert 'convolution' in names and not products_of_attention(names)
    # negative control
    twin = in_eval(plain(kind.cfg))
    assert {n for n, m in twin.named_modules() if is_attention(m)} >= set(kind.attention)
    assert products_of_attention(operations(twin))


@pytest.mark.parametrize('mode', ['train', pytest.param('eval', marks=slow)])
@most_kinds
def test_any_image_size(name, mode):
    """The shapes of the plain network."""
    kind = KINDS[name]
    model, twin = converted(kind.cfg), plain(kind.twin or kind.cfg)
    for m in (model, twin):
        m.train(mode == 'train')
    for size in SIZES:
        image = image_of(size, dtype=torch.float32)
        outputs = outputs_of(model, image)
        assert [o.shape for o in outputs] == [o.shape for o in outputs_of(twin, image)]
        assert all(o.isfinite().all() for o in outputs)


@most_kinds
def test_sizes_that_no_window_or_token_fits(name):
    """Far from the training size, and smaller than a window."""
    model = in_eval(converted(KINDS[name].cfg))
    for size in ((200, 336), (33, 65)):
        assert all(o.isfinite().all() for o in outputs_of(model, torch.randn(1, 3, *size)))


@most_kinds
def test_kernels_are_as_long_as_the_map(name):
    """By the table of strides, and as seen from the map itself at an odd size."""
    kind = KINDS[name]
    expected = {f'{n}.mixer': (64 // s, 96 // s) for n, s in kind.attention.items()}
    assert kernel_sizes(converted(kind.cfg)) == expected
    assert kernel_sizes(converted(kind.cfg, img_size=(96, 64))) != expected
    model = in_eval(converted(kind.cfg, img_size=(131, 97)))
    calls = calls_of_mixers(model, torch.randn(1, 3, 131, 97))
    assert [tuple(x.shape[2:]) for _, x, _ in calls] == list(kernel_sizes(model).values())


# What it computes


@pytest.mark.parametrize('resize', ['interpolate', pytest.param('interpolate_sum', marks=slow)])
@most_kinds
def test_tokens_are_mixed_by_rows_and_columns(name, resize):
    """Token i * W + j lies at row i and column j; the reference operator on that map."""
    model = shaken(converted(KINDS[name].cfg, resize=resize))
    calls = calls_of(model, lambda m: isinstance(m, TokenMixer), image_of((97, 131)))
    assert list(calls) == list(KINDS[name].attention)
    for key, (args, output) in calls.items():
        module, tokens = model.get_submodule(key), args[0]
        if len(args) == 1:  # (B, H, W, C)
            height, width = tokens.shape[1:3]
            tokens, output = (t.reshape(1, height * width, -1) for t in (tokens, output))
        else:
            height, width = args[1]
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')

        def expected(place, module=module, tokens=tokens):
            maps = tokens[:, place].permute(0, 3, 1, 2)
            mixed = mixer_reference(module.mixer, maps, dense=False, resize=resize)
            gamma = getattr(module.gamma1, 'weight', torch.ones(1))
            result = torch.empty_like(tokens)
            result[:, place] = mixed.permute(0, 2, 3, 1) * gamma
            return result

        if 'pvt' in name or name == 'mit':  # these return the sum with their identity
            output = module(tokens, (height, width))
        assert_close(output, expected(rows * width + columns), 1e-10, key)
        # negative control: columns first
        assert relative_error(expected(columns * height + rows), output) > 1e-2


@most_kinds
def test_height_and_width_exchanged(name):
    model = shaken(converted(KINDS[name].cfg))
    image = image_of((97, 131))
    expected = outputs_of(model, image)
    if KINDS[name].cfg.get('out_type') == 'raw':  # 13 x 17 tokens
        image = image_of((96, 136))
        expected = [o.unflatten(1, (12, 17)).permute(0, 3, 1, 2) for o in outputs_of(model, image)]

    def back(outputs):
        if KINDS[name].cfg.get('out_type') == 'raw':
            return [o.unflatten(1, (17, 12)).permute(0, 3, 2, 1) for o in outputs]
        return [o.mT if o.dim() == 4 else o for o in outputs]

    for a, b in zip(back(outputs_of(with_axes_exchanged(model), image.mT)), expected, strict=True):
        assert_close(a, b, 1e-10)
    wrong = back(outputs_of(with_axes_exchanged(model, parc=False), image.mT))
    assert relative_error(wrong[-1], expected[-1]) > 1e-3


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


def feed_forward(ffn, x, act, channel_attention):
    layers = [m for m in ffn.layers.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    fc1, *depthwise, fc2 = layers[: -2 if channel_attention else None]
    y = pointwise(fc1, x)
    for conv in depthwise:
        y = F.conv2d(y, conv.weight, conv.bias, padding=1, groups=conv.groups)
    y = pointwise(fc2, act(y))
    if channel_attention:
        y = y * channel_weights(ffn.layers[-1], y)
    return y * scale_of(getattr(ffn, 'gamma2', None))


def scale_of(gamma):
    """A layer scale's, for (B, C, H, W)."""
    weight = getattr(gamma, 'weight', getattr(gamma, 'scale', None))
    return 1.0 if weight is None else weight[:, None, None]


@pytest.mark.parametrize('channel_attention', [False, True])
@each_block
def test_a_block_is_what_is_written_here(name, channel_attention):
    """x + scale * ParC(norm(x)), then the feed-forward network the same way; V2 norms behind."""
    kind = KINDS[name]
    model = shaken(converted(kind.cfg, channel_attention=channel_attention))
    act = F.silu if name == 'mobilevit' else F.gelu
    for module in model.modules():  # else all values between 0 and 1 are about a half
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    calls = calls_of(model, lambda m: type(m).__name__ == kind.block, image_of((97, 131)))
    assert list(calls) == [n.removesuffix('.attn') for n in kind.attention]
    # {stride of the map: (H, W)} of an image of 97 x 131; only PVT leaves out what is over.
    sizes = {stride: (-(-97 // stride), -(-131 // stride)) for stride in (4, 8, 16, 32)}
    if name == 'pvt':
        sizes = {stride: (97 // stride, 131 // stride) for stride in sizes}
    for (key, (args, output)), stride in zip(calls.items(), kind.attention.values(), strict=True):
        block = model.get_submodule(key)
        norm1 = getattr(block, 'ln1', None) or block.norm1
        norm2 = getattr(block, 'ln2', None) or block.norm2
        height, width = sizes[stride]

        def as_map(tokens, height=height, width=width):
            return tokens.reshape(1, height, width, -1).permute(0, 3, 1, 2)

        def parc(x, mixer=block.attn.mixer):
            return mixer_reference(mixer, x, dense=False)

        def ffn(x, block=block):
            return feed_forward(block.ffn, x, act, channel_attention)

        x = as_map(args[0])
        if name == 'swin_v2':
            x = x + normalized(norm1, parc(x))
            x = x + normalized(norm2, ffn(x))
        else:
            x = x + scale_of(block.attn.gamma1) * parc(normalized(norm1, x))
            without = x
            x = x + ffn(normalized(norm2, x))
            assert relative_error(without, x) > 1e-2  # negative control: the network counts
        assert_close(as_map(output), x, 1e-10, key)
        # negative control: without the ParC
        block.attn.mixer.conv_h.weight.data.zero_()
        block.attn.mixer.conv_w.weight.data.zero_()
        with torch.no_grad():
            assert relative_error(as_map(block(*args)), x) > 1e-3


@pytest.mark.parametrize(
    'kind', ['mmpretrain.VisionTransformer', 'mmpretrain.DistilledVisionTransformer']
)
def test_in_place_of_a_class_token_is_the_mean(kind):
    cfg, image = dict(VIT, type=kind), image_of((97, 131))
    model = shaken(converted(cfg))
    ((_, last),) = calls_of(model, lambda m: m is model.layers[-1], image).values()
    assert last.shape == (1, 13, 17, 16)
    maps = normalized(model.ln1, last.permute(0, 3, 1, 2))
    outputs = outputs_of(model, image)
    assert len(outputs) == (2 if 'Distilled' in kind else 1)
    for output in outputs:
        assert_close(output, maps.mean((2, 3)), 1e-10)
    # negative control: nor is it the first position, where a class token stands
    assert relative_error(maps[:, :, 0, 0], output) > 1e-2

    weights = model.state_dict()
    others = {}
    for out_type in ('featmap', 'raw', 'avg_featmap'):
        other = shaken(converted(dict(cfg, out_type=out_type)))
        others[out_type] = other
        other.load_state_dict({**other.state_dict(), **weights}, strict=True)
    assert_close(outputs_of(others['featmap'], image)[0], maps, 1e-10)
    tokens = maps.permute(0, 2, 3, 1).reshape(1, 13 * 17, 16)
    assert_close(outputs_of(others['raw'], image)[0], tokens, 1e-10)
    mean = normalized(others['avg_featmap'].ln2, maps.mean((2, 3), keepdim=True))
    assert_close(outputs_of(others['avg_featmap'], image)[0], mean[..., 0, 0], 1e-10)


@pytest.mark.parametrize('batch', [1, 2, 3, 4])
def test_a_head_for_two_tokens_takes_the_mean(batch):
    """It would take the images of a batch of two or three for tokens, if it got one tensor."""
    head = dict(type='DeiTClsHead', num_classes=5, in_channels=16, init_cfg=None)
    cfg = dict(VIT, type='mmpretrain.DistilledVisionTransformer')
    backbone = dict(type='mmparc.ParCify', backbone=cfg, replace='attention', img_size=IMG_SIZE)
    torch.manual_seed(0)
    model = MODELS.build(
        dict(type='ImageClassifier', backbone=backbone, head=head, _scope_='mmpretrain')
    )
    model = in_eval(model.double())
    image = image_of((64, 96), batch=batch)
    (mean, _) = outputs_of(model.backbone, image)
    layers = model.head.layers
    expected = (layers.head(mean) + layers.head_dist(mean)) / 2
    with torch.no_grad():
        assert_close(model.head(model.extract_feat(image)), expected, 1e-12)


def test_mobilevit_mixes_the_whole_map():
    """One pixel reaches its row and its column; in the plain network every second pixel."""
    reached = {}
    for kind, model in (('parc', converted(MOBILEVIT)), ('plain', plain(MOBILEVIT))):
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


@pytest.mark.parametrize(
    'name', ['vit', 'swin', 'swin_v2', 'mmdet swin', 'mmseg swin', 'pvt', 'mit']
)
def test_drop_path_stays(name):
    """In training of each image all or nothing is mixed, and what is left counts double."""
    kind, key = KINDS[name], list(KINDS[name].attention)[-1]
    cfg = dict(kind.cfg, drop_path_rate=0.5)
    model, twin = converted(cfg), plain(cfg)

    def probabilities(network, path):
        return [
            m.drop_prob for m in network.get_submodule(path).modules() if hasattr(m, 'drop_prob')
        ]

    for n in kind.attention:
        assert probabilities(model, n) == probabilities(twin, n)
    assert probabilities(model, key) == [0.5]
    module = shaken(model).get_submodule(key)
    width = 2 * module.mixer.conv_h.in_channels
    x = torch.randn(32, 6, width, dtype=torch.float64)
    arguments = (x.view(32, 2, 3, width),) if name == 'vit' else (x, (2, 3))
    with torch.no_grad():
        whole = module(*arguments).flatten(1)
        mixed = module.train()(*arguments).flatten(1)
    kept = mixed.abs().amax(1) > 0
    assert 4 < kept.sum() < 28
    assert_close(mixed[kept], 2 * whole[kept], 1e-12)


@pytest.mark.parametrize('name', ['vit', 'swin', 'pvt', 'mit'])
def test_dropout_behind_the_projection_stays(name):
    changes = dict(drop_rate=0.25)
    if name == 'swin':
        changes = dict(stage_cfgs=dict(block_cfgs=dict(attn_cfgs=dict(proj_drop=0.25))))
    kind, key = KINDS[name], next(iter(KINDS[name].attention))
    module = shaken(converted(dict(kind.cfg, **changes))).get_submodule(key)
    width = 2 * module.mixer.conv_h.in_channels
    x = torch.randn(8, 6, width, dtype=torch.float64)
    arguments = (x.view(8, 2, 3, width),) if name == 'vit' else (x, (2, 3))
    with torch.no_grad():
        whole, mixed = (module.train(mode)(*arguments) for mode in (False, True))
    kept = mixed != 0
    assert 0.6 < kept.double().mean() < 0.9
    assert_close(mixed[kept] * 0.75, whole[kept], 1e-12)


# Weights


def names_of(kind):
    """What goes and what is new, from the table above."""
    gone, new = set(kind.others), set()
    for name in kind.attention:
        gone.add(f'{name}.')
        new.update(
            f'{name}.mixer.conv_{axis}.{kind_}'
            for axis in 'hw'
            for kind_ in ('weight', 'bias', 'pos_embed')
        )
    return gone, new


def is_gone(name, gone):
    return name in gone or (
        any(g.endswith('.') and name.startswith(g) for g in gone) and '.gamma1.' not in name
    )


def filled(cfg):
    """A plain network with values of which each is its own."""
    source = plain(cfg)
    with torch.no_grad():
        for name, value in source.state_dict().items():
            if value.is_floating_point() and 'relative_coords' not in name:
                value.normal_()
    return source


@most_kinds
def test_names_and_weights_of_what_stays(name):
    kind = KINDS[name]
    source, model = filled(kind.cfg), converted(kind.cfg)
    gone, new = names_of(kind)
    saved = {n: value.clone() for n, value in source.state_dict().items()}
    kept = {n: value for n, value in saved.items() if not is_gone(n, gone)}
    assert set(model.state_dict()) == kept.keys() | new
    assert {n for n, _ in model.named_parameters()} >= new

    before = {n: model.state_dict()[n].clone() for n in new}
    missing, unexpected = model.load_state_dict(source.state_dict(), strict=False)
    assert set(missing) == new
    # V2 deletes two buffers itself
    told = set(unexpected) | {n for n in saved if 'relative_' in n and name.startswith('swin_v2')}
    assert told == {n for n in saved if is_gone(n, gone)}
    after = model.state_dict()
    assert all(torch.equal(after[n], value) for n, value in kept.items())
    assert all(torch.equal(after[n], value) for n, value in before.items())
    # A network is the same whether its weights come before or after; ParCify changes no value.
    exchanged = ParCify(source, replace='attention', img_size=IMG_SIZE)
    assert exchanged is source
    assert all(torch.equal(exchanged.state_dict()[n], value) for n, value in kept.items())
    # And it is what it says after the second of two loads: strictly, there and back.
    again = converted(kind.cfg)
    again.load_state_dict(after, strict=True)
    assert all(torch.equal(value, after[n]) for n, value in again.state_dict().items())


def original_swin(weights):
    """Weights of mmdet's Swin under the names of its authors' code."""
    names = {}
    for name, value in weights.items():
        name = name.replace('stages.', 'layers.').replace('w_msa.', '')
        name = name.replace('ffn.layers.0.0.', 'mlp.fc1.').replace('ffn.layers.1.', 'mlp.fc2.')
        names[name.replace('projection.', 'proj.')] = value
    return names


def original_pvt(weights):
    """Weights of mmdet's PVT under the names of its authors' code."""
    names = {}
    for name, value in weights.items():
        _, stage, part, *rest = name.split('.')
        stage, rest = int(stage) + 1, '.'.join(rest)
        if part == '0':
            names[f'patch_embed{stage}.{rest.replace("projection.", "proj.")}'] = value
            continue
        block, _, rest = rest.partition('.')
        if rest == 'pos_embed':
            names[f'pos_embed{stage}'] = value
            continue
        block = f'block{stage}.{int(block) - 1}.'
        if 'in_proj_' in rest:
            kind, third = rest.rpartition('_')[2], len(value) // 3
            names[f'{block}attn.q.{kind}'] = value[:third]
            names[f'{block}attn.kv.{kind}'] = value[third:]
            continue
        rest = rest.replace('attn.attn.out_proj', 'attn.proj')
        if 'ffn' in rest:
            rest = rest.replace('ffn.layers.0', 'mlp.fc1').replace('ffn.layers.3', 'mlp.fc2')
            value = value.flatten(1) if value.dim() == 4 else value
        names[block + rest] = value
    return names


def prefixed(weights):
    return {f'backbone.{n}': value for n, value in weights.items()}


def of_a_wrapper(weights):
    return {f'module.{n}': value for n, value in weights.items()}


CHECKPOINTS = {
    'vit': ('vit', dict(prefix='backbone.'), {}, prefixed),
    'swin': ('swin', dict(prefix='backbone.'), {}, prefixed),
    'mobilevit': ('mobilevit', {}, {}, dict),
    'mmdet swin': ('mmdet swin', {}, dict(convert_weights=False), prefixed),
    "mmdet swin, authors'": ('mmdet swin', {}, dict(convert_weights=True), original_swin),
    'mmdet pvt': ('pvt', {}, dict(convert_weights=False), dict),
    "mmdet pvt, authors'": ('pvt', {}, dict(convert_weights=True), original_pvt),
    'mmseg swin': ('mmseg swin', {}, {}, dict),
    'mmseg swin, prefixed': ('mmseg swin', {}, {}, prefixed),
    'mmseg swin, of a wrapper': ('mmseg swin', {}, {}, of_a_wrapper),
    'mit': ('mit', {}, {}, dict),
}


def model_around(backbone):
    return nn.ModuleDict(dict(backbone=backbone))


@pytest.mark.parametrize('name', CHECKPOINTS)
def test_pretrained_weights(name, tmp_path, log):
    """What the plain network's own loading makes of a checkpoint, and a report of the rest."""
    key, rule, changes, renamed = CHECKPOINTS[name]
    kind, path = KINDS[key], str(tmp_path / 'plain.pth')
    torch.save(dict(state_dict=renamed(filled(kind.cfg).state_dict())), path)
    cfg = dict(kind.cfg, **changes, init_cfg=ConfigDict(type='Pretrained', checkpoint=path, **rule))
    twin, model = plain(cfg), converted(cfg)
    start = {n: value.clone() for n, value in twin.state_dict().items()}
    gone, new = names_of(kind)
    before = {n: model.state_dict()[n].clone() for n in new}
    log.clear()
    engine.check_loaded_share(model_around(model), None, 0.1)
    share = ' '.join(message for _, message in log)
    if 'authors' in name:
        assert 'not checked' in share
    else:
        assert '% of ' in share and ' start anew' in share
        assert f'{next(iter(kind.attention))}.' in share  # of what is left, and of what is new
        assert f'{next(iter(kind.attention))}.mixer.conv_h.weight' in share
    for m in (twin, model):
        m.init_weights()
    expected, after = twin.state_dict(), model.state_dict()
    for n, value in expected.items():
        if not is_gone(n, gone):
            assert torch.equal(after[n], value), n
    assert all(torch.equal(after[n], value) for n, value in before.items())
    # negative control: all that stays was loaded
    assert not [
        n
        for n, value in start.items()
        if not is_gone(n, gone) and value.is_floating_point() and torch.equal(after[n], value)
    ]


@pytest.mark.parametrize('package', ['mmdet', 'mmseg'])
def test_a_checkpoint_with_absolute_positions(package, tmp_path):
    """Which upstream's own loading would look for in the model."""
    cfg = dict(DET_SWIN, type=f'{package}.SwinTransformer', use_abs_pos_embed=True)
    source, path = filled(cfg), str(tmp_path / 'plain.pth')
    torch.save(dict(state_dict=prefixed(source.state_dict())), path)
    model = converted(dict(cfg, init_cfg=dict(type='Pretrained', checkpoint=path)))
    model.init_weights()
    kept = [n for n in source.state_dict() if n in model.state_dict()]
    assert 'stages.0.blocks.0.ffn.layers.1.weight' in kept
    assert all(torch.equal(model.state_dict()[n], source.state_dict()[n]) for n in kept)


@each_family
def test_initial_values(name):
    """init_weights leaves kernels and embeddings as they began, and norms at 1."""
    model = converted(KINDS[name].cfg)
    _, new = names_of(KINDS[name])
    before = {n: model.state_dict()[n].clone() for n in new}
    model.init_weights()
    for n, value in before.items():
        assert torch.equal(model.state_dict()[n], value), n
        if n.endswith('pos_embed'):
            assert 0.005 < value.std() < 0.04
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    assert norms and all(torch.equal(m.weight, torch.ones_like(m.weight)) for m in norms)


def test_a_rule_for_linear_layers_leaves_parc_alone():
    """As mmpretrain's classifiers with transformers have one."""
    rules = [
        dict(type='TruncNormal', layer='Linear', std=0.2, bias=0.5),
        dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
    ]
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(
                type='mmparc.ParCify', backbone=SWIN, replace='attention', img_size=IMG_SIZE
            ),
            init_cfg=rules,
        )
    )
    before = {n: v.clone() for n, v in model.state_dict().items()}
    model.init_weights()
    changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed and all('.mixer.' not in n and '.norm' not in n for n in changed)


@each_family
def test_kernels_are_resized_on_load(name):
    """A model for larger images takes those of a smaller one, and computes the same."""
    cfg = KINDS[name].cfg
    saved, larger = (in_eval(converted(cfg, img_size=s).double()) for s in (IMG_SIZE, (128, 160)))
    assert kernel_sizes(saved) != kernel_sizes(larger)
    image = image_of((128, 160))
    before = outputs_of(larger, image)
    larger.load_state_dict(saved.state_dict(), strict=True)
    for a, b in zip(outputs_of(larger, image), outputs_of(saved, image), strict=True):
        assert_close(a, b, 1e-10)
    assert relative_error(before[-1], outputs_of(saved, image)[-1]) > 1e-3


def test_from_a_classifier_to_maps_and_back():
    """Of a ViT with one output, of a Swin but for the norms that each output has."""
    classifier = converted(VIT)
    maps = converted(dict(VIT, out_type='featmap', out_indices=[0, 1]))
    maps.load_state_dict(classifier.state_dict(), strict=True)
    assert all(torch.equal(v, classifier.state_dict()[n]) for n, v in maps.state_dict().items())
    classifier = converted(dict(SWIN, out_indices=(2,)))
    maps = converted(SWIN)
    missing, unexpected = maps.load_state_dict(classifier.state_dict(), strict=False)
    assert not unexpected
    assert set(missing) == {f'norm{i}.{kind}' for i in (0, 1) for kind in ('weight', 'bias')}
    weights = {n: v for n, v in maps.state_dict().items() if n not in missing}
    classifier.load_state_dict(weights, strict=True)


# What the backbone had stays


@pytest.mark.parametrize('channel_attention', [False, True])
@pytest.mark.parametrize(
    ('cfg', 'frozen'),
    [
        (dict(VIT, frozen_stages=1), ('patch_embed', 'layers.0.')),
        (dict(SWIN, frozen_stages=0), ('patch_embed', 'stages.0.', 'norm0.')),
        (dict(SWIN_V2, frozen_stages=0), ('patch_embed', 'stages.0.', 'norm0.')),
        (dict(MOBILEVIT, frozen_stages=2), ('layers.0.', 'layers.1.')),
        (dict(DET_SWIN, frozen_stages=1), ('patch_embed', 'stages.0.', 'norm0.')),
        (
            dict(DET_SWIN, frozen_stages=1, use_abs_pos_embed=True),
            ('patch_embed', 'stages.0.', 'norm0.'),
        ),
        (dict(SEG_SWIN, frozen_stages=1), ('patch_embed', 'stages.0.', 'norm0.')),
    ],
    ids=lambda v: v['type'] if isinstance(v, dict) else '',
)
def test_frozen_stages_stay_frozen(cfg, frozen, channel_attention):
    model = converted(cfg, channel_attention=channel_attention)
    if 'VisionTransformer' not in cfg['type']:  # which freezes when it is built, and then alone
        model.train()
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == {
        n for n, _ in model.named_parameters() if n.startswith(frozen)
    }
    for name, module in mixers(model).items():
        assert module.conv_h.training is not name.startswith(frozen)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d) and '.ffn.' in name:
            assert module.training is not name.startswith(frozen)


@pytest.mark.parametrize('channel_attention', [False, True])
@pytest.mark.parametrize('training', [False, pytest.param(True, marks=slow)])
@each_family
def test_a_given_module_keeps_mode_and_precision(name, training, channel_attention):
    source = plain(KINDS[name].cfg).double()
    source.train(training)
    model = ParCify(
        source, replace='attention', img_size=IMG_SIZE, channel_attention=channel_attention
    )
    assert {m.training for m in model.modules()} == {training}
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize('name', ['vit', 'swin'])
def test_layer_depth_is_that_of_the_plain_block(name):
    kind = KINDS[name]
    model, twin = converted(kind.cfg), plain(kind.cfg)
    plain_depths = {
        n: twin.get_layer_depth(f'{n}.{leaf}')
        for n in kind.attention
        for leaf, _ in list(twin.get_submodule(n).named_parameters())[:1]
    }
    assert len(set(plain_depths.values())) > 1
    for n, expected in plain_depths.items():
        for leaf, _ in model.get_submodule(n).named_parameters():
            assert model.get_layer_depth(f'{n}.{leaf}') == expected


@with_and_without
@most_kinds
def test_every_parameter_gets_a_gradient(name, channel_attention):
    """None is left over, for which DistributedDataParallel would wait."""
    model = converted(KINDS[name].cfg, channel_attention=channel_attention)
    model.init_weights()
    for n, grad in gradients(model, image_of((97, 131), batch=3, dtype=torch.float32)).items():
        assert grad is not None and grad.isfinite().all(), n
        # Channel attention squeezes so few channels into one, which an activation may put out.
        assert grad.any() or '.fc.' in n, n


@pytest.mark.parametrize('name', ['swin', 'swin_v2', 'mmdet swin', 'mmseg swin', 'mit'])
def test_checkpointing_gives_the_same_gradients(name):
    runs = []
    for with_cp in (False, True):
        model = converted(dict(KINDS[name].cfg, with_cp=with_cp, drop_path_rate=0.0)).double()
        counts = []
        mixer = list(mixers(model).values())[-1]
        mixer.register_forward_hook(lambda *call, counts=counts: counts.append(call))
        runs.append(gradients(model, image_of((97, 131))))
        assert len(counts) == 1 + with_cp
    for n, grad in runs[0].items():
        assert_close(runs[1][n], grad, 1e-12, n)


@each_family
def test_backends_agree(name):
    image, runs = image_of((97, 131)), {}
    for backend in (*BACKENDS, 'auto'):
        model = shaken(converted(KINDS[name].cfg, backend=backend))
        runs[backend] = outputs_of(model, image)
    for backend, outputs in runs.items():
        for output, expected in zip(outputs, runs['direct'], strict=True):
            assert_close(output, expected, 1e-10, backend)
    list(mixers(model).values())[-1].conv_h.weight.data.zero_()  # negative control
    assert relative_error(outputs_of(model, image)[-1], runs['auto'][-1]) > 1e-4


@each_family
def test_channels_last(name):
    model, image = shaken(converted(KINDS[name].cfg, channel_attention=True)), image_of((97, 131))
    expected = outputs_of(model, image)
    last = torch.channels_last
    outputs = outputs_of(model.to(memory_format=last), image.contiguous(memory_format=last))
    for a, b in zip(outputs, expected, strict=True):
        assert_close(a, b, 1e-10)


@each_family
def test_images_of_a_batch_do_not_touch(name):
    model = shaken(converted(KINDS[name].cfg, channel_attention=True))
    images = image_of((97, 131), batch=2)
    for i in range(2):
        alone = outputs_of(model, images[i : i + 1])
        for a, b in zip(outputs_of(model, images), alone, strict=True):
            assert_close(a[i : i + 1], b, 1e-10)


@with_and_without
@each_family
def test_half_precision(name, channel_attention):
    """As far from float32 as the plain network is, within a factor of two."""
    image = image_of((64, 64), batch=2, dtype=torch.float32)
    networks = dict(
        parc=converted(KINDS[name].cfg, channel_attention=channel_attention),
        plain=plain(KINDS[name].cfg),
    )
    errors = {}
    for key, model in networks.items():
        model.eval()
        expected = outputs_of(model, image)[-1]
        with torch.autocast('cpu', torch.bfloat16):
            errors[key] = relative_error(outputs_of(model, image)[-1], expected)
        if key == 'parc' or 'swin' not in name:  # whose plain masks are always float32
            half = outputs_of(model.bfloat16(), image.bfloat16())[-1]
            assert half.dtype is torch.bfloat16
            errors[f'{key}, all'] = relative_error(half, expected)
    assert errors['parc'] < 2 * errors['plain'] < 0.2, errors
    bound = errors.get('plain, all', 0.05)
    assert errors['parc, all'] < 2 * bound < 0.2, errors


@each_family
def test_copies_and_pickles(name):
    model = shaken(convert(KINDS[name].cfg, channel_attention=True))
    image = image_of((97, 131))
    expected = outputs_of(model, image)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(twin) is type(model)
        for a, b in zip(outputs_of(twin, image), expected, strict=True):
            assert torch.equal(a, b)
        twin.load_state_dict(model.state_dict(), strict=True)
        next(iter(mixers(twin).values())).conv_h.weight.data.zero_()  # they share nothing
        assert relative_error(outputs_of(twin, image)[-1], expected[-1]) > 1e-6
        assert torch.equal(outputs_of(model, image)[-1], expected[-1])


# Choices


def test_embeddings_in_the_first_mixer_of_a_resolution_alone():
    model = converted(DET_SWIN, pos_embed='first')
    embedded = [mixer.conv_h.pos_embed is not None for mixer in mixers(model).values()]
    assert embedded == [True, False, True, True, True]


def test_options_reach_the_layers():
    model = converted(VIT, resize='interpolate_sum', backend='fft')
    layers = [layer for mixer in mixers(model).values() for layer in mixer.children()]
    assert {(layer.resize, layer.backend) for layer in layers} == {('interpolate_sum', 'fft')}


DEDICATED = {
    'vit': dict(VIT, type='mmparc.ParCVisionTransformer'),
    'vit, maps': dict(KINDS['vit, maps'].cfg, type='mmparc.ParCVisionTransformer'),
    'swin': dict(SWIN, type='mmparc.ParCSwinTransformer'),
    'swin, embedded': dict(KINDS['swin, embedded'].cfg, type='mmparc.ParCSwinTransformer'),
    'mobilevit': dict(MOBILEVIT, type='mmparc.ParCMobileViT'),
}


@pytest.mark.parametrize('options', [{}, dict(channel_attention=True, pos_embed='first')], ids=str)
@pytest.mark.parametrize('name', DEDICATED)
def test_equal_to_the_dedicated_backbone(name, options):
    torch.manual_seed(1)
    dedicated = MODELS.build(dict(DEDICATED[name], img_size=IMG_SIZE, **options))
    model = converted(dict(KINDS[name].cfg), **options)
    shapes, expected = (
        {n: value.shape for n, value in m.state_dict().items()} for m in (model, dedicated)
    )
    assert shapes == expected and mixers(model)
    dedicated, model = shaken(dedicated), in_eval(model.double())
    image = image_of((97, 131))
    before = outputs_of(model, image)[-1]
    model.load_state_dict(dedicated.state_dict(), strict=True)
    for a, b in zip(outputs_of(model, image), outputs_of(dedicated, image), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(before, outputs_of(model, image)[-1])  # negative control


@pytest.mark.parametrize(
    'cfg',
    [
        dict(type='mmparc.ParCVisionTransformer'),
        dict(type='mmparc.ParCVisionTransformer', arch='deit-small', out_type='featmap'),
        dict(type='mmparc.ParCSwinTransformer'),
        dict(type='mmparc.ParCMobileViT'),
    ],
    ids=str,
)
@slow
def test_published_widths(cfg):
    """Of the defaults each has mixers at its training size, and takes an image of another."""
    model = in_eval(MODELS.build(cfg))
    depths = dict(ParCVisionTransformer=12, ParCSwinTransformer=12, ParCMobileViT=9)
    assert len(mixers(model)) == depths[cfg['type'].removeprefix('mmparc.')]
    assert all(o.isfinite().all() for o in outputs_of(model, torch.randn(1, 3, 97, 131)))


# Refusals

SMALL_VIT = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=24)
UNKNOWN = {
    'BEiTAttention': dict(
        type='mmpretrain.BEiTViT', arch=SMALL_VIT, img_size=64, out_type='avg_featmap'
    ),
    'MultiheadAttention': dict(type='mmpretrain.DeiT3', arch=SMALL_VIT, img_size=64, patch_size=16),
    'T2T': dict(
        type='mmpretrain.T2T_ViT',
        img_size=64,
        embed_dims=16,
        t2t_cfg=dict(token_dims=8, use_performer=False),
        num_layers=1,
        layer_cfgs=dict(num_heads=2, feedforward_channels=24),
    ),
    'mmseg': dict(
        type='mmseg.VisionTransformer',
        img_size=64,
        embed_dims=16,
        num_layers=1,
        num_heads=2,
        out_indices=0,
    ),
    'ClassAttention': dict(
        type='mmpretrain.XCiT',
        img_size=64,
        patch_size=16,
        embed_dims=16,
        depth=1,
        cls_attn_layers=1,
        num_heads=2,
    ),
    'EdgeNeXt': dict(type='mmpretrain.EdgeNeXt', arch='xxsmall'),
}


@pytest.mark.parametrize('name', UNKNOWN)
def test_unknown_attention_is_refused(name):
    """And the given network stays as it was."""
    network = plain(UNKNOWN[name])
    before = {n: value.clone() for n, value in network.state_dict().items()}
    kinds = [type(m) for m in network.modules()]
    with pytest.raises(ValueError, match='attention that cannot be exchanged') as refusal:
        ParCify(network, replace='attention')
    assert '\n' not in str(refusal.value) and type(network).__name__ in str(refusal.value)
    if name.endswith('Attention'):
        assert f': {name}' in str(refusal.value) or f', {name}' in str(refusal.value)
    assert [type(m) for m in network.modules()] == kinds
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(value, before[n]) for n, value in after.items())


ODD = dict(VIT, arch=dict(embed_dims=15, num_layers=1, num_heads=3, feedforward_channels=24))


@pytest.mark.parametrize(
    ('cfg', 'options', 'message'),
    [
        (dict(type='mmpretrain.ResNet', depth=18), {}, 'it has no attention'),
        (VIT, dict(stages=1), 'leave out stages, share and parc_starts'),
        (VIT, dict(share=0.5), 'leave out stages, share and parc_starts'),
        (VIT, dict(parc_starts=(1, 1)), 'leave out stages, share and parc_starts'),
        (VIT, dict(pos_embed='none'), 'pos_embed must be'),
        (VIT, dict(replace='last', channel_attention=True), "set replace='attention'"),
        (ODD, {}, 'has 15: give it an even width'),
        (
            dict(VIT, layer_cfgs=dict(ffn_type='swiglu_fused')),
            dict(channel_attention=True),
            'channel_attention knows no SwiGLUFFNFused',
        ),
    ],
    ids=str,
)
def test_refusals(cfg, options, message):
    with pytest.raises(ValueError, match=message) as refusal:
        MODELS.build(
            dict(type='mmparc.ParCify', backbone=cfg, **{'replace': 'attention', **options})
        )
    assert '\n' not in str(refusal.value)
    if 'swiglu' in str(cfg):
        converted(cfg)  # without it, it can be exchanged


def test_a_network_is_not_exchanged_twice():
    for cfg in (VIT, SWIN, MOBILEVIT):
        model = converted(cfg)
        with pytest.raises(ValueError, match='has no attention'):
            ParCify(model, replace='attention')


def test_misspelt_arguments_are_refused():
    for cfg in DEDICATED.values():
        with pytest.raises(TypeError):
            MODELS.build(dict(cfg, channel_atention=True))


# Reports, and whole configs


def test_it_reports(log):
    convert(
        dict(
            DET_SWIN,
            use_abs_pos_embed=True,
            depths=(2, 1),
            num_heads=(1, 2),
            strides=(4, 2),
            out_indices=(0, 1),
        )
    )
    assert [line for _, line in log if line.startswith('ParCify')] == [
        'ParCify: 2 x ShiftWindowMSA of 8 channels, kernels of 16 along H and 24 along W: '
        'stages.0.blocks.0.attn to stages.0.blocks.1.attn',
        'ParCify: 1 x ShiftWindowMSA of 16 channels, kernels of 8 along H and 12 along W: '
        'stages.1.blocks.0.attn to stages.1.blocks.0.attn',
        'ParCify: without absolute_pos_embed',
    ]


def test_it_reports_what_is_frozen_and_dropped(log):
    convert(dict(VIT, type='mmpretrain.DistilledVisionTransformer', frozen_stages=1))
    levels, lines = zip(*[line for line in log if line[1].startswith('ParCify')], strict=True)
    assert levels == (logging.WARNING, logging.INFO, logging.INFO)
    assert lines[0].endswith('layers.0.attn to layers.0.attn, frozen as they begin')
    assert lines[1].endswith('layers.1.attn to layers.1.attn')
    assert lines[2] == 'ParCify: without cls_token, pos_embed, dist_token'
