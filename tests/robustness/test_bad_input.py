"""Configs, checkpoints, data and command lines that cannot be used: one line, and nothing is lost.

Each case spoils a copy of what works, runs a tool as a user does, and expects an exit code, one
line with the name or number that the user needs, no trace, and all files as before.
"""

import functools
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import ROOT, run_tool

from mmparc import engine
from mmparc.datasets import CLASSES, make_toy_data
from mmparc.engine.data_checks import coco_problem

CONFIGS = {
    'CLS': ROOT / 'configs/cls/convnext/parc-convnext-micro_toy.py',
    'RES': ROOT / 'configs/cls/resnet/parc-resnet-micro_toy.py',
    'DET': ROOT / 'configs/det/convnext/centernet-update_parc-convnext-micro_hrfpn_toy.py',
    'SEG': ROOT / 'configs/seg/convnext/parc-convnext-micro_upernet_toy.py',
}
# Names of commands below; what follows them are --cfg-options.
TRAIN = 'tools/train.py {} --work-dir run {} --cfg-options data_root=data/{} train_cfg.{} '
TRAIN += 'train_cfg.val_interval=1 train_dataloader.batch_size=4 '
TEST = 'tools/test.py {} bad.pth --work-dir run --cfg-options data_root=data/{} '
COMMANDS = {
    'train cls': TRAIN.format('CLS', '', 'cls', 'max_epochs=1'),
    'train res': TRAIN.format('RES', '', 'cls', 'max_epochs=1'),
    'train det': TRAIN.format('DET', '', 'det', 'max_epochs=1'),
    'train seg': TRAIN.format('SEG', '', 'seg', 'max_iters=4'),
    'resume': TRAIN.format('CLS', '--resume bad.pth', 'cls', 'max_epochs=1'),
    'test cls': TEST.format('CLS', 'cls'),
    'test det': TEST.format('DET', 'det'),
    'test seg': TEST.format('SEG', 'seg'),
    'convert': 'tools/convert_official.py parc_convnext bad.pth out.pth',
    'export': 'tools/export_onnx.py CLS bad.pth out.onnx --shape 64 64',
    'flops': 'tools/analysis/get_flops.py CLS --shape 64 --cfg-options ',
    'swap': 'tools/swap_backbone.py mmdet::retinanet/retinanet_r50_fpn_1x_coco.py ',
    'data': 'tools/make_toy_data.py --out made --tasks cls --train 10 --val 10 --size 64 64 ',
}
Spoil = Callable[[Path], object]
Case = tuple  # (command, words between |) and, for some, how to spoil the folder


# Ways to spoil


def write(name: str, content: str | bytes) -> Spoil:
    content = content if isinstance(content, bytes) else content.encode()

    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return spoil


def remove(name: str) -> Spoil:
    return lambda folder: (folder / name).rename(folder / 'away')


def empty_folder(name: str) -> Spoil:
    return lambda folder: (folder / name).mkdir(parents=True)


def checkpoint(task: str, change: Callable[[dict], object] = lambda content: None) -> Spoil:
    """A checkpoint of a task's model, changed; what is returned, if anything, is saved instead."""

    def spoil(folder: Path) -> None:
        content = dict(state_dict=dict(weights(task)), meta=dict(epoch=1, iter=1))
        changed = change(content)
        torch.save(content if changed is None else changed, folder / 'bad.pth')

    return spoil


class Attack:
    """Pickles as code that writes a file, which is then new; tests/engine/test_checkpoint.py has
    the control, more attacks, and the loaders behind the tools.
    """

    def __reduce__(self):
        return exec, ('open("ran", "w").close()',)


def attack(folder: Path) -> None:
    weights = {'backbone.stages.2.0.gamma': torch.ones(8)}
    content = dict(state_dict=weights, meta=dict(epoch=1), message_hub=Attack())
    torch.save(content, folder / 'bad.pth')
    write('latest/last_checkpoint', str(folder / 'bad.pth'))(folder)


def with_weight(name: str, shape: tuple[int, ...]) -> Spoil:
    return checkpoint('cls', lambda c: c['state_dict'].update({name: torch.ones(shape)}))


def cut_off(share: float) -> Spoil:
    def spoil(folder: Path) -> None:
        checkpoint('cls')(folder)
        whole = (folder / 'bad.pth').read_bytes()
        (folder / 'bad.pth').write_bytes(whole[: int(share * len(whole))])

    return spoil


def reshaped(part: str, axis: int, size: int) -> Spoil:
    """Give each weight whose name has a part in it another size along an axis."""

    def change(content: dict) -> None:
        for name, value in content['state_dict'].items():
            if part in name:
                shape = list(value.shape)
                shape[axis] = size
                content['state_dict'][name] = torch.zeros(shape)

    return checkpoint('cls', change)


def image_of(task: str) -> Callable[[Path], Path]:
    """A training image in the middle: IMAGE in the words of a case."""
    return lambda folder: sorted((folder / 'data' / task).rglob('*rain*/**/*.[jJ]*'))[5]


def image(task: str, content: bytes) -> Spoil:
    return lambda folder: image_of(task)(folder).write_bytes(content)


def no_images(part: str) -> Spoil:
    return lambda f: [path.unlink() for path in (f / 'data/cls' / part).rglob('*.JPEG')]


def mask(size: tuple[int, int], value: int) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / 'data/seg/annotations/training/ADE_train_00000005.png'
        cv2.imwrite(str(path), np.full(size, value, np.uint8))

    return spoil


def coco(change: Callable[[dict], object]) -> Spoil:
    """Change the content of the training set's annotation file."""

    def spoil(folder: Path) -> None:
        path = folder / 'data/det' / COCO
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return spoil


def box(**values: object) -> Spoil:
    return coco(lambda content: content['annotations'][3].update(values))


def labels(label: str) -> Spoil:
    def spoil(folder: Path) -> None:
        images = sorted((folder / 'data/cls/train').rglob('*.JPEG'))
        names = [path.relative_to(folder / 'data/cls/train') for path in images]
        listed = ''.join(f'{name} {label}\n' for name in names)
        (folder / 'data/cls/list.txt').write_text(listed)

    return spoil


# The cases

FULL = "default_scope = 'mmpretrain'\nmodel = dict(type='ImageClassifier')\n"
MINE = 'tools/analysis/get_flops.py my.py'
ParC = 'flops model.backbone._delete_=True model.backbone.type=mmparc.ParCResNet '
BAD_CONFIGS: list[Case] = [
    # names; test_config.py has more
    ('tools/train.py no/such.py', 'no/such.py'),
    ('train cls param_scheduler.0.type=LinearLr', "'LinearLR'"),
    ('train cls model.backbone.type=mmparc.ParCConvNext', "'mmparc.ParCConvNeXt'"),
    ('train cls model.backbone.parc_start=1,1,1,1', "'parc_start'"),
    ('train cls model.backbone.arch=gigantic', 'arch'),
    ('train cls model.backbone.resize=nearest', "resize|'interpolate_sum'"),
    ('train cls model.backbone.backend=cuda', 'backend|matmul'),
    # where ParC goes, and its kernels
    ('train cls model.backbone.parc_starts=1,1,1', 'parc_starts|[1, 1, 1]'),
    ('train cls model.backbone.parc_starts=1,1,3,1', 'parc_starts|[1, 1, 3, 1]'),
    ('train res model.backbone.parc_starts=1,0,1,1', 'parc_starts[1]'),
    ('train cls model.backbone.img_size=8', 'img_size'),
    ('train cls model.backbone.img_size=-96', 'img_size|-96'),
    ('train cls model.backbone.img_size=large', "img_size|'large'"),
    ('train cls model.backbone.arch.channels=15,33,65,129', '65'),
    (ParC + 'model.backbone.depth=51', '51'),
    # types
    ('train cls model.head.in_channels=many', 'model'),
    ('train cls train_dataloader.dataset.pipeline=3', 'ImageNet'),
    ('train cls optim_wrapper.optimizer.lr=high', 'optimizer'),
    ('train cls optim_wrapper.optimizer.lr=-0.1', '-0.1'),
    ('train cls train_dataloader.batch_size=0', 'batch_size'),
    ('train cls train_dataloader.num_workers=-1', 'num_workers'),
    ('train cls train_cfg.max_epochs=0', 'max_epochs'),
    ('train cls train_cfg.max_epochs=9 optim_wrapper.optimizer.lr=1e30', 'loss is nan|iteration'),
    ('train cls max_epochs=2', 'train_cfg.max_epochs'),
    ('train cls model=3', 'model'),
    ('train cls model.backbone=3', 'model'),
    # files
    (MINE, 'my.py|line 1', write('my.py', 'Dear config, train well.\n')),
    (MINE, 'my.py', write('my.py', bytes(range(256)))),
    (MINE, 'my.py|default_scope', write('my.py', '')),
    (MINE, 'model', write('my.py', "default_scope = 'mmdet'\n")),
    (MINE, 'type', write('my.py', FULL + 'model = dict(depth=3)\n')),
    (MINE, "name 'depht'|line 3", write('my.py', FULL + 'depth = depht\n')),
    (MINE, 'nobase.py', write('my.py', "_base_ = 'nobase.py'\n")),
    # --cfg-options
    ('2 train cls nonsense', "'nonsense'"),
    ('2 train cls model.backbone.parc_starts=[1,1,(2', 'parc_starts'),
    ('train cls trian_cfg.max_epochs=1', "'trian_cfg'|'train_cfg'"),
    ('train cls train_dataloader.batch_size.of=3', 'train_dataloader.batch_size.of'),
    ('train cls param_scheduler.7.begin=3', 'param_scheduler.7'),
    ('train cls default_scope=mmpose', 'mmpretrain'),
]
PRETRAINED = 'train cls model.backbone.init_cfg._delete_=True model.backbone.init_cfg.'
PRETRAINED += 'type=Pretrained model.backbone.init_cfg.checkpoint='
HEAD = 'head.fc.'
BAD_CHECKPOINTS: list[Case] = [
    ('test cls', "'bad.pth'"),
    ('test cls', "'bad.pth'", empty_folder('bad.pth')),
    ('test cls', "'bad.pth'", write('bad.pth', 'no checkpoint')),
    ('test cls', "'bad.pth'", cut_off(0.5)),
    ('test det', "'bad.pth'", cut_off(0.99)),
    ('test cls', "'bad.pth'|list", checkpoint('cls', lambda content: [1, 2])),
    ('test cls', "'bad.pth'", checkpoint('cls', lambda content: dict(meta={}))),
    ('test cls', "'bad.pth'", checkpoint('cls', lambda c: dict(state_dict=[1, 2]))),
    ('test cls', HEAD + 'weight', checkpoint('cls', lambda c: heads(c, False))),
    ('test seg', "'bad.pth'", checkpoint('cls')),
    ('test cls', 'backbone.stages.2.2.gamma', with_weight('backbone.stages.2.2.gamma', (8,))),
    ('test cls', HEAD + 'weight', reshaped(HEAD, 0, 1000)),
    ('test cls', 'conv_h.weight', reshaped('conv_h.weight', 0, 6)),
    ('resume', "'bad.pth'", checkpoint('cls', lambda c: c.pop('meta') and None)),
    ('resume', "'bad.pth'", cut_off(0.5)),
    ('train cls load_from=bad.pth', "'bad.pth'"),
    ('train cls load_from=bad.pth', '--min-loaded', checkpoint('seg', lambda c: heads(c, True))),
    (PRETRAINED + 'bad.pth', '--min-loaded', checkpoint('seg')),
    (PRETRAINED + 'torchvision://resnet5', 'resnet5'),
    ('train cls load_from=openmmlab://resnet5', 'openmmlab://resnet5'),
    ('tools/test.py CLS torchvision://resnet5 --cfg-options data_root=data/cls', 'resnet5'),
    (PRETRAINED + 'http://127.0.0.1:9/a.pth', '127.0.0.1:9/a.pth'),
    ('convert', "'bad.pth'", cut_off(0.5)),
    ('convert', 'bad.pth', checkpoint('cls')),
    ('export', "'bad.pth'", cut_off(0.5)),
    ('export', "'bad.pth'", checkpoint('seg')),
]
PLOT = 'tools/analysis/plot.py {} bad.pth --out out'
RESUME = COMMANDS['train cls'].replace('--work-dir run', '--work-dir latest --resume')
CODE: list[Case] = [  # ways in for a checkpoint that holds code
    *((command, 'bad.pth', attack) for command in ('resume', 'test cls', 'test det', 'test seg')),
    *((command, 'bad.pth', attack) for command in ('convert', 'export')),
    ('train cls load_from=bad.pth', 'bad.pth', attack),
    (PRETRAINED + 'bad.pth', 'bad.pth', attack),
    (RESUME, 'bad.pth', attack),
    ('tools/convert_official.py parc_convnext bad.pth out.pth --to-official', 'bad.pth', attack),
    (PLOT.format('kernels CLS'), 'bad.pth', attack),
    (PLOT.format('erf --config CLS'), 'bad.pth', attack),
    (PLOT.format('sizes CLS') + ' --cfg-options data_root=data/cls', 'bad.pth', attack),
    (PLOT.format('predictions CLS none CLS') + ' --cfg-options data_root=data/cls', 'bad', attack),
]
LIST = ' train_dataloader.dataset.ann_file=list.txt train_dataloader.dataset.data_prefix=train'
LIST += ' train_dataloader.dataset.split=train'
LATER = ' train_dataloader.num_workers={} train_dataloader.persistent_workers=False'
HERE, AWAY = LATER.format(0), LATER.format(2)
COCO = 'annotations/instances_train2017.json'
BOXES = [  # (what annotation 4 has, words)
    (dict(image_id=999), '999'),
    (dict(category_id=99), '99'),
    (dict(bbox=[500, 0, 9, 9]), '[500, 0, 9, 9]'),
    (dict(bbox=[5, 5, -9, 9]), '[5, 5, -9, 9]'),
    (dict(bbox=[5, 5, 9]), '[5, 5, 9]'),
    (dict(bbox=[5, 5, 9, float('nan')]), 'nan'),
    (dict(bbox='left'), 'left'),
]
MASK = 'ADE_train_00000005.png'
BAD_DATA: list[Case] = [
    ('train cls data_root=no/such', "'no/such'"),
    ('train cls data_root=bad.pth', "'bad.pth'", write('bad.pth', b'')),
    ('train cls', 'data/cls', remove('data/cls/train')),
    ('train cls', 'data/cls', no_images('train')),
    ('train cls', 'data/cls', no_images('val')),
    ('train cls', 'data/cls', empty_folder('data/cls/train/zigzag')),
    ('train cls' + LIST, '77|num_classes', labels('77')),
    ('train cls' + LIST, 'list.txt', labels('disc')),
    ('train cls' + HERE, 'IMAGE', image('cls', b'')),
    ('train cls' + AWAY, 'IMAGE', image('cls', b'')),
    ('train det' + AWAY, 'IMAGE', image('det', b'\xff\xd8\xff\xe0\x00\x10JFIF')),
    ('train det' + AWAY, '000000000007.jpg', remove('data/det/train2017/000000000007.jpg')),
    ('train det', COCO, remove(f'data/det/{COCO}')),
    ('train det', COCO, write(f'data/det/{COCO}', '{"images": [1')),
    ('train det', COCO + '|images', write(f'data/det/{COCO}', '{}')),
    ('train det', 'annotation 4|999', box(image_id=999)),
    ('train det', COCO, coco(lambda c: c.update(images=[], annotations=[]))),
    ('train det', COCO + '|filter_cfg', coco(lambda c: c.update(annotations=[]))),
    ('train det', '7|metainfo.classes', coco(lambda c: c['categories'][2].update(name='circle'))),
    ('train det', COCO, coco(lambda c: c['images'][3].pop('file_name'))),
    ('train seg' + HERE, 'annotations/training', remove('data/seg/annotations/training')),
    ('train seg' + HERE, f'{MASK}|30 x 40|64 x 64', mask((30, 40), 1)),
    ('train seg' + AWAY, f'{MASK}|199', mask((64, 64), 200)),
    ('train seg' + AWAY, MASK, write(f'data/seg/annotations/training/{MASK}', 'no')),
]
BAD_COMMANDS: list[Case] = [
    ('2 tools/train.py', 'config'),
    ('2 tools/train.py CLS --resmue', '--resmue'),
    ('tools/train.py CLS --min-loaded 90', '--min-loaded|90'),
    ('tools/train.py CLS --launcher pytorch', 'RANK|dist_train.sh'),
    ('tools/test.py CLS none --launcher slurm', 'SLURM_PROCID|slurm_train.sh'),
    ('tools/train.py CLS --amp', '--no-amp'),
    ('tools/train.py CLS --work-dir run', "'run'", write('run', 'mine')),
    (
        'tools/train.py CLS --work-dir run/x --cfg-options data_root=data/cls',
        'run',
        write('run', ''),
    ),
    ('convert', "'out.pth'", write('out.pth', 'mine')),
    ('2 tools/convert_official.py resnet a.pth b.pth', 'resnet'),
    ('tools/convert_official.py parcnet a.pth no/b.pth', "'no'"),
    ('tools/export_onnx.py CLS none out.onnx', 'out.onnx', write('out.onnx', 'mine')),
    ('tools/export_onnx.py CLS none out.pt', '.onnx'),
    ('tools/export_onnx.py CLS none out.onnx --shape -1 64', '--shape'),
    ('swap parc-resnet5', 'parc-resnet50'),
    ('swap parc-resnet50 -o out.py', 'out.py', write('out.py', 'mine = 1')),
    ('swap parc-resnet50 -o out.txt', '.py'),
    ('swap parc-resnet50 --shape 0 0', '--shape'),
    ('data --train 0', '0'),
    ('data --size -3 3', '64'),
    ('data --seed -1', 'seed'),
    ('data', "'made'", write('made', 'mine')),
    ('data', 'made', write('made/cls/mine.txt', 'mine')),
    ('tools/analysis/get_flops.py CLS --shape 0', '--shape'),
]
GROUPS = {
    'configs': BAD_CONFIGS,
    'checkpoints': BAD_CHECKPOINTS,
    'checkpoints with code': CODE,
    'data': BAD_DATA,
    'command lines': BAD_COMMANDS,
}


def heads(content: dict, kept: bool) -> dict:
    state_dict = content['state_dict'].items()
    return dict(state_dict={k: v for k, v in state_dict if ('head' in k) == kept})


# How they are tried


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


def command_of(text: str) -> list[str]:
    known = max((key for key in COMMANDS if text.startswith(key)), key=len, default='')
    text = COMMANDS.get(known, '') + text.removeprefix(known)
    return [str(CONFIGS.get(part, part)) for part in shlex.split(text)]


def contents(folder: Path) -> dict[Path, bytes]:
    """Of all files in a folder, without a run's log."""
    files = [path for path in folder.rglob('*') if path.is_file()]
    return {path: path.read_bytes() for path in files if folder / 'run' not in path.parents}


def attempt(case: Case, folder: Path, data: Path) -> str:
    """What was wrong with the way in which a tool refused a case, if anything."""
    command, words, *spoil = case
    folder.mkdir()
    shutil.copytree(data, folder / 'data')
    for each in spoil:
        each(folder)
    task = next((key for key in ('det', 'seg') if f' {key}' in command), 'cls')
    words = words.replace('IMAGE', image_of(task)(folder).name) if 'IMAGE' in words else words
    code = 2 if command.startswith('2 ') else 1
    tool, *args = command_of(command.removeprefix('2 '))
    before = contents(folder)
    ended = run_tool(tool, *args, cwd=folder)
    said = [line for line in ended.stderr.splitlines() if 'error: ' in line]
    held = ended.returncode == code and 'Traceback' not in ended.stderr + ended.stdout
    held = held and len(said) == 1 and all(word in said[0] for word in words.split('|'))
    held = held and (code == 2 or said[0].startswith('error: ')) and contents(folder) == before
    shutil.rmtree(folder)
    print(f'{command}: {said}')
    return '' if held else f'{command}: exit code {ended.returncode}, {ended.stderr[-500:]}'


@pytest.mark.parametrize('group', GROUPS)
@pytest.mark.parametrize('step', [6, pytest.param(1, marks=pytest.mark.full)])
def test_refused(group: str, step: int, record: Callable, data: Path, tmp_path: Path) -> None:
    """Some, or all."""
    cases = GROUPS[group][::step]
    results = [attempt(case, tmp_path / str(n), data) for n, case in enumerate(cases)]
    failed = [*filter(None, results)]
    assert not failed, '\n'.join(failed)
    record(f'bad {group} refused', len(cases), len(cases))


def test_annotations_are_refused(data: Path) -> None:
    text = (data / 'det' / COCO).read_text()
    assert coco_problem(json.loads(text)) is None
    for change, words in BOXES:
        content = json.loads(text)
        content['annotations'][3].update(change)
        problem = coco_problem(content)
        assert 'annotation 4' in problem and words in problem


# Controls

WORKS: list[Case] = [
    ('train cls' + AWAY, ''),
    ('train seg' + HERE, ''),
    ('train det' + AWAY, '', box(bbox=[60, 60, 9, 9])),
    ('train cls' + LIST, '', labels('7')),
    ('train cls load_from=bad.pth', '', checkpoint('cls')),
    ('flops model.backbone.resize=interpolate', ''),
    (MINE + ' --shape 64', '', write('my.py', f"_base_ = '{CONFIGS['CLS']}'\n")),
    *((f'test {task}', '', checkpoint(task)) for task in ('cls', 'det', 'seg')),
    ('test cls', '', with_weight('auxiliary_head.fc.weight', (3, 3))),
    ('test cls', '', reshaped('conv_h.weight', 2, 9)),
    ('convert --to-official', '', checkpoint('cls')),
    ('data', ''),
    ('swap parc-resnet50 -o out.py --shape 320 320', ''),
]


@pytest.mark.parametrize('most', [3, pytest.param(None, marks=pytest.mark.full)])
def test_unspoiled_works(most: int | None, data: Path, tmp_path: Path) -> None:
    for number, (command, _, *spoil) in enumerate(WORKS[:most]):
        here = tmp_path / str(number)
        here.mkdir()
        shutil.copytree(data, here / 'data')
        for each in spoil:
            each(here)
        before = contents(here)
        tool, *args = command_of(command)
        ended = run_tool(tool, *args, cwd=here)
        assert ended.returncode == 0, f'{command}: {ended.stdout[-1000:]}{ended.stderr[-3000:]}'
        assert before.items() <= contents(here).items()


def test_traceback(data: Path, tmp_path: Path) -> None:
    option = ['--cfg-options', f'data_root={data}/cls', 'model.backbone.img_size=-96']
    shown = run_tool('tools/train.py', CONFIGS['CLS'], '--traceback', *option, cwd=tmp_path)
    assert shown.returncode == 1 and 'img_size' in shown.stderr
    assert 'Traceback' in shown.stderr and 'parc_convnext.py' in shown.stderr


@pytest.mark.full
def test_a_reader_who_has_seen_enough() -> None:
    """Of a table, as in ``| head``: no trace, and no error either."""
    tool = shlex.join([sys.executable, '-m', 'mmparc'])
    command = ['bash', '-c', f'{tool} | true; exit ${{PIPESTATUS[0]}}']
    ended = subprocess.run(command, capture_output=True)
    assert ended.stderr == b'' and ended.returncode in (0, 141)
