"""Draw the images of the generated dataset: place shapes, compute their visible parts, and paint them.

Shapes are sampled at `GRID` x `GRID` points per pixel. Each point belongs to the topmost shape that covers it, and a
pixel's colour is the mean over its points, so edges are anti-aliased, and masks and boxes are those of the visible
parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

GRID = 4
"""sample points along each side of a pixel"""
SIDE = (6.0, 120.0)
"""the minimum and maximum side of an object's box, in pixels"""
MIN_AREA = 24.0
"""the minimum area of an object, in pixels"""
MIN_VISIBLE = 0.6
"""the minimum fraction of an object that is not occluded"""


def _ring(u: Floats, v: Floats) -> Bools:
    radius = u * u + v * v
    return (radius <= 1) & (radius >= 0.3)


INSIDE: dict[str, Callable[[Floats, Floats], Bools]] = {
    "ellipse": lambda u, v: u * u + v * v <= 1,
    "rectangle": lambda u, v: (abs(u) <= 1) & (abs(v) <= 1),
    "triangle": lambda u, v: (v <= 1) & (2 * abs(u) <= v + 1),
    "ring": _ring,
    "cross": lambda u, v: (abs(u) <= 1) & (abs(v) <= 1) & ((abs(u) <= 0.36) | (abs(v) <= 0.36)),
}
"""For each class, whether points of the square [-1, 1]^2 (u to the right, v down) lie in the shape."""

CLASSES = tuple(INSIDE)

FILL = {"ellipse": math.pi / 4, "rectangle": 1.0, "triangle": 0.5, "ring": math.pi / 4 * 0.7, "cross": 1 - 0.64**2}
"""the fraction of that square that the shape covers"""

CORNERS = {
    "rectangle": ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)),
    "triangle": ((0.0, -1.0), (1.0, 1.0), (-1.0, 1.0)),
    "cross": tuple((i * a, j * b) for a, b in ((1.0, 0.36), (0.36, 1.0)) for i in (-1, 1) for j in (-1, 1)),
}
"""the corners of the shapes that have any, in that square"""


@dataclass(frozen=True)
class Shape:
    """One object: its class in `CLASSES`, centre, half sides before rotation (pixels) and rotation (radians)."""

    label: int
    x: float
    y: float
    a: float
    b: float
    angle: float

    def box(self) -> tuple[float, float, float, float]:
        """Compute the exact box x1, y1, x2, y2 of the whole shape."""
        c, s = math.cos(self.angle), math.sin(self.angle)
        corners = CORNERS.get(CLASSES[self.label])
        if corners is None:
            w, h = math.hypot(self.a * c, self.b * s), math.hypot(self.a * s, self.b * c)
            return self.x - w, self.y - h, self.x + w, self.y + h
        xs = [self.x + self.a * u * c - self.b * v * s for u, v in corners]
        ys = [self.y + self.a * u * s + self.b * v * c for u, v in corners]
        return min(xs), min(ys), max(xs), max(ys)

    def covers(self, x: Floats, y: Floats) -> Bools:
        """Test which points of the grid of columns x [1, W] and rows y [H, 1] lie in the shape, bool [H, W]."""
        c, s = math.cos(self.angle), math.sin(self.angle)
        dx, dy = x - np.float32(self.x), y - np.float32(self.y)
        u, v = (dx * c + dy * s) / self.a, (dy * c - dx * s) / self.b
        return INSIDE[CLASSES[self.label]](u.astype(np.float32), v.astype(np.float32))


@dataclass(frozen=True)
class VisibleShape:
    """The visible part of a shape."""

    label: int
    box: tuple[float, float, float, float]
    """x1, y1, x2, y2: exact where the shape's own edge is visible, to 1 / GRID pixel where another shape occludes it"""
    window: tuple[slice, slice]
    """the rows and columns of pixels that hold the whole shape"""
    share: Floats
    """[h, w], the fraction of each pixel of the window that the visible part covers, 0..1"""

    @property
    def area(self) -> int:
        """The number of pixels of its mask."""
        return int((self.share >= 0.5).sum())

    def mask(self, size: int) -> Bools:
        """Make its mask, bool [size, size]: the pixels of the image that it covers by at least half."""
        mask = np.zeros((size, size), dtype=bool)
        mask[self.window] = self.share >= 0.5
        return mask


def random_shape(rng: np.random.Generator, bin_range: tuple[float, float], size: int) -> Shape:
    """Draw a random shape with an area in `bin_range` (low, high; pixels), inside an image of `size` x `size`."""
    low, high = math.log(max(bin_range[0], MIN_AREA)), math.log(bin_range[1])
    while True:
        label = int(rng.integers(len(CLASSES)))
        area = math.exp(rng.uniform(low, high))
        aspect = math.exp(rng.uniform(-0.7, 0.7))
        half = math.sqrt(area / FILL[CLASSES[label]]) / 2
        shape = Shape(label, 0.0, 0.0, half * aspect**0.5, half / aspect**0.5, rng.uniform(-0.35, 0.35))
        x1, y1, x2, y2 = shape.box()
        w, h = x2 - x1, y2 - y1
        if SIDE[0] <= min(w, h) and max(w, h) <= min(SIDE[1], size):
            x, y = rng.uniform(0, size - w) - x1, rng.uniform(0, size - h) - y1
            return Shape(label, x, y, shape.a, shape.b, shape.angle)


def arrange(rng: np.random.Generator, bins: list[tuple[float, float]], size: int) -> list[Shape] | None:
    """Place a random shape for each area range in `bins`, with little overlap, in random order; None if that fails."""
    shapes: list[Shape] = []
    for bin_range in bins:
        for _ in range(60):
            candidate = random_shape(rng, bin_range, size)
            if all(_apart(candidate.box(), other.box()) for other in shapes):
                shapes.append(candidate)
                break
        else:
            return None
    return [shapes[i] for i in rng.permutation(len(shapes))]


def _apart(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Test whether two boxes overlap by at most a third of the smaller one."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return w <= 0 or h <= 0 or 3 * w * h <= smaller


def visible_shapes(shapes: list[Shape], size: int) -> list[VisibleShape] | None:
    """Compute the visible part of each shape.

    Args:
        shapes: from back to front.
        size: height and width of the image.

    Returns:
        None if less of a shape is visible than `MIN_VISIBLE` and `SIDE` require.
    """
    owner = np.zeros((size * GRID, size * GRID), dtype=np.uint8)
    points = ((np.arange(size * GRID) + 0.5) / GRID).astype(np.float32)
    windows, whole = [], []
    for number, shape in enumerate(shapes, 1):
        rows, columns = _window(shape, size)
        fine = _fine(rows), _fine(columns)
        inside = shape.covers(points[None, fine[1]], points[fine[0], None])
        owner[fine][inside] = number
        windows.append((rows, columns))
        whole.append(inside)
    objects = []
    for number, (shape, window, inside) in enumerate(zip(shapes, windows, whole, strict=True), 1):
        visible = owner[_fine(window[0]), _fine(window[1])] == number
        if visible.sum() < MIN_VISIBLE * inside.sum():
            return None
        box = _visible_box(shape.box(), visible, inside, window)
        if min(box[2] - box[0], box[3] - box[1]) < SIDE[0]:
            return None
        height, width = (s.stop - s.start for s in window)
        share = visible.reshape(height, GRID, width, GRID).mean((1, 3), dtype=np.float32)
        objects.append(VisibleShape(shape.label, box, window, share))
    return objects


def whole_shape(shape: Shape, size: int) -> VisibleShape:
    """Compute the visible part of a shape that nothing occludes, in an image of `size` x `size`."""
    points = ((np.arange(size * GRID) + 0.5) / GRID).astype(np.float32)
    rows, columns = _window(shape, size)
    inside = shape.covers(points[None, _fine(columns)], points[_fine(rows), None])
    share = inside.reshape(rows.stop - rows.start, GRID, columns.stop - columns.start, GRID).mean((1, 3))
    return VisibleShape(shape.label, shape.box(), (rows, columns), share.astype(np.float32))


def _window(shape: Shape, size: int) -> tuple[slice, slice]:
    """Return the rows and columns of pixels that hold a shape."""
    x1, y1, x2, y2 = shape.box()
    return slice(int(y1), min(math.ceil(y2), size)), slice(int(x1), min(math.ceil(x2), size))


def _fine(pixels: slice) -> slice:
    return slice(pixels.start * GRID, pixels.stop * GRID)


def paint(rng: np.random.Generator, objects: list[VisibleShape], size: int, distinct: bool = True) -> NDArray[np.uint8]:
    """Paint the shapes with textures on a background, and add noise: uint8 [size, size, 3].

    Args:
        distinct: paint each shape in another colour; else only in another than the background's.
    """
    colour = rng.uniform(70, 180, 3).astype(np.float32)
    background = _texture(rng, (size, size), colour, strength=1.0)
    colours = [background.mean((0, 1))]
    image = np.zeros_like(background)
    covered = np.zeros((size, size), dtype=np.float32)
    for seen in objects:
        own = _colour(rng, colours)
        if distinct:
            colours.append(own)
        image[seen.window] += seen.share[..., None] * _texture(rng, seen.share.shape, own, strength=0.7)
        covered[seen.window] += seen.share
    image += (1 - covered[..., None]) * background
    image += rng.normal(0, 5, image.shape).astype(np.float32)
    return image.clip(0, 255).round().astype(np.uint8)


def _visible_box(
    box: tuple[float, float, float, float], visible: Bools, inside: Bools, window: tuple[slice, slice]
) -> tuple[float, float, float, float]:
    """Compute the visible part's box: on each side the shape's own edge if it is visible, else that of the points."""
    sides = list(box)
    for axis, start in ((0, window[1].start), (1, window[0].start)):
        seen, full = (np.flatnonzero(points.any(axis)) for points in (visible, inside))
        if seen[0] != full[0]:
            sides[axis] = start + seen[0] / GRID
        if seen[-1] != full[-1]:
            sides[axis + 2] = start + (seen[-1] + 1) / GRID
    return sides[0], sides[1], sides[2], sides[3]


def _colour(rng: np.random.Generator, others: list[Floats]) -> Floats:
    """Draw a colour of medium contrast to the background, `others[0]`, and of some contrast to the other shapes."""
    candidates = rng.uniform(25, 230, (24, 3)).astype(np.float32)
    distance = np.linalg.norm(candidates[:, None] - np.stack(others)[None], axis=-1)
    apart = (distance[:, 0] >= 70) & (distance[:, 0] <= 150) & (distance.min(1) >= 35)
    best = np.argmax(apart) if apart.any() else np.argmax(distance.min(1))
    return np.asarray(candidates[best], dtype=np.float32)


def _texture(rng: np.random.Generator, shape: tuple[int, ...], colour: Floats, strength: float) -> Floats:
    """Add blotches, a gradient and stripes to `colour` [3], over a patch of `shape`: float32 [H, W, 3]."""
    height, width = shape
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    angle, period, phase = rng.uniform(0, math.pi), rng.uniform(5, 24), rng.uniform(0, 2 * math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    relief = rng.uniform(2, 9) * np.sin(along * (2 * math.pi / period) + phase)
    slope = rng.uniform(-12, 12, 2) / (height, width)
    relief = relief + slope[0] * (y - height / 2) + slope[1] * (x - width / 2)
    blotches = _smooth_noise(rng, shape, cell=float(rng.uniform(6, 20)))
    return np.asarray(colour + strength * (relief[..., None] + 11 * blotches), dtype=np.float32)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], cell: float) -> Floats:
    """Draw normal noise on a lattice of `cell` pixels, interpolated linearly: float32 [H, W, 3]."""
    grid = rng.normal(size=(int(shape[0] / cell) + 2, int(shape[1] / cell) + 2, 3)).astype(np.float32)
    for axis, length in enumerate(shape):
        position = np.arange(length, dtype=np.float32) / np.float32(cell)
        low = position.astype(np.int64)
        weight = np.expand_dims(position - low, [a for a in range(3) if a != axis])
        grid = grid.take(low, axis) * (1 - weight) + grid.take(low + 1, axis) * weight
    return grid
