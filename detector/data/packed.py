"""Arrays of rows of different lengths, packed one after another: texts, ids, polygons."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)
Integers = NDArray[np.int64]

BLOCK = 1 << 16
"""Rows that are selected at a time: the places of their items take as much memory as the items."""


def starts_of(lengths: Sequence[int] | Integers) -> Integers:
    """Return where each of N packed rows begins, and the end of the last, int64 [N + 1]."""
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def rows(starts: Integers, keep: Integers) -> tuple[Integers, Integers]:
    """Select packed rows.

    Args:
        starts: of N rows, [N + 1].
        keep: indices of K rows.

    Returns:
        the indices of the selected rows' items, and where each row begins among them, [K + 1].
    """
    lengths = starts[keep + 1] - starts[keep]
    new = starts_of(lengths)
    return np.arange(new[-1]) + np.repeat(starts[keep] - new[:-1], lengths), new


def take(items: NDArray[T], starts: Integers, keep: Integers) -> tuple[NDArray[T], Integers]:
    """Select packed rows, and copy their items.

    Args:
        items: of N rows.
        starts: where each begins, [N + 1].
        keep: indices of K rows.

    Returns:
        the items of the selected rows, and where each row begins, [K + 1]; what was given, if these are all rows.
    """
    if len(keep) == len(starts) - 1 and bool((keep == np.arange(len(keep))).all()):
        return items, starts
    new = starts_of(starts[keep + 1] - starts[keep])
    chosen = np.empty(new[-1], items.dtype)
    for begin in range(0, len(keep), BLOCK):
        some = keep[begin : begin + BLOCK]
        chosen[new[begin] : new[begin + len(some)]] = items[rows(starts, some)[0]]
    return chosen, new


@dataclass(frozen=True)
class Strings:
    """N texts in one array of bytes, which takes a fraction of a list's memory and is shared with loader processes."""

    data: NDArray[np.uint8]
    starts: Integers
    """[N + 1]"""

    @classmethod
    def pack(cls, texts: Iterable[str]) -> Strings:
        """Pack texts."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        return cls(np.frombuffer(b"".join(encoded), np.uint8), starts_of([len(e) for e in encoded]))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> str:
        index = range(len(self))[index]  # negative ones count from the end
        return self.data[self.starts[index] : self.starts[index + 1]].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def select(self, keep: Integers) -> Strings:
        """Select texts by their indices."""
        return Strings(*take(self.data, self.starts, keep))

    @staticmethod
    def join(parts: Sequence[Strings]) -> Strings:
        """Concatenate texts."""
        lengths = [np.diff(part.starts) for part in parts]
        return Strings(np.concatenate([p.data for p in parts]), starts_of(np.concatenate(lengths)))


@dataclass(frozen=True)
class Ids:
    """N ids, each an int or a text."""

    values: Integers | Strings
    """the ids if all are ints of 64 bits, else each as JSON"""

    @classmethod
    def pack(cls, ids: Sequence[int | str]) -> Ids:
        """Pack ids."""
        if all(isinstance(i, int) and -(2**63) <= i < 2**63 for i in ids):
            return cls(np.array(ids, np.int64))
        return cls(Strings.pack(json.dumps(i) for i in ids))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> int | str:
        value = self.values[index]
        if isinstance(value, str):
            read: int | str = json.loads(value)
            return read
        return int(value)

    def __iter__(self) -> Iterator[int | str]:
        return (self[i] for i in range(len(self)))

    def select(self, keep: Integers) -> Ids:
        """Select ids by their indices."""
        return Ids(self.values.select(keep) if isinstance(self.values, Strings) else self.values[keep])
