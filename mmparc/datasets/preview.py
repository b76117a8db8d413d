"""Draws a preview of a generated data set from its files: samples with labels, boxes and masks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as rle

COLUMNS, ROWS = 6, 4
ZOOM = 2


def draw_preview(folder: Path, task: str, classes: Sequence[str]) -> np.ndarray:
    """The first images of the training split in a grid, (H, W, 3) uint8 BGR."""
    draw = {'cls': _cls_samples, 'det': _det_samples, 'seg': _seg_samples}[task]
    tiles = draw(folder, classes)
    tiles = [
        cv2.copyMakeBorder(tile, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        for tile in tiles
    ]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    return np.vstack(rows)


def _read(path: Path) -> np.ndarray:
    return cv2.imread(str(path)).repeat(ZOOM, 0).repeat(ZOOM, 1)


def _colours(classes: Sequence[str]) -> list[list[int]]:
    """One colour, BGR, for each class."""
    hues = np.uint8([[[180 * label // len(classes), 200, 255] for label in range(len(classes))]])
    return cv2.cvtColor(hues, cv2.COLOR_HSV2BGR)[0].tolist()


def _text(tile: np.ndarray, name: str, colour: list[int], x: int, y: int) -> None:
    """Writes a class name on a dark ground, above the point (x, y) where there is room."""
    font = (cv2.FONT_HERSHEY_SIMPLEX, 0.4)
    (width, height), below = cv2.getTextSize(name, *font, 1)
    x, y = max(min(x, tile.shape[1] - width), 0), max(y - below, height)
    cv2.rectangle(tile, (x, y - height), (x + width, y + below - 1), (40, 40, 40), -1)
    cv2.putText(tile, name, (x, y), *font, colour, 1, cv2.LINE_AA)


def _contour(tile: np.ndarray, mask: np.ndarray, colour: list[int]) -> None:
    """Draws the rim of a mask (H, W)."""
    mask = mask.astype(np.uint8).repeat(ZOOM, 0).repeat(ZOOM, 1)
    tile[mask != cv2.erode(mask, np.ones((3, 3), np.uint8))] = colour


def _cls_samples(folder: Path, classes: Sequence[str]) -> list[np.ndarray]:
    paths = sorted((folder / 'train').rglob('*.JPEG'), key=lambda path: path.name)
    tiles, colours = [], _colours(classes)
    for path in paths[: ROWS * COLUMNS]:
        tiles.append(_read(path))
        name = path.parent.name
        _text(tiles[-1], name, colours[classes.index(name)], 0, 0)
    return tiles


def _det_samples(folder: Path, classes: Sequence[str]) -> list[np.ndarray]:
    content = json.loads((folder / 'annotations' / 'instances_train2017.json').read_text())
    tiles, colours = [], _colours(classes)
    for image in content['images'][: ROWS * COLUMNS]:
        tile = _read(folder / 'train2017' / image['file_name'])
        for entry in content['annotations']:
            if entry['image_id'] == image['id']:
                label = entry['category_id'] - 1
                _contour(tile, rle.decode(entry['segmentation']), colours[label])
                x, y, width, height = (round(value * ZOOM) for value in entry['bbox'])
                corner = (x + width - 1, y + height - 1)
                cv2.rectangle(tile, (x, y), corner, colours[label], 1)
                _text(tile, classes[label], colours[label], x, y)
        tiles.append(tile)
    return tiles


def _seg_samples(folder: Path, classes: Sequence[str]) -> list[np.ndarray]:
    """Each image beside its map: background dark, unlabelled white."""
    palette = np.array([[255] * 3, [60] * 3, *_colours(classes)], np.uint8)
    tiles = []
    for path in sorted((folder / 'images' / 'training').glob('*.jpg'))[: ROWS * COLUMNS // 2]:
        labels = cv2.imread(
            str(folder / 'annotations' / 'training' / f'{path.stem}.png'), cv2.IMREAD_UNCHANGED
        )
        painted = palette[labels].repeat(ZOOM, 0).repeat(ZOOM, 1)
        for value in np.unique(labels[labels > 1]):
            ys, xs = np.nonzero(labels == value)
            colour = palette[value].tolist()
            _text(painted, classes[value - 2], colour, xs.min() * ZOOM, ys.min() * ZOOM)
        tiles += [_read(path), painted]
    return tiles
