"""Writes generated scenes to disk in the layouts of ImageNet, COCO and ADE20K.

cls: `train/<class>/*.JPEG` and `val/<class>/*.JPEG`, one object an image, of 0.22 to 0.88 times the
    shorter side.
det: `train2017/*.jpg`, `val2017/*.jpg` and `annotations/instances_{train,val}2017.json`; masks as
    RLE, `area` and `bbox` of the visible part.
seg: `images/{training,validation}/*.jpg` and `annotations/{training,validation}/*.png`, uint8:
    0 unlabelled (outline pixels that are partly covered), 1 background, 2 and on the classes, to be
    read with `reduce_zero_label=True`.

Every folder also has `manifest.json`, its settings, and `preview.png`. Image i depends only on
(seed, task, split, i) and the settings, not on the number of images, their order or the process.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Defaults:
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
    workers: int = 1,
    on_image: Callable[[], None] | None = None,
    **settings: Any,
) -> Path:
    """Writes one task's data set, unless the same is already there.

    Args:
        out: The folder in which the task's own folder is made.
        task: 'cls', 'det' or 'seg'.
        workers: Number of processes; with more than one the caller's main module is imported in
            each, so it needs the usual `if __name__ == '__main__':`.
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
        _fill_folder(partial, manifest(task, **settings), workers, on_image)
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


@dataclass(frozen=True)
class Job:
    """One image to be made below `folder`, with the settings of `manifest.json`."""

    folder: Path
    settings: dict[str, Any]
    split: str
    index: int


def _fill_folder(
    folder: Path, settings: dict[str, Any], workers: int, on_image: Callable[[], None] | None
) -> None:
    """Writes everything that belongs in a task's folder."""
    classes = settings['classes']
    jobs = [
        Job(folder, settings, split, index) for split in SPLITS for index in range(settings[split])
    ]
    results: dict[str, list[Any]] = {split: [] for split in SPLITS}
    for job, result in zip(jobs, _run(jobs, workers), strict=True):
        results[job.split].append(result)
        if on_image is not None:
            on_image()
    if settings['task'] == 'det':
        for split in SPLITS:
            path = folder / 'annotations' / f'instances_{split}2017.json'
            _write(path, _json(_coco(results[split], classes)))
    preview = draw_preview(folder, settings['task'], classes)
    _write(folder / 'preview.png', _encode('.png', preview))
    _write(folder / 'manifest.json', _json(settings, indent=1))


def _run(jobs: list[Job], workers: int) -> Iterator[Any]:
    """The jobs' results in order."""
    if workers <= 1:
        yield from map(_write_image, jobs)
        return
    with ProcessPoolExecutor(workers, get_context('spawn'), _start_worker) as pool:
        try:
            yield from pool.map(_write_image, jobs, chunksize=8)
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers


def _write_image(job: Job) -> Any:
    """Draws and writes one image and, for seg, its map; returns what det's JSON says of it."""
    task, classes = job.settings['task'], job.settings['classes']
    label = job.index % len(classes) if task == 'cls' else None
    scene = _draw(job, label)
    if task == 'cls':
        path = job.folder / job.split / classes[label] / f'{job.split}_{job.index:08d}.JPEG'
        _write(path, _encode('.jpg', scene.image))
        return None
    height, width = scene.mixed.shape
    if task == 'det':
        image_id = job.index + (1 if job.split == 'train' else VAL_ID)
        name = f'{image_id:012d}.jpg'
        _write(job.folder / f'{job.split}2017' / name, _encode('.jpg', scene.image))
        image = {'id': image_id, 'file_name': name, 'height': height, 'width': width, 'license': 1}
        return image, [_annotation(thing.label, thing.mask, image_id) for thing in scene.objects]
    labels = np.ones((height, width), np.uint8)
    for thing in scene.objects:
        labels[thing.mask] = thing.label + 2
    labels[scene.mixed] = 0
    split = {'train': 'training', 'val': 'validation'}[job.split]
    name = f'ADE_{job.split}_{job.index + 1:08d}'
    _write(job.folder / 'images' / split / f'{name}.jpg', _encode('.jpg', scene.image))
    _write(job.folder / 'annotations' / split / f'{name}.png', _encode('.png', labels))
    return None


def _draw(job: Job, label: int | None) -> Scene:
    """A scene of many objects, or one for a classifier."""
    seed, task, difficulty = (job.settings[key] for key in ('seed', 'task', 'difficulty'))
    size = tuple(job.settings['size'])
    rng = np.random.default_rng([seed, TASKS.index(task), SPLITS.index(job.split), job.index])
    if job.settings['classes'] == list(RELATIONS):
        return draw_relations(rng, size, difficulty, label=label)
    if label is None:
        return draw_scene(rng, size, difficulty)
    span = min(size) * 0.22, min(size) * 0.88
    return draw_scene(rng, size, difficulty, labels=[label], diameters=span)


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
