"""Tell the key points of YOLO's pose labels, which are not read, from polygons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SLACK = 0.01
"""How far points may be out of their box, and boxes out of their image, as a share of the image."""


@dataclass(frozen=True)
class PointShape:
    """The key points of each object."""

    count: int
    numbers: int
    """of each: 2, x and y, or 3, with its visibility"""

    @property
    def shares(self) -> int:
        """Numbers of a row behind the class: those of the box and of the points."""
        return 4 + self.count * self.numbers

    def __str__(self) -> str:
        return f"kpt_shape: [{self.count}, {self.numbers}]"


def point_shape(settings: Mapping[str, Any], path: Path) -> PointShape | None:
    """Read `kpt_shape` of a data.yaml; None: it has none.

    Raises:
        ValueError: it is malformed.
    """
    value = settings.get("kpt_shape")
    if value is None:
        return None
    whole = isinstance(value, list) and len(value) == 2 and all(type(v) is int for v in value)
    if not whole or value[0] < 1 or value[1] not in (2, 3):
        raise ValueError(
            f"{path}: kpt_shape must be the number of key points and 2 or 3 numbers of each, such as [17, 3], not "
            f"{value!r}; leave it out if the labels have no key points"
        )
    return PointShape(*value)


def box_of(shares: list[float], points: PointShape, where: str) -> list[float]:
    """Return the shares of a pose label's box, without its points.

    Raises:
        ValueError: the number of shares is another than that of a box, alone or with all points.
    """
    if len(shares) not in (4, points.shares):
        raise ValueError(
            f"{where}: {1 + len(shares)} numbers; with {points} of the data.yaml, an object has {1 + points.shares} "
            f"(class, x, y, width, height, and {points.numbers} of each of {points.count} key points)"
        )
    return shares[:4]


def fitting_points(rows: Sequence[Sequence[float]]) -> PointShape | None:
    """Say of which shape the key points are if all rows may be a box and points in it; None: they are not.

    Args:
        rows: the shares of objects. A point at 0, 0 is none.
    """
    length = len(rows[0]) if rows else 0
    if length < 6 or any(len(row) != length for row in rows):
        return None
    values = np.array(rows, np.float64)
    centre, half = values[:, None, :2], values[:, None, 2:4] / 2
    if not ((half > 0).all() and (centre - half >= -SLACK).all() and (centre + half <= 1 + SLACK).all()):
        return None
    for numbers in (3, 2):
        if (length - 4) % numbers == 0 and _inside(values[:, 4:].reshape(len(rows), -1, numbers), centre, half):
            return PointShape((length - 4) // numbers, numbers)
    return None


def _inside(points: NDArray[np.float64], centre: NDArray[np.float64], half: NDArray[np.float64]) -> bool:
    """Return whether all points, [M, K, 2 or 3], lie in the boxes, and their visibilities are 0, 1 or 2."""
    visible = np.isin(points[..., 2:], (0, 1, 2)).all()
    absent = (points[..., :2] == 0).all(-1)
    near = (np.abs(points[..., :2] - centre) <= half + SLACK).all(-1)
    return bool(visible and (near | absent).all())


def way_out(shares: list[float]) -> str:
    """Say which key is missing if a row that cannot be read may be a box and key points; else nothing."""
    points = fitting_points([shares])
    return "" if points is None else f"; if they are a box and key points, add `{points}` to the data.yaml"
