"""The quantisation error of operators over all objects of a dataset."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.alignment.regions import Reading, Region, cells_along
from detector.data.augment import resized
from detector.types import Size

Floats = NDArray[np.float64]
Assign = Callable[[Tensor, Sequence[float]], Tensor]
"""(boxes [N, 4] in pixels, scales) -> int64 [N], such as `ops.assign_levels`"""
Resize = Callable[[Size], Size]
"""From (height, width) of the file to what the detector is given"""

FPN = "FPN"
"""The stride that the object's level has"""


@dataclass(frozen=True)
class Objects:
    """The true objects of a dataset: N that are neither crowds nor ignored, and have an area."""

    boxes: Floats
    """[N, 4]: x1, y1, x2, y2 in pixels of the file"""
    areas: Floats
    """[N]: as annotated (of the mask, where there are masks), in square pixels of the file"""
    sizes: NDArray[np.int64]
    """[N, 2]: height and width of the object's image, as in the file"""

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def sides(self) -> Floats:
        """[N]: the square root of the box's area, in pixels of the file."""
        width, height = (self.boxes[:, i + 2] - self.boxes[:, i] for i in (0, 1))
        return np.sqrt(width * height)


def resizing(short_sizes: Sequence[int] | None, max_size: int | None) -> Resize:
    """The resizing of `detector.data.augment.Augment` with these arguments.

    Raises:
        ValueError: there is more than one size to choose from.
    """
    if short_sizes is None:
        return lambda size: size
    if len(short_sizes) != 1:
        raise ValueError(f"dataset.val_augment.short_sizes must be one size here, not {list(short_sizes)}")
    return lambda size: resized(size, short_sizes[0], max_size)


def true_objects(ground_truth: Mapping[str, Any]) -> Objects:
    """The objects that count in a dataset's `ground_truth()`; boxes are cut at the edges of their images.

    Raises:
        ValueError: there are none.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in ground_truth["images"]}
    rows = []
    for a in ground_truth["annotations"]:
        if a.get("iscrowd") or a.get("ignore"):
            continue
        height, width = sizes[a["image_id"]]
        x, y, w, h = a["bbox"]
        x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
        if x1 < x2 and y1 < y2:
            rows.append((x1, y1, x2, y2, a.get("area", w * h), height, width))
    if not rows:
        raise ValueError("the dataset's part has no objects that count: take another one (split=train or split=val)")
    table = np.array(rows, dtype=np.float64)
    return Objects(table[:, :4], table[:, 4], table[:, 5:].astype(np.int64))


def quantisation_errors(reading: Reading, objects: Objects, strides: Floats, bins: int, resize: Resize) -> Floats:
    """How far the edges of what an operator reads lie from those of the object's box, in pixels of the file.

    The RoI is the true box. What is read for it is the region that the operator's bins cover, on the map of the image
    as the detector is given it. The error is the mean, over the four edges, of the absolute distance between
    the region's edge and the box's. It is 0 where the operator is exact.

    Args:
        reading: the operator.
        objects: N of them.
        strides: [N], of each object's map, in pixels of the resized image.
        bins: along each side of the output.
        resize: from the file to what the detector is given; errors are divided by the factor again.

    Returns:
        [N]; divided by `objects.sides`, the share of the object's side.

    Raises:
        ValueError: there are no bins.
    """
    if not isinstance(bins, int) or bins < 1:
        raise ValueError(f"pooled must be a whole number of at least 1, not {bins!r}")
    scales = {size: _factors(size, resize) for size in {(int(h), int(w)) for h, w in objects.sizes}}
    result = np.empty(len(objects))
    for i, (box, size, stride) in enumerate(
        zip(objects.boxes.tolist(), objects.sizes.tolist(), strides.tolist(), strict=True)
    ):
        across, down = scales[size[0], size[1]]
        rows, columns = cells_along(resize((size[0], size[1])), stride)
        x1, y1, x2, y2 = box[0] * across, box[1] * down, box[2] * across, box[3] * down
        region = Region((x1, y1, x2, y2), reading(x1, x2, bins, stride, columns), reading(y1, y2, bins, stride, rows))
        left, top, right, bottom = (abs(offset) for offset in region.offsets)
        result[i] = ((left + right) / across + (top + bottom) / down) / 4
    return result


def _factors(size: Size, resize: Resize) -> tuple[float, float]:
    """Pixels of the resized image for one of the file, across and down."""
    height, width = resize(size)
    return width / size[1], height / size[0]


def level_names(strides: Sequence[float]) -> list[str]:
    """ "P2" for the stride 4, and so on."""
    return [f"P{math.log2(stride):g}" for stride in strides]


def levels(objects: Objects, strides: Sequence[float], assign: Assign, resize: Resize) -> NDArray[np.int64]:
    """The index into `strides` of the level that each object's box is pooled from, [N].

    Raises:
        ValueError: a stride is not above 0.
    """
    if not strides or min(strides) <= 0:
        raise ValueError(f"strides must be above 0, such as [4,8,16,32], not {list(strides)}")
    factors = np.array([_factors((int(h), int(w)), resize) for h, w in objects.sizes]).reshape(-1, 2)
    boxes = torch.from_numpy(objects.boxes * np.concatenate((factors, factors), axis=1)).float()
    return assign(boxes, [1 / stride for stride in strides]).numpy()


@dataclass(frozen=True)
class Errors:
    """The errors of one operator on the maps of one stride, or of the level of each object."""

    operator: str
    pooled_from: str
    """"stride 16", or `FPN`"""
    values: Floats
    """[N], in pixels of the file"""


def measure(
    readings: Mapping[str, Reading],
    objects: Objects,
    strides: Sequence[float],
    level: NDArray[np.int64],
    bins: int,
    resize: Resize,
) -> Iterator[Errors]:
    """The errors of every operator at each stride, and at each object's level (as returned by `levels`)."""
    for name, reading in readings.items():
        found = [quantisation_errors(reading, objects, np.full(len(objects), float(s)), bins, resize) for s in strides]
        for stride, values in zip(strides, found, strict=True):
            yield Errors(name, f"stride {stride:g}", values)
        yield Errors(name, FPN, np.stack(found)[level, np.arange(len(objects))])


@dataclass(frozen=True)
class Row:
    """One line of the table: the errors of some objects, in pixels and as a share of the side of the object."""

    operator: str
    pooled_from: str
    """"stride 16"; `FPN`; "P3", the objects that FPN's formula sends there"""
    size: str
    """"all", or a bin of the square root of the annotated area: "[8,16)\""""
    objects: int
    median_px: float
    mean_px: float
    q90_px: float
    median_share: float
    mean_share: float
    q90_share: float


def size_names(edges: Sequence[float]) -> dict[str, tuple[float, float]]:
    """Bins of object size by name, from 0 to the first of `edges` and so on to infinity.

    Raises:
        ValueError: the edges are not positive and rising.
    """
    if any(low >= high for low, high in pairwise([0, *edges])):
        raise ValueError(f"sizes must be positive and rising, such as [8,16,32], not {list(edges)}")
    return {f"[{low:g},{high:g})": (low, high) for low, high in pairwise([0, *edges, math.inf])}


def table(
    errors: Sequence[Errors],
    objects: Objects,
    sizes: Mapping[str, tuple[float, float]],
    level: NDArray[np.int64],
    level_names: Sequence[str],
) -> list[Row]:
    """A row for each operator, stride or level, and size, where there are objects."""
    root = np.sqrt(objects.areas)
    groups = {"all": np.ones(len(objects), dtype=bool)}
    groups |= {name: (root >= low) & (root < high) for name, (low, high) in sizes.items()}
    rows = []
    for found in errors:
        subsets = {found.pooled_from: np.ones(len(objects), dtype=bool)}
        if found.pooled_from == FPN:
            subsets |= {name: level == i for i, name in enumerate(level_names)}
        for subset, inside in subsets.items():
            for size, group in groups.items():
                chosen = inside & group
                if chosen.any():
                    pixels = found.values[chosen]
                    numbers = (*_spread(pixels), *_spread(pixels / objects.sides[chosen]))
                    rows.append(Row(found.operator, subset, size, int(chosen.sum()), *numbers))
    return rows


def _spread(values: Floats) -> tuple[float, float, float]:
    return float(np.median(values)), float(values.mean()), float(np.quantile(values, 0.9))


def write(rows: Sequence[Row], path: Path) -> None:
    """Write the table as CSV, numbers with four decimals; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [field.name for field in fields(Row)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for row in rows:
            values = (getattr(row, name) for name in names)
            writer.writerow([f"{v:.4f}" if isinstance(v, float) else v for v in values])
