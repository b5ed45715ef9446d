"""Collect the annotations of a COCO JSON into arrays, checking each value."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.data.coco_shapes import Shapes
from detector.data.faults import Effect, note
from detector.data.json_values import Values, is_number, join_lists, to_array, values_of
from detector.data.packed import Integers
from detector.data.segmentations import Segmentations

log = logging.getLogger(__name__)

FLAGS: dict[Any, bool] = {
    **dict.fromkeys((0, None, "0", "false", "False", "", "unspecified"), False),
    **dict.fromkeys((1, "1", "true", "True"), True),
}
"""What a flag may be; true, false and 1.0 are equal to 1 and 0, texts may be in capitals, and "Unspecified" is VOC's
word for the unknown."""


class Columns:
    """The annotations read so far, in the order of the file.

    Args:
        path: the JSON file, for messages.
        places: of the annotations in its list; None: 0, 1, 2, ...
    """

    def __init__(self, path: Path, places: Sequence[int] | None = None) -> None:
        self.path = path
        self._places = places
        self.image_ids, self.category_ids, self._ids = Values(), Values(), Values()
        self._boxes: list[NDArray[np.float64]] = []
        self._areas: list[NDArray[np.float64]] = []
        self._flags: list[NDArray[np.bool_]] = []
        self._shapes = Shapes(path)

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
        for i, entry in enumerate(batch if set(map(type, batch)) - {dict} else ()):
            if not isinstance(entry, dict):
                raise ValueError(
                    f"{self.path}: annotations[{self._place(begin + i)}] is {type(entry).__name__}, not an object"
                )
        self._ids.extend(values_of(batch, "id"))
        self.image_ids.extend(values_of(batch, "image_id"))
        self.category_ids.extend(values_of(batch, "category_id"))
        self._boxes.append(self._column(values_of(batch, "bbox"), begin, (4,), self._box).reshape(-1, 4))
        areas = values_of(batch, "area")
        absent = [area is None for area in areas]
        areas = [0.0 if area is None else area for area in areas] if any(absent) else areas
        self._areas.append(np.where(absent, np.nan, self._column(areas, begin, (), self._area)))
        crowd = self._crowd(values_of(batch, "iscrowd"), begin)
        difficult = [
            self._difficult(a, begin + i) if "attributes" in a or "difficult" in a or "ignore" in a else False
            for i, a in enumerate(batch)
        ]
        self._flags.append(np.array([crowd, difficult], bool).reshape(2, -1))
        self._shapes.add(values_of(batch, "segmentation"), self.name)

    def _column(
        self, values: list[Any], begin: int, shape: tuple[int, ...], check: Callable[[Any, int], None]
    ) -> NDArray[np.float64]:
        """Convert values of `shape` to an array; `check(value, position)` raises for a wrong one."""
        lists = set(map(type, values)) == {list} and set(map(len, values)) == set(shape)
        flat = join_lists(values) if lists else None
        found = to_array(values) if flat is None else flat.reshape(-1, *shape)
        if found is None or found.shape[1:] != shape:
            for i, value in enumerate(values):
                check(value, begin + i)
            found = np.array(values, np.float64)
        return found

    def _box(self, value: Any, position: int) -> None:
        if not isinstance(value, list) or len(value) != 4 or not all(map(is_number, value)):
            raise ValueError(f"{self.name(position)}: `bbox` must be four numbers x, y, width, height, not {value!r}")

    def _area(self, value: Any, position: int) -> None:
        if not is_number(value):
            raise ValueError(
                f"{self.name(position)}: its area must be a number, not {value!r}; correct it or leave it out"
            )

    def _crowd(self, values: Sequence[Any], begin: int) -> list[bool]:
        try:
            return [FLAGS[value] for value in values]
        except (KeyError, TypeError):
            return [self._flag("iscrowd", value, begin + i) for i, value in enumerate(values)]

    def _flag(self, key: str, value: Any, position: int) -> bool:
        try:
            return FLAGS[value.strip().lower() if isinstance(value, str) else value]
        except (KeyError, TypeError):  # a TypeError for a list
            raise ValueError(f"{self.name(position)}: `{key}` must be 0 or 1, not {value!r}") from None

    def _difficult(self, entry: dict[str, Any], position: int) -> bool:
        """Read VOC's flag, which tools also write among an annotation's attributes, and COCO's own `ignore`."""
        attributes = entry.get("attributes")
        inner = attributes.get("difficult") if isinstance(attributes, dict) else None
        values = (("difficult", entry.get("difficult")), ("difficult", inner), ("ignore", entry.get("ignore")))
        return any(self._flag(key, value, position) for key, value in values if value is not None)

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
        given = self._ids.ints()
        if given is not None:
            ascending = np.sort(given)
            if bool((ascending[:1] > 0).all() and (np.diff(ascending) > 0).all()):
                return given
        if any(i is not None for i in self._ids):
            note("annotation ids that clash", Effect.CORRECTED, self._clashes())
            log.warning(
                "%s: the annotations' ids are numbered anew, since they are not all different positive numbers",
                self.path,
            )
        return np.arange(1, len(self._ids) + 1)

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
        """Pack the segmentations, as of `Shapes.pack`; `sizes` are those of each annotation's image, [M, 2]."""
        return self._shapes.pack(sizes, self.name, self._place)
