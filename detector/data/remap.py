"""Move masks as an augmentation has moved the pixels of their image, each within its window."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.types import Masks, Size

Indices = NDArray[np.int64]

OUTSIDE = -1
"""The index of a pixel that shows no pixel of the source."""

TILE = 32
"""Side of the blocks in which the pixels of an object are searched for, in pixels."""


@dataclass
class AxisMaps:
    """The source row and column that each pixel shows, where rows and columns were moved as wholes.

    So it is after flips, quarter turns, crops, and resizing to the nearest pixel. Both maps rise or fall.
    """

    rows: Indices
    """of each row of the result the source's row; its column, if `turned`"""
    columns: Indices
    """of each column of the result the source's column; its row, if `turned`"""
    turned: bool = False

    @classmethod
    def identity(cls, size: Size) -> AxisMaps:
        """Return the maps of an image that nothing was done to."""
        return cls(np.arange(size[0]), np.arange(size[1]))

    def take(self, rows: Indices | slice, columns: Indices | slice) -> AxisMaps:
        """Return the maps after these rows and columns were taken."""
        return replace(self, rows=self.rows[rows], columns=self.columns[columns])

    def turn(self, quarters: int) -> AxisMaps:
        """Return the maps after quarter turns against the clock."""
        maps = self
        for _ in range(quarters % 4):
            maps = AxisMaps(maps.columns[::-1], maps.rows, not maps.turned)
        return maps

    def move(self, masks: Masks) -> Masks:
        """Move masks."""
        windows = masks.windows.numpy()
        low, high = (edges if self.turned else edges[:, ::-1] for edges in (windows[:, :2], windows[:, 2:]))
        rows, columns = (
            _span(source, low[:, axis], high[:, axis]) for axis, source in enumerate((self.rows, self.columns))
        )
        moved = np.stack((columns[:, 0], rows[:, 0], columns[:, 1], rows[:, 1]), 1)
        area = (moved[:, 2:] - moved[:, :2]).prod(1)
        offsets = area.cumsum() - area
        pixels = np.empty(area.sum(), bool)
        for i, (begin, (left, top, right, bottom), (row, column)) in enumerate(
            zip(offsets.tolist(), moved.tolist(), low.tolist(), strict=True)
        ):
            window = masks.window(i).numpy()
            window = window.T if self.turned else window
            shown = window.take(self.rows[top:bottom] - row, 0).take(self.columns[left:right] - column, 1)
            pixels[begin : begin + shown.size] = shown.reshape(-1)
        size = len(self.rows), len(self.columns)
        return Masks(torch.from_numpy(pixels), torch.from_numpy(moved), torch.from_numpy(offsets), size, masks.known)


def _span(source: Indices, low: Indices, high: Indices) -> Indices:
    """Find where a map lies in each of G ranges [low, high): [G, 2], from and to."""
    if len(source) and source[0] > source[-1]:
        return len(source) - _span(source[::-1], low, high)[:, ::-1]
    return np.stack((source.searchsorted(low), source.searchsorted(high)), 1)


def move_pixels(masks: Masks, rows: Indices, columns: Indices) -> Masks:
    """Move masks by the source row and column that each pixel shows, [H, W] each, or `OUTSIDE`."""
    shown = rows != OUTSIDE
    least = [_blocks(np.where(shown, a, np.iinfo(a.dtype).max), np.minimum) for a in (columns, rows)]
    most = [_blocks(a, np.maximum) for a in (columns, rows)]
    pixels, corners = [], []
    for i, (x1, y1, x2, y2) in enumerate(masks.windows.tolist()):
        near = (least[0] < x2) & (most[0] >= x1) & (least[1] < y2) & (most[1] >= y1)
        y, x = (_around(near.any(axis)) for axis in (1, 0))
        row, column = rows[y, x] - y1, columns[y, x] - x1
        inside = (row >= 0) & (row < y2 - y1) & (column >= 0) & (column < x2 - x1)
        moved = np.zeros(inside.shape, bool)
        moved[inside] = masks.window(i).numpy()[row[inside], column[inside]]
        pixels.append(torch.from_numpy(moved))
        corners.append((x.start, y.start))
    return Masks.from_windows(pixels, corners, (rows.shape[0], rows.shape[1]), masks.known)


def _blocks(values: Indices, reduce: np.ufunc) -> Indices:
    """Reduce each block of TILE × TILE pixels to one value."""
    for axis in (0, 1):
        values = reduce.reduceat(values, np.arange(0, values.shape[axis], TILE), axis)
    return values


def _around(near: NDArray[np.bool_]) -> slice:
    """Return the pixels from the first to the last of these blocks."""
    hit = np.flatnonzero(near)
    return slice(hit[0] * TILE, (hit[-1] + 1) * TILE) if len(hit) else slice(0, 0)


def rectangles(boxes: Tensor, size: Size) -> Masks:
    """Make masks [G] that fill all pixels that boxes [G, 4] touch, in an image of `size`."""
    limits = torch.tensor([size[1], size[0], size[1], size[0]], dtype=torch.float32)
    edges = torch.cat((boxes[:, :2].floor(), boxes[:, 2:].ceil()), 1).clamp(min=0).minimum(limits).long()
    area = (edges[:, 2:] - edges[:, :2]).clamp(min=0).prod(1)
    return Masks(torch.ones(int(area.sum()), dtype=torch.bool), edges, area.cumsum(0) - area, size)


def bounds(masks: Masks) -> Indices:
    """Return x1, y1, x2, y2 of the pixels of each mask, [G, 4]; zeros for one without any."""
    found = np.zeros((len(masks), 4), np.int64)
    for i, (x, y, _, _) in enumerate(masks.windows.tolist()):
        window = masks.window(i).numpy()
        columns, rows = (np.flatnonzero(window.any(axis)) for axis in (0, 1))
        if len(rows):
            found[i] = x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1
    return found
