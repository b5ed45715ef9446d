"""Convert masks to single polygons along the edges of their pixels, which lose none of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Point = tuple[int, int]


def pixel_rings(mask: NDArray[np.bool_]) -> list[Floats]:
    """Trace the outlines of a mask along the edges of its pixels.

    Args:
        mask: [H, W].

    Returns:
        the corners x, y of each ring, [N, 2], without the last one's return to the first: clockwise around pixels that
        share edges, anticlockwise around holes.
    """
    around = np.pad(mask, 1)
    rows = around[1:, 1:-1].astype(np.int8) - around[:-1, 1:-1]
    columns = around[1:-1, 1:].astype(np.int8) - around[1:-1, :-1]
    following: dict[Point, list[Point]] = {}
    for (y, x), enters in zip(np.argwhere(rows).tolist(), rows[rows != 0].tolist(), strict=True):
        begin, end = ((x, y), (x + 1, y)) if enters > 0 else ((x + 1, y), (x, y))
        following.setdefault(begin, []).append(end)
    for (y, x), enters in zip(np.argwhere(columns).tolist(), columns[columns != 0].tolist(), strict=True):
        begin, end = ((x, y + 1), (x, y)) if enters > 0 else ((x, y), (x, y + 1))
        following.setdefault(begin, []).append(end)
    rings = []
    while following:
        first = next(iter(following))
        ring = [first]
        point, direction = _step(following, first, None)
        while point != first:
            ring.append(point)
            point, direction = _step(following, point, direction)
        rings.append(_corners(np.array(ring, np.float64)))
    return rings


def _step(following: dict[Point, list[Point]], point: Point, direction: Point | None) -> tuple[Point, Point]:
    """Follow an edge; where two pixels touch at a corner, the one that stays at the same pixel, to the right."""
    ends = following[point]
    right = None if direction is None else (point[0] - direction[1], point[1] + direction[0])
    end = right if right is not None and right in ends else ends[0]
    ends.remove(end)
    if not ends:
        del following[point]
    return end, (end[0] - point[0], end[1] - point[1])


def _corners(ring: Floats) -> Floats:
    """Leave out the points between two corners."""
    before, after = ring - np.roll(ring, 1, 0), np.roll(ring, -1, 0) - ring
    kept: Floats = ring[(before != after).any(1)]
    return kept


def joined(rings: Sequence[Floats]) -> Floats:
    """Join rings to one by seams, which lead there and back on the same line and enclose nothing, [N, 2].

    Filled by parity, as pycocotools fills polygons, the one has the pixels of all, and not those of holes.
    """
    one = rings[0]
    for ring in rings[1:]:
        distance = np.abs(one[:, None] - ring).sum(2)
        i, j = np.unravel_index(int(distance.argmin()), distance.shape)
        one = np.concatenate((one[: i + 1], ring[j:], ring[: j + 1], one[i:]))
    return one
