"""Every config of the three tasks: that it is a short diff on its plain twin, and that it trains.

The training step is what the Runner would do: the unmodified model, its data preprocessor, its own
optimizer and parameter groups. Only pretrained weights and mixed precision are off, images are
small, and detectors of two stages take the anchors and RoIs that suit those.
"""

import copy
import functools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ROOT, long_recipe
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample
from torch import nn

from mmparc import engine

SCOPES = {'cls': 'mmpretrain', 'det': 'mmdet', 'seg': 'mmseg'}
CONFIGS = ROOT / 'configs'
LEAVES = sorted(
    path.relative_to(CONFIGS).as_posix()
    for task in SCOPES
    for path in CONFIGS.glob(f'{task}/**/*.py')
)
PARC = [leaf for leaf in LEAVES if 'parc-' in leaf or 'parcnet-' in leaf]
# These have the networks and optimizers of others, which are built and trained in their place.
SHORT = [leaf for leaf in LEAVES if long_recipe(leaf)]
LONG = [leaf for leaf in LEAVES if leaf not in SHORT]
# What starts from the classifiers among them.
FEW_GPUS = [
    leaf
    for leaf in LEAVES
    if leaf.split('/')[1] in ('convnext', 'resnet', 'mobilenet_v2')
    and ('_1x_' in leaf or '-40k_' in leaf)
]
# Of the Mask R-CNNs among these ParC's, one with layer and one with batch norms; the other
# backbones are trained in Cascade R-CNN.
SAMPLES = [leaf for leaf in FEW_GPUS if leaf in PARC and '/resnet/' not in leaf]
TRAINED = [leaf for leaf in LONG if leaf not in FEW_GPUS or leaf in SAMPLES]
# No MobileViT is as wide as these, see test_parcnet_configs.py.
ALONE = [f'cls/parcnet/parcnet-{size}_8xb128_in1k.py' for size in ('xs', 'h')]
# The steps of these take some seconds each.
SLOW = (
    'mask-rcnn_',
    'deit-',
    'swin-',
    'mobilevit-s_',
    'ssdlite_',
    '_ade20k-',
    '_voc12aug-',
    'convnext-small_',
    'convnext-base_',
    'parcnet-h_',
)
# What lies behind the last output that detectors and segmentors use, and the narrow classifier.
# MobileNetV2 and MobileViT run it for nothing, ParCNet freezes its own.
FINAL_1X1 = {'mobilenet_v2': 'conv2', 'parcnet': 'conv_1x1_exp'}

each_leaf = pytest.mark.parametrize('leaf', LEAVES)
each_parc_twin = pytest.mark.parametrize('leaf', [leaf for leaf in PARC if leaf not in ALONE])


def plain_twin(leaf: str) -> str:
    """The one that a ParC leaf inherits; in its folder, but for a twin that two families share."""
    (base,) = Config._get_base_files(str(CONFIGS / leaf))
    return (CONFIGS / leaf).parent.joinpath(base).resolve().relative_to(CONFIGS).as_posix()


def untrained(leaf: str) -> set[str]:
    task, family, name = leaf.split('/')
    if family not in FINAL_1X1 or (task == 'cls' and '-narrow_' not in name):
        return set()
    return {f'backbone.{FINAL_1X1[family]}.{n}' for n in ('conv.weight', 'bn.weight', 'bn.bias')}


@functools.cache
def parsed(leaf: str) -> Config:
    return Config.fromfile(CONFIGS / leaf)


def load(leaf: str) -> Config:
    return copy.deepcopy(parsed(leaf))


def depth(path: Path) -> int:
    """How many of the project's own files inherit one from another, at most."""
    bases = [base for base in Config._get_base_files(str(path)) if '::' not in base]
    return 1 + max((depth(path.parent / base) for base in bases), default=0)


def batch_of(cfg: Config) -> int:
    """The batch that its learning rate was made for."""
    return cfg.auto_scale_lr.base_batch_size


def differences(a: Any, b: Any, key: str = '') -> set[str]:
    """The dotted keys at which two nested configs differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        pairs = {k: (a.get(k, Ellipsis), b.get(k, Ellipsis)) for k in {*a, *b}}
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        pairs = dict(enumerate(zip(a, b)))
    else:
        return set() if a == b else {key.removeprefix('.')}
    return {found for k, (x, y) in pairs.items() for found in differences(x, y, f'{key}.{k}')}


def fetched(node: Any) -> list[str]:
    """Every string in a nested config that mmengine would download as a checkpoint."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list | tuple):
        return [found for value in node for found in fetched(value)]
    return [node] if isinstance(node, str) and '://' in node else []


def suit_small_images(cfg: Config) -> None:
    """Use the large anchors of upper levels, which reach beyond the image, and only few RoIs."""
    if 'roi_head' in cfg.model:
        cfg.model.train_cfg.rpn.allowed_border = -1
        cfg.model.train_cfg.rpn_proposal.max_per_img = 16


def small_batch(cfg: Config) -> dict:
    """A batch as the data loader gives it; for detection with objects that suit every level."""
    if cfg.default_scope == 'mmdet':
        # Each object gives a mask head some RoIs, which take their time.
        size, items = (64, 3) if 'roi_head' in cfg.model else (128, 12)
        if 'ssdlite' in cfg.filename:
            return ssd_batch()
        shape, classes = (3, size, size), 6 if 'relations' in cfg.filename else 8
        return demo_mm_inputs(2, shape, [items] * 2, num_classes=classes, with_mask=True)
    size, count = smallest_image(cfg.model.backbone), 4
    labels = 7 if 'relations' in cfg.filename else 9
    images = [torch.randint(0, 256, (3, size, size), dtype=torch.uint8) for _ in range(count)]
    if cfg.default_scope == 'mmpretrain':
        samples = [DataSample().set_gt_label(label) for label in range(count)]
    else:
        samples = [
            SegDataSample(
                metainfo=dict(img_shape=(size, size), ori_shape=(size, size)),
                gt_sem_seg=PixelData(data=torch.randint(0, labels, (1, size, size))),
            )
            for _ in range(count)
        ]
    return dict(inputs=images, data_samples=samples)


def smallest_image(backbone: dict) -> int:
    """On whose last map attention has something to choose from."""
    if backbone.type.endswith('MobileViT'):
        return 96  # more than one patch of 2 x 2
    if backbone.type.endswith('SwinTransformer') and not backbone.get('pad_small_map'):
        return 224  # a window
    return 64


def ssd_batch() -> dict:
    """320 x 320 images with an object for each level: of an anchor's size, in an anchor's place."""
    batch = demo_mm_inputs(2, (3, 320, 320), [6, 6], num_classes=8)
    centre = torch.tensor([168, 176, 160, 160, 80, 160])[:, None]
    half = torch.tensor([69, 122, 174, 226, 277, 312])[:, None] / 2
    for sample in batch['data_samples']:
        sample.gt_instances.bboxes = torch.cat([centre - half] * 2 + [centre + half] * 2, dim=1)
    return batch


def build(cfg: Config) -> nn.Module:
    """The model as the Runner builds it on one device, initialised, without pretrained weights."""
    engine.drop_pretrained(cfg)
    if cfg.get('data_preprocessor'):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return revert_sync_batchnorm(model)


def build_optimizer(cfg: Config, model: nn.Module) -> OptimWrapper:
    engine.set_amp(cfg, False)
    return build_optim_wrapper(model, cfg.optim_wrapper)


# What they are


def test_the_configs_are_found() -> None:
    for task in SCOPES:
        assert len([leaf for leaf in LEAVES if leaf.startswith(f'{task}/')]) >= 4
    assert len(SHORT) == len(FEW_GPUS) == 12
    twins = {plain_twin(leaf) for leaf in PARC if leaf not in ALONE}
    assert len(LEAVES) == len(PARC) + len(twins) >= 12 and {*ALONE} < {*PARC}


@each_leaf
def test_parses_and_dumps(leaf: str) -> None:
    cfg = load(leaf)
    again = Config.fromstring(cfg.dump(), '.py')
    assert not differences(again.to_dict(), cfg.to_dict())
    assert again.model.backbone.type and again.train_cfg and again.train_dataloader


@each_leaf
def test_lies_where_it_belongs(leaf: str) -> None:
    task, family, name = leaf.split('/')
    assert load(leaf).default_scope == SCOPES[task]
    # ParC-Net's counterparts lie beside it.
    names = ('parcnet', 'mobilevit') if family == 'parcnet' else (family.replace('_', '-'),)
    assert any(found in name for found in names)
    batch = re.search(r'_(\d+)xb(\d+)', name)
    if batch:
        gpus, samples = map(int, batch.groups())
        assert load(leaf).train_dataloader.batch_size == samples
        assert batch_of(load(leaf)) == gpus * samples


@each_leaf
def test_inherits_at_most_three_deep(leaf: str) -> None:
    """A ParC config its plain twin, and that a base."""
    assert depth(CONFIGS / leaf) <= 3


def test_a_fourth_level_is_noticed(tmp_path: Path) -> None:
    (tmp_path / 'own.py').write_text(
        f"_base_ = '{CONFIGS}/cls/convnext/parc-convnext-micro_toy.py'"
    )
    (tmp_path / 'upstreams.py').write_text("_base_ = ['mmdet::_base_/default_runtime.py']")
    assert (depth(tmp_path / 'own.py'), depth(tmp_path / 'upstreams.py')) == (4, 1)


@each_parc_twin
def test_has_the_name_of_its_twin(leaf: str) -> None:
    plain = leaf.rpartition('/')[2].replace('parcnet-', 'mobilevit-', 1).replace('parc-', '', 1)
    assert plain_twin(leaf).rpartition('/')[2] == plain


@each_parc_twin
def test_differs_from_its_twin_in_the_backbone_alone(leaf: str) -> None:
    parc, plain = load(leaf).to_dict(), load(plain_twin(leaf)).to_dict()
    found = differences(parc, plain)
    # the narrow MobileNetV2's twin is our own, with no block of ParC
    changed = 'parc_starts.3' if 'mobilenet-v2-narrow' in leaf else 'type'
    assert f'model.backbone.{changed}' in found
    assert all(key.startswith('model.backbone.') for key in found), found


@each_parc_twin
def test_another_difference_is_noticed(leaf: str) -> None:
    parc, plain = load(leaf), load(plain_twin(leaf)).to_dict()
    before = differences(parc.to_dict(), plain)
    others = {
        'model.backbone_norm': True,
        'optim_wrapper.optimizer.lr': 1.0,
        'val_dataloader.dataset.pipeline.0.type': 'Nothing',
        'another_hook': dict(type='EMAHook'),
    }
    parc.merge_from_dict(others)
    assert differences(parc.to_dict(), plain) - before == set(others)


@each_leaf
def test_fetches_nothing(leaf: str) -> None:
    cfg = load(leaf)
    assert not fetched(cfg.model.to_dict()) and not cfg.get('load_from')


@pytest.mark.parametrize(
    'name, expected',
    [
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'torchvision://resnet50'),
        (
            'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
            'open-mmlab://resnet50_v1c',
        ),
    ],
)
def test_what_upstream_fetches_is_noticed(name: str, expected: str) -> None:
    assert fetched(get_config(name).model.to_dict()) == [expected]


# Recipes for a few GPUs


@pytest.mark.parametrize('leaf', SHORT)
def test_a_short_recipe_is_a_long_one_in_less_time(leaf: str) -> None:
    """The same network, optimizer and data; what differs, and no more than that."""
    short, long = load(leaf), load(long_recipe(leaf))
    parts = ('model', 'optim_wrapper', 'train_dataloader', 'val_dataloader', 'val_evaluator')
    found = set()
    for part in parts:
        found |= differences(*({part: without_scopes(cfg[part])} for cfg in (short, long)))
    rates = [cfg.optim_wrapper.optimizer.lr / batch_of(cfg) for cfg in (short, long)]
    # ConvNeXt's 4e-3 at 4096, and 1e-4 at 16 for ADE20K: the rate follows the batch
    published = 1e-4 / 16 if leaf.startswith('seg/') else 4e-3 / 4096
    assert rates == pytest.approx([published] * 2)
    if leaf.startswith('seg/'):
        assert found == {'model.backbone.init_cfg.checkpoint'}
        assert (short.train_cfg.max_iters, long.train_cfg.max_iters) == (40_000, 160_000)
        return
    depth = set() if 'mobilenet' in leaf else {'model.backbone.drop_path_rate'}
    assert found - depth == {
        'model.train_cfg.augments.0.alpha',
        'optim_wrapper.optimizer.lr',
        'train_dataloader.dataset.pipeline',
    }
    assert found >= depth and not short.model.backbone.get('drop_path_rate')
    assert (short.train_cfg.max_epochs, long.train_cfg.max_epochs) == (100, 300)
    (hook,), (long_hook,) = without_scopes(short.custom_hooks), without_scopes(long.custom_hooks)
    # ConvNeXt has no buffers
    assert hook.pop('update_buffers') and long_hook.pop('update_buffers', 'convnext' in leaf)
    assert hook == long_hook

    # as many steps of warm-up
    images, (warm_up, cosine) = 1_281_167, short.param_scheduler
    assert cosine.begin == warm_up.end == 5
    steps = [images * cfg.param_scheduler[0].end / batch_of(cfg) for cfg in (short, long)]
    assert steps[0] == pytest.approx(steps[1], rel=1e-3)


def without_scopes(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: without_scopes(value) for key, value in node.items() if key != '_scope_'}
    return [without_scopes(v) for v in node] if isinstance(node, list | tuple) else node


@pytest.mark.parametrize('leaf', FEW_GPUS)
def test_starts_from_the_100_epoch_classifier(leaf: str) -> None:
    _, family, name = leaf.split('/')
    cfg = parsed(leaf)
    path = Path(cfg.model.backbone.init_cfg.checkpoint)
    recipe = f'cls/{family}/{path.parent.name}.py'
    assert path == Path('work_dirs/cls', Path(recipe).stem, 'epoch_100.pth')
    assert recipe in SHORT and ('parc-' in recipe) == ('parc-' in name)
    # whose networks are one
    kinds = {parsed(found).model.backbone.type.rpartition('.')[2] for found in (leaf, recipe)}
    assert len(kinds) == 1
    assert cfg.optim_wrapper.optimizer.lr / batch_of(cfg) == pytest.approx(1e-4 / 16)
    if family != 'convnext':  # whose norms need no others' images
        assert cfg.model.backbone.norm_cfg.type == 'SyncBN'


# That they train


def assert_starts_as_the_references(leaf: str, model: nn.Module) -> None:
    """A classifier's last layer: MobileNetV2's at 0.01, ConvNeXt's and ParC-Net's at 0.02.

    ResNet's with their recipe, Swin's and MobileViT's at 0.02 too; DeiT's is mmpretrain's own,
    which begins at 0.
    """
    head = model.head
    if 'deit' in leaf:
        assert not head.layers.head.weight.any() and not head.layers.head.bias.any()
        return
    linear = head.fc
    std = 0.01 if 'mobilenet_v2' in leaf else 0.02
    assert linear.weight.std().item() == pytest.approx(std, rel=0.02)
    assert linear.weight.abs().max() > 3 * std  # normal: a uniform one ends at 1.7
    assert not linear.bias.any()


def assert_embeddings_are_not_decayed(
    cfg: Config, model: nn.Module, optimizer: OptimWrapper
) -> None:
    decays = {
        id(p): group['weight_decay']
        for group in optimizer.optimizer.param_groups
        for p in group['params']
    }
    layers = [m for m in model.modules() if type(m).__name__ == 'ParCConv']
    embeddings = [p for name, p in model.named_parameters() if name.endswith('.pos_embed')]
    assert layers and set(decays) >= {id(p) for p in model.parameters() if p.requires_grad}
    expected = cfg.optim_wrapper.optimizer.weight_decay
    assert expected > 0
    assert {decays[id(m.weight)] for m in layers} == {expected}
    assert {decays[id(p)] for p in embeddings} == {0.0}


@pytest.mark.parametrize(
    'leaf',
    [
        pytest.param(leaf, marks=pytest.mark.slow if any(s in leaf for s in SLOW) else ())
        for leaf in TRAINED
    ],
)
def test_a_training_step_moves_every_parameter(leaf: str) -> None:
    """From the references' start, with the embeddings out of the weight decay."""
    cfg = load(leaf)
    suit_small_images(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build(cfg).train()
        optimizer = build_optimizer(cfg, model)
        if leaf.startswith('cls/') and '_in1k' in leaf:
            assert_starts_as_the_references(leaf, model)
        if leaf in PARC:
            assert_embeddings_are_not_decayed(cfg, model, optimizer)
        batch = small_batch(cfg)
        if getattr(model.data_preprocessor, 'size', None):  # mmseg's crop size, which it pads to
            model.data_preprocessor.size = batch['inputs'][0].shape[-2:]
        if hasattr(model.data_preprocessor, 'sizes'):  # multi-scale batches
            model.data_preprocessor.sizes = [tuple(batch['inputs'][0].shape[-2:])]
        MessageHub.get_current_instance().update_info('iter', 0)  # which those follow
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        gradients = {}

        def look_and_step() -> None:
            for name, p in named:
                if p.grad is not None:
                    gradients[name] = gradients.get(name, 0.0) + p.grad
            step()

        named = list(model.named_parameters())
        # no hook of the optimizer: torch 2.1 calls none once it has compiled something
        step, optimizer.optimizer.step = optimizer.optimizer.step, look_and_step
        # A second step for what the first may leave out: a block that stochastic depth skips, and
        # one whose last norm begins as zero, as ResNet's do.
        for _ in range(2):
            losses = model.train_step(batch, optimizer)
            if all(g.any() for g in gradients.values()):
                break

    assert all(torch.isfinite(value).all() for value in losses.values())
    assert {name for name, p in named if not p.requires_grad} <= untrained(leaf)
    assert {name for name, _ in named} - untrained(leaf) == set(gradients), 'no gradient'
    # or DistributedDataParallel would stop
    assert not untrained(leaf) or cfg.find_unused_parameters
    # However small: behind a layer scale of 1e-6 float32 still resolves a gradient of 1e-10.
    assert not [name for name, g in gradients.items() if not torch.isfinite(g).all()]
    assert not [name for name, g in gradients.items() if not g.any()]
    layers = {name for name, m in model.named_modules() if type(m).__name__ == 'ParCConv'}
    # A batch norm takes the bias before it out again: its gradient is rounding, which may be too
    # little to move it.
    before_norm = set() if 'convnext' in leaf else {f'{name}.bias' for name in layers}
    still = {name for name, p in named if torch.equal(p, before[name])}
    assert still - before_norm == untrained(leaf)
    kinds = {name.rpartition('.')[2] for name in gradients if name.rpartition('.')[0] in layers}
    expected = {'weight', 'pos_embed'} if 'parcnet-' in leaf else {'weight', 'bias', 'pos_embed'}
    assert kinds == (expected if leaf in PARC else set())


@pytest.mark.parametrize(
    'leaf, count',
    [
        ('cls/convnext/parc-convnext-xt_32xb128_in1k.py', 7_412_824),
        ('cls/convnext/convnext-xt_32xb128_in1k.py', 7_438_360),
        ('cls/convnext/parc-convnext-tiny_32xb128_in1k.py', 28_538_056),
        ('cls/convnext/convnext-tiny_32xb128_in1k.py', 28_589_128),
        ('cls/resnet/parc-resnet50_32xb128_in1k.py', 23_737_640),
        ('cls/resnet/resnet50_32xb128_in1k.py', 25_557_032),
        ('cls/mobilenet_v2/parc-mobilenet-v2_32xb128_in1k.py', 3_532_136),
        ('cls/mobilenet_v2/mobilenet-v2_32xb128_in1k.py', 3_504_872),
        ('cls/parcnet/parcnet-xs_8xb128_in1k.py', 2_185_384),
        ('cls/parcnet/parcnet-s_8xb128_in1k.py', 5_037_088),
        ('cls/parcnet/parcnet-h_8xb128_in1k.py', 20_403_940),
        ('cls/parcnet/mobilevit-s_8xb128_in1k.py', 5_578_632),
    ],
)
def test_parameters_as_published(leaf: str, count: int) -> None:
    cfg = load(leaf)
    engine.drop_pretrained(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    assert sum(p.numel() for p in model.parameters()) == count
