"""Configs found by name, overridden, checked and adjusted."""

import copy
import functools
import itertools
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from mmengine.config import Config
from mmengine.hub import get_config

from mmparc import engine

CLS = 'configs/cls/convnext/parc-convnext-micro_toy.py'
DET = 'configs/det/convnext/centernet-update_parc-convnext-micro_hrfpn_toy.py'
SEG = 'configs/seg/convnext/parc-convnext-micro_upernet_toy.py'
MASK_RCNN = 'configs/det/convnext/mask-rcnn_parc-convnext-xt_fpn_1x_coco.py'
ADE = 'configs/seg/convnext/parc-convnext-xt_upernet_8xb2-amp-160k_ade20k-512x512.py'
IMAGENET = 'configs/cls/convnext/parc-convnext-xt_32xb128_in1k.py'
SHORTER = 'configs/cls/convnext/parc-convnext-xt_8xb128-100e_in1k.py'
RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
PSPNET = 'mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py'
RESNET = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
VOC = 'mmdet::pascal_voc/retinanet_r50_fpn_1x_voc0712.py'


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def refusal(function, *args) -> str:
    """The message of the UserError that a call raises, which is one line."""
    with pytest.raises(engine.UserError) as caught:
        function(*args)
    message = str(caught.value)
    assert message and '\n' not in message
    return message


@functools.cache
def loaded(name: str) -> Config:
    return engine.load_config(name)


def load(name: str) -> Config:
    """As engine.load_config, parsed once."""
    return copy.deepcopy(loaded(name))


# By name


def test_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, scope in ((CLS, 'mmpretrain'), (DET, 'mmdet'), (SEG, 'mmseg')):
        expected = Config.fromfile(path)
        assert expected.default_scope == scope
        assert load(path).to_dict() == expected.to_dict()
        with monkeypatch.context() as elsewhere:
            elsewhere.chdir(tmp_path)
            cfg = engine.load_config(path.replace('configs/', 'mmparc::', 1))
        assert cfg.to_dict() == expected.to_dict() and Path(cfg.filename) == ROOT / path
    for name, scope in ((RETINANET, 'mmdet'), (PSPNET, 'mmseg'), (RESNET, 'mmpretrain')):
        assert load(name).default_scope == scope
        assert load(name).model.to_dict() == get_config(name).model.to_dict()


def test_a_wrong_name_gets_a_hint() -> None:
    ours = MASK_RCNN.replace('configs/', 'mmparc::')
    for name, hint in (
        (DET.replace('micro', 'mirco'), DET),
        (DET.replace('.py', ''), DET),
        (RETINANET.replace('r50', 'r51'), 'retinanet/retinanet_r50_fpn_1x_coco.py'),
        ('mmdet::zzz.py', 'configs'),
        (ours.replace('1x', '2x'), 'det/convnext/'),
        ('mmparc::zzz.py', str(ROOT / 'configs')),
        (RETINANET.replace('mmdet', 'mmdetection'), 'mmdet::'),
        ('mmdet::_base_/default_runtime.py', 'model'),
    ):
        said = refusal(engine.load_config, name)
        assert name.partition('::')[2] in said and hint in said


# Overridden


def test_an_option_without_effect_names_the_setting() -> None:
    """A variable of the file, from which settings were made when it was read."""
    said = refusal(engine.load_config, DET, {'max_epochs': 2})
    assert 'train_cfg.max_epochs' in said
    said = refusal(engine.load_config, RETINANET, {'train_pipeline.1.with_bbox': False})
    assert 'train_dataloader.dataset.pipeline' in said
    cfg, plain = engine.load_config(DET, {'train_cfg.max_epochs': 2}), load(DET)
    assert cfg.train_cfg.max_epochs == 2 != plain.train_cfg.max_epochs
    plain.train_cfg.max_epochs = 2
    assert cfg.to_dict() == plain.to_dict()


def strings(node: object) -> list[str]:
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list | tuple):
        return [found for value in node for found in strings(value)]
    return [node] if isinstance(node, str) else []


def test_data_root_moves_loaders_and_evaluators(tmp_path: Path) -> None:
    parts = [f'{s}_{p}' for s in ('train', 'val', 'test') for p in ('dataloader', 'evaluator')]
    for name, old, moved in (
        # loaders (test is another copy of val), and the evaluators where they name a file
        (CLS, 'data/toy/cls', 3),
        (DET, 'data/toy/det', 5),
        (ADE, 'data/ade/ADEChallengeData2016', 3),
        (VOC, 'data/VOCdevkit', 4),  # a data set inside a RepeatDataset
    ):
        plain = load(name).to_dict()
        cfg = engine.load_config(name, {'data_root': 'new/place/'}).to_dict()
        found = 0
        for key in [part for part in parts if part in plain]:
            pairs = zip(strings(plain[key]), strings(cfg[key]), strict=True)
            changed = [(a, b) for a, b in pairs if a.startswith(old)]
            for a, b in changed:
                assert b.rstrip('/') == 'new/place' + a.removeprefix(old).rstrip('/')
            found += len(changed)
        assert found == moved, name
    neighbour = {'val_evaluator.outfile_prefix': 'data/toy/det-results/x', 'data_root': 'new'}
    cfg = engine.load_config(DET, neighbour)
    assert cfg.val_evaluator.outfile_prefix == 'data/toy/det-results/x'
    assert cfg.val_evaluator.ann_file == 'new/annotations/instances_val2017.json'
    path = tmp_path / 'no_data.py'
    path.write_text("default_scope = 'mmdet'\nmodel = dict(type='ATSS')\n")
    assert 'data_root' in refusal(engine.load_config, str(path), {'data_root': 'x'})


# Adjusted


def test_work_dir() -> None:
    for name, expected in (
        (CLS, 'work_dirs/cls/parc-convnext-micro_toy'),
        (SEG, 'work_dirs/seg/parc-convnext-micro_upernet_toy'),
        (RETINANET, 'work_dirs/det/retinanet_r50_fpn_1x_coco'),
    ):
        cfg = load(name)
        engine.set_work_dir(cfg, name, None)
        assert cfg.work_dir == expected
        cfg.work_dir = 'the/config/says'
        engine.set_work_dir(cfg, name, None)
        assert cfg.work_dir == 'the/config/says'
        engine.set_work_dir(cfg, name, 'the/user/says')
        assert cfg.work_dir == 'the/user/says'


def test_drop_pretrained() -> None:
    constant = dict(type='Constant', layer='LayerNorm', val=1.0)
    pretrained = dict(type='Pretrained', checkpoint='a.pth')
    model = dict(
        init_cfg=[pretrained, constant],
        backbone=dict(init_cfg=pretrained, depth=50),
        heads=[dict(init_cfg=constant), dict(init_cfg=(constant, pretrained))],
        pretrained='b.pth',
    )
    cfg = Config(dict(model=model))
    engine.drop_pretrained(cfg)
    assert cfg.model.to_dict() == dict(
        init_cfg=[constant],
        backbone=dict(depth=50),
        heads=[dict(init_cfg=constant), dict(init_cfg=[constant])],
        pretrained=None,
    )


def test_amp(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a config without and one with mixed precision."""
    for gpu, amp, name in itertools.product((True, False), (True, False, None), (DET, ADE)):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda gpu=gpu: gpu)
        cfg = load(name)
        wrapper = cfg.optim_wrapper.to_dict()
        on = wrapper.get('type') == 'AmpOptimWrapper' if amp is None else amp
        if on and not gpu:
            assert '--no-amp' in refusal(engine.set_amp, cfg, amp)
            continue
        engine.set_amp(cfg, amp)
        expected = 'AmpOptimWrapper' if on else 'OptimWrapper'
        assert cfg.optim_wrapper.get('type', 'OptimWrapper') == expected
        assert ('loss_scale' in cfg.optim_wrapper) == on
        others = {k: v for k, v in wrapper.items() if k not in ('type', 'loss_scale', 'dtype')}
        assert others.items() <= cfg.optim_wrapper.to_dict().items()
    assert 'optim_wrapper' in refusal(engine.set_amp, Config(dict(model=dict())), False)


def test_auto_scale_lr() -> None:
    assert 'auto_scale_lr.base_batch_size' in refusal(engine.enable_auto_scale_lr, load(PSPNET))
    cfg = engine.load_config(PSPNET, {'auto_scale_lr.base_batch_size': 16})
    engine.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.to_dict() == dict(enable=True, base_batch_size=16)


def test_drawing() -> None:
    directory = str(ROOT / 'pictures')
    for name, expected in (
        (CLS, dict(enable=True, out_dir=directory)),
        (DET, dict(draw=True, test_out_dir=directory)),
        (SEG, dict(draw=True, interval=1)),
    ):
        cfg = load(name)
        engine.enable_drawing(cfg, 'pictures')
        assert expected.items() <= cfg.default_hooks.visualization.to_dict().items()
        assert (cfg.visualizer.get('save_dir') == directory) == (name == SEG)
        del cfg.default_hooks['visualization']
        assert 'default_hooks.visualization' in refusal(engine.enable_drawing, cfg, 'pictures')


# Checked


def test_types() -> None:
    for name in (CLS, DET, SEG, MASK_RCNN, RETINANET, VOC):
        engine.check_types(load(name), 'train', 'val', 'test')
    for name, key, value, hint in (
        (DET, 'model.backbone', 'mmparc.ParCConvNext', "'mmparc.ParCConvNeXt'"),
        (DET, 'model.backbone', 'ParCResNet', "'mmparc.ParCResNet'"),
        (CLS, 'model.backbone', 'mmpretrain.ConvNextt', "'mmpretrain.ConvNeXt'"),
        (SEG, 'model.decode_head', 'UperHead', "'UPerHead'"),
        (DET, 'model.backbone', 'qqqqqqqqqq', 'model.backbone.type'),
        (DET, 'model.backbone', 'no.such.module', 'model.backbone'),
        (DET, 'train_dataloader.dataset', 'CocoDatasett', "'CocoDataset'"),
        (CLS, 'default_hooks.checkpoint', 'ChekpointHook', "'CheckpointHook'"),
    ):
        cfg = load(name)
        cfg.merge_from_dict({f'{key}.type': value})
        said = refusal(engine.check_types, cfg, 'train', 'val')
        assert f"'{value}'" in said and key in said and hint in said


def test_missing_data() -> None:
    """Inside wrappers; bad_input tests missing roots and files."""
    cfg = load(VOC)
    sets = cfg.train_dataloader.dataset.dataset.datasets
    sets[0].data_root, sets[1].data_root = 's3://bucket', 'no/such/root'
    assert "'no/such/root'" in refusal(engine.check_data, cfg, 'train_dataloader')


def test_missing_pretrained(tmp_path: Path) -> None:
    cfg = load(MASK_RCNN)
    pretrained = cfg.model.backbone.init_cfg
    pretrained.checkpoint = 'work_dirs/cls/parc-convnext-xt_32xb128_in1k/no.pth'
    said = refusal(engine.check_pretrained, cfg)
    key = 'model.backbone.init_cfg.checkpoint='
    assert all(word in said for word in (pretrained.checkpoint, IMAGENET, '--no-pretrained', key))
    pretrained.checkpoint = str(tmp_path / 'there.pth')
    Path(pretrained.checkpoint).touch()
    engine.check_pretrained(cfg)
    cfg.load_from = 'no.pth'
    assert "'no.pth'" in refusal(engine.check_pretrained, cfg)
    engine.check_pretrained(load(RETINANET))  # an address is left to mmengine


def test_building() -> None:
    """Whatever is raised becomes one line that names what was built; UserErrors stay."""
    for error, words in (
        (ValueError('first\nsecond'), 'first'),
        (KeyError('x'), "KeyError: 'x'"),
        (FileNotFoundError(2, 'No such file', 'a.txt'), "'a.txt': No such file"),
        (AssertionError(), 'raise error'),
        (engine.UserError('mine'), 'mine'),
    ):
        with pytest.raises(engine.UserError, match=r'^[^\n]+$') as caught:
            with engine.building('the thing'):
                raise error
        assert words in str(caught.value) and 'second' not in str(caught.value)
        assert ('the thing' in str(caught.value)) != isinstance(error, engine.UserError)


def test_a_detector_needs_gpu_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mmcv.ops.get_compiling_cuda_version', lambda: 'not available')
    for name, gpu, refused in ((DET, True, True), (DET, False, False), (SEG, True, False)):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda gpu=gpu: gpu)
        if refused:
            assert 'mmcv-lite' in refusal(engine.check_gpu_operators, load(name))
        else:
            engine.check_gpu_operators(load(name))
