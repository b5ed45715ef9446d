"""Refuse a dataset at its first fault, or collect all faults of it.

Readers raise at the first fault, so that training never begins on what is wrong. Within `collect()` they note it, leave
out the entry, and read on. As with the warnings of Python, whoever opens a dataset decides, so that no reader and no
dataset between needs an argument for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

T = TypeVar("T")

FAULTS = (ValueError, OSError)
"""What the whole project raises for invalid input."""


class Effect(IntEnum):
    """What training does with what is wrong, worst first."""

    REFUSED = 0
    SKIPPED = 1
    CUT = 2
    IGNORED = 3
    CORRECTED = 4
    LEARNT = 5


@dataclass(frozen=True)
class Fault:
    """One fault of a dataset."""

    kind: str
    """in the plural, such as "boxes without area"; faults are listed by it"""
    effect: Effect
    where: str
    """the file and the object, and what is wrong with it"""


_collected: ContextVar[list[Fault] | None] = ContextVar("collected", default=None)


@contextmanager
def collect() -> Iterator[list[Fault]]:
    """Collect the faults of the datasets that are opened within a `with` block."""
    faults: list[Fault] = []
    token = _collected.set(faults)
    try:
        yield faults
    finally:
        _collected.reset(token)


def collecting() -> bool:
    """Say whether faults are collected."""
    return _collected.get() is not None


def note(kind: str, effect: Effect, where: Iterable[str]) -> None:
    """Note faults that training gets over; `where` is read only if faults are collected."""
    faults = _collected.get()
    if faults is not None:
        faults += [Fault(kind, effect, place) for place in where]


@contextmanager
def refusing(kind: str) -> Iterator[None]:
    """Read one entry; what is raised for it is noted, and the block left, if faults are collected."""
    try:
        yield
    except FAULTS as error:
        if not collecting():
            raise
        note(kind, Effect.REFUSED, [str(error)])


def sound(items: Sequence[T], check: Callable[[Sequence[T], int], object], kind: str) -> list[int]:
    """Find which of the items pass a check that raises for a whole list at its first fault, and note the others.

    Lists with a fault are halved until it stands alone.

    Args:
        items: the items.
        check: `(some, begin)`, raises a ValueError for a faulty one of `some`, which begin at the place `begin`.
        kind: of the faults.

    Returns:
        the places of the sound ones.
    """
    kept: list[int] = []
    waiting = [(0, len(items))]
    while waiting:
        begin, end = waiting.pop()
        try:
            with _strict():
                check(items[begin:end], begin)
        except ValueError as error:
            if end - begin == 1:
                note(kind, Effect.REFUSED, [str(error)])
            else:
                middle = (begin + end) // 2
                waiting += [(middle, end), (begin, middle)]
        else:
            kept += range(begin, end)
    return kept


@contextmanager
def _strict() -> Iterator[None]:
    """Raise at the first fault, and say nothing of the rest, which is read again later."""
    token = _collected.set(None)
    logger = logging.getLogger(__name__.rpartition(".")[0])
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        _collected.reset(token)
