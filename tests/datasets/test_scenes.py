"""What generated scenes show: sizes, occlusion, masks, and what tells the classes apart.

Each property is tested beside a control that must not have it.
"""

import cv2
import numpy as np
import pytest

from mmparc.datasets import CLASSES, DIFFICULTIES, RELATIONS, Scene, draw_relations, draw_scene


def scenes(difficulty: str, size: tuple[int, int], count: int) -> list[Scene]:
    return [draw_scene(np.random.default_rng([7, i]), size, difficulty) for i in range(count)]


def centre_of(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(0)


def accuracy(features: list, labels: list[int]) -> float:
    """Of the nearest class mean of the first half, on the second."""
    features, labels = np.array(features), np.array(labels)
    features = (features - features.mean(0)) / features.std(0)
    train, test = np.split(np.arange(len(labels)), 2)
    means = [features[train][labels[train] == c].mean(0) for c in range(labels.max() + 1)]
    distance = np.linalg.norm(features[test][:, None] - np.array(means), axis=2)
    return float(np.mean(distance.argmin(1) == labels[test]))


@pytest.mark.parametrize('size', [(128, 160), (160, 128), (97, 131)], ids=str)
def test_scale_and_occlusion(size: tuple[int, int]) -> None:
    counts = []
    for difficulty, level in DIFFICULTIES.items():
        drawn = scenes(difficulty, size, 30)
        assert all(scene.image.shape == (*size, 3) and scene.objects for scene in drawn)
        assert all(np.sum([o.mask for o in scene.objects], 0).max() == 1 for scene in drawn)
        objects = [thing for scene in drawn for thing in scene.objects]
        diameters = np.array([thing.diameter for thing in objects])
        small = min(size) * 9 / 64
        assert small <= diameters.min() and diameters.max() <= 4 * small
        assert diameters.max() > 3 * diameters.min()
        visible = np.array([thing.mask.sum() / thing.area for thing in objects])
        assert visible.min() >= level.min_visible
        assert np.mean(visible < 0.95) > 0.08
        counts.append(len(objects))
    assert counts == sorted(counts) and counts[0] < counts[-1]


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
    """Nearest class mean: near chance on mean colours, far above it on the masks' profiles."""
    colours, profiles, labels = [], [], []
    for i in range(240):
        rng = np.random.default_rng([11, i])
        scene = draw_scene(rng, (96, 96), 'easy', labels=[i % 8], diameters=(20, 50))
        (thing,) = scene.objects
        reach = np.linalg.norm(np.argwhere(thing.mask) - centre_of(thing.mask), axis=1)
        profiles.append(np.histogram(reach / reach.max(), 8, (0, 1))[0] / len(reach))
        colours.append([*scene.image[thing.mask].mean(0), *scene.image.mean((0, 1))])
        labels.append(thing.label)
    assert accuracy(colours, labels) < 0.25
    assert accuracy(profiles, labels) > 0.7


@pytest.mark.parametrize('size', [(64, 64), (96, 144)], ids=str)
def test_places_tell_the_class(size: tuple[int, int]) -> None:
    """From pixels: the white ring's middle, a disc's, and which lines of the grid they share."""
    cell = np.array(size) / 6
    for i in range(12 * len(DIFFICULTIES)):
        kinds = set()
        for label in (*range(len(RELATIONS)), None):
            difficulty = list(DIFFICULTIES)[i % 3]
            rng = np.random.default_rng([5, i])
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
        assert len(kinds) == len(RELATIONS)


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
