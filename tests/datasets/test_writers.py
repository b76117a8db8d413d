"""Generated data sets on disk: they are reproducible, complete, and real loaders read them."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import error_line, run_python, run_tool
from pycocotools.coco import COCO

from mmparc.datasets import CLASSES, TASKS, draw_scene, make_toy_data

TOOL = 'tools/make_toy_data.py'
SMALL = {
    'cls': {'train': 16, 'val': 8},
    'det': {'train': 6, 'val': 2},
    'seg': {'train': 4, 'val': 2},
}


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('toy')
    for task in TASKS:
        make_toy_data(out, task, **SMALL[task])
    return out


def digests(folder: Path) -> dict[str, str]:
    """The hash of every file below a folder."""
    paths = sorted(path for path in folder.rglob('*') if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def images(found: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in found.items() if name.endswith(('.jpg', '.JPEG'))}


# What is written


@pytest.mark.parametrize('task', TASKS)
def test_the_same_settings_give_the_same_bytes(data: Path, tmp_path: Path, task: str) -> None:
    expected = digests(data / task)
    assert digests(make_toy_data(tmp_path / 'same', task, **SMALL[task])) == expected
    for path in (data / task).rglob('*'):  # nothing of this machine
        assert path.is_dir() or str(data).encode() not in path.read_bytes()
    other = images(digests(make_toy_data(tmp_path / 'other', task, seed=1, **SMALL[task])))
    assert other.keys() == images(expected).keys()
    assert not set(other.values()) & set(expected.values())

    # More images leave the first as they are.
    few = make_toy_data(tmp_path, task, train=3, val=1)
    assert len(images(digests(few))) == 4
    assert images(digests(few)).items() <= images(expected).items()
    if task == 'det':
        name = 'annotations/instances_train2017.json'
        short, long = (json.loads((x / name).read_text()) for x in (few, data / task))
        for key in ('images', 'annotations'):
            assert 0 < len(short[key]) < len(long[key])
            assert short[key] == long[key][: len(short[key])]


def test_nothing_is_overwritten(data: Path, tmp_path: Path) -> None:
    before = digests(data)
    others = dict(difficulty='hard', seed=3, train=7, size=(64, 96), scenes='relations')
    for name, value in others.items():
        named = 'classes' if name == 'scenes' else name
        with pytest.raises(FileExistsError, match=named):
            make_toy_data(data, 'det', **{**SMALL['det'], name: value})
    assert make_toy_data(data, 'det', **SMALL['det']) == data / 'det'
    assert digests(data) == before

    (tmp_path / 'cls').mkdir()
    (tmp_path / 'cls' / 'thesis.txt').write_text('mine')
    with pytest.raises(FileExistsError, match=r'manifest\.json'):
        make_toy_data(tmp_path, 'cls', **SMALL['cls'])
    assert digests(tmp_path).keys() == {'cls/thesis.txt'}

    folder = make_toy_data(tmp_path, 'seg', train=2, val=1, size=(64, 64))
    next((folder / 'annotations' / 'training').iterdir()).unlink()
    with pytest.raises(FileExistsError, match='missing'):
        make_toy_data(tmp_path, 'seg', train=2, val=1, size=(64, 64))


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def interrupt() -> None:
        assert [path.suffix for path in tmp_path.iterdir()] == ['.partial']
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_toy_data(tmp_path, 'cls', train=4, val=1, on_image=interrupt)
    assert not any(tmp_path.iterdir())


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    for task, settings, named in (
        ('det', {'seed': -1}, '-1'),
        ('det', {'difficulty': 'nasty'}, 'easy, normal, hard'),
        ('det', {'val': 0}, '0'),
        ('det', {'size': (64, 63)}, '63'),
        ('det', {'scenes': 'x'}, 'shapes, relations'),
        ('pose', {}, 'cls, det, seg'),
    ):
        with pytest.raises(ValueError, match=rf'^[^\n]*{named}[^\n]*$'):
            make_toy_data(tmp_path, task, **settings)
    with pytest.raises(TypeError, match='sede'):
        make_toy_data(tmp_path, 'det', sede=1)
    assert not any(tmp_path.iterdir())


# What reads it


def test_cls_is_read_as_imagenet(data: Path) -> None:
    dataset_type = pytest.importorskip('mmpretrain.datasets').ImageNet
    for split in ('train', 'val'):
        dataset = dataset_type(str(data / 'cls'), split=split, metainfo={'classes': CLASSES})
        assert len(dataset) == SMALL['cls'][split]
        assert dataset.metainfo['classes'] == CLASSES
        for info in (dataset.get_data_info(i) for i in range(len(dataset))):
            assert Path(info['img_path']).parent.name == CLASSES[info['gt_label']]
            assert cv2.imread(info['img_path']).shape == (96, 96, 3)
        assert set(dataset.get_gt_labels()) == set(range(len(CLASSES)))


def test_det_boxes_are_those_of_the_masks(data: Path) -> None:
    masks = []
    for split in ('train', 'val'):
        coco = COCO(str(data / 'det' / 'annotations' / f'instances_{split}2017.json'))
        assert [coco.cats[i + 1]['name'] for i in range(8)] == list(CLASSES)
        assert len(coco.imgs) == SMALL['det'][split]
        assert len(coco.anns) == len(coco.dataset['annotations'])  # ids are unique
        for annotation in coco.anns.values():
            mask = coco.annToMask(annotation)
            masks.append((annotation['category_id'] - 1, mask))
            ys, xs = np.nonzero(mask)
            x, y, right, bottom = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
            assert annotation['bbox'] == [x, y, right - x, bottom - y]
            assert annotation['area'] == mask.sum() > 0
            assert mask.shape == (128, 160) and annotation['iscrowd'] == 0
        for image in coco.imgs.values():
            assert (data / 'det' / f'{split}2017' / image['file_name']).is_file()
            assert len(coco.getAnnIds(image['id'])) > 0
    ring = next(mask for label, mask in masks if CLASSES[label] == 'ring')
    filled = cv2.morphologyEx(ring, cv2.MORPH_CLOSE, np.ones((99, 99), np.uint8))
    assert ring.sum() < 0.9 * filled.sum()  # the hole is one


def test_seg_maps_are_the_masks(data: Path) -> None:
    """0 is unlabelled, at outlines; 1 is background."""
    for split, count in (('training', 4), ('validation', 2)):
        paths = sorted((data / 'seg/annotations' / split).iterdir())
        assert len(paths) == count == len(list((data / 'seg/images' / split).iterdir()))
        for i, path in enumerate(paths):
            written = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            assert written.dtype == np.uint8 and written.shape == (128, 160)
            key = [0, TASKS.index('seg'), split == 'validation', i]
            expected = np.ones((128, 160), np.uint8)
            for thing in draw_scene(np.random.default_rng(key), (128, 160)).objects:
                expected[thing.mask] = 2 + thing.label
            labelled = written > 0
            assert 0.001 < np.mean(~labelled) < 0.1
            assert np.array_equal(written[labelled], expected[labelled])
            assert not np.array_equal(written[labelled], expected[:, ::-1][labelled])  # the control


# The command


def test_tool(data: Path, tmp_path: Path) -> None:
    args = ['--out', tmp_path, '--tasks', 'det', '--train', 6, '--val', 2]
    done = run_tool(TOOL, *args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f'{tmp_path}/det/preview.png' in done.stdout
    assert digests(tmp_path / 'det') == digests(data / 'det')
    assert cv2.imread(f'{tmp_path}/det/preview.png').std() > 20
    assert [path.name for path in tmp_path.iterdir()] == ['det']
    again = run_tool(TOOL, *args, cwd=tmp_path)
    assert again.returncode == 0 and again.stdout != done.stdout
    other = error_line(TOOL, *args, '--difficulty', 'hard', cwd=tmp_path)
    assert '--out' in other and 'hard' in other


def test_import_is_light() -> None:
    names = ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg')
    code = 'import sys, mmparc.datasets; print([m for m in sys.modules if m in sys.argv[1:]])'
    assert run_python(code, *names).stdout == '[]\n'
