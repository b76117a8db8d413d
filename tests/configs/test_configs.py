"""Every config: short diffs on a plain twin, models that build, and parameters that all learn."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ROOT
from leaves import (
    ALONE,
    CONFIGS,
    LEAVES,
    PARC,
    SCOPES,
    bases_of,
    differences,
    load,
    long_recipe,
    model_of,
    parameters,
    parsed,
    plain_twin,
    unused_parameters,
)
from mmengine.config import Config
from mmengine.fileio import load as load_yaml
from mmengine.hub import get_config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from mmparc import engine
from mmparc.analysis.trial import prepare, random_batch
from mmparc.layers import ParCConv

# These have the networks and optimizers of long recipes, which are built and trained instead.
SHORT = [leaf for leaf in LEAVES if long_recipe(leaf)]
LONG = [leaf for leaf in LEAVES if leaf not in SHORT]
# Detectors and segmentors that start from the classifiers among SHORT.
FEW_GPUS = [
    leaf
    for leaf in LEAVES
    if leaf.split('/')[1] in ('convnext', 'resnet', 'mobilenet_v2')
    and ('_1x_' in leaf or '-40k_' in leaf)
]
# One for each task; all others are trained in `make test-full`.
TRAINED = [
    'cls/convnext/parc-convnext-xt_32xb128_in1k.py',
    'det/convnext/centernet-update_parc-convnext-micro_hrfpn_toy.py',
    'seg/convnext/parc-convnext-micro_upernet_toy.py',
]
PUBLISHED = {
    'convnext/parc-convnext-xt_32xb128': 7_412_824,
    'convnext/convnext-xt_32xb128': 7_438_360,
    'convnext/parc-convnext-tiny_32xb128': 28_538_056,
    'convnext/convnext-tiny_32xb128': 28_589_128,
    'resnet/parc-resnet50_32xb128': 23_737_640,
    'resnet/resnet50_32xb128': 25_557_032,
    'mobilenet_v2/parc-mobilenet-v2_32xb128': 3_532_136,
    'mobilenet_v2/mobilenet-v2_32xb128': 3_504_872,
    'parcnet/parcnet-xs_8xb128': 2_185_384,
    'parcnet/parcnet-s_8xb128': 5_037_088,
    'parcnet/parcnet-h_8xb128': 20_403_940,
    'parcnet/mobilevit-s_8xb128': 5_578_632,
}


def batch_of(cfg: Config) -> int:
    """The batch size that a learning rate is for."""
    return cfg.auto_scale_lr.base_batch_size


def depth(path: Path) -> int:
    """The number of our files that inherit one from another, at most."""
    bases = [base for base in bases_of(path) if '::' not in base]
    return 1 + max((depth(path.parent / base) for base in bases), default=0)


def addresses(node: Any) -> list[str]:
    """Each string in a nested config that mmengine would download from."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list | tuple):
        return [found for value in node for found in addresses(value)]
    return [node] if isinstance(node, str) and '://' in node else []


# What they say


def test_every_config_parses() -> None:
    """With the task, folder, batch size and depth of inheritance that its place promises."""
    assert all(sum(leaf.startswith(task) for leaf in LEAVES) >= 30 for task in SCOPES)
    for leaf in LEAVES:
        task, family, name = leaf.split('/')
        cfg = parsed(leaf)
        assert cfg.default_scope == SCOPES[task] and cfg.train_cfg and cfg.train_dataloader, leaf
        names = ('parcnet', 'mobilevit') if family == 'parcnet' else (family.replace('_', '-'),)
        assert any(found in name for found in names), leaf
        if batch := re.search(r'_(\d+)xb(\d+)', name):
            gpus, samples = map(int, batch.groups())
            assert cfg.train_dataloader.batch_size == samples, leaf
            assert batch_of(cfg) == gpus * samples, leaf
        assert depth(CONFIGS / leaf) <= 3, leaf
        assert not addresses(cfg.model.to_dict()) and not cfg.get('load_from'), leaf


def test_what_every_config_promises_can_fail(tmp_path: Path) -> None:
    """The controls of the test above: a fourth level, and what upstream downloads."""
    (tmp_path / 'own.py').write_text(f"_base_ = '{CONFIGS}/{PARC[0]}'")
    (tmp_path / 'upstream.py').write_text("_base_ = ['mmdet::_base_/default_runtime.py']")
    assert (depth(tmp_path / 'own.py'), depth(tmp_path / 'upstream.py')) == (4, 1)
    upstream = get_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    assert addresses(upstream.model.to_dict()) == ['torchvision://resnet50']


def test_twins_differ_in_the_backbone_alone() -> None:
    twins = {leaf: plain_twin(leaf) for leaf in PARC if leaf not in ALONE}
    assert len(LEAVES) == len(PARC) + len(set(twins.values()))
    for leaf, twin in twins.items():
        name = Path(leaf).name.replace('parcnet-', 'mobilevit-', 1).replace('parc-', '', 1)
        assert Path(twin).name == name
        found = differences(parsed(leaf).to_dict(), parsed(twin).to_dict())
        # the narrow MobileNetV2's twin is our own, without ParC blocks
        changed = 'parc_starts.3' if 'mobilenet-v2-narrow' in leaf else 'type'
        assert f'model.backbone.{changed}' in found, leaf
        assert all(key.startswith('model.backbone.') for key in found), (leaf, found)


def test_other_differences_are_found() -> None:
    """The control of the test above."""
    parc, plain = load(PARC[0]), parsed(plain_twin(PARC[0])).to_dict()
    before = differences(parc.to_dict(), plain)
    others = {
        'model.backbone_norm': True,
        'optim_wrapper.optimizer.lr': 1.0,
        'val_dataloader.dataset.pipeline.0.type': 'Nothing',
        'another_hook': dict(type='EMAHook'),
    }
    parc.merge_from_dict(others)
    assert differences(parc.to_dict(), plain) - before == set(others)


# Recipes for a few GPUs


def without_scopes(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: without_scopes(value) for key, value in node.items() if key != '_scope_'}
    return [without_scopes(v) for v in node] if isinstance(node, list | tuple) else node


def test_short_recipes_are_long_ones_in_less_time() -> None:
    """The same network, optimizer and data; the differences, and no others."""
    assert len(SHORT) == 12
    parts = ('model', 'optim_wrapper', 'train_dataloader', 'val_dataloader', 'val_evaluator')
    for leaf in SHORT:
        short, long = load(leaf), load(long_recipe(leaf))
        found = differences(
            *({part: without_scopes(cfg[part]) for part in parts} for cfg in (short, long))
        )
        rates = [cfg.optim_wrapper.optimizer.lr / batch_of(cfg) for cfg in (short, long)]
        # ConvNeXt's 4e-3 at 4096, and 1e-4 at 16 for ADE20K: the rate follows the batch
        published = 1e-4 / 16 if leaf.startswith('seg/') else 4e-3 / 4096
        assert rates == pytest.approx([published] * 2), leaf
        if leaf.startswith('seg/'):
            assert found == {'model.backbone.init_cfg.checkpoint'}, leaf
            assert (short.train_cfg.max_iters, long.train_cfg.max_iters) == (40_000, 160_000)
            continue
        drop_path = set() if 'mobilenet' in leaf else {'model.backbone.drop_path_rate'}
        changed = {'model.train_cfg.augments.0.alpha', 'optim_wrapper.optimizer.lr'}
        assert found == {*changed, *drop_path, 'train_dataloader.dataset.pipeline'}, leaf
        assert not short.model.backbone.get('drop_path_rate'), leaf
        assert (short.train_cfg.max_epochs, long.train_cfg.max_epochs) == (100, 300)
        # as many steps of warm-up
        steps = [cfg.param_scheduler[0].end / batch_of(cfg) for cfg in (short, long)]
        assert steps[0] == pytest.approx(steps[1], rel=1e-3), leaf


def test_few_gpus_start_from_the_100_epoch_classifier() -> None:
    assert len(FEW_GPUS) == 12
    for leaf in FEW_GPUS:
        _, family, name = leaf.split('/')
        cfg = parsed(leaf)
        path = Path(cfg.model.backbone.init_cfg.checkpoint)
        recipe = f'cls/{family}/{path.parent.name}.py'
        assert path == Path('work_dirs/cls', Path(recipe).stem, 'epoch_100.pth')
        assert recipe in SHORT and ('parc-' in recipe) == ('parc-' in name), leaf
        kinds = {parsed(found).model.backbone.type.rpartition('.')[2] for found in (leaf, recipe)}
        assert len(kinds) == 1, leaf
        assert cfg.optim_wrapper.optimizer.lr / batch_of(cfg) == pytest.approx(1e-4 / 16), leaf
        if family != 'convnext':  # whose norms need no images of other GPUs
            assert cfg.model.backbone.norm_cfg.type == 'SyncBN', leaf


# Their models


@pytest.mark.parametrize('task', SCOPES)
def test_every_model_builds(task: str) -> None:
    """With as many parameters as its metafile says."""
    metafiles = [load_yaml(path) for path in CONFIGS.glob(f'{task}/*/metafile.yml')]
    told = {e['Config']: e['Metadata']['Parameters'] for m in metafiles for e in m['Models']}
    own = [leaf for leaf in LONG if leaf.startswith(task)]
    built = {f'configs/{leaf}': parameters(leaf) for leaf in own}
    assert built.items() >= {name: n for name, n in told.items() if name in built}.items()
    assert {name for name in built if not name.endswith('_toy.py')} <= told.keys()
    if task == 'cls':
        published = {f'configs/cls/{name}_in1k.py': n for name, n in PUBLISHED.items()}
        assert told.items() >= published.items()


def small_leaf(task: str, family: str) -> str:
    leaves = [leaf for leaf in PARC if leaf.startswith(f'{task}/{family}/')]
    (leaf,) = (n for n in leaves if n.endswith('_toy.py') and '_relations_' not in n)
    return leaf


@pytest.mark.parametrize('family', sorted(path.name for path in ROOT.glob('configs/cls/*/')))
def test_from_classification_to_detection_and_segmentation(family: str, tmp_path: Path) -> None:
    """A classifier's checkpoint starts the other backbones, and theirs loads into it, strictly."""
    classifier = model_of(load(small_leaf('cls', family)))
    torch.save(dict(state_dict=classifier.state_dict()), tmp_path / 'cls.pth')
    for task in ('det', 'seg'):
        cfg = load(small_leaf(task, family))
        start = dict(type='Pretrained', checkpoint=str(tmp_path / 'cls.pth'), prefix='backbone.')
        cfg.model.backbone.init_cfg = start
        model = model_of(cfg)
        engine.check_loaded_share(model, None, 1.0)  # raises unless all of it is loaded
        model.backbone.init_weights()
        state, expected = model.backbone.state_dict(), classifier.backbone.state_dict()
        # outputs that a classifier does not have, have norms of their own
        new = state.keys() - expected.keys()
        assert all(key.startswith('norm') for key in new) and expected.keys() <= state.keys()
        # kernels and embeddings are resized to the task's images, the rest is the same
        resized = [key for key in expected if state[key].shape != expected[key].shape]
        assert all(key.endswith(('.weight', '.pos_embed')) for key in resized)
        same = [key for key in expected if key not in resized]
        assert same and all(torch.equal(state[key], expected[key]) for key in same)
        back = {key: value for key, value in state.items() if key not in new}
        classifier.backbone.load_state_dict(back, strict=True)


# That they train


def size_for(cfg: Config) -> tuple[int, int]:
    """A small image on which every part of a model has something to learn."""
    backbone = cfg.model.backbone
    if cfg.default_scope == 'mmdet':
        side = 320 if 'ssdlite' in cfg.filename else 64 if 'roi_head' in cfg.model else 128
    elif backbone.type.endswith('SwinTransformer') and not backbone.get('pad_small_map'):
        side = 224  # a window
    else:
        side = 96
    return side, side


def objects_for_each_level(cfg: Config, batch: dict) -> None:
    """Give a detector's images objects of the sizes and in the places that its levels detect."""
    side = size_for(cfg)[0]
    if 'ssdlite' in cfg.filename:  # its anchors
        centre = torch.tensor([168, 176, 160, 160, 80, 160])[:, None]
        half = torch.tensor([69, 122, 174, 226, 277, 312])[:, None] / 2
    else:
        centre, half = torch.rand(8, 1) * side, torch.rand(8, 1) * side / 2 + 4
    boxes = torch.cat([centre - half] * 2 + [centre + half] * 2, dim=1)
    for sample in batch['data_samples']:
        objects = sample.gt_instances
        repeats = torch.arange(len(boxes)) % len(objects)
        sample.gt_instances = objects[repeats]
        sample.gt_instances.bboxes = boxes


def assert_starts_as_the_reference(leaf: str, model: nn.Module) -> None:
    """A classifier's last layer: MobileNetV2's at 0.01, DeiT's at 0, all others' at 0.02."""
    layer = model.head.layers.head if 'deit' in leaf else model.head.fc
    std = 0.0 if 'deit' in leaf else 0.01 if 'mobilenet_v2' in leaf else 0.02
    assert layer.weight.std().item() == pytest.approx(std, rel=0.02) and not layer.bias.any()
    assert layer.weight.abs().max() >= 3 * std  # normal: a uniform one ends at 1.7


def assert_embeddings_are_not_decayed(model: nn.Module, optimizer: OptimWrapper) -> None:
    groups = optimizer.optimizer.param_groups
    decays = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    layers = [m for m in model.modules() if isinstance(m, ParCConv)]
    assert layers and set(decays) >= {id(p) for p in model.parameters() if p.requires_grad}
    assert all(decays[id(m.weight)] > 0 for m in layers)
    assert {decays[id(m.pos_embed)] for m in layers if m.pos_embed is not None} == {0.0}


@pytest.mark.parametrize(
    'leaf', [pytest.param(n, marks=() if n in TRAINED else pytest.mark.full) for n in LONG]
)
def test_every_parameter_learns(leaf: str) -> None:
    """In the steps of a Runner on generated images, with the embeddings out of the decay."""
    cfg = load(leaf)
    size = size_for(cfg)
    prepare(cfg, size)
    if hasattr(cfg.model.data_preprocessor, 'sizes'):  # multi-scale batches
        cfg.model.data_preprocessor.sizes = [size]
    if 'roi_head' in cfg.model:  # anchors of upper levels reach beyond the image; few RoIs
        cfg.model.train_cfg.rpn.allowed_border = -1
        cfg.model.train_cfg.rpn_proposal.max_per_img = 16
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = revert_sync_batchnorm(model_of(cfg))
        model.init_weights()
        model.train()
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
        if leaf.startswith('cls/') and '_in1k' in leaf:
            assert_starts_as_the_reference(leaf, model)
        if leaf in PARC:
            assert_embeddings_are_not_decayed(model, optimizer)
        MessageHub.get_current_instance().update_info('iter', 0)
        learned, unused = set(), unused_parameters(leaf)
        # A later step for what the first may leave out: a block that stochastic depth skips, and
        # one whose last norm begins as zero, as ResNet's do.
        for step in range(3):
            batch = random_batch(cfg, size, seed=step)
            if cfg.default_scope == 'mmdet':
                objects_for_each_level(cfg, batch)
            losses = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
            losses[0].backward()
            given = {name for name, p in model.named_parameters() if p.grad is not None}
            assert given == {name for name, _ in model.named_parameters()} - unused, 'unused'
            learned |= {
                name for name, p in model.named_parameters() if name in given and p.grad.any()
            }
            optimizer.step()
            optimizer.zero_grad()
            if learned == given:
                break
    assert learned == given and all(torch.isfinite(value).all() for value in losses[1].values())
    # or DistributedDataParallel would stop
    assert not unused or cfg.find_unused_parameters
