"""Draws one scene: textured background, clutter, and objects that only their shape tells apart.

Everything is painted back to front: what is painted later hides what lies below, and an object's
mask is its visible part. Objects stand upright up to a tilt, as most things in photographs do;
colour, texture, size and tilt do not depend on the class. Lengths are in pixels, images are BGR as
in OpenCV, and every choice comes from the caller's random generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

# In alphabetical order, so that sorted class folders count as these indices do.
CLASSES = ('crescent', 'cross', 'disc', 'heart', 'ring', 'square', 'star', 'triangle')

CLUTTER = -1  # beside the labels in the order of painting
SUPERSAMPLING = 4
TURN = np.linspace(0, 2 * np.pi, 64, endpoint=False)
CIRCLE = 0.5 * np.stack([np.cos(TURN), np.sin(TURN)], 1)
LUMA = np.array([0.114, 0.587, 0.299], np.float32)  # of BGR


@dataclass(frozen=True)
class Difficulty:
    """How hard a scene is. Ranges include both ends; brightness is on the scale 0 to 255."""

    objects: tuple[int, int]
    clutter: tuple[int, int]  # strokes, groups of specks and patches
    over: float  # share of the clutter that is painted among the objects, not below them
    overlap: float  # chance that a thing is placed close to an object already there
    min_visible: float  # share of its whole area that stays visible of every object
    tilt: float  # degrees by which an object leans at most, either way
    contrast: float  # difference in brightness between an object and its surroundings
    object_texture: float  # amplitude
    background_texture: float
    noise: float  # standard deviation


DIFFICULTIES = {
    'easy': Difficulty((1, 3), (2, 4), 0.15, 0.3, 0.75, 10, 75, 12, 18, 2),
    'normal': Difficulty((2, 5), (3, 7), 0.25, 0.4, 0.65, 20, 60, 16, 22, 4),
    'hard': Difficulty((3, 8), (8, 16), 0.4, 0.6, 0.4, 180, 28, 28, 35, 11),
}


@dataclass
class SceneObject:
    """One object: `label` indexes `CLASSES`, `mask` (H, W) bool is its visible part.

    `diameter` is that of the circle around the whole shape, and `area` the whole shape's, in
    pixels and with what is hidden or out of the picture.
    """

    label: int
    diameter: float
    area: float
    mask: np.ndarray


@dataclass
class Scene:
    """A drawn scene: `image` (H, W, 3) uint8 BGR, `objects` in the order of painting, and `mixed`.

    `mixed` (H, W) bool marks the pixels on outlines of objects that are covered by about half.
    """

    image: np.ndarray
    objects: list[SceneObject]
    mixed: np.ndarray


@cache
def outline(label: int) -> list[np.ndarray]:
    """The outlines of a class, upright, as (N, 2) xy points in a circle of radius 0.5, y downwards.

    A second outline is a hole.
    """
    name = CLASSES[label]
    if name == 'disc':
        return [CIRCLE]
    if name == 'ring':
        return [CIRCLE, 0.55 * CIRCLE]
    if name == 'crescent':  # the circle, less a smaller one that reaches over its upper edge
        centre, radius = 0.25, 0.42
        x = (0.25 + centre**2 - radius**2) / (2 * centre)  # where the two circles meet
        outer, inner = np.arccos(x / 0.5), np.arccos((x - centre) / radius)
        outer = np.linspace(outer, 2 * np.pi - outer, 48)
        inner = np.linspace(2 * np.pi - inner, inner, 48)
        points = 0.5 * np.stack([np.cos(outer), np.sin(outer)], 1)
        bite = radius * np.stack([np.cos(inner), np.sin(inner)], 1) + [centre, 0]
        return [np.concatenate([points, bite[1:-1]])[:, ::-1] * [1, -1]]
    if name == 'heart':
        x = 16 * np.sin(TURN) ** 3
        y = -(13 * np.cos(TURN) - 5 * np.cos(2 * TURN) - 2 * np.cos(3 * TURN) - np.cos(4 * TURN))
        return [np.stack([x, y - 2.5], 1) / 33]
    if name == 'cross':
        a, b = 0.155, 0.475
        arm = np.array([[b, -a], [b, a], [a, a]])
        quarter = np.array([[0, -1], [1, 0]])
        return [np.concatenate([arm @ np.linalg.matrix_power(quarter.T, k) for k in range(4)])]
    if name == 'star':
        radii = np.where(np.arange(10) % 2, 0.21, 0.5)
    else:
        radii = np.full({'square': 4, 'triangle': 3}[name], 0.5)
    turn = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    turn += np.pi / 4 if name == 'square' else 0  # a side below; the others' first corner on top
    return [radii[:, None] * np.stack([np.sin(turn), -np.cos(turn)], 1)]


def draw_scene(
    rng: np.random.Generator,
    size: tuple[int, int],
    difficulty: str = 'normal',
    *,
    labels: Sequence[int] | None = None,
    diameters: tuple[float, float] | None = None,
) -> Scene:
    """Draws one scene.

    An object that finds no place where enough of it and of the others stays visible is left out,
    so nothing in the picture is an object without a mask; the first object always finds one.

    Args:
        rng: Where every choice comes from.
        size: Height and width, at least 64.
        difficulty: 'easy', 'normal' or 'hard'.
        labels: The classes of the objects wanted; by default as many as `difficulty` says.
        diameters: Range of the objects' diameters, log-uniform. By default a fourfold range, 9/64
            to 9/16 of the shorter side: 18 to 72 in a scene of 128 x 160.
    """
    level = DIFFICULTIES[difficulty]
    if labels is None:
        labels = rng.integers(len(CLASSES), size=rng.integers(*level.objects, endpoint=True))
    small, large = diameters or (min(size) * 9 / 64, min(size) * 9 / 16)

    canvas = _background(rng, size, level)
    objects: list[SceneObject] = []
    mixed = np.zeros(size, bool)
    clutter = rng.integers(*level.clutter, endpoint=True)
    over = rng.binomial(clutter, level.over)
    order = rng.permutation([*labels, *[CLUTTER] * over])
    light = rng.uniform(0, 2 * np.pi)
    for label in [CLUTTER] * (clutter - over) + order.tolist():
        is_object = label != CLUTTER
        low, high = (small, large) if is_object else (min(size) * 0.1, min(size) * 0.35)
        diameter = low * (high / low) ** rng.uniform()
        for _ in range(30):
            margin = 0.3 * diameter if is_object else 0.0
            centre = _position(rng, size, margin, objects, level.overlap)
            if is_object:
                cover, area = _shape(rng, size, centre, diameter, label, level.tilt)
            else:
                cover, area = _clutter(rng, size, centre, diameter), 0.0
            hides = cover >= 0.5
            spares = ~hides
            if np.count_nonzero(hides) >= 0.8 * area and all(
                np.count_nonzero(other.mask & spares) >= level.min_visible * other.area
                for other in objects
            ):
                break
        else:
            continue
        contrast = level.contrast if is_object else 0.4 * level.contrast
        _paint(rng, canvas, cover, contrast, level.object_texture, light)
        occupied = np.zeros(size, bool)
        for other in objects:
            occupied |= other.mask
            other.mask &= spares
        if is_object:
            objects.append(SceneObject(label, diameter, area, hides))
            occupied[:] = True
        mixed[hides] = False
        mixed |= occupied & (cover > 0.25) & (cover < 0.75)
    canvas *= 1 + 0.12 * _gradient(rng, size)
    canvas += level.noise * rng.standard_normal(size, np.float32)
    image = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return Scene(np.ascontiguousarray(image.transpose(1, 2, 0)), objects, mixed)


def _grid(size: tuple[int, int], angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Two (H, W) coordinates in pixels, turned by `angle`, zero in the middle."""
    y = np.arange(size[0], dtype=np.float32)[:, None] - size[0] / 2
    x = np.arange(size[1], dtype=np.float32) - size[1] / 2
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * x + sin * y, cos * y - sin * x


def _gradient(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A slope across the picture, (H, W) in -1 to 1."""
    slope = _grid(size, rng.uniform(0, 2 * np.pi))[0]
    return slope / np.abs(slope).max()


@cache
def _noise_sheet() -> np.ndarray:
    """Smooth noise of several octaves, (512, 512) in -1 to 1; the same sheet for all scenes."""
    rng = np.random.default_rng(0)
    sheet = np.zeros((1, 1), np.float32)
    for octave in range(5):
        cells = 8 << octave
        sheet = cv2.resize(sheet, (cells, cells), interpolation=cv2.INTER_CUBIC)
        sheet += 0.65**octave * rng.uniform(-1, 1, sheet.shape).astype(np.float32)
    sheet = cv2.resize(sheet, (512, 512), interpolation=cv2.INTER_CUBIC)
    return sheet / np.abs(sheet).max()


def _noise(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A random cut-out of the sheet in a random magnification, (H, W) in -1 to 1."""
    sheet = _noise_sheet()
    zoom = min(rng.uniform(1, 3), sheet.shape[0] / size[0], sheet.shape[1] / size[1])
    height, width = (max(int(zoom * length), 1) for length in size)
    top = rng.integers(sheet.shape[0] - height, endpoint=True)
    left = rng.integers(sheet.shape[1] - width, endpoint=True)
    return cv2.resize(sheet[top : top + height, left : left + width], size[::-1])


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """One of several patterns, (H, W) in about -1 to 1."""
    u, v = _grid(size, rng.uniform(0, np.pi))
    period = rng.uniform(5, 16)
    kind = rng.integers(5)
    if kind == 0:
        pattern = _noise(rng, size)
    elif kind == 1:
        pattern = _gradient(rng, size)
    elif kind == 2:  # stripes, soft or sharp
        pattern = np.clip(rng.uniform(1, 4) * np.sin(2 * np.pi * u / period), -1, 1)
    elif kind == 3:  # checks
        pattern = np.sign(np.sin(np.pi * u / period) * np.sin(np.pi * v / period))
    else:  # grain
        grain = rng.normal(0, 1, size).astype(np.float32)
        pattern = np.clip(cv2.GaussianBlur(grain, (0, 0), 1.2) * 2.5, -1, 1)
    return 0.75 * pattern + 0.25 * _noise(rng, size) if kind else pattern


def _tint(rng: np.random.Generator) -> np.ndarray:
    """The direction in BGR along which a texture varies: mostly brightness, some colour."""
    return (1 + rng.uniform(-0.6, 0.6, (3, 1, 1))).astype(np.float32)


def _background(rng: np.random.Generator, size: tuple[int, int], level: Difficulty) -> np.ndarray:
    """The canvas: (3, H, W) float32, BGR on the scale 0 to 255."""
    canvas = np.empty((3, *size), np.float32)
    canvas[:] = rng.uniform(50, 205, (3, 1, 1))
    for part in (_noise(rng, size), 0.5 * _texture(rng, size), 0.6 * _gradient(rng, size)):
        canvas += level.background_texture * part * _tint(rng)
    return np.clip(canvas, 0, 255)


def _position(
    rng: np.random.Generator,
    size: tuple[int, int],
    margin: float,
    objects: list[SceneObject],
    overlap: float,
) -> np.ndarray:
    """A centre (x, y): anywhere inside `margin`, or by the chance `overlap` at an object's rim."""
    if objects and rng.uniform() < overlap:
        other = objects[rng.integers(len(objects))]
        ys, xs = np.nonzero(other.mask)
        turn = rng.uniform(0, 2 * np.pi)
        reach = other.diameter * rng.uniform(0.5, 0.9)
        return np.array([xs.mean(), ys.mean()]) + reach * np.array([np.cos(turn), np.sin(turn)])
    return rng.uniform(margin, np.array(size[::-1]) - margin)


def _fill(size: tuple[int, int], outlines: list[np.ndarray]) -> np.ndarray:
    """How much of each pixel lies inside (H, W, 0 to 1) by the even-odd rule."""
    cover = np.zeros(size, np.float32)
    points = np.concatenate(outlines)
    left, top = np.clip(np.floor(points.min(0)).astype(int), 0, size[::-1])
    right, bottom = np.clip(np.ceil(points.max(0)).astype(int), 0, size[::-1])
    width, height = right - left, bottom - top
    if width and height:
        large = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), np.uint8)
        lines = [((line - [left, top]) * SUPERSAMPLING - 0.5) * 16 for line in outlines]
        cv2.fillPoly(large, [np.rint(line).astype(np.int32) for line in lines], 255, shift=4)
        window = cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)
        cover[top:bottom, left:right] = window / np.float32(255)
    return cover


def _rotation(rng: np.random.Generator, tilt: float = 180) -> np.ndarray:
    turn = np.deg2rad(rng.uniform(-tilt, tilt))
    return np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])


def _shape(
    rng: np.random.Generator,
    size: tuple[int, int],
    centre: np.ndarray,
    diameter: float,
    label: int,
    tilt: float,
) -> tuple[np.ndarray, float]:
    """An object's coverage (H, W) and its whole area in pixels."""
    rotation = _rotation(rng, tilt)
    outlines = [centre + diameter * line @ rotation for line in outline(label)]
    areas = [cv2.contourArea(line.astype(np.float32)) for line in outlines]
    return _fill(size, outlines), areas[0] - sum(areas[1:])


def _clutter(
    rng: np.random.Generator, size: tuple[int, int], centre: np.ndarray, diameter: float
) -> np.ndarray:
    """The coverage (H, W) of a stroke, a group of specks, or a patch with a lumpy outline."""
    kind = rng.integers(3)
    if kind == 0:  # stroke: a quadratic curve of 1 to 4 pixels
        start, bend, end = centre + rng.uniform(-0.4, 0.4, (3, 2)) * size[::-1]
        t = np.linspace(0, 1, 24)[:, None]
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
        along = (1 - t) * (bend - start) + t * (end - bend)
        side = rng.uniform(0.5, 2) * along[:, ::-1] * [1, -1]
        side /= np.hypot(*along.T)[:, None] + 1e-9
        return _fill(size, [np.concatenate([curve + side, (curve - side)[::-1]])])
    if kind == 1:  # specks, all smaller than any object
        spots = centre + rng.normal(0, 0.6 * diameter, (rng.integers(5, 20), 1, 2))
        return _fill(size, list(spots + rng.uniform(1.4, 4, (len(spots), 1, 1)) * CIRCLE[::4]))
    lobes = np.arange(3, 7)[:, None]
    waves = np.cos(lobes * TURN + rng.uniform(0, 2 * np.pi, lobes.shape))
    radius = np.maximum(1 + np.sum(rng.uniform(0.1, 0.3, lobes.shape) * waves, 0), 0.15)
    blob = diameter * radius[:, None] * CIRCLE
    return _fill(size, [centre + (blob * [1, rng.uniform(0.4, 1)]) @ _rotation(rng)])


def _paint(
    rng: np.random.Generator,
    canvas: np.ndarray,
    cover: np.ndarray,
    contrast: float,
    texture: float,
    light: float,
) -> None:
    """Paints a textured thing in place, in a colour that stands out from what lies around it."""
    left, top, width, height = cv2.boundingRect((cover > 0).astype(np.uint8))
    if not width:
        return
    margin = 8  # enough for the surroundings and the shadow
    window = np.s_[max(top - margin, 0) : top + height + margin]
    window = (window, np.s_[max(left - margin, 0) : left + width + margin])
    canvas, cover = canvas[(slice(None), *window)], cover[window]
    size = cover.shape
    inside = (cover > 0).astype(np.uint8)
    around = cv2.dilate(inside, np.ones((7, 7), np.uint8)) > inside
    around = LUMA @ canvas[:, around]
    colours = rng.uniform(15, 240, (16, 3)).astype(np.float32)
    differs = np.abs((colours @ LUMA)[:, None] - around[:: 1 + around.size // 200]) > contrast
    colour = colours[np.argmax(np.minimum(differs.mean(1), 0.97))] if around.size else colours[0]
    paint = colour[:, None, None] + texture * _texture(rng, size) * _tint(rng)
    shift = np.float32([[1, 0, 2 * np.cos(light)], [0, 1, 2 * np.sin(light)]])
    shadow = cv2.GaussianBlur(cv2.warpAffine(cover, shift, size[::-1]), (0, 0), 1.5)
    canvas *= 1 - 0.3 * shadow
    canvas += cover * (np.clip(paint, 0, 255) - canvas)
