"""mmparc.swap and its tool: what changes with a backbone, what stays, what is refused.

The changes are written down by hand for each config; everything else must stay as it was.
"""

import copy
import csv
from pathlib import Path

import pytest
import torch
from helpers import FORKS, ROOT, error_line, run_tool
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmengine.utils import get_installed_path

from mmparc import engine
from mmparc.analysis.trial import take_steps
from mmparc.swap import backbone_names, config_text, plan_swap, swap_backbone
from mmparc.swap.fragments import load_fragment

DET, SEG, CLS = 'mmdet::', 'mmseg::', 'mmpretrain::'
RETINANET = DET + 'retinanet/retinanet_r50_fpn_1x_coco.py'
CIFAR = CLS + 'resnet/resnet18_8xb16_cifar10.py'
ATSS = DET + 'atss/atss_r50_fpn_1x_coco.py'
SSD = DET + 'ssd/ssd300_coco.py'
DINO = DET + 'dino/dino-4scale_r50_8xb2-12e_coco.py'
DC5 = DET + 'faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py'
C4 = DET + 'faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py'
DEEPLAB = SEG + 'deeplabv3plus/deeplabv3plus_r50-d8_4xb4-160k_ade20k-512x512.py'
LR = 'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult'
PAD = 'model.data_preprocessor.'
RGB = {PAD + 'mean': [123.675, 116.28, 103.53], PAD + 'bgr_to_rgb': True}
STD = {PAD + 'std': [58.395, 57.12, 57.375]}
BGR = {PAD + 'mean': [0, 0, 0], PAD + 'std': [255, 255, 255], PAD + 'bgr_to_rgb': False}
# A whole detector's weights.
NO_WHOLE = {f'model.detector.init_cfg{end}': None for end in ('', '.type', '.checkpoint')}
UNUSED = {'find_unused_parameters': True}
LAYERS = 'mmparc.LayerDecayOptimWrapperConstructor'

# (config, backbone): the backbone's outputs, and all that changes elsewhere.
# fmt: off
CASES = {
    (RETINANET, 'parc-resnet50'): ([0, 1, 2, 3], {}),
    (RETINANET, 'parc-convnext-xt'): (
        [0, 1, 2, 3], {'model.neck.in_channels': [48, 96, 192, 384]}
    ),
    (RETINANET, 'parcnet-s'): (
        [1, 2, 3, 4], {'model.neck.in_channels': [64, 96, 128, 160], **BGR}
    ),
    (RETINANET, 'mobilenet-v2'): (
        [1, 2, 4, 6], {'model.neck.in_channels': [24, 32, 96, 320], **UNUSED}
    ),
    (SSD, 'parc-convnext-xt'): ([1, 2], {
        'model.neck.in_channels': (96, 192),
        'model.neck.out_channels': (96, 192, 512, 256, 256, 256),
        'model.bbox_head.in_channels': (96, 192, 512, 256, 256, 256),
        **STD, **UNUSED,
    }),
    (DINO, 'parc-mobilenet-v2'): (
        [2, 4, 6], {'model.neck.in_channels': [32, 96, 320], LR: 1.0, **UNUSED}
    ),
    (DET + 'yolo/yolov3_d53_8xb8-320-273e_coco.py', 'parc-convnext-xt'): (
        [1, 2, 3], {
            'model.neck.in_channels': [384, 192, 96],
            PAD + 'mean': RGB[PAD + 'mean'],
            **STD,
        }
    ),
    (DC5, 'parc-convnext-xt'): ([2], {
        'model.rpn_head.in_channels': 192,
        'model.roi_head.bbox_roi_extractor.out_channels': 192,
        'model.roi_head.bbox_head.in_channels': 192,
        **RGB, **STD, **UNUSED,
    }),
    (DET + 'convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py', 'parc-resnet50'): (
        [0, 1, 2, 3], {
            'model.neck.in_channels': [256, 512, 1024, 2048],
            'optim_wrapper.constructor': LAYERS,
            'optim_wrapper.paramwise_cfg.decay_type': None,  # the rate stays
            'optim_wrapper.paramwise_cfg.num_layers': None,
        }
    ),
    (DET + 'bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot17halftrain_test-mot17halfval.py',
     'parc-resnet50'): (
        [1, 2, 3],
        {'model.detector.neck.in_channels': [512, 1024, 2048], **RGB, **STD, **NO_WHOLE},
    ),
    (RETINANET, 'mobilevit-micro'): (
        [1, 2, 3, 4], {'model.neck.in_channels': [24, 32, 48, 64], **UNUSED}
    ),
    (SEG + 'mobilenet_v2/mobilenet-v2-d8_deeplabv3_4xb2-80k_cityscapes-512x1024.py',
     'parc-resnet50'): ([0, 1, 2, 3], {
        'model.decode_head.in_channels': 2048,
        'model.auxiliary_head.in_channels': 1024,
        'model.pretrained': None,
    }),
    (DEEPLAB, 'parc-convnext-xt'): ([0, 1, 2, 3], {
        'model.decode_head.in_channels': 384,
        'model.decode_head.c1_in_channels': 48,
        'model.auxiliary_head.in_channels': 192,
        'model.pretrained': None,
    }),
    (DEEPLAB, 'parc-resnet50'): ([0, 1, 2, 3], {'model.pretrained': None}),
    (SEG + 'ocrnet/ocrnet_hr18_4xb4-80k_ade20k-512x512.py', 'parc-convnext-xt'): (
        [0, 1, 2, 3], {
            'model.decode_head.0.in_channels': [48, 96, 192, 384],
            'model.decode_head.1.in_channels': [48, 96, 192, 384],
            'model.pretrained': None,
        }
    ),
    (SEG + 'vit/vit_deit-s16_mln_upernet_8xb2-160k_ade20k-512x512.py', 'parc-deit-s'): (
        [2, 5, 8, 11], {'model.pretrained': None}
    ),
    (SEG + 'segmenter/segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512.py', 'parc-convnext-xt'): ([2], {
        'model.decode_head.in_channels': 192,
        'model.decode_head.channels': 192,
        'model.pretrained': None,
        PAD + 'mean': RGB[PAD + 'mean'],
        **STD, **UNUSED,
    }),
    (SEG + 'swin/swin-tiny-patch4-window7_upernet_1xb8-20k_levir-256x256.py', 'parc-convnext-xt'): (
        [0, 1, 2, 3], {  # two images, whose statistics stay
            'model.decode_head.in_channels': [48, 96, 192, 384],
            'model.auxiliary_head.in_channels': 192,
        }
    ),
    (CLS + 'resnet/resnet50_8xb32_in1k.py', 'parc-convnext-xt'): (
        None, {'model.neck': None, 'model.neck.type': None, 'model.head.in_channels': 384}
    ),
    (CLS + 'swin_transformer/swin-tiny_16xb64_in1k.py', 'parc-mobilenet-v2'): (
        None, {'model.head.in_channels': 1280}
    ),
    (CLS + 'vision_transformer/vit-base-p16_64xb64_in1k-384px.py', 'parc-resnet50'): (
        None, {
            'model.neck': None,
            'model.neck.type': 'GlobalAveragePooling',
            'model.head.in_channels': 2048,
        }
    ),
    (CLS + 'hrnet/hrnet-w18_4xb32_in1k.py', 'parc-convnext-xt'): (
        [0, 1, 2, 3], {'model.neck.0.in_channels': (48, 96, 192, 384)}
    ),
    (CLS + 'simclr/simclr_resnet50_8xb32-coslr-200e_in1k.py', 'parc-convnext-xt'): (
        [3], {'model.neck.in_channels': 384}
    ),
}
# fmt: on
# (config, backbone): the name or number that the error must give.
REFUSED = {
    (RETINANET, 'parc-resnet5'): "'parc-resnet50'",
    (DET + 'cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py', 'parc-resnet50'): (
        'stride 4 and 4 from HourglassNet'
    ),
    (DET + 'detectors/htc_r50-rfp_1x_coco.py', 'parc-resnet50'): 'stride 1, 4, 8, 16 and',
    (RETINANET, 'parc-deit-t'): 'parc-deit-t has maps of stride 16',
    (C4, 'parc-resnet50'): 'roi_head.shared_head',
    (SEG + 'unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64.py', 'parc-resnet50'): 'maps of stride',
    (SEG + 'ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py', 'parc-resnet50'): (
        'DDRNet has 2 outputs in training and 1 in testing'
    ),
    (SEG + 'dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512.py', 'parc-resnet50'): 'feature map',
    (CLS + 'blip/blip-base_8xb32_vqa.py', 'parc-resnet50'): 'BlipVQA has no backbone',
    (CLS + 'vgg/vgg16_8xb32_in1k.py', 'parc-resnet50'): 'LinearClsHead',
}
# `make test` tries these of CASES and of the configs that take a step.
QUICK = {
    (RETINANET, 'parc-convnext-xt'),
    (RETINANET, 'mobilevit-micro'),
    (SSD, 'parc-convnext-xt'),
    (DEEPLAB, 'parc-convnext-xt'),
    (SEG + 'ocrnet/ocrnet_hr18_4xb4-80k_ade20k-512x512.py', 'parc-convnext-xt'),
    (CLS + 'resnet/resnet50_8xb32_in1k.py', 'parc-convnext-xt'),
    (CLS + 'swin_transformer/swin-tiny_16xb64_in1k.py', 'parc-mobilenet-v2'),
}
# Configs whose models take a step: in `make test`, and in `make test-full`.
STEPS = [
    RETINANET,
    DET + 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    SEG + 'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    CLS + 'resnet/resnet50_8xb32_in1k.py',
]
MORE_STEPS = [
    SSD,
    DINO,
    DET + 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    DET + 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    DET + 'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    SEG + 'upernet/upernet_r50_4xb4-160k_ade20k-512x512.py',
    DEEPLAB,
    CLS + 'swin_transformer/swin-tiny_16xb64_in1k.py',
]
# Folders of upstream's that hold no config with a model.
NO_MODELS = {'mmpretrain': {'dinov2', 'glip', 'sam'}, 'mmdet': {'common'}, 'mmseg': set()}
# Dense queries and SSD's last maps need so much.
SIZES = {SSD: (300, 300), DINO: (224, 224)}


def leaves(node, key: str = '') -> dict:
    """{dotted key: value} of what a config says; a list of dicts is more keys."""
    found = {}
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, list | tuple) and any(isinstance(child, dict) for child in node):
        items = enumerate(node)
    else:
        return {key: node}
    for name, child in items:
        if name != '_scope_':
            found |= leaves(child, f'{key}.{name}'.lstrip('.'))
    return found


def changed(before: Config, after: Config) -> dict:
    """{key: value} of all that is not as it was, None where it is gone, but for the backbone."""
    old, new = leaves(before.to_dict()), leaves(after.to_dict())
    keys = {key for key in old.keys() | new.keys() if old.get(key, '-') != new.get(key, '-')}
    return {key: new.get(key) for key in keys if '.backbone.' not in key.replace(LR, '')}


def model_of(cfg: Config):
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return revert_sync_batchnorm(MODELS.build(copy.deepcopy(cfg.model))).eval()


def backbone_of(cfg: Config):
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        backbone = revert_sync_batchnorm(MODELS.build(cfg.model.backbone))
    backbone.eval()
    return backbone


def ids(case: tuple[str, str]) -> str:
    return f'{Path(case[0]).stem}-{case[1]}'


@pytest.mark.parametrize(
    'case',
    [pytest.param(c, marks=() if c in QUICK else pytest.mark.full, id=ids(c)) for c in CASES],
)
def test_what_follows(case: tuple[str, str], tmp_path: Path) -> None:
    config, name = case
    outputs, expected = CASES[case]
    before = engine.load_config(config)
    untouched = copy.deepcopy(before.to_dict())
    swapped = plan_swap(before, name)
    after = swapped.cfg
    assert before.to_dict() == untouched
    assert changed(before, after) == expected
    host = after.model.get('detector') or after.model
    assert host.backbone.get('out_indices') == outputs

    # the file says the same, with a reason above each change
    path = tmp_path / 'new.py'
    path.write_text(config_text(swapped, config, 'a title'))
    lines = path.read_text().splitlines()
    words = [line.split() for line in lines]  # an address may be longer than a line
    assert all(len(line) <= 100 for line, w in zip(lines, words) if len(w) > 3)
    assert leaves(Config.fromfile(path).to_dict()) == leaves(after.to_dict())
    assert path.read_text().count('# ') >= len({key.partition('.')[2] for key in expected})


def test_a_file_of_another_swap_is_noticed(tmp_path: Path) -> None:
    """The control of the comparison above."""
    cfg = engine.load_config(RETINANET)
    path = tmp_path / 'new.py'
    path.write_text(config_text(plan_swap(cfg, 'parc-convnext-xt'), RETINANET, 'a title'))
    other = swap_backbone(cfg, 'parc-convnext-t')
    assert leaves(Config.fromfile(path).to_dict()) != leaves(other.to_dict())


@pytest.mark.parametrize(
    'case',
    [
        pytest.param(c, marks=() if c[0] in (RETINANET, C4) else pytest.mark.full, id=ids(c))
        for c in REFUSED
    ],
)
def test_refusals(case: tuple[str, str]) -> None:
    with pytest.raises(engine.UserError) as raised:
        swap_backbone(engine.load_config(case[0]), case[1])
    assert REFUSED[case] in str(raised.value) and '\n' not in str(raised.value)


def test_names_are_those_of_the_fragments() -> None:
    names = backbone_names()
    files = ROOT.glob('configs/_base_/backbones/*.py')
    # the narrow ones have a single output, too few for a neck
    fragments = [path.stem for path in files if not path.stem.endswith('-narrow')]
    # MobileViT-S is ParC-Net-S's twin too
    assert len(names) == 2 * len(fragments) - 1 == len(set(names))
    assert {'parc-resnet50', 'resnet50', 'parcnet-s', 'mobilevit-s'} <= set(names)
    assert load_fragment('mobilevit-s').out_indices == load_fragment('parc-mobilevit-s').out_indices


@pytest.mark.full
def test_every_backbone_gives_the_strides() -> None:
    for name in backbone_names():
        if 'deit' in name:  # stride 16 alone
            continue
        cfg = swap_backbone(engine.load_config(ATSS), name)
        side = 224 if 'swin' in name else 128  # a window on the last map
        with torch.no_grad():
            maps = backbone_of(cfg)(torch.zeros(1, 3, side, side))
        assert [side // m.shape[-1] for m in maps] == [4, 8, 16, 32]
        assert [m.shape[1] for m in maps] == list(cfg.model.neck.in_channels)


def test_the_plain_twin_is_the_same_model() -> None:
    """mmpretrain's ResNet in place of mmdet's: the same names, and the same outputs."""
    before = engine.load_config(RETINANET)
    old, new = model_of(before), model_of(swap_backbone(before, 'resnet50'))
    new.load_state_dict(old.state_dict(), strict=True)
    image = torch.randn(1, 3, 97, 131)
    with torch.no_grad():
        for a, b in zip(old(image)[0], new(image)[0], strict=True):
            assert torch.equal(a, b)
    other = model_of(swap_backbone(before, 'parc-resnet50'))
    with pytest.raises(RuntimeError, match='Missing key'):
        other.load_state_dict(old.state_dict(), strict=True)


def test_the_dilated_backbone_stays_so() -> None:
    before = engine.load_config(DEEPLAB)
    image = torch.randn(1, 3, 128, 192)
    with torch.no_grad():
        shapes = {
            name: [m.shape[-2:] for m in backbone_of(cfg)(image)]
            for name, cfg in {
                'before': before,
                'dilated': swap_backbone(before, 'parc-resnet50'),
                'not dilated': swap_backbone(before, 'parc-convnext-xt'),
            }.items()
        }
    assert shapes['before'] == shapes['dilated'] != shapes['not dilated']
    assert 'Strides 4, 8, 16 and 32, not 4, 8, 8 and 8' in config_text(
        plan_swap(before, 'parc-convnext-xt'), DEEPLAB, ''
    )


@pytest.mark.parametrize(
    'name',
    [
        'parc-resnet50',
        *(pytest.param(n, marks=pytest.mark.full) for n in ('parc-mobilenet-v2', 'parcnet-s')),
    ],
)
def test_pretrained_weights_are_loaded_and_frozen(name: str, tmp_path: Path) -> None:
    """With a classifier's weights, RetinaNet's stem and first stage are frozen, and norms fixed."""
    cfg = engine.load_config(RETINANET)
    classifier = swap_backbone(engine.load_config(CLS + 'resnet/resnet50_8xb32_in1k.py'), name)
    saved = model_of(classifier).state_dict()
    torch.save(dict(state_dict=saved), tmp_path / 'classifier.pth')
    after = swap_backbone(cfg, name, pretrained=str(tmp_path / 'classifier.pth'))
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(after.model)
        model.init_weights()
    model.train()
    state = model.backbone.state_dict()
    assert all(torch.equal(state[key], saved[f'backbone.{key}']) for key in state)
    norms = [m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)

    frozen = {key for key, p in model.backbone.named_parameters() if not p.requires_grad}
    maps = model.backbone(torch.randn(1, 3, 64, 64))
    assert frozen and maps[0].grad_fn is None and maps[1].grad_fn is not None
    # without the checkpoint all of it learns
    scratch = swap_backbone(cfg, name).model.backbone
    assert not {'frozen_stages', 'norm_eval', 'init_cfg'} & scratch.keys()


def test_freezing_is_in_the_terms_of_each_backbone() -> None:
    """RetinaNet's stem and first stage: Swin counts from 0, MobileViT cannot fix its norms."""
    cfg = engine.load_config(RETINANET)
    swin, mobilevit = (
        swap_backbone(cfg, name, pretrained='any.pth').model.backbone
        for name in ('parc-swin-t', 'parc-mobilevit-s')
    )
    assert (swin.frozen_stages, mobilevit.frozen_stages) == (0, 2)
    assert 'norm_eval' not in swin and 'norm_eval' not in mobilevit
    for settings, frozen in ((swin, ['patch_embed', 'stages']), (mobilevit, ['layers'])):
        del settings.init_cfg
        model = MODELS.build(settings)
        model.train()
        fixed = [name for name, p in model.named_parameters() if not p.requires_grad]
        assert sorted({name.partition('.')[0] for name in fixed} - {'norm0'}) == frozen
        assert not any('.1.' in name[:9] for name in fixed if name.startswith('stages'))


@pytest.mark.parametrize(
    'config', [*STEPS, *(pytest.param(n, marks=pytest.mark.full) for n in MORE_STEPS)]
)
def test_takes_a_step(config: str) -> None:
    """Each ParC parameter gets a gradient from the whole model's own loss."""
    swapped = plan_swap(engine.load_config(config), 'parc-convnext-micro')
    cfg = swapped.cfg
    if 'num_points' in (cfg.model.get('train_cfg') or {}):
        cfg.model.train_cfg.num_points = 256  # Mask2Former's matching, for each of its layers
    still = take_steps(cfg, SIZES.get(config, (96, 96)))
    # SSD takes nothing of the last stage, which has one mixer
    behind = {f'backbone.{name}' for name in swapped.new.unused}
    assert still <= behind and len(still) == (6 if config == SSD else 0)


def test_a_step_that_leaves_parc_out_is_noticed() -> None:
    """The control of the steps above: a stage behind what the head takes."""
    cfg = swap_backbone(engine.load_config(CIFAR), 'parc-resnet-micro')
    still = take_steps(copy.deepcopy(cfg), (64, 64))
    assert still == set()
    cfg.model.backbone.out_indices = (2,)
    cfg.model.head.in_channels = 128
    still = take_steps(copy.deepcopy(cfg), (64, 64))
    assert still and all(name.startswith('backbone.layer4.') for name in still)


# The tool


def swap(*args: object, cwd: Path) -> str:
    result = run_tool('tools/swap_backbone.py', *args, cwd=cwd)
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout + result.stderr


def test_tool(tmp_path: Path) -> None:
    """A config that inherits a path from where it lies, and both models' parameters."""
    (tmp_path / 'mine.py').write_text(f'_base_ = {CIFAR!r}\n')
    args = ('mine.py', 'parc-resnet-micro', '-o', 'deep/er/new.py', '--shape', 64, 96)
    printed = swap(*args, cwd=tmp_path)
    cfg = Config.fromfile(tmp_path / 'deep/er/new.py')
    assert cfg.model.backbone.type == 'mmparc.ParCResNet'
    assert leaves(cfg.train_dataloader) == leaves(engine.load_config(CIFAR).train_dataloader)
    count = sum(p.numel() for p in model_of(cfg).parameters())
    assert f'{count:,}' in printed and '11,173,962' in printed  # the latter is ResNet18's


def test_the_tool_refuses_and_leaves_nothing_behind(tmp_path: Path) -> None:
    tool = 'tools/swap_backbone.py'
    assert "'resnet50'" in error_line(tool, RETINANET, 'resnet-50', '-o', 'new.py', cwd=tmp_path)
    (tmp_path / 'new.py').write_text('mine')
    assert 'new.py' in error_line(tool, RETINANET, 'resnet50', '-o', 'new.py', cwd=tmp_path)
    assert (tmp_path / 'new.py').read_text() == 'mine'


@pytest.mark.full
def test_names_that_mmengine_does_not_take(tmp_path: Path) -> None:
    """They are inherited by path: mmparc's own, and upstream's in folders like gn+ws."""
    own = 'mmparc::cls/resnet/parc-resnet-micro_toy.py'
    args = (own, 'parc-convnext-micro', '--shape', 64, 64)
    printed = run_tool('tools/swap_backbone.py', *args, cwd=tmp_path).stdout
    (tmp_path / 'printed.py').write_text(printed)
    again = Config.fromfile(tmp_path / 'printed.py')
    assert again.model.backbone.type == 'mmparc.ParCConvNeXt'
    unknown = 'mmdet::gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py'
    swap(unknown, 'parc-resnet50', '-o', 'ws.py', '--shape', 64, 96, cwd=tmp_path)
    cfg = Config.fromfile(tmp_path / 'ws.py')
    assert cfg.model.backbone.depth == 50 and cfg.model.neck.conv_cfg.type == 'ConvWS'
    with pytest.raises(ValueError, match='package name'):
        get_config(unknown)


# The list of what works


@pytest.mark.full
def test_the_list_says_what_trains_and_why_not(tmp_path: Path) -> None:
    works, does_not = CIFAR, CLS + 'blip/blip-base_8xb32_vqa.py'
    result = run_tool(
        'tools/analysis/try_upstream.py',
        *(works, does_not, '--backbones', 'parc-resnet-micro', '--sizes', 64, '--out', 'list'),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    rows = read_list(tmp_path / 'list/compatibility.csv')
    assert rows[works]['parc-resnet-micro'] == 'trains'
    assert rows[does_not]['parc-resnet-micro'].startswith('refused: BlipVQA has no backbone')
    assert f'| {works} | trains |' in (tmp_path / 'list/compatibility.md').read_text()


@pytest.mark.skipif(FORKS, reason='the list is of the configs of the default stack')
def test_the_published_list_is_whole() -> None:
    rows = read_list(ROOT / 'docs/compatibility.csv')
    shown = (ROOT / 'docs/compatibility.md').read_text()
    for config, row in rows.items():
        assert f'| {config} | {row["parc-convnext-xt"]} |' in shown
    for scope, no_models in NO_MODELS.items():
        root = Path(get_installed_path(scope), '.mim/configs')
        families = {path.name for path in root.iterdir() if path.name[0] != '_'}
        names = [name.removeprefix(f'{scope}::') for name in rows if name.startswith(f'{scope}::')]
        assert families - {name.partition('/')[0] for name in names} == no_models
    assert all(
        rows[config]['parc-convnext-xt'].startswith('trains') for config in [*STEPS, *MORE_STEPS]
    )


def read_list(path: Path) -> dict[str, dict[str, str]]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith('# ')]
    return {row['config']: row for row in csv.DictReader(lines)}
