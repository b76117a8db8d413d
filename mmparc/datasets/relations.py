"""Draws discs whose class is their place: in the row or column of a white ring or apart from both,
and in the upper or lower half.

Nothing near a disc tells its class: colour, size and surroundings do not depend on it, and the ring
is at least two cells away. A network has to carry the ring's place across the picture, and to know
the disc's own. Images are BGR as in OpenCV, and every choice comes from the caller's random
generator.
"""

from __future__ import annotations

import numpy as np

from mmparc.datasets.scenes import Scene, SceneObject

Cell = tuple[int, int]

# In alphabetical order, so that sorted class folders count as these indices do.
RELATIONS = ('apart-lower', 'apart-upper', 'column-lower', 'column-upper', 'row-lower', 'row-upper')

CELLS = 6  # rows and columns that things stand in
COLOURS = np.array(  # BGR; the first is that of the only disc that a classifier is asked for
    [(50, 50, 230), (40, 200, 240), (70, 190, 60), (220, 190, 40), (220, 80, 60), (200, 70, 190)]
)
# Other discs in an image of one class; discs of each relation in others.
COUNTS = {'easy': (0, 1), 'normal': (0, 2), 'hard': (2, 3)}
NOISE = 8.0  # standard deviation, on the scale 0 to 255


def draw_relations(
    rng: np.random.Generator,
    size: tuple[int, int],
    difficulty: str = 'normal',
    *,
    label: int | None = None,
) -> Scene:
    """Draws one ring and its discs.

    Args:
        rng: Where every choice comes from.
        size: Height and width, at least 64.
        difficulty: 'easy', 'normal' or 'hard': how many discs there are.
        label: The class of the one red disc; the others are of other colours and of any class. By
            default there are as many discs in the ring's row, in its column and apart from both,
            of all colours.

    Returns:
        The image and the discs as its objects; the ring is none.
    """
    others, of_each = COUNTS[difficulty]
    cells = [(row, column) for row in range(CELLS) for column in range(CELLS)]

    def some(found: list[Cell], count: int) -> list[Cell]:
        return [found[i] for i in rng.permutation(len(found))[:count]]

    if label is None:
        (ring,) = some(cells, 1)
        chosen = []
        for kind in range(3):
            of_kind = [c for c in cells if far(c, ring) and relation(c, ring) // 2 == kind]
            chosen += some(of_kind, of_each)
        colours = rng.integers(len(COLOURS), size=len(chosen))
    else:
        pairs = [(c, r) for c in cells for r in cells if far(c, r) and relation(c, r) == label]
        answer, ring = pairs[rng.integers(len(pairs))]
        chosen = [answer, *some([c for c in cells if far(c, ring) and c != answer], others)]
        colours = [0, *rng.integers(1, len(COLOURS), size=others)]

    canvas = np.full((*size, 3), rng.uniform(60, 140), np.float32)
    objects, mixed = [], np.zeros(size, bool)
    centre, diameter = _place(rng, size, ring)
    cover = _disc(size, centre, diameter) - _disc(size, centre, 0.5 * diameter)
    canvas += cover[..., None] * (255 - canvas)
    for cell, colour in zip(chosen, colours, strict=True):
        centre, diameter = _place(rng, size, cell)
        cover = _disc(size, centre, diameter)
        canvas += cover[..., None] * (COLOURS[colour] - canvas)
        area = np.pi * diameter**2 / 4
        objects.append(SceneObject(relation(cell, ring), diameter, area, cover >= 0.5))
        mixed |= (cover > 0.25) & (cover < 0.75)
    canvas += NOISE * rng.standard_normal(canvas.shape, np.float32)
    return Scene(np.clip(np.rint(canvas), 0, 255).astype(np.uint8), objects, mixed)


def far(cell: Cell, ring: Cell) -> bool:
    """Whether a disc may lie there: neither in the ring's cell nor beside, above or below it."""
    return abs(cell[0] - ring[0]) + abs(cell[1] - ring[1]) > 1


def relation(cell: Cell, ring: Cell) -> int:
    """The class of a disc in a cell (row, column), counted from the upper left."""
    kind = 2 if cell[0] == ring[0] else 1 if cell[1] == ring[1] else 0
    return 2 * kind + (cell[0] < CELLS // 2)


def _place(rng: np.random.Generator, size: tuple[int, int], cell: Cell) -> tuple[np.ndarray, float]:
    """A centre (y, x) in a cell and a diameter, so that things do not touch."""
    side = np.array(size) / CELLS
    return (cell + rng.uniform(0.45, 0.55, 2)) * side, min(side) * rng.uniform(0.7, 0.88)


def _disc(size: tuple[int, int], centre: np.ndarray, diameter: float) -> np.ndarray:
    """How much of each pixel it covers, (H, W) from 0 to 1."""
    y, x = np.ogrid[: size[0], : size[1]]
    distance = np.hypot(y + 0.5 - centre[0], x + 0.5 - centre[1])
    return np.clip(diameter / 2 - distance + 0.5, 0, 1).astype(np.float32)
