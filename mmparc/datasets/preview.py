"""Draws a picture of a made data set from its files: samples with their labels, boxes and masks."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as rle

from mmparc.datasets.scenes import CLASSES

COLUMNS, ROWS = 6, 4
ZOOM = 2
HUES = np.uint8([[[180 * label // len(CLASSES), 200, 255] for label in range(len(CLASSES))]])
COLOURS = cv2.cvtColor(HUES, cv2.COLOR_HSV2BGR)[0].tolist()


def draw_preview(folder: Path, task: str) -> np.ndarray:
    """The first images of the training split in a grid, (H, W, 3) uint8 BGR."""
    draw = {'cls': _cls_samples, 'det': _det_samples, 'seg': _seg_samples}[task]
    tiles = draw(folder)
    tiles = [
        cv2.copyMakeBorder(tile, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        for tile in tiles
    ]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    return np.vstack(rows)


def _read(path: Path) -> np.ndarray:
    return cv2.imread(str(path)).repeat(ZOOM, 0).repeat(ZOOM, 1)


def _text(tile: np.ndarray, label: int, x: int, y: int) -> None:
    """Writes a class's name on a dark ground, above the point (x, y) where there is room."""
    font = (cv2.FONT_HERSHEY_SIMPLEX, 0.4)
    (width, height), below = cv2.getTextSize(CLASSES[label], *font, 1)
    x, y = max(min(x, tile.shape[1] - width), 0), max(y - below, height)
    cv2.rectangle(tile, (x, y - height), (x + width, y + below - 1), (40, 40, 40), -1)
    cv2.putText(tile, CLASSES[label], (x, y), *font, COLOURS[label], 1, cv2.LINE_AA)


def _contour(tile: np.ndarray, mask: np.ndarray, label: int) -> None:
    """Draws the rim of a mask (H, W)."""
    mask = mask.astype(np.uint8).repeat(ZOOM, 0).repeat(ZOOM, 1)
    tile[mask != cv2.erode(mask, np.ones((3, 3), np.uint8))] = COLOURS[label]


def _cls_samples(folder: Path) -> list[np.ndarray]:
    paths = sorted((folder / 'train').rglob('*.JPEG'), key=lambda path: path.name)
    tiles = []
    for path in paths[: ROWS * COLUMNS]:
        tiles.append(_read(path))
        _text(tiles[-1], CLASSES.index(path.parent.name), 0, 0)
    return tiles


def _det_samples(folder: Path) -> list[np.ndarray]:
    content = json.loads((folder / 'annotations' / 'instances_train2017.json').read_text())
    tiles = []
    for image in content['images'][: ROWS * COLUMNS]:
        tile = _read(folder / 'train2017' / image['file_name'])
        for entry in content['annotations']:
            if entry['image_id'] == image['id']:
                label = entry['category_id'] - 1
                _contour(tile, rle.decode(entry['segmentation']), label)
                x, y, width, height = (round(value * ZOOM) for value in entry['bbox'])
                corner = (x + width - 1, y + height - 1)
                cv2.rectangle(tile, (x, y), corner, COLOURS[label], 1)
                _text(tile, label, x, y)
        tiles.append(tile)
    return tiles


def _seg_samples(folder: Path) -> list[np.ndarray]:
    """Each image beside its map: background dark, unlabelled white."""
    palette = np.array([[255] * 3, [60] * 3, *COLOURS], np.uint8)
    tiles = []
    for path in sorted((folder / 'images' / 'training').glob('*.jpg'))[: ROWS * COLUMNS // 2]:
        labels = cv2.imread(
            str(folder / 'annotations' / 'training' / f'{path.stem}.png'), cv2.IMREAD_UNCHANGED
        )
        colours = palette[labels].repeat(ZOOM, 0).repeat(ZOOM, 1)
        for value in np.unique(labels[labels > 1]):
            ys, xs = np.nonzero(labels == value)
            _text(colours, int(value) - 2, xs.min() * ZOOM, ys.min() * ZOOM)
        tiles += [_read(path), colours]
    return tiles
