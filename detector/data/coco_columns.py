"""Collect the annotations of a COCO JSON into arrays, checking each value."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.data.faults import Effect, note
from detector.data.packed import Integers, Strings, starts_of
from detector.data.segmentations import Segmentations, pack_counts, usable

log = logging.getLogger(__name__)

FLAGS = {0: False, 1: True, "0": False, "1": True, None: False}
"""What a flag may be; true, false and 1.0 are equal to 1 and 0."""


class Columns:
    """The annotations read so far, in the order of the file.

    Args:
        path: the JSON file, for messages.
        places: of the annotations in its list; None: 0, 1, 2, ...
    """

    def __init__(self, path: Path, places: Sequence[int] | None = None) -> None:
        self.path = path
        self._places = places
        self.image_ids: list[Any] = []
        self.category_ids: list[Any] = []
        self._ids: list[Any] = []
        self._boxes: list[NDArray[np.float64]] = []
        self._areas: list[NDArray[np.float64]] = []
        self._flags: list[NDArray[np.bool_]] = []
        self._shapes: list[tuple[NDArray[np.float64], list[int], list[int], list[str], Integers]] = []
        self._stubs = 0

    def name(self, position: int) -> str:
        """Name an annotation for messages."""
        return f"{self.path}: annotations[{self._place(position)}] (id {self._ids[position]!r})"

    def _place(self, position: int) -> int:
        return position if self._places is None else self._places[position]

    def places(self) -> Integers:
        """Return the place of each in the list of the file, [M]."""
        return np.arange(len(self._ids)) if self._places is None else np.array(self._places, np.int64)

    def add(self, batch: Sequence[Any]) -> None:
        """Add entries of the list `annotations`.

        Raises:
            ValueError: one of them is malformed.
        """
        begin = len(self._ids)
        for i, entry in enumerate(batch):
            if not isinstance(entry, dict):
                raise ValueError(
                    f"{self.path}: annotations[{self._place(begin + i)}] is {type(entry).__name__}, not an object"
                )
        self._ids += [a.get("id") for a in batch]
        self.image_ids += [a.get("image_id") for a in batch]
        self.category_ids += [a.get("category_id") for a in batch]
        self._boxes.append(self._column([a.get("bbox") for a in batch], begin, (4,), self._box).reshape(-1, 4))
        areas = self._column([a.get("area", 0.0) for a in batch], begin, (), self._area)
        self._areas.append(np.where(["area" in a for a in batch], areas, np.nan))
        crowd = [
            self._flag("iscrowd", a["iscrowd"], begin + i) if "iscrowd" in a else False for i, a in enumerate(batch)
        ]
        difficult = [
            self._difficult(a, begin + i) if "attributes" in a or "difficult" in a or "ignore" in a else False
            for i, a in enumerate(batch)
        ]
        self._flags.append(np.array([crowd, difficult], bool).reshape(2, -1))
        self._add_shapes([a.get("segmentation") for a in batch], begin)

    def _column(
        self, values: list[Any], begin: int, shape: tuple[int, ...], check: Callable[[Any, int], None]
    ) -> NDArray[np.float64]:
        """Convert values of `shape` to an array; `check(value, position)` raises for a wrong one."""
        array = _array(values)
        if array is None or array.shape[1:] != shape:
            for i, value in enumerate(values):
                check(value, begin + i)
            array = np.array(values, np.float64)
        return array

    def _box(self, value: Any, position: int) -> None:
        if not isinstance(value, list) or len(value) != 4 or not all(map(is_number, value)):
            raise ValueError(f"{self.name(position)}: `bbox` must be four numbers x, y, width, height, not {value!r}")

    def _area(self, value: Any, position: int) -> None:
        if not is_number(value):
            raise ValueError(
                f"{self.name(position)}: its area must be a number, not {value!r}; correct it or leave it out"
            )

    def _flag(self, key: str, value: Any, position: int) -> bool:
        try:
            return FLAGS[value]
        except (KeyError, TypeError):  # a TypeError for a list
            raise ValueError(f"{self.name(position)}: `{key}` must be 0 or 1, not {value!r}") from None

    def _difficult(self, entry: dict[str, Any], position: int) -> bool:
        """Read VOC's flag, which tools also write among an annotation's attributes, and COCO's own `ignore`."""
        attributes = entry.get("attributes")
        inner = attributes.get("difficult") if isinstance(attributes, dict) else None
        values = (("difficult", entry.get("difficult")), ("difficult", inner), ("ignore", entry.get("ignore")))
        return any(self._flag(key, value, position) for key, value in values if value is not None)

    def _add_shapes(self, shapes: Sequence[Any], begin: int) -> None:
        """Pack segmentations, which are lists of polygons or run-length codes."""
        parts, codes, sizes, polygons, owners = [], [], np.zeros((len(shapes), 2), np.int64), [], []
        for i, shape in enumerate(shapes):
            kept: list[Any] = []
            code = ""
            if isinstance(shape, list):
                kept = [p for p in shape if not isinstance(p, list) or len(p) >= 6 or len(p) % 2]
                if len(kept) < len(shape):
                    self._stubs += len(shape) - len(kept)
                    note("polygons of fewer than three points", Effect.SKIPPED, [self.name(begin + i)])
            elif isinstance(shape, dict) and "counts" in shape and "size" in shape:
                code, sizes[i] = pack_counts(shape, partial(self.name, begin + i))
            elif shape:
                raise ValueError(
                    f"{self.name(begin + i)}: the segmentation is neither polygons nor run lengths: {str(shape)[:80]}"
                )
            polygons += kept
            owners += [i] * len(kept)
            parts.append(len(kept))
            codes.append(code)
        lists = all(isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 for p in polygons)
        flat = _array(list(chain.from_iterable(polygons)) if lists and polygons else [])
        if polygons and (not lists or flat is None):
            for i, polygon in zip(owners, polygons, strict=True):
                if not isinstance(polygon, list) or len(polygon) % 2 or not all(map(is_number, polygon)):
                    raise ValueError(
                        f"{self.name(begin + i)}: a polygon must be x, y, x, y, ... of at least three points, not "
                        f"{polygon!r}"
                    )
            flat = np.array(list(chain.from_iterable(polygons)), np.float64)
        assert flat is not None
        self._shapes.append((flat, [len(p) for p in polygons], parts, codes, sizes))

    @property
    def boxes(self) -> NDArray[np.float64]:
        """x, y, width, height of each, [M, 4]."""
        return np.concatenate([np.zeros((0, 4)), *self._boxes])

    @property
    def areas(self) -> NDArray[np.float64]:
        """The area of each, [M]; NaN where none is given."""
        return np.concatenate([np.zeros(0), *self._areas])

    @property
    def crowd(self) -> NDArray[np.bool_]:
        """Whether each is a crowd, [M]."""
        return np.concatenate([np.zeros((2, 0), bool), *self._flags], 1)[0]  # type: ignore[no-any-return]

    @property
    def difficult(self) -> NDArray[np.bool_]:
        """Whether each is difficult, or to be ignored otherwise, [M]."""
        return np.concatenate([np.zeros((2, 0), bool), *self._flags], 1)[1]  # type: ignore[no-any-return]

    def numbers(self) -> Integers:
        """Return an id for each: the file's, if they are different positive ints, else 1, 2, 3, ..."""
        given = self._ids
        if all(type(i) is int and 0 < i < 2**63 for i in given) and len(set(given)) == len(given):
            return np.array(given, np.int64)
        if any(i is not None for i in given):
            note("annotation ids that clash", Effect.CORRECTED, self._clashes())
            log.warning(
                "%s: the annotations' ids are numbered anew, since they are not all different positive numbers",
                self.path,
            )
        return np.arange(1, len(given) + 1)

    def _clashes(self) -> Iterator[str]:
        """Name the annotations whose id is no positive int, or that of one before."""
        seen: set[Any] = set()
        for position, number in enumerate(self._ids):
            if type(number) is not int or number <= 0:
                yield f"{self.name(position)} is no positive number"
            elif number in seen:
                yield f"{self.name(position)} has the id of another"
            seen.add(str(number) if type(number) is not int else number)

    def segmentations(self, sizes: Integers) -> Segmentations | None:
        """Join the segmentations, without those that have no pixel; None if none is left.

        Args:
            sizes: height and width of each annotation's image, [M, 2].

        Raises:
            ValueError: one is made for another image, broken, or far outside of it.
        """
        flat, lengths, parts, codes, stated = zip(*self._shapes, strict=True) if self._shapes else ((),) * 5
        packed = Segmentations(
            np.concatenate([np.zeros(0), *flat]),
            starts_of(list(chain.from_iterable(lengths))),
            starts_of(list(chain.from_iterable(parts))),
            Strings.pack(chain.from_iterable(codes)),
        )
        self._shapes.clear()
        coded = np.diff(packed.codes.starts) > 0
        other = coded & (np.concatenate([np.zeros((0, 2), np.int64), *stated]) != sizes).any(1)
        if other.any():
            i = int(other.argmax())
            size = np.concatenate(stated)[i].tolist()
            raise ValueError(f"{self.name(i)}: its mask has size {size}, its image {sizes[i].tolist()}")
        if self._stubs:
            log.warning("%s: left out %d polygons of fewer than three points", self.path, self._stubs)
        present = packed.known
        known = usable(packed, sizes, self.name)
        if (present & ~known).any():
            i = int((present & ~known).argmax())
            note("masks without a pixel", Effect.SKIPPED, map(self.name, np.flatnonzero(present & ~known).tolist()))
            log.warning(
                "%s: %d masks have no pixel within their image and are left out, such as that of annotations[%d]",
                self.path,
                int((present & ~known).sum()),
                self._place(i),
            )
        return packed.without(~known) if known.any() else None


def is_number(value: Any) -> bool:
    """Say whether a value of a JSON is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def _array(values: Iterable[Any]) -> NDArray[np.float64] | None:
    """Convert finite numbers to an array; None if some are none, or lists of different lengths."""
    try:
        array = np.array(values)
    except (ValueError, OverflowError):  # lists of different lengths; a number of more than 64 bits
        return None
    if array.size and array.dtype.kind not in "iuf":
        return None
    array = array.astype(np.float64)
    return array if np.isfinite(array).all() else None
