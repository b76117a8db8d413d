"""mmparc.engine: configs found and adjusted, errors in one line, checkpoints loaded safely."""

import argparse
import copy
import functools
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.device import utils as device_utils
from mmengine.hub import get_config

from mmparc import engine
from mmparc.engine import device

CLS = 'configs/cls/convnext/parc-convnext-micro_toy.py'
DET = 'configs/det/convnext/centernet-update_parc-convnext-micro_hrfpn_toy.py'
SEG = 'configs/seg/convnext/parc-convnext-micro_upernet_toy.py'
MASK_RCNN = 'configs/det/convnext/mask-rcnn_parc-convnext-xt_fpn_1x_coco.py'
ADE = 'configs/seg/convnext/parc-convnext-xt_upernet_8xb2-amp-160k_ade20k-512x512.py'
IMAGENET = 'configs/cls/convnext/parc-convnext-xt_32xb128_in1k.py'
SHORTER = 'configs/cls/convnext/parc-convnext-xt_8xb128-100e_in1k.py'
RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'


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
    """As engine.load_config; parsing takes its time, so a config is read once."""
    return copy.deepcopy(loaded(name))


# Configs by name


def test_load_by_path() -> None:
    cfg = engine.load_config(DET)
    assert cfg.default_scope == 'mmdet'
    assert cfg.to_dict() == Config.fromfile(DET).to_dict()
    assert engine.load_config(str(ROOT / DET)).to_dict() == cfg.to_dict()


@pytest.mark.parametrize(
    'name, scope',
    [
        (RETINANET, 'mmdet'),
        ('mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py', 'mmseg'),
        ('mmpretrain::resnet/resnet50_8xb32_in1k.py', 'mmpretrain'),
    ],
)
def test_load_by_upstream_name(name: str, scope: str) -> None:
    cfg = engine.load_config(name)
    assert cfg.default_scope == scope
    assert cfg.model.to_dict() == get_config(name).model.to_dict()


@pytest.mark.parametrize('path', [CLS, DET, SEG])
def test_load_by_our_name(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Config.fromfile(path)
    monkeypatch.chdir(tmp_path)
    cfg = engine.load_config(path.replace('configs/', 'mmparc::', 1))
    assert cfg.to_dict() == expected.to_dict()
    assert Path(cfg.filename) == ROOT / path


@pytest.mark.parametrize(
    'name, message',
    [
        (DET.replace('micro', 'mirco'), f"did you mean '{DET}'?"),
        (DET.replace('.py', ''), f"did you mean '{DET}'?"),
        ('zzz.py', 'pass the path of a .py file'),
        (RETINANET.replace('r50', 'r51'), "did you mean 'retinanet/retinanet_r50_fpn_1x_coco.py'?"),
        ('mmdet::zzz.py', 'the configs lie in'),
        (
            MASK_RCNN.replace('configs/', 'mmparc::').replace('1x', '2x'),
            "did you mean 'det/convnext/",
        ),
        (MASK_RCNN.replace('configs/', 'mmparc::').replace('.py', ''), "fpn_1x_coco.py'?"),
        ('mmparc::zzz.py', f'the configs lie in {ROOT / "configs"}'),
        ('mmparc::_base_/backbones/convnext-xt.py', 'no full config'),
        (RETINANET.replace('mmdet', 'mmdetection'), 'must begin with one of mmpretrain::, mmdet::'),
        ('mmdet::_base_/datasets/coco_detection.py', 'no full config'),
        ('configs/_base_/backbones/convnext-xt.py', 'no full config'),
        ('mmdet::_base_/default_runtime.py', 'no full config'),
    ],
)
def test_a_wrong_name_gets_a_hint(name: str, message: str) -> None:
    said = refusal(engine.load_config, name)
    assert name.partition('::')[2] in said
    assert message in said


def test_hints_where_there_is_no_configs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = load(MASK_RCNN)
    monkeypatch.chdir(tmp_path)
    ours = DET.replace('configs/', 'mmparc::', 1)
    assert f"did you mean '{ours}'?" in refusal(engine.load_config, DET)
    recipe = SHORTER.replace('configs/', 'mmparc::', 1)
    said = refusal(engine.check_pretrained, cfg)
    assert f'(python -m mmparc train {recipe})' in said
    assert engine.load_config(ours) and engine.load_config(recipe)
    # the control: a folder of the user's own comes first
    mine = tmp_path / 'configs' / 'det' / Path(DET).name
    mine.parent.mkdir(parents=True)
    mine.touch()
    said = refusal(engine.load_config, DET)
    assert f"did you mean 'configs/det/{mine.name}'?" in said and 'mmparc::' not in said


def test_options_override() -> None:
    options = {'train_dataloader.batch_size': 3, 'model.neck.num_outs': 4}
    cfg, plain = engine.load_config(DET, options), load(DET)
    assert (cfg.train_dataloader.batch_size, cfg.model.neck.num_outs) == (3, 4)
    assert plain.train_dataloader.batch_size != 3
    cfg.merge_from_dict(
        {
            'train_dataloader.batch_size': plain.train_dataloader.batch_size,
            'model.neck.num_outs': plain.model.neck.num_outs,
        }
    )
    assert cfg.to_dict() == plain.to_dict()


def test_repeated_options_add_up() -> None:
    """tools/demo.sh appends its own --cfg-options to those of its caller."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args(['--cfg-options', 'a.b=1', '--cfg-options', 'data_root=x', 'c=[1,2]'])
    assert args.cfg_options == {'a.b': 1, 'data_root': 'x', 'c': [1, 2]}


# Data moved


def strings(node: object) -> list[str]:
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list | tuple):
        return [found for value in node for found in strings(value)]
    return [node] if isinstance(node, str) else []


@pytest.mark.parametrize(
    'name, old, moved',
    [
        # loaders (test is another copy of val), and the evaluators where they name a file
        (CLS, 'data/toy/cls', 3),
        (DET, 'data/toy/det', 5),
        (SEG, 'data/toy/seg', 3),
        (IMAGENET, 'data/imagenet', 3),
        (MASK_RCNN, 'data/coco', 5),
        (ADE, 'data/ade/ADEChallengeData2016', 3),
        (RETINANET, 'data/coco', 5),
        ('mmpretrain::resnet/resnet50_8xb32_in1k.py', 'data/imagenet', 3),
        # a data set inside a RepeatDataset
        ('mmdet::pascal_voc/retinanet_r50_fpn_1x_voc0712.py', 'data/VOCdevkit', 4),
    ],
)
def test_data_root_moves_loaders_and_evaluators(name: str, old: str, moved: int) -> None:
    plain = load(name).to_dict()
    cfg = engine.load_config(name, {'data_root': 'new/place/'}).to_dict()
    found = 0
    parts = [
        f'{s}_{part}' for s in ('train', 'val', 'test') for part in ('dataloader', 'evaluator')
    ]
    for key in [part for part in parts if part in plain]:
        pairs = zip(strings(plain[key]), strings(cfg[key]), strict=True)
        changed = [(a, b) for a, b in pairs if a.startswith(old)]
        for a, b in changed:
            assert b.rstrip('/') == 'new/place' + a.removeprefix(old).rstrip('/')
        found += len(changed)
    assert found == moved


def test_a_path_that_only_begins_alike_stays() -> None:
    with_neighbour = {'val_evaluator.outfile_prefix': 'data/toy/det-results/x', 'data_root': 'new'}
    cfg = engine.load_config(DET, with_neighbour)
    assert cfg.val_evaluator.outfile_prefix == 'data/toy/det-results/x'
    assert cfg.val_evaluator.ann_file == 'new/annotations/instances_val2017.json'


def test_data_root_of_a_config_without_one(tmp_path: Path) -> None:
    path = tmp_path / 'no_data.py'
    path.write_text("default_scope = 'mmdet'\nmodel = dict(type='ATSS')\n")
    assert 'no data_root to move' in refusal(engine.load_config, str(path), {'data_root': 'x'})


# Settings of a run


@pytest.mark.parametrize(
    'name, expected',
    [
        (CLS, 'work_dirs/cls/parc-convnext-micro_toy'),
        (DET, 'work_dirs/det/centernet-update_parc-convnext-micro_hrfpn_toy'),
        (SEG, 'work_dirs/seg/parc-convnext-micro_upernet_toy'),
        (RETINANET, 'work_dirs/det/retinanet_r50_fpn_1x_coco'),
    ],
)
def test_work_dir(name: str, expected: str) -> None:
    cfg = load(name)
    engine.set_work_dir(cfg, name, None)
    assert cfg.work_dir == expected
    cfg.work_dir = 'the/config/says'
    engine.set_work_dir(cfg, name, None)
    assert cfg.work_dir == 'the/config/says'
    engine.set_work_dir(cfg, name, 'the/user/says')
    assert cfg.work_dir == 'the/user/says'


@pytest.mark.parametrize(
    'name, source',
    [
        (MASK_RCNN, 'work_dirs/cls/parc-convnext-xt_8xb128-100e_in1k/epoch_100.pth'),
        (RETINANET, 'torchvision://resnet50'),
        ('mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py', 'open-mmlab://resnet50_v1c'),
    ],
)
def test_drop_pretrained(name: str, source: str) -> None:
    cfg = load(name)
    assert source in strings(cfg.model.to_dict())
    engine.drop_pretrained(cfg)
    left = cfg.model.to_dict()
    assert source not in strings(left) and 'Pretrained' not in strings(left)


def test_drop_pretrained_keeps_other_initialisation() -> None:
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


@pytest.mark.parametrize('name', [DET, ADE, IMAGENET])
@pytest.mark.parametrize('amp', [True, False, None])
@pytest.mark.parametrize('gpu', [True, False])
def test_amp(name: str, amp: bool | None, gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    cfg = load(name)
    wrapper = cfg.optim_wrapper.to_dict()
    own_choice = wrapper.get('type') == 'AmpOptimWrapper'
    on = own_choice if amp is None else amp
    if on and not gpu:
        assert '--no-amp' in refusal(engine.set_amp, cfg, amp)
        return
    engine.set_amp(cfg, amp)
    assert cfg.optim_wrapper.get('type', 'OptimWrapper') == (
        'AmpOptimWrapper' if on else 'OptimWrapper'
    )
    assert ('loss_scale' in cfg.optim_wrapper) == on
    others = {k: v for k, v in wrapper.items() if k not in ('type', 'loss_scale', 'dtype')}
    assert others.items() <= cfg.optim_wrapper.to_dict().items()


@pytest.mark.parametrize(
    'name, batch', [(CLS, 32), (DET, 16), (SEG, 16), (MASK_RCNN, 16), (ADE, 16), (IMAGENET, 4096)]
)
def test_auto_scale_lr(name: str, batch: int) -> None:
    cfg = load(name)
    assert not cfg.auto_scale_lr.get('enable')
    engine.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.to_dict() == dict(enable=True, base_batch_size=batch)


def test_auto_scale_lr_without_a_batch_size() -> None:
    name = 'mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py'
    cfg = load(name)
    assert 'auto_scale_lr.base_batch_size=N' in refusal(engine.enable_auto_scale_lr, cfg)
    cfg = engine.load_config(name, {'auto_scale_lr.base_batch_size': 16})
    engine.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.to_dict() == dict(enable=True, base_batch_size=16)


@pytest.mark.parametrize(
    'name, switches',
    [
        (CLS, dict(enable=True, out_dir=True)),
        (DET, dict(draw=True, test_out_dir=True)),
        (SEG, dict(draw=True, interval=1)),
    ],
)
def test_drawing(name: str, switches: dict) -> None:
    cfg = load(name)
    engine.enable_drawing(cfg, 'pictures')
    directory = str(ROOT / 'pictures')
    expected = {key: directory if key.endswith('dir') else v for key, v in switches.items()}
    assert expected.items() <= cfg.default_hooks.visualization.to_dict().items()
    assert (cfg.visualizer.get('save_dir') == directory) == (name == SEG)
    del cfg.default_hooks['visualization']
    assert 'default_hooks.visualization' in refusal(engine.enable_drawing, cfg, 'pictures')


def test_default_collate_is_for_classification() -> None:
    for name in (CLS, DET, SEG):
        cfg = load(name)
        engine.use_default_collate(cfg)
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            expected = dict(type='default_collate') if name == CLS else None
            assert loader.get('collate_fn') == expected


# What is wrong is said in one line


@pytest.mark.parametrize('name', [CLS, DET, SEG, MASK_RCNN, RETINANET])
def test_right_types_pass(name: str) -> None:
    engine.check_model_types(load(name))


@pytest.mark.parametrize(
    'name, key, value, hint',
    [
        (DET, 'backbone', 'mmparc.ParCConvNext', "did you mean 'mmparc.ParCConvNeXt'?"),
        (DET, 'backbone', 'ParCConvNeXt', "did you mean 'mmparc.ParCConvNeXt'?"),
        (DET, 'backbone', 'ParCResNet', "did you mean 'mmparc.ParCResNet'?"),
        (CLS, 'backbone', 'mmpretrain.ConvNextt', "did you mean 'mmpretrain.ConvNeXt'?"),
        (SEG, 'decode_head', 'UperHead', "did you mean 'UPerHead'?"),
        (DET, 'neck', 'FPNN', "did you mean 'FPN'?"),
        (DET, 'backbone', 'qqqqqqqqqq', 'set model.backbone.type to a registered name'),
        (DET, 'backbone', 'no.such.module', 'model.backbone.type'),
    ],
)
def test_unknown_types(name: str, key: str, value: str, hint: str) -> None:
    cfg = load(name)
    cfg.merge_from_dict({f'model.{key}.type': value})
    said = refusal(engine.check_model_types, cfg)
    assert f"unknown {key} '{value}' in model.{key}.type" in said
    assert hint in said


def test_missing_data(tmp_path: Path) -> None:
    loaders = ('train_dataloader', 'val_dataloader')
    cfg = engine.load_config(DET, {'data_root': str(tmp_path / 'det')})
    said = refusal(engine.check_data, cfg, *loaders)
    assert f"no data root '{tmp_path}/det" in said and '--cfg-options data_root=DIR' in said
    (tmp_path / 'det' / 'annotations').mkdir(parents=True)
    said = refusal(engine.check_data, cfg, *loaders)
    assert "has no 'annotations/instances_train2017.json' (train_dataloader)" in said
    (tmp_path / 'det' / 'annotations' / 'instances_train2017.json').touch()
    assert '(val_dataloader)' in refusal(engine.check_data, cfg, *loaders)
    engine.check_data(cfg, 'train_dataloader')
    (tmp_path / 'det' / 'annotations' / 'instances_val2017.json').touch()
    engine.check_data(cfg, *loaders)


def test_missing_data_inside_wrappers() -> None:
    cfg = load('mmdet::pascal_voc/retinanet_r50_fpn_1x_voc0712.py')
    cfg.train_dataloader.dataset.dataset.datasets[1].data_root = 'no/such/root'
    cfg.train_dataloader.dataset.dataset.datasets[0].data_root = 's3://bucket'
    assert "'no/such/root'" in refusal(engine.check_data, cfg, 'train_dataloader')


def test_missing_pretrained(tmp_path: Path) -> None:
    cfg = load(MASK_RCNN)
    cfg.model.backbone.init_cfg.checkpoint = 'work_dirs/cls/parc-convnext-xt_32xb128_in1k/no.pth'
    said = refusal(engine.check_pretrained, cfg)
    assert "no pretrained checkpoint 'work_dirs/cls/parc-convnext-xt_32xb128_in1k/no.pth'" in said
    assert f'python -m mmparc train {IMAGENET}' in said
    assert '--cfg-options model.backbone.init_cfg.checkpoint=FILE' in said
    assert '--no-pretrained' in said
    checkpoint = tmp_path / 'there.pth'
    checkpoint.touch()
    cfg.model.backbone.init_cfg.checkpoint = str(checkpoint)
    engine.check_pretrained(cfg)
    engine.check_pretrained(load(RETINANET))  # a URL is left to mmengine


def test_user_errors_end_in_one_line() -> None:
    @engine.exit_on_user_error
    def main() -> None:
        raise error

    error = engine.UserError('the cause: the fix')
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 'error: the cause: the fix'
    error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        main()


# Devices


@pytest.mark.parametrize(
    'name, gpu, built_with, expected',
    [
        (DET, True, 'not available', 'cpu'),
        (DET, True, '13.0', 'cuda'),
        (DET, False, 'not available', 'cuda'),  # that is, left alone
        (CLS, True, 'not available', 'cuda'),
        (SEG, True, 'not available', 'cuda'),
    ],
)
def test_a_detector_avoids_a_gpu_that_mmcv_lacks(
    name: str, gpu: bool, built_with: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setattr(device, 'get_compiling_cuda_version', lambda: built_with)
    monkeypatch.setattr(device_utils, 'DEVICE', 'cuda')  # as mmengine would have found
    engine.avoid_missing_cuda_ops(load(name))
    assert get_device() == expected
