"""Writes generated scenes to disk in the layouts of ImageNet, COCO and ADE20K.

cls: `train/<class>/*.JPEG` and `val/<class>/*.JPEG`, one object an image, of 0.22 to 0.88 times the
    shorter side.
det: `train2017/*.jpg`, `val2017/*.jpg` and `annotations/instances_{train,val}2017.json`; masks as
    RLE, `area` and `bbox` of the visible part.
seg: `images/{training,validation}/*.jpg` and `annotations/{training,validation}/*.png`, uint8:
    0 unlabelled (outline pixels that are partly covered), 1 background, 2 and on the classes, to be
    read with `reduce_zero_label=True`.

Every folder also has `manifest.json`, its settings, and `preview.png`. Image i depends only on
(seed, task, split, i) and the settings, not on the number of images or their order.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from pycocotools import mask as rle

from mmparc.datasets.preview import draw_preview
from mmparc.datasets.relations import RELATIONS, draw_relations
from mmparc.datasets.scenes import CLASSES, DIFFICULTIES, Scene, draw_scene

FORMAT_VERSION = 2
SPLITS = ('train', 'val')
SCENES = {'shapes': CLASSES, 'relations': RELATIONS}  # what is drawn, and its classes
LICENSE = 'https://creativecommons.org/publicdomain/zero/1.0/'
VAL_ID = 1_000_001  # the first image id of det's val split; train's is 1


class Defaults(NamedTuple):
    """A task's numbers of images and their size (H, W)."""

    train: int
    val: int
    size: tuple[int, int]


DEFAULTS = {
    'cls': Defaults(1000, 200, (96, 96)),
    'det': Defaults(800, 100, (128, 160)),
    'seg': Defaults(400, 60, (128, 160)),
}
TASKS = tuple(DEFAULTS)


def make_toy_data(
    out: str | os.PathLike[str],
    task: str,
    *,
    on_image: Callable[[], None] | None = None,
    **settings: Any,
) -> Path:
    """Writes one task's data set, unless the same is already there.

    Args:
        out: The folder in which the task's own folder is made.
        task: 'cls', 'det' or 'seg'.
        on_image: Called after each image.
        settings: See :func:`manifest`.

    Returns:
        The task's folder. It appears under its name only when it is complete.

    Raises:
        ValueError: A setting is out of range.
        FileExistsError: The folder holds something else; nothing was changed.
    """
    folder = Path(out) / task
    if holds_toy_data(out, task, **settings):
        return folder
    partial = folder.with_name(f'.{task}-{uuid.uuid4().hex[:8]}.partial')
    partial.mkdir(parents=True)
    try:
        _fill_folder(partial, manifest(task, **settings), on_image)
        try:
            partial.rename(folder)
        except OSError:  # another process was faster
            if not holds_toy_data(out, task, **settings):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def holds_toy_data(out: str | os.PathLike[str], task: str, **settings: Any) -> bool:
    """Whether the data set that :func:`make_toy_data` would write is already there, and complete.

    Raises:
        ValueError: A setting is out of range.
        FileExistsError: The folder holds something else.
    """
    wanted = manifest(task, **settings)
    folder = Path(out) / task
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / 'manifest.json').read_text())
        differs = [key for key in wanted if found.get(key) != wanted[key]]
    except (OSError, ValueError, AttributeError):
        reason = 'it has no manifest.json of a generated data set'
    else:
        if differs:
            reason = f'{differs[0]} is {found.get(differs[0])}, not {wanted[differs[0]]}'
        elif sum(path.is_file() for path in folder.rglob('*')) < wanted['files']:
            reason = 'files are missing'
        else:
            return True
    raise FileExistsError(
        f'{folder} holds something else ({reason}): choose another output folder (--out) '
        'or delete this one'
    )


def manifest(
    task: str,
    *,
    scenes: str = 'shapes',
    seed: int = 0,
    difficulty: str = 'normal',
    train: int | None = None,
    val: int | None = None,
    size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """The checked settings of a data set, as `manifest.json` has them.

    Args:
        task: 'cls', 'det' or 'seg'.
        scenes: 'shapes', told apart by their outline, or 'relations', by their places.
        seed: Other seeds give other images.
        difficulty: 'easy', 'normal' or 'hard'.
        train: Number of training images; `train`, `val` and `size` default to `DEFAULTS[task]`.
        val: Number of validation images.
        size: Height and width in pixels.

    Raises:
        ValueError: A setting is out of range.
    """
    for name, value, known in (
        ('task', task, TASKS),
        ('scenes', scenes, SCENES),
        ('difficulty', difficulty, DIFFICULTIES),
    ):
        if value not in known:
            raise ValueError(f'{name} must be one of {", ".join(known)}, got {value!r}')
    default = DEFAULTS[task]
    train = default.train if train is None else train
    val = default.val if val is None else val
    height, width = default.size if size is None else size
    if seed < 0:
        raise ValueError(f'seed must not be negative, got {seed}')
    if not 1 <= train < VAL_ID or val < 1:
        raise ValueError(f'each split needs 1 to {VAL_ID - 1} images, got {train} and {val}')
    if min(height, width) < 64:
        raise ValueError(f'images must be at least 64 x 64 pixels, got {height} x {width}')
    images = train + val
    return {
        'format_version': FORMAT_VERSION,
        'task': task,
        'classes': list(SCENES[scenes]),
        'seed': seed,
        'difficulty': difficulty,
        'train': train,
        'val': val,
        'size': [height, width],
        'files': {'cls': images, 'det': images + 2, 'seg': 2 * images}[task] + 2,
    }


def _fill_folder(
    folder: Path, settings: dict[str, Any], on_image: Callable[[], None] | None
) -> None:
    """Writes everything that belongs in a task's folder."""
    task, classes = settings['task'], settings['classes']
    for split in SPLITS:
        results = []
        for index in range(settings[split]):
            results.append(_write_image(folder, settings, split, index))
            if on_image is not None:
                on_image()
        if task == 'det':
            path = folder / 'annotations' / f'instances_{split}2017.json'
            _write(path, _json(_coco(results, classes)))
    _write(folder / 'preview.png', _encode('.png', draw_preview(folder, task, classes)))
    _write(folder / 'manifest.json', _json(settings, indent=1))


def _write_image(folder: Path, settings: dict[str, Any], split: str, index: int) -> Any:
    """Draws and writes one image and, for seg, its map; returns what det's JSON says of it."""
    task, classes = settings['task'], settings['classes']
    scene = _draw(settings, split, index)
    if task == 'cls':
        name = f'{classes[index % len(classes)]}/{split}_{index:08d}.JPEG'
        _write(folder / split / name, _encode('.jpg', scene.image))
        return None
    height, width = scene.mixed.shape
    if task == 'det':
        image_id = index + (1 if split == 'train' else VAL_ID)
        name = f'{image_id:012d}.jpg'
        _write(folder / f'{split}2017' / name, _encode('.jpg', scene.image))
        image = {'id': image_id, 'file_name': name, 'height': height, 'width': width, 'license': 1}
        return image, [_annotation(thing.label, thing.mask, image_id) for thing in scene.objects]
    labels = np.ones((height, width), np.uint8)
    for thing in scene.objects:
        labels[thing.mask] = thing.label + 2
    labels[scene.mixed] = 0
    name = f'{"training" if split == "train" else "validation"}/ADE_{split}_{index + 1:08d}'
    _write(folder / 'images' / f'{name}.jpg', _encode('.jpg', scene.image))
    _write(folder / 'annotations' / f'{name}.png', _encode('.png', labels))
    return None


def _draw(settings: dict[str, Any], split: str, index: int) -> Scene:
    """A scene of many objects, or one for a classifier."""
    task, classes, size = settings['task'], settings['classes'], tuple(settings['size'])
    key = [settings['seed'], TASKS.index(task), SPLITS.index(split), index]
    rng = np.random.default_rng(key)
    label = index % len(classes) if task == 'cls' else None
    if classes == list(RELATIONS):
        return draw_relations(rng, size, settings['difficulty'], label=label)
    only = {}
    if label is not None:
        only = dict(labels=[label], diameters=(min(size) * 0.22, min(size) * 0.88))
    return draw_scene(rng, size, settings['difficulty'], **only)


def _annotation(label: int, mask: np.ndarray, image_id: int) -> dict[str, Any]:
    """A COCO annotation, still without its id."""
    code = rle.encode(np.asfortranarray(mask, np.uint8))
    return {
        'image_id': image_id,
        'category_id': label + 1,
        'segmentation': {'size': list(mask.shape), 'counts': code['counts'].decode()},
        'area': float(rle.area(code)),
        'bbox': rle.toBbox(code).tolist(),
        'iscrowd': 0,
    }


def _coco(
    results: list[tuple[dict[str, Any], list[dict[str, Any]]]], classes: list[str]
) -> dict[str, Any]:
    """A COCO annotation file's content from each image's entry and annotations."""
    annotations = [annotation for _, of_image in results for annotation in of_image]
    return {
        'info': {'description': 'mmparc made shapes', 'version': str(FORMAT_VERSION)},
        'licenses': [{'id': 1, 'name': 'CC0 1.0', 'url': LICENSE}],
        'categories': [
            {'id': label + 1, 'name': name, 'supercategory': 'shape'}
            for label, name in enumerate(classes)
        ],
        'images': [image for image, _ in results],
        'annotations': [{'id': i + 1, **entry} for i, entry in enumerate(annotations)],
    }


def _encode(suffix: str, image: np.ndarray) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == '.jpg' else []
    return cv2.imencode(suffix, image, options)[1].tobytes()


def _json(content: dict[str, Any], indent: int | None = None) -> bytes:
    return (json.dumps(content, sort_keys=True, indent=indent) + '\n').encode()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
