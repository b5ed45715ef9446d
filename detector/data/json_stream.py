"""Read long lists of a JSON file piece by piece, without holding the whole file.

Most objects are decoded many at a time by msgspec, in a third of the time that Python's json takes. Its values are the
same; what it refuses (NaN, half a surrogate pair, numbers beyond a float's), json reads or refuses.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import msgspec

CHUNK = 1 << 22
"""Characters that are read at a time."""

BATCH = 20_000
"""Items that are returned at a time."""

_DECODER = json.JSONDecoder()
_BLANKS = re.compile(r"[ \t\n\r]*")
_FAST = msgspec.json.Decoder()
_NEXT = re.compile(r"[ \t\n\r]*,[ \t\n\r]*\{[ \t\n\r]*\"[^\"\\]*\"")
"""What separates an object of a list from the next one's second key."""


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause the garbage collector: it would walk through the values of a JSON again and again, which hold no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def stream_lists(path: Path, keys: Collection[str]) -> Iterator[tuple[str, list[Any]]]:
    """Read lists that are members of a JSON object, in batches of up to `BATCH` items, in the order of the file.

    Args:
        path: the file.
        keys: of the lists; all other values are read and dropped.

    Yields:
        a key and its next items, at least one batch, be it empty, for each list that is there.

    Raises:
        ValueError: the file is no JSON; the message does not name the file.
    """
    with path.open("rb") as raw:
        encoding = json.detect_encoding(raw.read(4))
    with path.open(encoding=encoding, newline="") as file:
        try:
            yield from _lists(_Source(file), keys)
        except UnicodeDecodeError as error:
            raise ValueError(f"not JSON ({error})") from error
        except RecursionError:
            raise ValueError("not JSON that can be read: its values are nested too deeply") from None


def _lists(source: _Source, keys: Collection[str]) -> Iterator[tuple[str, list[Any]]]:
    if source.peek() == "{":
        for _ in source.members("{", "}"):
            key = source.key()
            if key not in keys or source.peek() != "[":
                source.value()
                continue
            batch: list[Any] = []
            for _ in source.members("[", "]"):
                batch.append(source.value())
                batch += source.following()
                while len(batch) >= BATCH:
                    yield key, batch[:BATCH]
                    del batch[:BATCH]
            yield key, batch
    else:
        source.value()
    if source.peek():
        raise source.error("expected nothing more")


class _Source:
    """The text of a file, read as far as needed; `at` is the place of the next character in `text`."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.text, self.at, self.dropped = "", 0, 0
        self.slow = 0
        """up to this character of the file, msgspec could not read on"""

    def more(self) -> bool:
        """Read on; false at the end of the file."""
        piece = self.file.read(max(CHUNK, len(self.text) - self.at))
        self.dropped += self.at
        self.text, self.at = self.text[self.at :] + piece, 0
        return bool(piece)

    def peek(self) -> str:
        """Skip blanks and return the next character, or nothing at the end of the file."""
        while True:
            blanks = _BLANKS.match(self.text, self.at)
            assert blanks is not None
            self.at = blanks.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def value(self) -> Any:
        """Read the next value."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                broken = ValueError(f"not JSON ({error.msg} at character {self.dropped + error.pos})")
                if self.more():
                    continue
                raise broken from None
            # The text that was read may cut off a number, such as 12, 1.5 or 1e-5, behind 1, `1.` or `1e-`.
            cut = isinstance(value, int | float) and len(self.text) - end <= 2
            before = self.at
            if not cut or not self.more():
                self.at = end - before + self.at
                return value

    def following(self) -> list[Any]:
        """Read the next objects of a list, as far as they are in the text that was read, or none."""
        found = self._many()
        return self._one_by_one() if found is None else found

    def _many(self) -> list[Any] | None:
        """Read all objects up to the last one that begins in the text; None if they are not to be read so.

        Its beginning is guessed: by what separates the first two, which may occur elsewhere, too. If it is not there,
        the text before it is no sequence of whole values, and refused.
        """
        separator = None if self.dropped + self.at < self.slow else _NEXT.match(self.text, self.at)
        if separator is None:
            return None
        mark = separator.group()
        end = self.text.rfind("}" + mark, self.at) + 1
        if end:
            try:
                found: list[Any] = _FAST.decode(f"[{self.text[self.at + mark.index('{') : end]}]")
            except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
                pass
            else:
                self.at = end
                return found
        self.slow = self.dropped + len(self.text)
        return None

    def _one_by_one(self) -> list[Any]:
        """Read objects that follow on `, ` or `,`, as nearly all files are written, in half the time of `members`."""
        text, at, decode = self.text, self.at, _DECODER.raw_decode
        found: list[Any] = []
        while len(found) < BATCH:
            begin = at + 2 if text.startswith(", {", at) else at + 1 if text.startswith(",{", at) else 0
            if not begin:
                break
            try:
                value, at = decode(text, begin)
            except json.JSONDecodeError:  # cut off, or broken: `value` knows
                break
            found.append(value)
        self.at = at
        return found

    def key(self) -> str:
        """Read a key and the colon behind it."""
        if self.peek() != '"':
            raise self.error("expected a key in double quotes")
        key: str = self.value()
        if self.peek() != ":":
            raise self.error("expected a colon behind the key")
        self.at += 1
        return key

    def members(self, begin: str, end: str) -> Iterator[None]:
        """Pass the brackets and commas around the members of a list or object; each is read by whoever iterates."""
        assert self.peek() == begin
        self.at += 1
        if self.peek() == end:
            self.at += 1
            return
        while True:
            yield
            mark = self.peek()
            if mark not in (",", end) or not mark:
                raise self.error(f"expected , or {end}")
            self.at += 1
            if mark == end:
                return

    def error(self, message: str) -> ValueError:
        """Make an error at the next character."""
        return ValueError(f"not JSON ({message} at character {self.dropped + self.at})")
