"""Writes made scenes to disk as ImageNet, COCO and ADE20K lay out their files.

cls: `train/<class>/*.JPEG` and `val/<class>/*.JPEG`, one object an image, of 0.22 to 0.88 times the
    shorter side.
det: `train2017/*.jpg`, `val2017/*.jpg` and `annotations/instances_{train,val}2017.json`; masks as
    RLE, `area` and `bbox` of the visible part.
seg: `images/{training,validation}/*.jpg` and `annotations/{training,validation}/*.png`, uint8:
    0 unlabelled (outline pixels that are partly covered), 1 background, 2 and on the classes, to be
    read with `reduce_zero_label=True`.

Every folder also has `manifest.json`, which says what it holds, and `preview.png`. Image i follows
from (seed, task, split, i) and the settings alone: how many are written, in which order and by
which process changes nothing.
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


@dataclass(frozen=True)
class Job:
    """One image to be made below `folder`."""

    folder: Path
    task: str
    scenes: str
    split: str
    index: int
    seed: int
    difficulty: str
    size: tuple[int, int]


def make_toy_data(
    out: str | os.PathLike[str],
    task: str,
    *,
    scenes: str = 'shapes',
    seed: int = 0,
    difficulty: str = 'normal',
    train: int | None = None,
    val: int | None = None,
    size: tuple[int, int] | None = None,
    workers: int = 1,
    on_image: Callable[[], None] | None = None,
) -> Path:
    """Writes one task's data set, unless the same is already there.

    Args:
        out: The folder in which the task's own folder is made.
        task: 'cls', 'det' or 'seg'.
        scenes: 'shapes', to be told by their outline, or 'relations', by their places.
        seed: Other seeds give other images.
        difficulty: 'easy', 'normal' or 'hard'.
        train: Number of training images; `train`, `val` and `size` default to `DEFAULTS[task]`.
        val: Number of validation images.
        size: Height and width in pixels.
        workers: Number of processes; with more than one the caller's main module is imported in
            each, so it needs the usual `if __name__ == '__main__':`.
        on_image: Called after each image.

    Returns:
        The task's folder. It appears under its name only when it is complete.

    Raises:
        ValueError: A setting is out of range.
        FileExistsError: The folder holds something else; nothing was changed.
    """
    settings = {
        'scenes': scenes,
        'seed': seed,
        'difficulty': difficulty,
        'train': train,
        'val': val,
        'size': size,
    }
    folder = Path(out) / task
    if holds_toy_data(out, task, **settings):
        return folder
    manifest = _manifest(task, **settings)
    partial = folder.with_name(f'.{task}-{uuid.uuid4().hex[:8]}.partial')
    partial.mkdir(parents=True)
    try:
        _fill_folder(partial, manifest, workers, on_image)
        try:
            partial.rename(folder)
        except OSError:  # another process was faster
            if not holds_toy_data(out, task, **settings):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def holds_toy_data(
    out: str | os.PathLike[str],
    task: str,
    *,
    scenes: str = 'shapes',
    seed: int = 0,
    difficulty: str = 'normal',
    train: int | None = None,
    val: int | None = None,
    size: tuple[int, int] | None = None,
) -> bool:
    """Whether the data set that `make_toy_data` would write is already there, and complete.

    Raises:
        ValueError: A setting is out of range.
        FileExistsError: The folder holds something else.
    """
    wanted = _manifest(task, scenes, seed, difficulty, train, val, size)
    folder = Path(out) / task
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / 'manifest.json').read_text())
        differs = [key for key in wanted if found.get(key) != wanted[key]]
    except (OSError, ValueError, AttributeError):
        reason = 'it has no manifest.json of a made data set'
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


def _manifest(
    task: str,
    scenes: str,
    seed: int,
    difficulty: str,
    train: int | None,
    val: int | None,
    size: tuple[int, int] | None,
) -> dict[str, Any]:
    """The checked settings of a data set, as `manifest.json` has them."""
    if task not in DEFAULTS:
        raise ValueError(f'task {task!r} is none of {", ".join(TASKS)}')
    if scenes not in SCENES:
        raise ValueError(f'scenes {scenes!r} are none of {", ".join(SCENES)}')
    if difficulty not in DIFFICULTIES:
        raise ValueError(f'difficulty {difficulty!r} is none of {", ".join(DIFFICULTIES)}')
    default = DEFAULTS[task]
    train = default.train if train is None else train
    val = default.val if val is None else val
    height, width = default.size if size is None else size
    if seed < 0:
        raise ValueError(f'seed {seed} is negative')
    if not 1 <= train < VAL_ID or val < 1:
        raise ValueError(f'a data set needs 1 to a million images a split, not {train} and {val}')
    if min(height, width) < 64:
        raise ValueError(f'an image is at least 64 x 64 pixels, not {height} x {width}')
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
    folder: Path,
    manifest: dict[str, Any],
    workers: int,
    on_image: Callable[[], None] | None,
) -> None:
    """Writes everything that belongs in a task's folder."""
    task, seed, difficulty = (manifest[key] for key in ('task', 'seed', 'difficulty'))
    classes = tuple(manifest['classes'])
    (scenes,) = (name for name, known in SCENES.items() if known == classes)
    jobs = [
        Job(folder, task, scenes, split, index, seed, difficulty, tuple(manifest['size']))
        for split in SPLITS
        for index in range(manifest[split])
    ]
    results: dict[str, list[Any]] = {split: [] for split in SPLITS}
    for job, result in zip(jobs, _run(jobs, workers), strict=True):
        results[job.split].append(result)
        if on_image is not None:
            on_image()
    if task == 'det':
        for split in SPLITS:
            path = folder / 'annotations' / f'instances_{split}2017.json'
            _write(path, _json(_coco(results[split], classes)))
    _write(folder / 'preview.png', _encode('.png', draw_preview(folder, task, classes)))
    _write(folder / 'manifest.json', _json(manifest, indent=1))


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
    key = [job.seed, TASKS.index(job.task), SPLITS.index(job.split), job.index]
    rng = np.random.default_rng(key)
    if job.task == 'cls':
        classes = SCENES[job.scenes]
        label = job.index % len(classes)
        scene = _draw(job, rng, label)
        path = job.folder / job.split / classes[label] / f'{job.split}_{job.index:08d}.JPEG'
        _write(path, _encode('.jpg', scene.image))
        return None
    scene = _draw(job, rng)
    if job.task == 'det':
        image_id = job.index + (1 if job.split == 'train' else VAL_ID)
        name = f'{image_id:012d}.jpg'
        _write(job.folder / f'{job.split}2017' / name, _encode('.jpg', scene.image))
        height, width = job.size
        image = {'id': image_id, 'file_name': name, 'height': height, 'width': width, 'license': 1}
        return image, [_annotation(thing.label, thing.mask, image_id) for thing in scene.objects]
    labels = np.ones(job.size, np.uint8)
    for thing in scene.objects:
        labels[thing.mask] = thing.label + 2
    labels[scene.mixed] = 0
    split = {'train': 'training', 'val': 'validation'}[job.split]
    name = f'ADE_{job.split}_{job.index + 1:08d}'
    _write(job.folder / 'images' / split / f'{name}.jpg', _encode('.jpg', scene.image))
    _write(job.folder / 'annotations' / split / f'{name}.png', _encode('.png', labels))
    return None


def _draw(job: Job, rng: np.random.Generator, label: int | None = None) -> Scene:
    """A scene of many objects, or one for a classifier."""
    if job.scenes == 'relations':
        return draw_relations(rng, job.size, job.difficulty, label=label)
    if label is None:
        return draw_scene(rng, job.size, job.difficulty)
    span = min(job.size) * 0.22, min(job.size) * 0.88
    return draw_scene(rng, job.size, job.difficulty, labels=[label], diameters=span)


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
    results: list[tuple[dict[str, Any], list[dict[str, Any]]]], classes: tuple[str, ...]
) -> dict[str, Any]:
    """A COCO annotation file's content from each image's entry and annotations."""
    annotations = [annotation for _, of_image in results for annotation in of_image]
    return {
        'info': {'description': 'mmparc made shapes', 'version': str(FORMAT_VERSION)},
        'licenses': [
            {
                'id': 1,
                'name': 'CC0 1.0',
                'url': 'https://creativecommons.org/publicdomain/zero/1.0/',
            }
        ],
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
