"""Figures of trained models: kernels, input sizes, predictions beside each other.

Against state dicts, tools/test.py, and predictions made by hand.
"""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import ROOT
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from tool_calls import assert_picture, call, inside, refusal
from torch import nn

from mmparc import engine
from mmparc.analysis import kernels
from mmparc.analysis.predictions import difference, matches
from mmparc.analysis.sizes import at_size, own_size, sizes_around
from mmparc.datasets import make_toy_data
from mmparc.engine.config import datasets_of
from mmparc.models import ParCMixer
from mmparc.ops import parc

PLOT = 'analysis/plot.py'
CLS = 'configs/cls/convnext/parc-convnext-micro_toy.py'
PLAIN = 'configs/cls/convnext/convnext-micro_toy.py'
SEG = 'configs/seg/convnext/parc-convnext-micro_upernet_toy.py'
DET = 'configs/det/convnext/centernet-update_parc-convnext-micro_hrfpn_toy.py'
VAL = 8  # images, one of each class


def read_csv(path: Path) -> list[dict[str, str]]:
    lines = path.read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith('# ')))


@pytest.fixture(scope='module')
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small data of the three tasks and cls.pth, plain.pth, seg.pth and det.pth.

    These hold random weights whose branches count, so that what kernels are resized to shows.
    """
    folder = tmp_path_factory.mktemp('figures')
    for task in ('cls', 'seg', 'det'):
        make_toy_data(folder / 'data/toy', task, train=2, val=VAL)
    for name, config in (('cls', CLS), ('plain', PLAIN), ('seg', SEG), ('det', DET)):
        torch.manual_seed(len(name))
        model = engine.build_trained(engine.load_config(str(ROOT / config)), 'none')
        for key, parameter in model.named_parameters():
            if key.endswith('gamma'):
                nn.init.ones_(parameter)
            if key.endswith(
                ('conv_h.weight', 'conv_w.weight', 'conv_cls.weight', 'conv_seg.weight')
            ):
                nn.init.normal_(parameter, mean=0.1, std=0.3)
        torch.save({'state_dict': model.state_dict()}, folder / f'{name}.pth')
    return folder


# Kernels


def test_kernels_of_a_checkpoint(work: Path) -> None:
    """The table has the parameters of the checkpoint, each tap at its offset."""
    args = (ROOT / CLS, 'cls.pth', '--out', 'kernels')
    call(PLOT, 'kernels', *args, cwd=work)
    assert_picture(work / 'kernels/kernels.png')
    saved = torch.load(work / 'cls.pth', weights_only=True)['state_dict']
    wanted = [k for k in saved if '.conv_h.' in k or '.conv_w.' in k]
    wanted = [k for k in wanted if not k.endswith('bias')]
    rows = read_csv(work / 'kernels/kernels.csv')
    assert {row['parameter'] for row in rows} == set(wanted) and len(wanted) == 8
    for key in wanted:
        values = saved[key].flatten(0, -2).numpy()
        own = {int(row['position']): float(row['rms']) for row in rows if row['parameter'] == key}
        length = values.shape[1]
        for position, rms in own.items():  # an offset of -1 is the last tap
            assert rms == pytest.approx(np.sqrt((values[:, position] ** 2).mean()), rel=1e-4)
        assert len({position % length for position in own}) == len(own) == length
        assert (min(own) < 0) == key.endswith('weight')
    assert '--force' in refusal(PLOT, 'kernels', *args, cwd=work)
    # the control: what the untrained model has is another thing
    untrained = kernels.rows_of(engine.build_trained(engine.load_config(str(ROOT / CLS)), 'none'))
    for row, other in zip(rows, untrained, strict=True):
        assert row['parameter'] == other['parameter'] and row['rms'] != other['rms']


def test_an_offset_is_where_a_tap_looks() -> None:
    """Against the operator: a pulse is seen where a tap of that offset looks at it."""
    mixer = ParCMixer(2, 7, pos_embed=False)
    pulse = torch.zeros(1, 1, 7, 1)
    pulse[0, 0, 3] = 1
    seen = parc(pulse, mixer.conv_h.weight, axis='h', groups=1)[0, 0, :, 0].abs()
    rows = [row for row in kernels.rows_of(mixer) if row['axis'] == 'h']
    for row in rows:
        assert seen[3 - row['position']].item() == pytest.approx(float(row['rms']), rel=1e-5)
    dense = ParCMixer(8, (5, 6), groups=1)
    kinds = {(row['kind'], row['axis']): row for row in kernels.rows_of(nn.Sequential(dense))}
    assert len(kinds) == 4 and {row['layer'] for row in kinds.values()} == {'0'}


# Input sizes


def test_input_sizes(work: Path) -> None:
    """At the config's own size the metric of a plain test, by both rules; at others not."""
    sizes = (128, 256)
    few = ('--cfg-options', 'test_dataloader.dataset.indices=3')
    call(PLOT, 'sizes', ROOT / SEG, 'seg.pth', '--sizes', *sizes, '--out', 'sizes', *few, cwd=work)
    rows = read_csv(work / 'sizes/sizes.csv')
    value = {(row['resize'], int(row['size'])): float(row['value']) for row in rows}
    assert list(value) == [(r, n) for r in ('interpolate', 'interpolate_sum') for n in sizes]
    assert [row['factor'] for row in rows] == ['1', '2'] * 2
    cfg = engine.load_config(str(ROOT / SEG), {'test_dataloader.dataset.indices': 3})
    cfg.work_dir, cfg.load_from, cfg.log_level = str(work / 'test'), str(work / 'seg.pth'), 'ERROR'
    with inside(work):
        expected = Runner.from_cfg(cfg).test()['mIoU']
    assert value['interpolate', 128] == value['interpolate_sum', 128] == pytest.approx(expected)
    assert 1 < expected < 100
    # the controls: of twice the size, where the rules differ
    assert len({expected, value['interpolate', 256], value['interpolate_sum', 256]}) == 3
    assert_picture(work / 'sizes/sizes.png')
    # a network without ParC is measured once
    call(PLOT, 'sizes', ROOT / PLAIN, 'none', '--sizes', 64, '--out', 'plain', cwd=work)
    (row,) = read_csv(work / 'plain/sizes.csv')
    assert (row['checkpoint'], row['resize'], row['size']) == ('none', '-', '64')


def test_sizes_of_a_pipeline() -> None:
    upernet = 'seg/convnext/parc-convnext-xt_upernet_8xb2-amp-160k_ade20k-512x512.py'
    for config, own, doubled in (
        ('cls/convnext/parc-convnext-xt_32xb128_in1k.py', 224, [512, 448]),
        ('det/convnext/mask-rcnn_parc-convnext-xt_fpn_1x_coco.py', 800, [(2666, 1600)]),
        (upernet, 512, [(4096, 1024)]),
    ):
        cfg = engine.load_config(str(ROOT / 'configs' / config))
        assert own_size(cfg) == own
        twice = at_size(cfg, 2 * own, own)
        (dataset,) = datasets_of(twice.test_dataloader)
        keys = ('scale', 'crop_size')
        assert [step[key] for step in dataset.pipeline for key in keys if key in step] == doubled
        windows = twice.model.get('test_cfg') or {}
        assert windows.get('crop_size') in (None, (1024, 1024))
        # the control: the config itself is as it was
        assert at_size(cfg, own, own).to_dict() == cfg.to_dict() != twice.to_dict()
    for size in (32, 97, 224, 800):
        sizes = sizes_around(size)
        assert size in sizes and sizes == sorted(set(sizes)) and 2 <= len(sizes) <= 7
        assert all(size / 2 <= n <= 2 * size and (n % 32 == 0 or n == size) for n in sizes)


# Predictions


def boxes(*given: tuple[list[int], int, float]) -> BaseDataElement:
    corners, labels, scores = zip(*given) if given else ([], [], [])
    sample = BaseDataElement()
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor(corners, dtype=torch.float).view(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
        scores=torch.tensor(scores, dtype=torch.float),
    )
    return sample


def test_differences_of_boxes() -> None:
    a = boxes(([0, 0, 10, 10], 1, 0.9), ([20, 20, 30, 30], 2, 0.8), ([0, 0, 9, 9], 1, 0.1))
    near = boxes(([0, 0, 10, 7], 1, 0.5), ([21, 20, 31, 30], 2, 0.4))  # IoU 0.7 and 0.82
    assert difference(a, a, 0.3) == difference(a, near, 0.3) == 0
    assert difference(a, near, 0.0) == pytest.approx(1 / 5)  # one box more
    assert difference(a, near, 0.45) == pytest.approx(1 / 3)  # one box less
    far = boxes(([0, 0, 10, 4], 1, 0.5), ([20, 20, 30, 30], 1, 0.4))  # IoU 0.4; another class
    assert difference(a, far, 0.3) == 1
    twice = boxes(([0, 0, 10, 10], 1, 0.9), ([0, 0, 10, 9], 1, 0.9))
    assert matches(a.pred_instances, twice.pred_instances) == 2  # the weak one counts here
    assert difference(a, twice, 0.3) == 0.5
    assert difference(boxes(), boxes(), 0.3) == 0 and difference(a, boxes(), 0.3) == 1


def test_differences_of_classes_and_pixels() -> None:
    a, b = (BaseDataElement(pred_score=torch.tensor(s)) for s in ([0.1, 0.9], [0.4, 0.6]))
    assert difference(a, b, 0.3) == 0
    assert difference(a, BaseDataElement(pred_score=torch.tensor([0.6, 0.4])), 0.3) == 1
    maps = torch.zeros(1, 4, 5, dtype=torch.long)
    one, other = (BaseDataElement(pred_sem_seg=PixelData(data=maps.clone())) for _ in 'ab')
    assert difference(one, other, 0.3) == 0
    other.pred_sem_seg.data[0, 2, 1:4] = 7
    assert difference(one, other, 0.3) == pytest.approx(3 / 20)


def test_compared_classes(work: Path) -> None:
    """The classes and scores are those of the models, called directly."""
    args = (ROOT / CLS, 'cls.pth', ROOT / PLAIN, 'plain.pth')
    call(PLOT, 'predictions', *args, '--num', 2, '--every', 2, '--out', 'compared', cwd=work)
    rows = read_csv(work / 'compared/predictions.csv')
    files = sorted((work / 'data/toy/cls/val').glob('*/*'))[:4:2]
    assert [row['image'] for row in rows] == [file.name for file in files]
    cfg = engine.load_config(str(ROOT / CLS))
    mean, std = (torch.tensor(cfg.data_preprocessor[k]).view(3, 1, 1) for k in ('mean', 'std'))
    for which, config, checkpoint in (('A', CLS, 'cls.pth'), ('B', PLAIN, 'plain.pth')):
        model = engine.build_trained(engine.load_config(str(ROOT / config)), str(work / checkpoint))
        for row, file in zip(rows, files):
            pixels = torch.from_numpy(cv2.imread(str(file))[..., ::-1].copy()).permute(2, 0, 1)
            with torch.no_grad():
                scores = model(((pixels - mean) / std)[None])[0].softmax(0)
            classes = cfg.test_dataloader.dataset.metainfo.classes
            assert row[f'{which}: class'] == classes[scores.argmax()]
            assert float(row[f'{which}: score']) == pytest.approx(scores.max().item(), abs=1e-3)
            assert row['annotation: class'] == file.parent.name
    assert_picture(work / 'compared/predictions.png')

    same = (ROOT / CLS, 'cls.pth') * 2
    line = refusal(PLOT, 'predictions', *same, '--only-differing', '--out', 'same', cwd=work)
    assert f'on none of the {VAL} images' in line


@pytest.mark.parametrize('task', ['seg', 'det'])
def test_compared_maps(task: str, work: Path) -> None:
    """Against an untrained model, which is found to differ, and drawn."""
    config = ROOT / dict(seg=SEG, det=DET)[task]
    args = ('--num', 1, '--only-differing', 0.01, '--score', 0.05, '--out', task)
    call(PLOT, 'predictions', config, f'{task}.pth', config, 'none', *args, cwd=work)
    rows = read_csv(work / task / 'predictions.csv')
    assert len(rows) == 1 and float(rows[0]['differs %']) > 1
    truth = {}
    if task == 'det':
        annotations = json.loads(
            (work / 'data/toy/det/annotations/instances_val2017.json').read_text()
        )
        for image in annotations['images']:
            own = [a for a in annotations['annotations'] if a['image_id'] == image['id']]
            truth[image['file_name']] = len(own)
        assert all(truth[row['image']] == int(row['annotation: boxes']) for row in rows)
    else:
        for file in (work / 'data/toy/seg/annotations/validation').iterdir():
            labels = set(np.unique(cv2.imread(str(file), cv2.IMREAD_UNCHANGED))) - {0}
            truth[f'{file.stem}.jpg'] = len(labels)
        assert all(truth[row['image']] == int(row['annotation: classes']) for row in rows)
    assert_picture(work / task / 'predictions.png')


# Curves


def test_curves(tmp_path: Path) -> None:
    log = tmp_path / 'run/1/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    steps = [dict(iter=i, step=i, loss=1 / i, lr=0.1, epoch=1 + i // 3) for i in range(1, 6)]
    steps += [{'coco/bbox_mAP': 0.2, 'coco/bbox_mAP_s': -1.0, 'step': n} for n in (1, 2)]
    log.write_text(''.join(json.dumps(step) + '\n' for step in steps))
    assert 'run/curves.png' in call(PLOT, 'curves', 'run', cwd=tmp_path)
    assert_picture(tmp_path / 'run/curves.png')
    log.write_text('{"loss": 1')
    assert 'scalars.json' in refusal(PLOT, 'curves', 'run', cwd=tmp_path)


# What they share


def test_refusals(work: Path) -> None:
    cls, seg = ROOT / CLS, ROOT / SEG
    for args, named in (
        (['kernels', ROOT / PLAIN, 'none'], 'convnext-micro_toy.py'),
        (['sizes', cls, 'cls.pth', cls], 'convnext-micro_toy.py'),
        (['sizes', cls, 'none', '--sizes', 0], '--sizes'),
        (['sizes', cls, 'none', '--sizes', 64, '--metric', 'mIoU'], 'accuracy/top1'),
        (['predictions', cls, 'none', seg, 'none'], 'mmseg'),
        (['predictions', cls, 'none', cls, 'none', '--num', 0], '--num'),
        (['curves', 'data'], "'data'"),
    ):
        out = ['--out', 'refused'] if args[0] != 'curves' else []
        assert named in refusal(PLOT, *args, *out, cwd=work), args
