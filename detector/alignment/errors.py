"""Measure the quantisation error of operators over all objects of a dataset."""

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

from detector.alignment.regions import Reading, Region, map_size
from detector.data.transforms import resized
from detector.types import Size

Floats = NDArray[np.float64]
Assign = Callable[[Tensor, Sequence[float]], Tensor]
"""(boxes [N, 4] in pixels, scales) -> int64 [N], such as `ops.assign_levels`"""
Resize = Callable[[Size], Size]
"""(height, width) of the file -> (height, width) that the detector is given"""

FPN = "FPN"
"""Stands for a stride where each object is pooled from the level that FPN assigns it"""


@dataclass(frozen=True)
class GroundTruthBoxes:
    """The N ground-truth boxes of a dataset that are neither crowd nor ignored and have an area."""

    boxes: Floats
    """[N, 4]: x1, y1, x2, y2 in pixels of the file"""
    areas: Floats
    """[N]: the annotated area (of the mask, where there is one), in square pixels of the file"""
    sizes: NDArray[np.int64]
    """[N, 2]: height and width of each box's image, in pixels of the file"""

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def sides(self) -> Floats:
        """[N]: the square root of the box's area, in pixels of the file."""
        width, height = (self.boxes[:, i + 2] - self.boxes[:, i] for i in (0, 1))
        return np.sqrt(width * height)


def make_resize(short_sizes: Sequence[int] | None, max_size: int | None) -> Resize:
    """Build the resizing of `detector.data.augment.Augment` for these arguments.

    Raises:
        ValueError: `short_sizes` holds more than one size.
    """
    if short_sizes is None:
        return lambda size: size
    if len(short_sizes) != 1:
        raise ValueError(f"dataset.val_augment.short_sizes must be one size here, not {list(short_sizes)}")
    return lambda size: resized(size, short_sizes[0], max_size)


def ground_truth_boxes(ground_truth: Mapping[str, Any]) -> GroundTruthBoxes:
    """Select the boxes of a dataset's `ground_truth()` and clip them to their images.

    Raises:
        ValueError: every object is crowd or ignored or has no area.
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
        raise ValueError(
            "this split has no objects to measure (crowd, ignored and empty boxes do not count); try the other split="
        )
    table = np.array(rows, dtype=np.float64)
    return GroundTruthBoxes(table[:, :4], table[:, 4], table[:, 5:].astype(np.int64))


def quantisation_errors(
    reading: Reading, objects: GroundTruthBoxes, strides: Floats, bins: int, resize: Resize
) -> Floats:
    """Measure how far the region that an operator pools is off from each ground-truth box, in pixels of the file.

    The RoI is the ground-truth box, on the feature map of the resized image; the region is what the operator's bins
    cover. The error is the mean, over the four edges, of the absolute distance between the region's edge and the box's:
    0 for an operator that does not round.

    Args:
        reading: how the operator divides an axis of a RoI.
        objects: the N boxes.
        strides: [N], the stride of the map that each is pooled from, in pixels of the resized image.
        bins: bins along each side of the output.
        resize: the resizing from the file to the detector's input; errors are scaled back to pixels of the file.

    Returns:
        [N]; divide by `objects.sides` for shares of the object's side.

    Raises:
        ValueError: `bins` is below 1.
    """
    if not isinstance(bins, int) or bins < 1:
        raise ValueError(f"pooled must be a whole number of at least 1, not {bins!r}")
    scales = {size: _factors(size, resize) for size in {(int(h), int(w)) for h, w in objects.sizes}}
    result = np.empty(len(objects))
    for i, (box, size, stride) in enumerate(
        zip(objects.boxes.tolist(), objects.sizes.tolist(), strides.tolist(), strict=True)
    ):
        across, down = scales[size[0], size[1]]
        rows, columns = map_size(resize((size[0], size[1])), stride)
        x1, y1, x2, y2 = box[0] * across, box[1] * down, box[2] * across, box[3] * down
        region = Region((x1, y1, x2, y2), reading(x1, x2, bins, stride, columns), reading(y1, y2, bins, stride, rows))
        left, top, right, bottom = (abs(offset) for offset in region.offsets)
        result[i] = ((left + right) / across + (top + bottom) / down) / 4
    return result


def _factors(size: Size, resize: Resize) -> tuple[float, float]:
    """Compute the scale factors of a resize in x and y."""
    height, width = resize(size)
    return width / size[1], height / size[0]


def level_names(strides: Sequence[float]) -> list[str]:
    """Name the pyramid levels of these strides: "P2" for 4, "P3" for 8, and so on."""
    return [f"P{math.log2(stride):g}" for stride in strides]


def assign_to_strides(
    objects: GroundTruthBoxes, strides: Sequence[float], assign: Assign, resize: Resize
) -> NDArray[np.int64]:
    """Assign each box to the level that it is pooled from: indices into `strides`, [N].

    Raises:
        ValueError: `strides` is empty, or one is not above 0.
    """
    if not strides or min(strides) <= 0:
        raise ValueError(f"strides must be above 0, such as [4,8,16,32], not {list(strides)}")
    factors = np.array([_factors((int(h), int(w)), resize) for h, w in objects.sizes]).reshape(-1, 2)
    boxes = torch.from_numpy(objects.boxes * np.concatenate((factors, factors), axis=1)).float()
    return assign(boxes, [1 / stride for stride in strides]).numpy()


@dataclass(frozen=True)
class OperatorErrors:
    """The errors of one operator, all boxes pooled from one stride, or each from its FPN level."""

    operator: str
    pooled_from: str
    """"stride 16", or `FPN`"""
    values: Floats
    """[N], in pixels of the file"""


def measure_errors(
    readings: Mapping[str, Reading],
    objects: GroundTruthBoxes,
    strides: Sequence[float],
    level: NDArray[np.int64],
    bins: int,
    resize: Resize,
) -> Iterator[OperatorErrors]:
    """Measure every operator at each stride, then at each box's own level.

    Args:
        readings: how each operator divides an axis, by operator.
        objects: the N boxes.
        strides: in pixels of the resized image.
        level: [N], as `assign_to_strides` returns it.
        bins: bins along each side of the output.
        resize: the resizing from the file to the detector's input.
    """
    for name, reading in readings.items():
        found = [quantisation_errors(reading, objects, np.full(len(objects), float(s)), bins, resize) for s in strides]
        for stride, values in zip(strides, found, strict=True):
            yield OperatorErrors(name, f"stride {stride:g}", values)
        yield OperatorErrors(name, FPN, np.stack(found)[level, np.arange(len(objects))])


@dataclass(frozen=True)
class ErrorRow:
    """One row of errors.csv: the errors of a group of objects, in pixels and as shares of the object's side."""

    operator: str
    pooled_from: str
    """"stride 16"; `FPN`; or "P3": the objects that FPN assigns to that level"""
    size: str
    """"all", or a bin of the square root of the annotated area, in pixels: "[8,16)\""""
    objects: int
    median_px: float
    mean_px: float
    q90_px: float
    median_share: float
    mean_share: float
    q90_share: float


def size_bins(edges: Sequence[float]) -> dict[str, tuple[float, float]]:
    """Name the bins of object size between 0, each of `edges` and infinity: {"[0,8)": (0, 8), ...}.

    Raises:
        ValueError: the edges are not positive and increasing.
    """
    if any(low >= high for low, high in pairwise([0, *edges])):
        raise ValueError(f"sizes must be positive and increasing, such as [8,16,32], not {list(edges)}")
    return {f"[{low:g},{high:g})": (low, high) for low, high in pairwise([0, *edges, math.inf])}


def tabulate_errors(
    errors: Sequence[OperatorErrors],
    objects: GroundTruthBoxes,
    sizes: Mapping[str, tuple[float, float]],
    level: NDArray[np.int64],
    level_names: Sequence[str],
) -> list[ErrorRow]:
    """Summarise the errors in a row for each operator, stride or level, and size bin that holds objects.

    Args:
        errors: as `measure_errors` yields them.
        objects: the N boxes that they were measured on.
        sizes: as `size_bins` returns them.
        level: [N], as `assign_to_strides` returns it.
        level_names: the name of each level.
    """
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
                    rows.append(ErrorRow(found.operator, subset, size, int(chosen.sum()), *numbers))
    return rows


def _spread(values: Floats) -> tuple[float, float, float]:
    """Median, mean and 90 % quantile."""
    return float(np.median(values)), float(values.mean()), float(np.quantile(values, 0.9))


def write_csv(rows: Sequence[ErrorRow], path: Path) -> None:
    """Write the rows as CSV, numbers with four decimals; creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [field.name for field in fields(ErrorRow)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for row in rows:
            values = (getattr(row, name) for name in names)
            writer.writerow([f"{v:.4f}" if isinstance(v, float) else v for v in values])
