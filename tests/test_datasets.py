"""The made data sets: what they hold, that they are reproducible, and that real loaders read them.

Each property is tested beside a control that must not have it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO

from mmparc.datasets import (
    CLASSES,
    DIFFICULTIES,
    RELATIONS,
    TASKS,
    Scene,
    draw_relations,
    draw_scene,
    make_toy_data,
)

ROOT = Path(__file__).parents[1]
TOOL = ROOT / 'tools' / 'make_toy_data.py'
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
    return {
        name: digest for name, digest in found.items() if name.lower().endswith(('jpg', 'jpeg'))
    }


def scenes(difficulty: str, size: tuple[int, int], count: int) -> list[Scene]:
    return [draw_scene(np.random.default_rng([7, i]), size, difficulty) for i in range(count)]


def run_tool(*args: object, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *flags, str(TOOL), *map(str, args)]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


# What is drawn


@pytest.mark.parametrize('size', [(128, 160), (160, 128), (97, 131)])
@pytest.mark.parametrize('difficulty', DIFFICULTIES)
def test_scale_and_occlusion(difficulty: str, size: tuple[int, int]) -> None:
    drawn = scenes(difficulty, size, 30)
    assert all(scene.image.shape == (*size, 3) and scene.objects for scene in drawn)
    objects = [thing for scene in drawn for thing in scene.objects]
    diameters = np.array([thing.diameter for thing in objects])
    small = min(size) * 9 / 64
    assert small <= diameters.min() and diameters.max() <= 4 * small
    assert diameters.max() > 3 * diameters.min()
    visible = np.array([thing.mask.sum() / thing.area for thing in objects])
    assert visible.min() >= DIFFICULTIES[difficulty].min_visible
    assert np.mean(visible < 0.95) > 0.08
    assert all(np.sum([thing.mask for thing in scene.objects], 0).max() == 1 for scene in drawn)


def test_a_lone_object_is_whole() -> None:
    """The control of the occlusion: without anything else, the mask's area is the shape's own."""
    for label in range(len(CLASSES)):
        shares = []
        for seed in range(4):
            rng = np.random.default_rng([label, seed])
            scene = draw_scene(rng, (128, 160), 'easy', labels=[label], diameters=(40, 41))
            (thing,) = scene.objects
            assert thing.label == label
            shares.append(thing.mask.sum() / thing.area)
        assert max(shares) == pytest.approx(1, abs=0.06)  # outlines are drawn 1/8 pixel wide


def test_difficulty_is_seen() -> None:
    counts = [
        np.mean([len(scene.objects) for scene in scenes(level, (128, 160), 20)])
        for level in DIFFICULTIES
    ]
    assert counts == sorted(counts) and counts[0] < counts[-1]


def test_masks_lie_on_the_objects() -> None:
    """Brightness changes across a mask's rim, but not across that of the mirrored mask."""

    def steps(flip: bool) -> np.ndarray:
        found = []
        for scene in scenes('normal', (128, 160), 12):
            grey = cv2.cvtColor(scene.image, cv2.COLOR_BGR2GRAY).astype(float)
            for thing in scene.objects:
                mask = np.ascontiguousarray(thing.mask[:, ::-1] if flip else thing.mask, np.uint8)
                inside = cv2.erode(mask, np.ones((3, 3))) > 0
                outside = cv2.dilate(mask, np.ones((7, 7))) - cv2.dilate(mask, np.ones((3, 3))) > 0
                found.append(abs(np.median(grey[inside]) - np.median(grey[outside])))
        return np.array(found)

    assert np.mean(steps(flip=False) > 30) > 0.9
    assert np.mean(steps(flip=True) > 30) < 0.6


def test_shape_tells_the_class_and_colour_does_not() -> None:
    """Nearest class mean on mean colours stays near chance, on the masks' radial profiles not."""
    colours, profiles, labels = [], [], []
    for i in range(240):
        rng = np.random.default_rng([11, i])
        scene = draw_scene(rng, (96, 96), 'easy', labels=[i % 8], diameters=(20, 50))
        (thing,) = scene.objects
        ys, xs = np.nonzero(thing.mask)
        reach = np.hypot(ys - ys.mean(), xs - xs.mean())
        profiles.append(np.histogram(reach / reach.max(), 8, (0, 1))[0] / len(reach))
        colours.append([*scene.image[thing.mask].mean(0), *scene.image.mean((0, 1))])
        labels.append(thing.label)

    assert accuracy(colours, labels) < 0.25
    assert accuracy(profiles, labels) > 0.7


def centre_of(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(0)


@pytest.mark.parametrize('label', [*range(len(RELATIONS)), None])
@pytest.mark.parametrize('size', [(64, 64), (96, 144)], ids=str)
@pytest.mark.parametrize('difficulty', DIFFICULTIES)
def test_places_tell_the_class(difficulty: str, size: tuple[int, int], label: int | None) -> None:
    """From pixels: the white ring's middle, a disc's, and which lines of the grid they share."""
    cell = np.array(size) / 6
    kinds = set()
    for seed in range(12):
        rng = np.random.default_rng([5, seed])
        scene = draw_relations(rng, size, difficulty, label=label)
        ring = centre_of((scene.image.astype(int) > 200).all(2))
        for thing in scene.objects:
            y, x = centre_of(thing.mask)
            apart = np.abs([y, x] - ring) / cell
            kind = 'row' if apart[0] < 0.5 else 'column' if apart[1] < 0.5 else 'apart'
            half = 'upper' if y < size[0] / 2 else 'lower'
            assert RELATIONS[thing.label] == f'{kind}-{half}'
            assert apart.sum() > 1.5 and thing.mask.sum() == pytest.approx(thing.area, rel=0.1)
            kinds.add(thing.label)
        assert not np.sum([thing.mask for thing in scene.objects], 0).max() > 1
        if label is not None:
            blue, green, red = scene.image.astype(int).transpose(2, 0, 1)
            found = centre_of((red > blue + 90) & (red > green + 90))
            assert scene.objects[0].label == label
            assert found == pytest.approx(centre_of(scene.objects[0].mask), abs=1)
    assert len(kinds) == len(RELATIONS) or label is not None


def test_what_lies_at_a_disc_does_not_tell_its_class() -> None:
    """Nearest class mean: on its colour and size at chance, on both places above it."""
    looks, places, labels = [], [], []
    for i in range(600):
        rng = np.random.default_rng([13, i])
        scene = draw_relations(rng, (64, 64), label=i % len(RELATIONS))
        mask = scene.objects[0].mask
        ring = centre_of((scene.image.astype(int) > 200).all(2))
        looks.append([*scene.image[mask].mean(0), mask.sum()])
        places.append([*np.abs(centre_of(mask) - ring), 2 * centre_of(mask)[0]])
        labels.append(scene.objects[0].label)
    assert accuracy(looks, labels) < 0.25
    assert accuracy(places, labels) > 0.5


def accuracy(features: list, labels: list[int]) -> float:
    """Of the nearest class mean of the first half, on the second."""
    features, labels = np.array(features), np.array(labels)
    features = (features - features.mean(0)) / features.std(0)
    train, test = np.split(np.arange(len(labels)), 2)
    means = [features[train][labels[train] == c].mean(0) for c in range(labels.max() + 1)]
    distance = np.linalg.norm(features[test][:, None] - np.array(means), axis=2)
    return float(np.mean(distance.argmin(1) == labels[test]))


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match='at least 64 x 64'):
        draw_scene(rng, (128, 48))
    with pytest.raises(ValueError, match='easy, normal, hard'):
        draw_scene(rng, (64, 64), 'nasty')
    with pytest.raises(ValueError, match='between 0 and 7'):
        draw_scene(rng, (64, 64), labels=[8])
    with pytest.raises(ValueError, match='at least 64 x 64'):
        draw_relations(rng, (64, 48))
    with pytest.raises(ValueError, match='easy, normal, hard'):
        draw_relations(rng, (64, 64), 'nasty')
    with pytest.raises(ValueError, match='between 0 and 5'):
        draw_relations(rng, (64, 64), label=6)
    for settings in (
        {'seed': -1},
        {'difficulty': 'nasty'},
        {'val': 0},
        {'size': (64, 63)},
        {'scenes': 'x'},
    ):
        with pytest.raises(ValueError, match=r'^[^\n]+$'):
            make_toy_data(tmp_path, 'det', **settings)
    with pytest.raises(ValueError, match='cls, det, seg'):
        make_toy_data(tmp_path, 'pose')
    assert not any(tmp_path.iterdir())


# What is written


@pytest.mark.parametrize('task', TASKS)
def test_same_seed_same_bytes(data: Path, tmp_path: Path, task: str) -> None:
    same = digests(make_toy_data(tmp_path / 'same', task, **SMALL[task]))
    assert same == digests(data / task)
    other = images(digests(make_toy_data(tmp_path / 'other', task, seed=1, **SMALL[task])))
    assert other.keys() == images(same).keys()
    assert not set(other.values()) & set(same.values())


@pytest.mark.parametrize('task', TASKS)
def test_more_images_leave_the_first_as_they_are(data: Path, tmp_path: Path, task: str) -> None:
    few = make_toy_data(tmp_path, task, train=3, val=1)
    many = images(digests(data / task))
    assert len(images(digests(few))) == 4
    assert images(digests(few)).items() <= many.items()
    if task == 'det':
        name = 'annotations/instances_train2017.json'
        short, long = (json.loads((x / name).read_text()) for x in (few, data / task))
        for key in ('images', 'annotations'):
            assert 0 < len(short[key]) < len(long[key])
            assert short[key] == long[key][: len(short[key])]


@pytest.mark.parametrize('task', TASKS)
def test_nothing_of_this_machine_is_written(data: Path, task: str) -> None:
    for path in (data / task).rglob('*'):
        assert path.is_dir() or str(data).encode() not in path.read_bytes()


def test_nothing_is_overwritten(data: Path, tmp_path: Path) -> None:
    before = digests(data)
    times = {path: path.stat().st_mtime_ns for path in data.rglob('*')}
    for change in ({'difficulty': 'hard'}, {'seed': 3}, {'train': 7}, {'size': (64, 96)}):
        with pytest.raises(FileExistsError, match=r'holds something else .*delete'):
            make_toy_data(data, 'det', **{**SMALL['det'], **change})
    assert make_toy_data(data, 'det', **SMALL['det']) == data / 'det'
    assert digests(data) == before
    assert {path: path.stat().st_mtime_ns for path in data.rglob('*')} == times

    (tmp_path / 'cls').mkdir()
    (tmp_path / 'cls' / 'thesis.txt').write_text('mine')
    with pytest.raises(FileExistsError, match=r'no manifest\.json'):
        make_toy_data(tmp_path, 'cls', **SMALL['cls'])
    assert digests(tmp_path).keys() == {'cls/thesis.txt'}


def test_incomplete_data_is_seen(tmp_path: Path) -> None:
    folder = make_toy_data(tmp_path, 'seg', train=2, val=1, size=(64, 64))
    next((folder / 'annotations' / 'training').iterdir()).unlink()
    with pytest.raises(FileExistsError, match='files are missing'):
        make_toy_data(tmp_path, 'seg', train=2, val=1, size=(64, 64))


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def interrupt() -> None:
        assert [path.suffix for path in tmp_path.iterdir()] == ['.partial']
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_toy_data(tmp_path, 'cls', train=4, val=1, on_image=interrupt)
    assert not any(tmp_path.iterdir())


def test_relations_are_written(tmp_path: Path) -> None:
    """Under their own names, and not in a folder of shapes."""
    settings = dict(train=6, val=6, size=(64, 64), scenes='relations')
    folders = {task: make_toy_data(tmp_path, task, **settings) for task in TASKS}
    found = sorted(path.name for path in (folders['cls'] / 'train').iterdir())
    assert found == sorted(RELATIONS) == list(RELATIONS)
    content = json.loads((folders['det'] / 'annotations/instances_val2017.json').read_text())
    assert [c['name'] for c in content['categories']] == list(RELATIONS)
    with pytest.raises(FileExistsError, match='classes is'):
        make_toy_data(tmp_path, 'cls', **settings | {'scenes': 'shapes'})


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


def test_det_is_read_by_mmdet(data: Path) -> None:
    datasets = pytest.importorskip('mmdet.datasets')
    mmdet_utils = pytest.importorskip('mmdet.utils')
    mmdet_utils.register_all_modules(init_default_scope=True)
    dataset = datasets.CocoDataset(
        data_root=str(data / 'det'),
        ann_file='annotations/instances_train2017.json',
        data_prefix={'img': 'train2017/'},
        metainfo={'classes': CLASSES},
        filter_cfg={'filter_empty_gt': True, 'min_size': 32},
        pipeline=[
            {'type': 'LoadImageFromFile'},
            {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True},
        ],
    )
    content = json.loads((data / 'det' / 'annotations' / 'instances_train2017.json').read_text())
    assert len(dataset) == SMALL['det']['train']
    for i, image in enumerate(content['images']):
        expected = [a for a in content['annotations'] if a['image_id'] == image['id']]
        sample = dataset[i]
        assert sample['img'].shape == (128, 160, 3)
        assert sample['gt_bboxes_labels'].tolist() == [a['category_id'] - 1 for a in expected]
        masks = np.stack([rle.decode(a['segmentation']) for a in expected])
        assert np.array_equal(sample['gt_masks'].masks, masks)
        assert not np.array_equal(sample['gt_masks'].masks, masks[..., ::-1])


def test_seg_is_read_as_ade20k(data: Path) -> None:
    datasets = pytest.importorskip('mmseg.datasets')
    mmseg_utils = pytest.importorskip('mmseg.utils')
    mmseg_utils.register_all_modules(init_default_scope=True)
    classes = ('background', *CLASSES)
    for split, count in (('training', 4), ('validation', 2)):
        dataset = datasets.BaseSegDataset(
            data_root=str(data / 'seg'),
            data_prefix={'img_path': f'images/{split}', 'seg_map_path': f'annotations/{split}'},
            metainfo={'classes': classes},
            img_suffix='.jpg',
            seg_map_suffix='.png',
            reduce_zero_label=True,
            pipeline=[
                {'type': 'LoadImageFromFile'},
                {'type': 'LoadAnnotations', 'reduce_zero_label': True},
            ],
        )
        assert len(dataset) == count
        for i in range(count):
            sample = dataset[i]
            written = cv2.imread(sample['seg_map_path'], cv2.IMREAD_UNCHANGED)
            assert written.dtype == np.uint8 and written.shape == (128, 160)
            key = [0, TASKS.index('seg'), split == 'validation', i]
            scene = draw_scene(np.random.default_rng(key), (128, 160))
            expected = np.zeros((128, 160), np.uint8)
            for thing in scene.objects:
                expected[thing.mask] = classes.index(CLASSES[thing.label])
            read = sample['gt_seg_map']
            assert 0.001 < np.mean(read == 255) < 0.1
            assert np.array_equal(read == 255, written == 0)
            assert np.array_equal(read[read < 255], expected[read < 255])
            assert not np.array_equal(written[read < 255], expected[read < 255])


# The command


def test_tool(data: Path, tmp_path: Path) -> None:
    args = ['--out', tmp_path, '--tasks', 'det', '--train', 6, '--val', 2]
    done = run_tool(*args)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'det: made in {tmp_path}/det, see {tmp_path}/det/preview.png\n'
    assert digests(tmp_path / 'det') == digests(data / 'det')  # several processes against one
    assert cv2.imread(f'{tmp_path}/det/preview.png').std() > 20
    assert [path.name for path in tmp_path.iterdir()] == ['det']

    again = run_tool(*args)
    assert again.returncode == 0 and 'already there' in again.stdout
    other = run_tool(*args, '--difficulty', 'hard')
    assert other.returncode == 1 and other.stdout == ''
    assert other.stderr.startswith('error: ') and other.stderr.count('\n') == 1
    assert '--out' in other.stderr and 'normal, not hard' in other.stderr
    assert digests(tmp_path / 'det') == digests(data / 'det')


def test_import_is_light() -> None:
    code = 'import sys, mmparc.datasets; print([m for m in sys.modules if m in sys.argv[1:]])'
    command = [sys.executable, '-c', code, 'torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == '[]\n'
