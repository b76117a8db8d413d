"""Configs, checkpoints, data and command lines that cannot be used: one line, and nothing is lost.

The corpus is the tables below. Each case spoils a copy of what works, runs a tool as a user does,
and wants one line with cause and fix, an exit code that says so, no trace, and all files as before.
"""

import argparse
import copy
import functools
import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import ROOT, run_tool
from mmengine.config import Config

from mmparc import converters, engine
from mmparc.datasets import CLASSES, make_toy_data
from mmparc.engine.samples import coco_problem

CONFIGS = {
    'CLS': ROOT / 'configs/cls/convnext/parc-convnext-micro_toy.py',
    'RES': ROOT / 'configs/cls/resnet/parc-resnet-micro_toy.py',
    'NET': ROOT / 'configs/cls/parcnet/parcnet-micro_toy.py',
    'DET': ROOT / 'configs/det/convnext/centernet-update_parc-convnext-micro_hrfpn_toy.py',
    'SEG': ROOT / 'configs/seg/convnext/parc-convnext-micro_upernet_toy.py',
}
# Names of commands below; what follows them are --cfg-options.
TRAIN = 'tools/train.py {} --work-dir run {} --cfg-options data_root=data/{} train_cfg.{} '
TRAIN += 'train_cfg.val_interval=1 train_dataloader.batch_size=4 '
COMMANDS = {
    'train cls': TRAIN.format('CLS', '', 'cls', 'max_epochs=1'),
    'train res': TRAIN.format('RES', '', 'cls', 'max_epochs=1'),
    'train net': TRAIN.format('NET', '', 'cls', 'max_epochs=1'),
    'train det': TRAIN.format('DET', '', 'det', 'max_epochs=1'),
    'train seg': TRAIN.format('SEG', '', 'seg', 'max_iters=4'),
    'resume': TRAIN.format('CLS', '--resume bad.pth', 'cls', 'max_epochs=1'),
    'test cls': 'tools/test.py CLS bad.pth --work-dir run --cfg-options data_root=data/cls ',
    'test det': 'tools/test.py DET bad.pth --work-dir run --cfg-options data_root=data/det ',
    'test seg': 'tools/test.py SEG bad.pth --work-dir run --cfg-options data_root=data/seg ',
    'convert': 'tools/convert_official.py parc_convnext bad.pth out.pth',
    'export': 'tools/export_onnx.py CLS bad.pth out.onnx --shape 64 64 --no-plain',
    'kernels': 'tools/analysis/draw_kernels.py CLS bad.pth --out out --overview-only',
    'flops': 'tools/analysis/get_flops.py CLS --shape 64 --cfg-options ',
    'swap': 'tools/swap_backbone.py mmdet::retinanet/retinanet_r50_fpn_1x_coco.py ',
    'table': 'tools/reproduce.py table.yaml --dry-run',
    'data': 'tools/make_toy_data.py --out made --tasks cls --train 10 --val 10 --size 64 64 ',
}


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        command: a tool and its arguments, or a key of COMMANDS and what is added to it.
        words: what the line has to say, between |: cause and fix.
        spoil: makes it bad, in the folder where the command runs.
        begun: the run has begun when it is found, so that it may leave its log in run/.
        code: the exit code; 2 is argparse's.
    """

    command: str
    words: str
    spoil: Callable[[Path], None] = lambda folder: None
    begun: bool = False
    code: int = 1


# Ways to spoil


def write(name: str, content: str | bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return spoil


def remove(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def empty_folder(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).mkdir(parents=True)


def checkpoint(task: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    """A checkpoint of a task's model, changed; what is returned, if anything, is saved instead."""

    def spoil(folder: Path) -> None:
        content = dict(state_dict=dict(weights(task)), meta=dict(epoch=1, iter=1))
        changed = change(content)
        torch.save(content if changed is None else changed, folder / 'bad.pth')

    return spoil


def cut_off(share: float) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        checkpoint('cls', lambda content: None)(folder)
        whole = (folder / 'bad.pth').read_bytes()
        (folder / 'bad.pth').write_bytes(whole[: int(share * len(whole))])

    return spoil


def reshaped(part: str, axis: int, size: int) -> Callable[[dict], None]:
    """Give each weight whose name has a part in it another size along an axis."""

    def change(content: dict) -> None:
        for name, value in content['state_dict'].items():
            if part in name:
                shape = list(value.shape)
                shape[axis] = size
                content['state_dict'][name] = torch.zeros(shape)

    return change


def image_of(task: str, number: int = 5) -> Callable[[Path], Path]:
    """A training image in the middle."""
    return lambda folder: sorted((folder / 'data' / task).rglob('*rain*/**/*.[jJ]*'))[number]


def spoil_image(task: str, content: bytes) -> Callable[[Path], None]:
    """Replace a training image: IMAGE in what is to be said."""

    def spoil(folder: Path) -> None:
        image_of(task)(folder).write_bytes(content)

    return spoil


def each_image(folder: Path) -> list[Path]:
    return sorted((folder / 'data/cls/val').rglob('*.JPEG'))


def mask(size: tuple[int, int], value: int) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / 'data/seg/annotations/training/ADE_train_00000005.png'
        cv2.imwrite(str(path), np.full(size, value, np.uint8))

    return spoil


def coco(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Change the content of the training set's annotation file."""

    def spoil(folder: Path) -> None:
        path = folder / 'data/det/annotations/instances_train2017.json'
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return spoil


def box(**values: object) -> Callable[[Path], None]:
    return coco(lambda content: content['annotations'][3].update(values))


def one_more_class(folder: Path) -> None:
    shutil.copytree(folder / 'data/cls/train/disc', folder / 'data/cls/train/zigzag')


def both_tasks(folder: Path) -> None:
    for task in ('cls', 'det'):
        shutil.copytree(folder / 'data' / task, folder / 'data/both', dirs_exist_ok=True)


def labels(lines: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        images = sorted((folder / 'data/cls/train').rglob('*.JPEG'))
        names = [path.relative_to(folder / 'data/cls/train') for path in images]
        listed = ''.join(f'{name} {lines}\n' for name in names)
        (folder / 'data/cls/list.txt').write_text(listed)

    return spoil


def swapped_table(**changes: object) -> str:
    """A file of runs, as configs/tables has them."""
    lines = dict(title='T', task='cls', metrics='{top-1: accuracy/top1}', rows='')
    lines = {**changes, **lines, **changes}
    text = ''.join(f'{key}: {value}\n' for key, value in lines.items() if value is not None)
    config = 'cls/convnext/parc-convnext-micro_toy.py'
    row = f'  - {{name: A, config: {config}, batch: 32, schedule: 20 epochs}}\n'
    return text + (row if lines['rows'] == '' else '')


FULL = "default_scope = 'mmpretrain'\nmodel = dict(type='ImageClassifier')\n"
FLOPS = 'tools/analysis/get_flops.py my.py'

# The corpus

BAD_CONFIGS = {
    # names
    'no such config': Case('tools/train.py no/such.py', 'there is no config|pass the path'),
    'a mistyped name': Case(
        'tools/train.py mmparc::cls/convnext/parc-convnext-mirco_toy.py',
        'ships no config|did you mean',
    ),
    'an unknown package': Case('tools/train.py mmpose::a.py', 'must begin with|mmdet::'),
    'an unknown backbone': Case(
        'train cls model.backbone.type=mmparc.ParCConvNext',
        "unknown backbone|did you mean 'mmparc.ParCConvNeXt'",
    ),
    'an unknown head': Case('train cls model.head.type=LinearHed', 'unknown head|did you mean'),
    'an unknown setting': Case(
        'train cls model.backbone.parc_start=1,1,1,1',
        "argument 'parc_start'|did you mean 'parc_starts'",
    ),
    'an unknown arch': Case(
        'train cls model.backbone.arch=gigantic', 'ParCConvNeXt|mend its settings'
    ),
    'an unknown resize': Case(
        'train cls model.backbone.resize=nearest', "resize must be|'interpolate_sum'"
    ),
    'an unknown backend': Case('train cls model.backbone.backend=cuda', 'backend must be|matmul'),
    'an unknown transform': Case(
        'train cls train_dataloader.dataset.pipeline.1.type=RandomFlop',
        "unknown transform 'RandomFlop'|did you mean",
        begun=True,
    ),
    'an unknown optimizer': Case(
        'train cls optim_wrapper.optimizer.type=AdamWW',
        "unknown optimizer 'AdamWW'|did you mean 'AdamW'",
    ),
    'an unknown data set': Case(
        'train cls train_dataloader.dataset.type=ImageNett',
        "unknown dataset 'ImageNett'|did you mean",
        begun=True,
    ),
    'an unknown metric': Case(
        'train cls val_evaluator.type=Acuracy', "unknown metric 'Acuracy'|did you mean", begun=True
    ),
    'an unknown scheduler': Case(
        'train cls param_scheduler.0.type=LinearLr',
        "unknown parameter scheduler 'LinearLr'|did you mean",
        begun=True,
    ),
    # ParC's place and kernels
    'too few starts': Case(
        'train cls model.backbone.parc_starts=1,1,1', 'parc_starts must give|got [1, 1, 1]'
    ),
    'a start past the depth': Case(
        'train cls model.backbone.parc_starts=1,1,3,1', 'parc_starts must give|from 0 to its depth'
    ),
    'a negative start': Case(
        'train cls model.backbone.parc_starts=1,1,-1,1', 'parc_starts must give|from 0 to its depth'
    ),
    'a start of another type': Case(
        'train cls model.backbone.parc_starts=first', "parc_starts must give|got 'first'"
    ),
    'one start for all': Case(
        'train cls model.backbone.parc_starts=2', 'parc_starts must give|got 2'
    ),
    'half a start': Case(
        'train cls model.backbone.parc_starts=1,1,0.5,1', 'parc_starts must give|got [1, 1, 0.5, 1]'
    ),
    'a start on a stride': Case(
        'train res model.backbone.parc_starts=1,0,1,1',
        'ParC has no stride|set parc_starts[1] to 1 or more',
    ),
    'a kernel of 0': Case(
        'train cls model.backbone.img_size=8', 'kernel_size must be positive|has to be larger'
    ),
    'a negative kernel': Case(
        'train cls model.backbone.img_size=-96', 'img_size must be a positive number|got -96'
    ),
    'an oversized kernel': Case(
        'train cls model.backbone.img_size=99999999999999', 'memory|mend its settings'
    ),
    'an image size in words': Case(
        'train cls model.backbone.img_size=large', "img_size must be a positive number|got 'large'"
    ),
    'an image size of three': Case(
        'train res model.backbone.img_size=64,64,3',
        'img_size must be a positive number|got [64, 64, 3]',
    ),
    'half a pixel': Case(
        'train net model.backbone.img_size=64.5', 'img_size must be a positive number|got 64.5'
    ),
    'odd channels': Case(
        'train cls model.backbone.arch.channels=15,33,65,129',
        'two halves; 65 is odd|mend its settings',
    ),
    'ParC in nothing': Case(
        'flops model.backbone._delete_=True '
        'model.backbone.type=mmparc.ParCify '
        'model.backbone.backbone.type=ResNet '
        'model.backbone.backbone.depth=18 model.backbone.stages=9',
        'stages must be different indices|mend its settings',
    ),
    # types
    'channels in words': Case(
        'train cls model.head.in_channels=many', 'LinearClsHead cannot be built|mend its settings'
    ),
    'no list of a pipeline': Case(
        'train cls train_dataloader.dataset.pipeline=3', 'ImageNet|mend its', begun=True
    ),
    'a mistyped key of a data set': Case(
        'train cls train_dataloader.dataset.indicez=3', "did you mean 'indices'", begun=True
    ),
    'a depth that is none': Case(
        'flops model.backbone._delete_=True '
        'model.backbone.type=mmparc.ParCResNet model.backbone.depth=51',
        'depth|mend its settings',
    ),
    'a depth in words': Case(
        'flops model.backbone._delete_=True '
        'model.backbone.type=mmparc.ParCResNet model.backbone.depth=fifty',
        'depth|mend its settings',
    ),
    'a rate in words': Case(
        'train cls optim_wrapper.optimizer.lr=high',
        'cannot be built|mend its settings',
        begun=True,
    ),
    'a negative rate': Case(
        'train cls optim_wrapper.optimizer.lr=-0.1',
        'Invalid learning rate|mend its settings',
        begun=True,
    ),
    'a batch of 0': Case(
        'train cls train_dataloader.batch_size=0', 'batch_size|mend its settings', begun=True
    ),
    'a mistyped key of a loader': Case(
        'train cls train_dataloader.batchsize=4', 'batchsize|mend its settings', begun=True
    ),
    'a batch in words': Case(
        'train cls train_dataloader.batch_size=large', 'batch_size|mend its settings', begun=True
    ),
    'workers below 0': Case(
        'train cls train_dataloader.num_workers=-1', 'num_workers|mend its settings', begun=True
    ),
    'epochs below 1': Case('train cls train_cfg.max_epochs=0', 'max_epochs|at least 1'),
    'epochs in words': Case('train cls train_cfg.max_epochs=ten', 'max_epochs|at least 1'),
    'no dict of a model': Case('train cls model=3', 'must be a dict with a type'),
    'no dict of a backbone': Case('train cls model.backbone=3', '3 where a dict|mend it'),
    # files
    'a text': Case(
        FLOPS,
        'cannot be read as a config|line 1|mend it',
        write('my.py', 'Dear config, train well.\n'),
    ),
    'an image': Case(
        'tools/analysis/get_flops.py my.jpg',
        'cannot be read as a config|pass another',
        write('my.jpg', bytes(range(256))),
    ),
    'an image called .py': Case(
        FLOPS, 'cannot be read as a config|mend it', write('my.py', bytes(range(256)))
    ),
    'an empty file': Case(FLOPS, 'is no full config|lacks a model', write('my.py', '')),
    'no model': Case(
        FLOPS, 'is no full config|lacks a model', write('my.py', "default_scope = 'mmdet'\n")
    ),
    'no task': Case(FLOPS, 'is no full config|default_scope', write('my.py', 'model = dict()\n')),
    'a model without a type': Case(
        FLOPS, 'a dict with a type', write('my.py', FULL + 'model = dict(depth=3)\n')
    ),
    'an error in it': Case(
        FLOPS, "NameError: name 'depht'|line 3|mend it", write('my.py', FULL + 'depth = depht\n')
    ),
    'a base that is not there': Case(
        FLOPS, 'nobase.py|cannot be read as a config', write('my.py', "_base_ = 'nobase.py'\n")
    ),
    'a table of yaml': Case(
        'tools/analysis/get_flops.py table.yaml',
        'table.yaml|config',
        write('table.yaml', swapped_table()),
    ),
    'a folder': Case(
        'tools/analysis/get_flops.py my.py',
        'there is no config|pass the path',
        empty_folder('my.py'),
    ),
    # --cfg-options
    'no value': Case('train cls nonsense', "'nonsense' is no KEY=VALUE|write it as", code=2),
    'no key': Case('train cls =3', "'=3' is no KEY=VALUE|write it as", code=2),
    'a bracket': Case('train cls model.backbone.parc_starts=[1,1,(2', 'brackets', code=2),
    'a key of nothing': Case(
        'train cls trian_cfg.max_epochs=1', "no 'trian_cfg' in the config|did you mean 'train_cfg'"
    ),
    'a key below a number': Case(
        'train cls train_dataloader.batch_size.of=3',
        'has no place for it|train_dataloader.batch_size.of',
    ),
    'an item past the list': Case(
        'train cls param_scheduler.7.begin=3', 'has no place for it|param_scheduler.7'
    ),
    'another scope': Case('train cls default_scope=mmpose', 'is no full config|mmpretrain, mmdet'),
}

HEAD = 'head.fc.'
BAD_CHECKPOINTS = {
    'none there': Case('test cls', "there is no checkpoint 'bad.pth'|pass a file"),
    'a folder': Case(
        'test cls', "there is no checkpoint 'bad.pth'|pass a file", empty_folder('bad.pth')
    ),
    'empty': Case('test cls', "'bad.pth' cannot be read", write('bad.pth', b'')),
    'a text': Case('test cls', "'bad.pth' cannot be read", write('bad.pth', 'no checkpoint')),
    'cut off': Case('test cls', "'bad.pth' cannot be read", cut_off(0.5)),
    'cut off late': Case('test det', "'bad.pth' cannot be read", cut_off(0.99)),
    'a list': Case(
        'test cls',
        "'bad.pth' holds no checkpoint, but a list",
        checkpoint('cls', lambda content: [1, 2]),
    ),
    'no weights': Case(
        'test cls',
        'holds no weights|convert_official',
        checkpoint('cls', lambda content: dict(meta={})),
    ),
    'weights of another type': Case(
        'test cls',
        'holds no weights|convert_official',
        checkpoint('cls', lambda c: dict(state_dict=[1, 2])),
    ),
    'a half': Case(
        'test cls',
        'is no checkpoint of this model: it lacks head.fc|the config that',
        checkpoint(
            'cls', lambda c: [c['state_dict'].pop(HEAD + k) for k in ('weight', 'bias')] and None
        ),
    ),
    'of another task': Case(
        'test det',
        'is no checkpoint of this model: it lacks|the config that',
        checkpoint('cls', lambda c: None),
    ),
    'of another task, segmentation': Case(
        'test seg', 'is no checkpoint of this model|the config', checkpoint('cls', lambda c: None)
    ),
    'of a deeper model': Case(
        'test cls',
        'backbone.stages.2.2.gamma|the config that',
        checkpoint(
            'cls', lambda c: c['state_dict'].update({'backbone.stages.2.2.gamma': torch.ones(8)})
        ),
    ),
    'of other classes': Case(
        'test cls', 'head.fc.weight|the config that', checkpoint('cls', reshaped(HEAD, 0, 1000))
    ),
    'of other widths': Case(
        'test cls',
        'only the last axis, the length, can be resized',
        checkpoint('cls', reshaped('conv_h.weight', 0, 6)),
    ),
    'of kernels without length': Case(
        'test cls', 'bad.pth|conv_h.weight', checkpoint('cls', reshaped('conv_h.weight', 2, 0))
    ),
    'of the plain twin': Case(
        'test cls',
        'is no checkpoint of this model|the config that',
        checkpoint(
            'cls',
            lambda c: dict(
                state_dict={
                    k.replace('.conv_h', ''): v
                    for k, v in c['state_dict'].items()
                    if 'conv_w' not in k
                }
            ),
        ),
    ),
    'not to be resumed': Case(
        'resume', "'bad.pth'|--resume FILE", checkpoint('cls', lambda c: c.pop('meta') and None)
    ),
    'cut off, resumed': Case('resume', "'bad.pth' is damaged|--resume FILE", cut_off(0.5)),
    'none there, resumed': Case('resume', "there is no checkpoint 'bad.pth'|leave --resume out"),
    'none there, loaded': Case('train cls load_from=bad.pth', "there is no checkpoint 'bad.pth'"),
    'empty, loaded': Case(
        'train cls load_from=bad.pth', "'bad.pth' cannot be read", write('bad.pth', b''), begun=True
    ),
    'another, loaded': Case(
        'train cls load_from=bad.pth',
        'is loaded into|--min-loaded',
        checkpoint(
            'seg',
            lambda c: dict(state_dict={k: v for k, v in c['state_dict'].items() if 'head' in k}),
        ),
        begun=True,
    ),
    'another, pretrained': Case(
        'train cls model.backbone.init_cfg._delete_=True '
        'model.backbone.init_cfg.type=Pretrained '
        'model.backbone.init_cfg.checkpoint=bad.pth',
        'is loaded into|--min-loaded',
        checkpoint('seg', lambda c: None),
        begun=True,
    ),
    'cut off, converted': Case('convert', "'bad.pth' cannot be read", cut_off(0.5)),
    'ours, converted': Case('convert', 'bad.pth', checkpoint('cls', lambda c: None)),
    'a folder, converted': Case(
        'convert', "there is no checkpoint 'bad.pth'", empty_folder('bad.pth')
    ),
    'cut off, exported': Case('export', "'bad.pth' cannot be read", cut_off(0.5)),
    'another, exported': Case(
        'export',
        'is no checkpoint of this model|the config that',
        checkpoint('seg', lambda c: None),
    ),
    'another, drawn': Case(
        'kernels',
        'is no checkpoint of this model|the config that',
        checkpoint('seg', lambda c: None),
    ),
}

LIST = ' train_dataloader.dataset.ann_file=list.txt train_dataloader.dataset.data_prefix=train'
LIST += ' train_dataloader.dataset.split=train'
LATER = ' train_dataloader.num_workers={} train_dataloader.persistent_workers=False'
HERE, AWAY = LATER.format(0), LATER.format(2)
TRUNCATED = b'\xff\xd8\xff\xe0\x00\x10JFIF'
BAD_DATA = {
    'no root': Case('train cls data_root=no/such', "no data root 'no/such'|make_toy_data"),
    'a root that is a file': Case(
        'train cls data_root=bad.pth', 'no data root|data_root=DIR', write('bad.pth', b'')
    ),
    'no training images': Case(
        'train cls', 'data/cls|data_root=DIR', remove('data/cls/train'), begun=True
    ),
    'an empty set': Case(
        'train cls',
        'data/cls|data_root=DIR',
        lambda f: [p.unlink() for p in (f / 'data/cls/train').rglob('*.JPEG')] and None,
        begun=True,
    ),
    'an empty validation set': Case(
        'train cls',
        'data/cls|data_root=DIR',
        lambda f: [p.unlink() for p in each_image(f)] and None,
        begun=True,
    ),
    'one class too many': Case('train cls', 'data/cls|mend its', one_more_class, begun=True),
    'a label out of range': Case(
        'train cls' + LIST, 'has the label 77|model.head.num_classes', labels('77'), begun=True
    ),
    'a label in words': Case(
        'train cls' + LIST, 'list.txt|mend its files', labels('disc'), begun=True
    ),
    'an image of 0 bytes': Case(
        'train cls' + HERE, 'IMAGE|mend it', spoil_image('cls', b''), begun=True
    ),
    'an image of 0 bytes, a worker': Case(
        'train cls' + AWAY, 'IMAGE|mend it', spoil_image('cls', b''), begun=True
    ),
    'a text for an image': Case(
        'train cls' + HERE, 'IMAGE|mend it', spoil_image('cls', b'no image at all'), begun=True
    ),
    'an image cut off, a worker': Case(
        'train det' + AWAY, 'IMAGE|mend it', spoil_image('det', TRUNCATED), begun=True
    ),
    'an image that is a text, segmentation': Case(
        'train seg' + AWAY, 'IMAGE|mend it', spoil_image('seg', b'no image'), begun=True
    ),
    'a broken image in the test': Case(
        'test cls',
        'val_0|mend it',
        lambda f: (checkpoint('cls', lambda c: None)(f), each_image(f)[3].write_bytes(b'no'))[0],
        begun=True,
    ),
    'an image that is gone': Case(
        'train det' + AWAY,
        '000000000007.jpg|mend it',
        remove('data/det/train2017/000000000007.jpg'),
        begun=True,
    ),
    'no annotations': Case(
        'train det',
        'instances_train2017.json|complete it',
        remove('data/det/annotations/instances_train2017.json'),
    ),
    'broken json': Case(
        'train det',
        'instances_train2017.json|mend its files',
        write('data/det/annotations/instances_train2017.json', '{"images": [1'),
        begun=True,
    ),
    'json of something else': Case(
        'train det',
        'instances_train2017.json|no list of images|mend',
        write('data/det/annotations/instances_train2017.json', '{}'),
        begun=True,
    ),
    'a list of json': Case(
        'train det',
        'instances_train2017.json|mend its files',
        write('data/det/annotations/instances_train2017.json', '[]'),
        begun=True,
    ),
    'no image has that id': Case(
        'train det', 'annotation 4 is of image_id 999|mend the', box(image_id=999), begun=True
    ),
    'no category has that id': Case(
        'train det', 'annotation 4 is of category_id 99|mend the', box(category_id=99), begun=True
    ),
    'a box outside': Case(
        'train det',
        'annotation 4|outside of its image|mend the',
        box(bbox=[500, 0, 9, 9]),
        begun=True,
    ),
    'a box of negative width': Case(
        'train det', 'annotation 4|width, height|mend the', box(bbox=[5, 5, -9, 9]), begun=True
    ),
    'a box of three numbers': Case(
        'train det', 'annotation 4|width, height|mend the', box(bbox=[5, 5, 9]), begun=True
    ),
    'a box of NaN': Case(
        'train det',
        'annotation 4|width, height|mend the',
        box(bbox=[5, 5, 9, float('nan')]),
        begun=True,
    ),
    'a box in words': Case(
        'train det', 'annotation 4|width, height|mend the', box(bbox='left'), begun=True
    ),
    'no images in it': Case(
        'train det',
        'instances_train2017.json|is empty|complete it',
        coco(lambda c: c.update(images=[], annotations=[])),
        begun=True,
    ),
    'no boxes in it': Case(
        'train det',
        'instances_train2017.json|is empty|filter_cfg',
        coco(lambda c: c.update(annotations=[])),
        begun=True,
    ),
    'a class renamed': Case(
        'train det',
        '7 of the data set|set metainfo.classes',
        coco(lambda c: c['categories'][2].update(name='circle')),
        begun=True,
    ),
    'all classes renamed': Case(
        'train det',
        'instances_train2017.json|metainfo.classes',
        coco(lambda c: [k.update(name=f'x{i}') for i, k in enumerate(c['categories'])]),
        begun=True,
    ),
    'an image without a name': Case(
        'train det',
        'instances_train2017.json|mend its files',
        coco(lambda c: c['images'][3].pop('file_name')),
        begun=True,
    ),
    'no masks': Case(
        'train seg' + HERE,
        'annotations/training|mend it',
        remove('data/seg/annotations/training'),
        begun=True,
    ),
    'a mask of another size': Case(
        'train seg' + HERE, '00000005.png|of one size', mask((30, 40), 1), begun=True
    ),
    'a mask of another size, a worker': Case(
        'train seg' + AWAY, '00000005.png|of one size', mask((30, 40), 1), begun=True
    ),
    'a class that is none': Case(
        'train seg' + AWAY,
        '00000005.png|has the class 199|mend it',
        mask((64, 64), 200),
        begun=True,
    ),
    'a text for a mask': Case(
        'train seg' + AWAY,
        '00000005.png|mend it',
        write('data/seg/annotations/training/ADE_train_00000005.png', 'no'),
        begun=True,
    ),
}

TAKEN = write('out.pth', 'mine')
BAD_COMMANDS = {
    'no argument': Case('tools/train.py', 'required: config', code=2),
    'an unknown option': Case('tools/train.py CLS --resmue', 'unrecognized', code=2),
    'a share above 1': Case('tools/train.py CLS --min-loaded 90', '--min-loaded|from 0 to 1'),
    'a share in words': Case('tools/train.py CLS --min-loaded most', '--min-loaded', code=2),
    'a launcher alone': Case(
        'tools/train.py CLS --launcher pytorch', 'RANK is not in|dist_train.sh'
    ),
    'slurm alone': Case(
        'tools/test.py CLS none --launcher slurm', 'SLURM_PROCID is not in|slurm_train.sh'
    ),
    'amp without a GPU': Case('tools/train.py CLS --amp', 'needs a GPU|--no-amp'),
    'a work dir that is a file': Case(
        'tools/train.py CLS --work-dir run', "'run' is a file|another", write('run', 'mine')
    ),
    'a work dir below a file': Case(
        'tools/train.py CLS --work-dir run/x --cfg-options data_root=data/cls',
        'run',
        write('run', 'mine'),
    ),
    'an existing output': Case('convert', "'out.pth' is there already|name another", TAKEN),
    'an unknown model': Case(
        'tools/convert_official.py resnet a.pth b.pth', 'invalid choice', code=2
    ),
    'no folder for it': Case(
        'tools/convert_official.py parcnet a.pth no/b.pth', "no folder 'no'|make it first"
    ),
    'an existing export': Case(
        'tools/export_onnx.py CLS none out.onnx', 'exists|name another', write('out.onnx', 'mine')
    ),
    'no onnx': Case('tools/export_onnx.py CLS none out.pt', 'ends with .onnx'),
    'a negative shape': Case('tools/export_onnx.py CLS none out.onnx --shape -1 64', 'positive'),
    'an opset from the future': Case(
        'tools/export_onnx.py CLS none out.onnx --opset 999 --shape 64 64 --no-plain',
        '--opset|another',
    ),
    'an unknown backbone': Case('swap parc-resnet5', 'parc-resnet50'),
    'an existing config': Case(
        'swap parc-resnet50 -o out.py', 'exists|name another', write('out.py', 'mine = 1')
    ),
    'no config': Case('swap parc-resnet50 -o out.txt', 'ends with .py'),
    'a shape of 0': Case('swap parc-resnet50 --shape 0 0', '--shape|positive'),
    'an unknown table': Case('tools/reproduce.py detektion --dry-run', 'detection'),
    'a row that is none': Case('tools/reproduce.py detection --dry-run --rows ParC', 'ParC|rows'),
    'no GPUs': Case('tools/reproduce.py detection --gpus 0', '--gpus|at least 1'),
    'a table of nonsense': Case('table', 'table.yaml', write('table.yaml', 'Dear table,\n- x: {')),
    'an empty table': Case('table', 'table.yaml', write('table.yaml', '')),
    'a table without rows': Case(
        'table', 'table.yaml|rows', write('table.yaml', swapped_table(rows=None))
    ),
    'a table of an unknown key': Case(
        'table', 'table.yaml|sedes', write('table.yaml', swapped_table(sedes='[1]'))
    ),
    'a table of bytes': Case('table', 'table.yaml', write('table.yaml', bytes(range(128, 256)))),
    'an option that is none': Case(
        'tools/reproduce.py small --dry-run --cfg-options x', 'no KEY=VALUE', code=2
    ),
    'an unknown table, reported': Case('tools/paper_tables.py detektion --out out', 'detection'),
    'results that are none': Case(
        'tools/paper_tables.py --render-only --out out',
        'small.json|restore it',
        write('out/small.json', '{"a": '),
    ),
    "somebody's page": Case(
        'tools/paper_tables.py --render-only --out out',
        'move it away|another --out',
        write('out/small.md', 'mine'),
    ),
    'a page without a place': Case(
        'tools/paper_tables.py --render-only --out out --readme my.md',
        'no place for the table|add',
        write('my.md', 'mine'),
    ),
    'an output that is a file': Case(
        'tools/paper_tables.py small --out out', 'out', write('out', 'mine')
    ),
    'no images to make': Case('data --train 0', 'needs 1 to a million'),
    'a negative size': Case('data --size -3 3', 'at least 64 x 64'),
    'no number': Case('data --seed x', '--seed', code=2),
    'a negative seed': Case('data --seed -1', 'seed'),
    'data in a file': Case('data', "'made' is a file|another --out", write('made', 'mine')),
    "data in somebody's folder": Case('data', 'made', write('made/cls/mine.txt', 'mine')),
    'flops of nothing': Case('tools/analysis/get_flops.py CLS --shape 0', '--shape|positive'),
    'flops of too little': Case('tools/analysis/get_flops.py CLS --shape 2', '--shape'),
    'an unknown model, timed': Case(
        'tools/analysis/benchmark_model.py --models x', 'invalid choice', code=2
    ),
    'a shape of words, timed': Case(
        'tools/analysis/benchmark_model.py --shapes big', "--shapes takes BxHxW|got 'big'"
    ),
    'a device that is none': Case(
        'tools/analysis/benchmark_model.py --device tpu9', 'tpu9|pass cpu'
    ),
    'no threads': Case('tools/analysis/benchmark_op.py --threads 0', '--threads|at least 1'),
    'a shape of words, measured': Case('tools/analysis/benchmark_op.py --shapes big', '--shapes'),
    'a device that is none, measured': Case(
        'tools/analysis/benchmark_op.py --device tpu9', 'tpu9|pass cpu'
    ),
    'no table of backends': Case('tools/analysis/measure_backends.py --out out.txt', 'out.json'),
    'an existing table of backends': Case(
        'tools/analysis/measure_backends.py --out out.json',
        'exists|--force',
        write('out.json', '{}'),
    ),
    'two tasks': Case(
        'tools/analysis/compare_predictions.py CLS none DET none --cfg-options data_root=data/both',
        'one task at a time',
        both_tasks,
    ),
    'no pictures': Case('tools/analysis/compare_predictions.py CLS none CLS none --num 0', '--num'),
    'a config without its checkpoint': Case('tools/analysis/input_sizes.py CLS', 'CKPT'),
    'a size of 0': Case('tools/analysis/input_sizes.py CLS none --sizes 0', '--sizes|positive'),
    'no ParC to draw': Case(
        'tools/analysis/draw_kernels.py mmpretrain::resnet/resnet18_8xb32_in1k.py none',
        'no ParC layer',
    ),
    'existing pictures': Case(
        'tools/analysis/draw_kernels.py CLS none --out out --overview-only',
        'exists|--force',
        write('out/kernels.png', 'mine'),
    ),
    'no images to look at': Case('tools/analysis/erf.py --config CLS none --inputs 0', '--inputs'),
    'no folder of images': Case(
        'tools/analysis/erf.py --config CLS none --images no', "no folder 'no'"
    ),
    'a folder without images': Case(
        'tools/analysis/erf.py --config CLS none --images data/seg/x',
        'holds no image',
        empty_folder('data/seg/x'),
    ),
    'an unknown name': Case('tools/analysis/erf.py parc-resnet5', 'parc-resnet50'),
    'no log': Case('tools/analysis/plot_curves.py data', 'holds no training log|pass the work dir'),
    'a log of nonsense': Case(
        'tools/analysis/plot_curves.py run',
        'scalars.json',
        write('run/1/vis_data/scalars.json', '{"loss": 1'),
    ),
    'published numbers of nonsense': Case(
        'tools/analysis/model_table.py --published my.yaml', 'my.yaml', write('my.yaml', '- {')
    ),
    'no configs': Case('tools/analysis/model_table.py --configs no', 'no'),
    'an existing list': Case(
        'tools/analysis/try_upstream.py mmdet::no.py --out out',
        'exists|--force',
        write('out/compatibility.csv', 'mine'),
    ),
}
GROUPS = {
    'configs': BAD_CONFIGS,
    'checkpoints': BAD_CHECKPOINTS,
    'data': BAD_DATA,
    'command lines': BAD_COMMANDS,
}
# In CI: each group, a fault in the folder, in building, in loading by a worker, in arguments.
QUICK = {
    'configs': ('a start on a stride', 'an error in it'),
    'checkpoints': ('of a deeper model',),
    'data': ('an image that is gone', 'a mask of another size, a worker'),
    'command lines': ('an existing output',),
}


# What they are tried on


@functools.cache
def weights(task: str) -> dict[str, torch.Tensor]:
    """Of an untrained model of a task."""
    cfg = engine.load_config(str(CONFIGS[task.upper()]))
    return engine.build_trained(cfg, engine.UNTRAINED).state_dict()


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data of the three tasks."""
    root = tmp_path_factory.mktemp('data')
    for task in ('cls', 'det', 'seg'):
        make_toy_data(root, task, train=len(CLASSES), val=len(CLASSES), size=(64, 64))
    return root


def command_of(case: Case) -> list[str]:
    known = max((key for key in COMMANDS if case.command.startswith(key)), key=len, default='')
    text = COMMANDS.get(known, '') + case.command.removeprefix(known)
    return [str(CONFIGS.get(part, part)) for part in shlex.split(text)]


def contents(folder: Path) -> dict[str, str]:
    """{path: SHA-256} of all files in a folder."""
    files = [path for path in folder.rglob('*') if path.is_file()]
    hashed = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {path.relative_to(folder).as_posix(): sums for path, sums in hashed.items()}


def faults(
    case: Case,
    ended: subprocess.CompletedProcess[str],
    before: dict[str, str],
    after: dict[str, str],
    image: str,
) -> list[str]:
    """What is wrong with the way in which a tool refused."""
    found = []
    if ended.returncode != case.code:
        found.append(f'exit code {ended.returncode}, not {case.code}')
    if 'Traceback' in ended.stderr + ended.stdout:
        found.append('a trace')
    said = [line for line in ended.stderr.splitlines() if 'error: ' in line]
    if len(said) != 1 or not (said[0].startswith('error: ') or case.code == 2):
        found.append(f'{len(said)} lines of error')
    for word in case.words.replace('IMAGE', image).split('|'):
        if not any(word in line for line in said):
            found.append(f'no word of {word!r}')
    found += [f'{name} is changed' for name in before if after.get(name) != before[name]]
    new = [name for name in after if name not in before]
    found += [f'{name} is new' for name in new if not (case.begun and name.startswith('run/'))]
    return found


def attempt(case: Case, folder: Path, data: Path) -> tuple[str, list[str]]:
    """What a tool said of a case, and what was wrong with that."""
    folder.mkdir()
    shutil.copytree(data, folder / 'data')
    case.spoil(folder)
    task = next((key for key in ('det', 'seg') if f' {key}' in case.command), 'cls')
    before = contents(folder)
    tool, *args = command_of(case)
    ended = run_tool(tool, *args, cwd=folder)
    image = image_of(task)(folder).name if 'IMAGE' in case.words else ''
    found = faults(case, ended, before, contents(folder), image)
    said = [line for line in ended.stderr.splitlines() if 'error: ' in line]
    return (said or ended.stderr.splitlines()[-1:] or ['nothing'])[-1], found


@pytest.mark.parametrize('group', GROUPS)
def test_refused(group: str, full: bool, record: Callable, data: Path, tmp_path: Path) -> None:
    tried = [name for name in GROUPS[group] if full or name in QUICK[group]]
    failed = []
    for number, name in enumerate(tried):
        folder = tmp_path / str(number)
        said, found = attempt(GROUPS[group][name], folder, data)
        print(f'{name}: {said}')
        failed += [f'{name}: {"; ".join(found)}: {said}'] if found else []
        shutil.rmtree(folder)
    record(f'bad {group} refused', len(tried), len(tried) - len(failed))
    assert not failed, '\n'.join(failed)


# The same without a process, which is quick enough for CI


def test_backbones_refuse() -> None:
    """All that the corpus has of wrong settings of a backbone."""
    tried = [c for c in BAD_CONFIGS.values() if 'model.backbone' in c.command and c.code == 1]
    assert len(tried) > 20
    load = functools.cache(engine.load_config)
    for case in tried:
        _, config, *rest = command_of(case)
        parser = argparse.ArgumentParser()
        engine.add_config_arguments(parser)
        options = parser.parse_args([config, *rest[rest.index('--cfg-options') :]]).cfg_options
        cfg = copy.deepcopy(load(config))
        cfg.merge_from_dict({k: v for k, v in options.items() if k.startswith('model.')})

        @engine.exit_on_user_error
        def main(cfg: Config = cfg) -> None:
            engine.check_model_types(cfg)
            engine.build_model(cfg)

        with pytest.raises(SystemExit) as ended:
            main()
        line = str(ended.value)
        assert line.startswith('error: ') and '\n' not in line
        assert all(word in line for word in case.words.split('|')), line


@pytest.mark.parametrize('name', [n for n, c in BAD_DATA.items() if 'annotation 4' in c.words])
def test_annotations_are_refused(name: str, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / 'det/annotations', tmp_path / 'data/det/annotations')
    content = tmp_path / 'data/det/annotations/instances_train2017.json'
    assert coco_problem(json.loads(content.read_text())) is None
    BAD_DATA[name].spoil(tmp_path)
    said = coco_problem(json.loads(content.read_text()))
    assert all(word in said for word in BAD_DATA[name].words.split('|')[:-1])


# Controls


def test_the_judge_finds_faults() -> None:
    case = Case('tools/train.py', 'cause|fix', begun=True)

    def judged(code: int, stderr: str, after: dict[str, str], case: Case = case) -> list[str]:
        ended = subprocess.CompletedProcess([], code, '', stderr)
        return faults(case, ended, {'a': '1', 'b': '2'}, after, '')

    same, line = {'a': '1', 'b': '2'}, 'error: the cause: the fix\n'
    assert judged(1, line, same) == []
    assert judged(1, line, {**same, 'run/x.log': '3'}) == []
    assert judged(2, f'usage: x\nx: {line}', same, Case('x', 'cause', code=2)) == []
    for code, stderr, after in (
        (0, line, same),
        (1, 'Traceback (most recent call last):\n' + line, same),
        (1, line + line, same),
        (1, '', same),
        (1, 'ValueError: the cause: the fix', same),
        (1, 'error: the cause', same),
        (1, line, {'a': '1', 'b': '3'}),
        (1, line, {'a': '1'}),
        (1, line, {**same, 'c': '3'}),
    ):
        assert len(judged(code, stderr, after)) >= 1, (code, stderr, after)
    unbegun = Case('tools/train.py', 'cause|fix')
    assert judged(1, line, {**same, 'run/x.log': '3'}, unbegun) == ['run/x.log is new']


WORKS = {
    'configs': {
        **{key: (key, None) for key in ('train cls', 'train res', 'train net')},
        'flops': ('flops model.backbone.resize=interpolate', None),
        'a file': (FLOPS + ' --shape 64', write('my.py', f"_base_ = '{CONFIGS['CLS']}'\n")),
    },
    'checkpoints': {
        **{
            f'test {t}': (f'test {t}', checkpoint(t, lambda c: None)) for t in ('cls', 'det', 'seg')
        },
        'with a part more': (
            'test cls',
            checkpoint(
                'cls',
                lambda c: c['state_dict'].update({'auxiliary_head.fc.weight': torch.ones(3, 3)}),
            ),
        ),
        'of other lengths': ('test cls', checkpoint('cls', reshaped('conv_h.weight', 2, 9))),
        'loaded': ('train cls load_from=bad.pth', checkpoint('cls', lambda c: None)),
        'back': ('convert --to-official', checkpoint('cls', lambda c: None)),
        'drawn': ('kernels', checkpoint('cls', lambda c: None)),
    },
    'data': {
        'workers': ('train cls' + AWAY, None),
        'no worker': ('train seg' + HERE, None),
        'boxes': ('train det' + AWAY, box(bbox=[60, 60, 9, 9])),
        'a list': ('train cls' + LIST, labels('7')),
    },
    'command lines': {
        'a table': ('table', write('table.yaml', swapped_table())),
        'data': ('data', None),
        'a swap': ('swap parc-resnet50 -o out.py --shape 320 320', None),
        'a converted one': (
            'convert',
            lambda f: torch.save(
                converters.convert_to_official(weights('cls'), 'parc_convnext'), f / 'bad.pth'
            ),
        ),
    },
}


@pytest.mark.parametrize('group', GROUPS)
def test_unspoiled_works(group: str, full: bool, data: Path, tmp_path: Path) -> None:
    for number, (name, (command, spoil)) in enumerate(WORKS[group].items()):
        if not full and name != 'workers':
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copytree(data, folder / 'data')
        if spoil:
            spoil(folder)
        before = contents(folder)
        tool, *args = command_of(Case(command, ''))
        ended = run_tool(tool, *args, cwd=folder)
        assert ended.returncode == 0, f'{name}: {ended.stdout[-1000:]}{ended.stderr[-3000:]}'
        assert 'error: ' not in ended.stderr
        assert before.items() <= contents(folder).items()


def fault() -> None:
    return None + 1


def test_faults_keep_their_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong in our code, in building a model or elsewhere, is nothing for the user."""
    cfg = engine.load_config(str(CONFIGS['CLS']))
    where = 'mmparc.models.backbones.parc_convnext.check_parc_starts'
    for inside in (lambda *_: fault(), lambda *_: torch.ones(2) @ torch.ones(3)):
        monkeypatch.setattr(where, inside)
        with pytest.raises((TypeError, RuntimeError)):
            engine.exit_on_user_error(lambda: engine.build_model(cfg))()
    monkeypatch.undo()
    engine.exit_on_user_error(lambda: engine.build_model(cfg))()
    for error in (ValueError('x'), KeyError('x'), AssertionError(), RuntimeError('x')):

        @engine.exit_on_user_error
        def main(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)):
            main()


def test_a_reader_who_has_seen_enough(full: bool) -> None:
    """Of a table, as in ``| head``: no trace, and no error either."""
    if not full:
        pytest.skip('a fresh process, in full only')
    tool = shlex.join([sys.executable, str(ROOT / 'tools/reproduce.py'), 'detection', '--dry-run'])
    ended = subprocess.run(
        ['bash', '-c', f'{tool} | true; echo ${{PIPESTATUS[0]}}'], capture_output=True, text=True
    )
    assert (ended.stdout.strip(), ended.stderr) == ('141', '')
