"""Sizes, shapes, numbers and classes of the images and objects of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detector.data.annotations import Annotations, Floats
from detector.data.doubts import mask_and_box_areas
from detector.data.packed import Integers

SHARES = (0.0, 0.05, 0.5, 0.95, 1.0)
"""The quantiles that are shown: least, 5 %, median, 95 %, most."""


@dataclass(frozen=True)
class Numbers:
    """What is measured of a split; crowds and difficult objects are left out. N images, M objects, C classes."""

    widths: Floats
    """of the images, in pixels, [N]"""
    heights: Floats
    per_image: Integers
    """objects of each image, [N]"""
    labels: Integers
    """[M]"""
    image_of: Integers
    """the image of each object, [M]"""
    boxes: Floats
    """x1, y1, x2, y2, within the image, in pixels, [M, 4]"""
    areas: Floats
    """in px², as in the file; those of masks or boxes where it states none, [M]"""
    classes: list[str]

    @property
    def sides(self) -> Floats:
        """Square roots of the boxes' areas, in pixels, [M]."""
        sides: Floats = np.sqrt(self.box_sides.prod(1))
        return sides

    @property
    def box_sides(self) -> Floats:
        """Width and height of each box, in pixels, [M, 2]."""
        sides: Floats = self.boxes[:, 2:] - self.boxes[:, :2]
        return sides

    @property
    def ratios(self) -> Floats:
        """Height over width of each box, [M]."""
        ratios: Floats = self.box_sides[:, 1] / self.box_sides[:, 0]
        return ratios

    @property
    def centres(self) -> Floats:
        """Centre x and y of each box as fractions of the image, [M, 2]."""
        sides = np.stack((self.widths, self.heights), 1)[self.image_of]
        centres: Floats = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2 / sides
        return centres

    def class_counts(self) -> tuple[Integers, Integers]:
        """Count the objects of each class, and the images that have any, [C] each."""
        pairs = np.unique(np.stack((self.labels, self.image_of)), axis=1)
        count = len(self.classes)
        return np.bincount(self.labels, minlength=count), np.bincount(pairs[0], minlength=count)

    def size_shares(self, size_bins: Sequence[float]) -> Floats:
        """Return for each class, and last for all, the shares of small, medium and large objects, [C + 1, 3].

        As in COCO's evaluation, an object whose area is a bin's square is in both ranges.
        """
        low, high = (side * side for side in size_bins)
        areas, count = self.areas, len(self.classes)
        sizes = (areas <= low, (low <= areas) & (areas <= high), high <= areas)
        counts = np.stack([np.bincount(self.labels[own], minlength=count) for own in sizes], 1)
        totals = np.bincount(self.labels, minlength=count)[:, None]
        counts, totals = (np.concatenate((number, number.sum(0, keepdims=True))) for number in (counts, totals))
        shares: Floats = counts / np.maximum(totals, 1)
        return shares


def measure(table: Annotations) -> Numbers:
    """Measure a split."""
    table = table.select_objects(~(table.crowd | table.difficult))
    areas = np.where(np.isnan(table.areas), mask_and_box_areas(table), table.areas)
    heights, widths = table.sizes.T.astype(np.float64)
    return Numbers(
        widths=widths,
        heights=heights,
        per_image=np.diff(table.starts),
        labels=table.labels.astype(np.int64),
        image_of=table.images(),
        boxes=table.corners(),
        areas=areas,
        classes=table.classes,
    )


def quantities(numbers: Numbers) -> dict[str, Floats | Integers]:
    """Return what is shown by its quantiles, by name."""
    return {
        "image width, px": numbers.widths,
        "image height, px": numbers.heights,
        "objects an image": numbers.per_image,
        "box width, px": numbers.box_sides[:, 0],
        "box height, px": numbers.box_sides[:, 1],
        "box side (root of the area), px": numbers.sides,
        "box height / width": numbers.ratios,
        "box side / image side": numbers.sides / np.sqrt(numbers.widths * numbers.heights)[numbers.image_of],
    }


def quantile_rows(splits: Mapping[str, Numbers]) -> list[list[str]]:
    """Return rows of a table: name, then least, 5 %, median, 95 % and most in each split."""
    named = {split: quantities(numbers) for split, numbers in splits.items()}
    rows = []
    for name in next(iter(named.values())):
        row = [name]
        for values in named.values():
            found = values[name]
            row += [_short(v) for v in np.quantile(found, SHARES)] if len(found) else ["-"] * len(SHARES)
        rows.append(row)
    return rows


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or float(value).is_integer() else f"{value:.3g}"


def class_rows(splits: Mapping[str, Numbers], size_bins: Sequence[float]) -> list[list[str]]:
    """Return rows of a table: class, then objects, images, and shares of small, medium and large in each split.

    Classes are in the order of their objects in the first split; the last row is for all.
    """
    first = next(iter(splits.values()))
    order = np.argsort(-first.class_counts()[0], kind="stable").tolist()
    rows = [[first.classes[label]] for label in order] + [["all"]]
    for numbers in splits.values():
        objects, images = numbers.class_counts()
        shares = numbers.size_shares(size_bins)
        places = [
            numbers.classes.index(first.classes[i]) if first.classes[i] in numbers.classes else None for i in order
        ]
        for row, place in zip(rows, places, strict=False):
            row += (
                ["-"] * 5
                if place is None
                else [str(objects[place]), str(images[place]), *_percent(shares[place], objects[place])]
            )
        rows[-1] += [str(objects.sum()), str(int((numbers.per_image > 0).sum())), *_percent(shares[-1], objects.sum())]
    return rows


def _percent(shares: Floats, objects: int) -> list[str]:
    return [f"{share:.0%}" for share in shares] if objects else ["-"] * 3
