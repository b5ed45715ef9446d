"""Check the splits of a dataset, by themselves and beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from detector.data.annotations import AnnotatedDataset, Annotations
from detector.data.arrange import with_classes_of
from detector.data.check.objects import object_faults
from detector.data.check.pictures import Picture, near_across, near_repeats, read_pictures, repeats, similar_groups
from detector.data.coco import from_ground_truth
from detector.data.faults import Effect, Fault
from detector.data.value_range import Beyond, beyond, parse_range
from detector.types import DetectionDataset

FEW = 10
"""Objects below which a class is rare."""


@dataclass(frozen=True)
class Split:
    """A split that can be opened: what its file says, and how its images are read."""

    table: Annotations
    read: Callable[[int], Tensor]
    """reads an image by its number"""
    orientation: Callable[[int], int] = lambda _: 1
    """returns EXIF's orientation by which an image is turned unless its annotations state another size; 1: upright"""
    beyond: Callable[[Tensor], Beyond | None] = lambda _: None
    """finds values of an image outside of a fixed range"""
    range: object = None
    """that range"""

    @classmethod
    def of(cls, dataset: DetectionDataset) -> Split:
        """Take a dataset: one with `Annotations`, or any other by its ground truth, in the order of its images."""
        if isinstance(dataset, AnnotatedDataset):
            reader, file = dataset.reader, dataset.file
            asked = reader.exif is None
            bounds = [] if reader.range is None else parse_range(reader.range, reader.channels)
            return cls(
                dataset.complete(),
                dataset.image,
                lambda i: reader.orientation(file(i)) if asked else 1,
                lambda image: beyond(image, bounds) if bounds else None,
                reader.range,
            )
        return cls(from_ground_truth(dataset), lambda i: dataset[i].image)


@dataclass(frozen=True)
class Found:
    """What was found in the images and objects of all splits."""

    faults: list[Fault]
    unusable: dict[str, list[int]]
    """by split, the numbers of the images that training would refuse"""


def examine(splits: Mapping[str, Split], advance: Callable[[], object]) -> Found:
    """Read all images of the splits once, and check images, objects and classes.

    Args:
        splits: by name; training's is called `train`.
        advance: called after each image.
    """
    faults: list[Fault] = []
    unusable: dict[str, list[int]] = {}
    usable: list[tuple[str, str, Picture]] = []
    for name, split in splits.items():
        found = read_pictures(split.read, len(split.table), advance, split.beyond)
        unusable[name] = [i for i, item in enumerate(found) if not isinstance(item, Picture)]
        for i, item in enumerate(found):
            if isinstance(item, Picture):
                usable.append((name, f"{name}: {split.table.files[i]}", item))
                faults += _turned(split, i)
            else:
                faults.append(Fault(_kind(item, split.table.size(i)), Effect.REFUSED, str(item)))
        faults += _outside(split, found)
        faults += object_faults(split.table)
    faults += _twice(usable)
    faults += class_faults({name: split.table for name, split in splits.items()})
    return Found(faults, unusable)


def _kind(error: Exception, stated: tuple[int, int]) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing images"
    try:
        with Image.open(Path(str(error).split(": ", 1)[0])) as image:
            same = (image.height, image.width) == stated
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        same = True
    return "images that cannot be read" if same else "images of another size than stated"


def _turned(split: Split, index: int) -> Iterator[Fault]:
    """Tell of an image that EXIF turns, where its stated size is that of the stored pixels, too."""
    orientation, (height, width) = split.orientation(index), split.table.size(index)
    if orientation in (2, 3, 4) or (orientation > 4 and height == width):
        where = f"{split.table.files[index]}: orientation {orientation}; dataset.exif=false reads it as stored"
        yield Fault("images turned upright by EXIF, of which the size does not tell", Effect.CORRECTED, where)


def _outside(split: Split, found: Sequence[object]) -> Iterator[Fault]:
    """Tell of images with values outside of a fixed range, those with the most first."""
    counted = [(i, item.beyond) for i, item in enumerate(found) if isinstance(item, Picture) and item.beyond]
    for i, (number, low, high) in sorted(counted, key=lambda entry: -entry[1].number):
        reach = f"the image has {low:g} to {high:g}, dataset.range is {split.range}"
        where = f"{split.table.files[i]}: {number} values; {reach}"
        yield Fault("images with values outside of dataset.range, which are not clipped", Effect.LEARNT, where)


def _twice(usable: list[tuple[str, str, Picture]]) -> Iterator[Fault]:
    """Tell which images are there twice, in one split or in both."""
    for a, b in repeats([item for _, _, item in usable]):
        (own, first, _), (other, second, _) = usable[a], usable[b]
        kind = "equal images" if own == other else f"equal images in {own} and {other}"
        yield Fault(kind, Effect.LEARNT, f"{second} shows what {first} shows")
    groups = similar_groups([item for _, _, item in usable])
    numbers = {name: np.array([i for i, entry in enumerate(usable) if entry[0] == name]) for name, _, _ in usable}
    files = {name: [usable[i][1] for i in some.tolist()] for name, some in numbers.items()}
    pictures = {name: [usable[i][2] for i in some.tolist()] for name, some in numbers.items()}
    for name, some in numbers.items():
        for a, b, count in near_repeats(pictures[name], groups[some]):
            where = f"{files[name][b]} looks like {files[name][a]}{_others(count - 2)}"
            yield Fault("nearly equal images", Effect.LEARNT, where)
    for name, other in combinations(numbers, 2):
        both = groups[np.concatenate((numbers[name], numbers[other]))]
        for a, b, count, _ in near_across(pictures[name], pictures[other], both):
            where = f"{files[other][b]} looks like {files[name][a]}{_others(count - 1)}"
            yield Fault(f"nearly equal images in {name} and {other}", Effect.LEARNT, where)


def _others(count: int) -> str:
    return f" and {count} other{'s' if count > 1 else ''}" if count else ""


def class_faults(tables: Mapping[str, Annotations]) -> Iterator[Fault]:
    """Compare the classes of the splits, and count their objects."""
    names = list(tables)
    tables = {name: with_classes_of(table, tables[names[0]].classes) for name, table in tables.items()}
    for other in names[1:]:
        ours, theirs = tables[names[0]].classes, tables[other].classes
        if set(ours) != set(theirs):
            what = "; ".join(
                f"only in {split}: {only}"
                for split, only in (
                    (names[0], [c for c in ours if c not in theirs]),
                    (other, [c for c in theirs if c not in ours]),
                )
                if only
            )
            yield Fault(
                "splits with different classes",
                Effect.REFUSED,
                f"{tables[other].source}: {what}",
            )
    counts = {name: _per_class(table) for name, table in tables.items()}
    for split, table in tables.items():
        others = [other for other in names if other != split and set(table.classes) == set(tables[other].classes)]
        for name in table.classes:
            number = counts[split][name]
            elsewhere = sum(counts[other][name] for other in others)
            if not number and elsewhere:
                where = f"{table.source}: class {name!r} has no object, but {elsewhere} in {' and '.join(others)}"
                yield Fault(f"classes without an object in {split}", Effect.LEARNT, where)
            elif split == names[0] and number < FEW:
                where = f"{table.source}: class {name!r} has {number} objects"
                yield Fault(f"classes of fewer than {FEW} objects", Effect.LEARNT, where)


def _per_class(table: Annotations) -> dict[str, int]:
    counted = ~(table.crowd | table.difficult)
    counts = np.bincount(table.labels[counted], minlength=len(table.classes))
    return dict(zip(table.classes, counts.tolist(), strict=True))
