"""Collect the segmentations of a COCO JSON into arrays, checking each."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.faults import Effect, note
from detector.data.json_values import Floats, is_number, join_lists
from detector.data.packed import Integers, Strings, starts_of
from detector.data.segmentations import Segmentations, pack_counts, usable

log = logging.getLogger(__name__)


class Shapes:
    """The segmentations read so far, in the order of the file.

    Args:
        path: the JSON file, for messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # As of `Segmentations`. They grow in place, since together they take most of the memory of a file.
        self._coordinates, self._lengths, self._parts = array("d"), array("q"), array("q")
        self._codes, self._code_lengths = bytearray(), array("q")
        self._code_sizes = array("q")
        """height and width that each code states"""
        self._stubs = 0

    def add(self, shapes: Sequence[Any], name: Callable[[int], str]) -> None:
        """Add the segmentations of the next annotations: lists of polygons, run-length codes, or none.

        Args:
            shapes: the segmentations.
            name: of an annotation, by its position among all, for an error's message.

        Raises:
            ValueError: one of them is malformed.
        """
        begin = len(self._parts)
        if set(map(type, shapes)) <= {list}:
            lists = list(shapes)
            self._code_lengths.frombytes(bytes(8 * len(lists)))
        else:
            lists = [self._read(shape, partial(name, begin + i)) for i, shape in enumerate(shapes)]
        flat = _join_polygons(list(chain.from_iterable(lists)))
        if flat is None:
            lists = [self._without_stubs(shape, partial(name, begin + i)) for i, shape in enumerate(lists)]
            flat = _join_polygons(list(chain.from_iterable(lists)))
        if flat is None:
            for i, polygons in enumerate(lists):
                for polygon in polygons:
                    if not isinstance(polygon, list) or len(polygon) % 2 or not all(map(is_number, polygon)):
                        raise ValueError(
                            f"{name(begin + i)}: a polygon must be x, y, x, y, ... of at least three points, not "
                            f"{polygon!r}"
                        )
            flat = np.array(list(chain.from_iterable(chain.from_iterable(lists))), np.float64)
        self._coordinates.frombytes(flat.tobytes())
        self._lengths.extend(map(len, chain.from_iterable(lists)))
        self._parts.extend(map(len, lists))

    def _read(self, shape: Any, name: Callable[[], str]) -> list[Any]:
        """Add the run-length code of an annotation, if it has one; return its polygons."""
        code = b""
        if isinstance(shape, dict) and "counts" in shape and "size" in shape:
            text, size = pack_counts(shape, name)
            code = text.encode("utf-8", "surrogatepass")
            self._codes += code
            self._code_sizes.extend(size)
        elif shape and not isinstance(shape, list):
            raise ValueError(f"{name()}: the segmentation is neither polygons nor run lengths: {str(shape)[:80]}")
        self._code_lengths.append(len(code))
        return shape if isinstance(shape, list) else []

    def _without_stubs(self, polygons: list[Any], name: Callable[[], str]) -> list[Any]:
        """Leave out polygons of fewer than three points."""
        kept = [
            p for p in polygons if not isinstance(p, list) or len(p) >= 6 or len(p) % 2 or not all(map(is_number, p))
        ]
        if len(kept) < len(polygons):
            self._stubs += len(polygons) - len(kept)
            note("polygons of fewer than three points", Effect.SKIPPED, [name()])
        return kept

    def pack(self, sizes: Integers, name: Callable[[int], str], place: Callable[[int], int]) -> Segmentations | None:
        """Pack them, without those that have no pixel; None if none is left. Nothing can be added afterwards.

        Args:
            sizes: height and width of each annotation's image, [M, 2].
            name: of an annotation, by its position, for messages.
            place: of an annotation in the file's list.

        Raises:
            ValueError: one is made for another image, broken, or far outside of it.
        """
        packed = Segmentations(
            np.asarray(self._coordinates),
            starts_of(np.asarray(self._lengths)),
            starts_of(np.asarray(self._parts)),
            Strings(np.frombuffer(self._codes, np.uint8), starts_of(np.asarray(self._code_lengths))),
        )
        self._coordinates = array("d")
        coded, stated = packed.coded, np.asarray(self._code_sizes).reshape(-1, 2)
        other = (stated != sizes[coded]).any(1)
        if other.any():
            i = int(coded[other.argmax()])
            raise ValueError(
                f"{name(i)}: its mask has size {stated[other.argmax()].tolist()}, its image {sizes[i].tolist()}"
            )
        if self._stubs:
            log.warning("%s: left out %d polygons of fewer than three points", self.path, self._stubs)
        present = packed.known
        known = usable(packed, sizes, name)
        if (present & ~known).any():
            i = int((present & ~known).argmax())
            note("masks without a pixel", Effect.SKIPPED, map(name, np.flatnonzero(present & ~known).tolist()))
            log.warning(
                "%s: %d masks have no pixel within their image and are left out, such as that of annotations[%d]",
                self.path,
                int((present & ~known).sum()),
                place(i),
            )
        if known.all() and len(known):
            return packed
        return packed.without(~known) if known.any() else None


def _join_polygons(polygons: Sequence[Any]) -> Floats | None:
    """Join polygons of three or more points; None if some are none."""
    if not set(map(type, polygons)) <= {list}:
        return None
    lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
    return None if (lengths < 6).any() or (lengths % 2).any() else join_lists(polygons)
