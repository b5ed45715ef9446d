"""Write the results of a prediction into a folder of their own, and remove those of an earlier one, nothing else."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detector.weights.thresholds import file_sha256

LIST = "written.txt"
"""The list of the files that were written, each with its SHA-256, as `sha256sum` writes it and `--check` reads it."""

UNFINISHED = ".unfinished"
"""The folder, within the one of the results, of files that are being written."""


class OutputFolder:
    """Write files into a folder, and list them in `written.txt`.

    A file gets its name when it is whole, and is listed before. So a prediction that is stopped leaves nothing that the
    next one does not know.

    Args:
        path: the folder; it is created. What an earlier prediction has written there is removed.

    Raises:
        FileExistsError: there are other files in the folder, or a written one was changed since; nothing is removed
            then.
        NotADirectoryError: it is a file.
    """

    def __init__(self, path: Path) -> None:
        earlier = earlier_files(path)
        self.path = path
        self._drafts = 0
        self._written: set[str] = set()
        path.mkdir(parents=True, exist_ok=True)
        for name in earlier:
            (path / name).unlink()
        for folder in sorted({p for name in earlier for p in Path(name).parents if p != Path()}, reverse=True):
            if not any((path / folder).iterdir()):
                (path / folder).rmdir()
        shutil.rmtree(path / UNFINISHED, ignore_errors=True)
        (path / LIST).write_text("", encoding="utf-8")

    def draft(self, name: str) -> Path:
        """Return the path under which a file is to be written until `finish` gives it its name.

        Args:
            name: relative to the folder, with slashes; its suffix is that of the draft, too.

        Raises:
            ValueError: a file of that name was written already.
        """
        if name in self._written:
            raise ValueError(
                f"{self.path / name}: two results would have this name; rename an image, its folder, or leave one of "
                "the formats out of save="
            )
        self._written.add(name)
        self._drafts += 1
        folder = self.path / UNFINISHED
        folder.mkdir(exist_ok=True)
        return folder / f"{self._drafts}{Path(name).suffix}"

    def finish(self, name: str, draft: Path) -> None:
        """Give a file that is whole its name, and list it."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with (self.path / LIST).open("a", encoding="utf-8") as file:
            file.write(_line(name, file_sha256(draft)))
        draft.replace(target)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield the path to write a file under, which gets its name at the end of the block, unless that fails."""
        draft = self.draft(name)
        yield draft
        self.finish(name, draft)

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, in UTF-8."""
        with self.writing(name) as draft:
            draft.write_text(text, encoding="utf-8")

    def close(self) -> None:
        """Remove what was not finished."""
        shutil.rmtree(self.path / UNFINISHED, ignore_errors=True)


def earlier_files(path: Path) -> list[str]:
    """List the files of an earlier prediction in a folder, relative to it.

    Raises:
        FileExistsError: there are other files in the folder, or a written one was changed since.
        NotADirectoryError: it is a file.
    """
    if path.is_file():
        raise NotADirectoryError(f"output {str(path)!r} is a file; give a folder (output=FOLDER)")
    if not path.exists():
        return []
    listed = _listed(path / LIST)
    present = list(_files(path))
    foreign = [name for name in present if name not in listed and name != LIST]
    changed = [
        name
        for name in present
        if name in listed and ((path / name).is_symlink() or file_sha256(path / name) != listed[name])
    ]
    if foreign or changed:
        held = [f"{_few(foreign)}, which no prediction has listed"] if foreign else []
        held += [f"{_few(changed)}, changed since"] if changed else []
        raise FileExistsError(
            f"output {str(path)!r} holds more than what an earlier prediction has written: {'; '.join(held)}. Nothing "
            "is removed: give another folder (output=FOLDER), or move these files"
        )
    return [name for name in present if name in listed]


def _few(names: list[str]) -> str:
    """Name a few files, and how many there are."""
    shown = ", ".join(sorted(names)[:3])
    return f"{len(names)} files ({shown}{', ...' if len(names) > 3 else ''})" if len(names) > 1 else shown


def _files(path: Path) -> Iterator[str]:
    """List the files in a folder and below, links to folders included, without those being written."""
    for root, folders, files in os.walk(path):
        here = Path(root)
        if here == path and UNFINISHED in folders:
            folders.remove(UNFINISHED)
        links = [name for name in folders if (here / name).is_symlink()]
        for name in (*files, *links):
            yield (here / name).relative_to(path).as_posix()


def _line(name: str, digest: str) -> str:
    """Write a line of the list; as `sha256sum` does, a backslash at the front says that the name has escapes."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"


def _listed(path: Path) -> dict[str, str]:
    """Read a list: the SHA-256 of each file, by name; nothing if there is no list."""
    if not path.is_file():
        return {}
    listed = {}
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        digest, _, name = line.partition("  ")
        if digest.startswith("\\"):
            name = re.sub(r"\\(.)", lambda match: {"n": "\n", "r": "\r"}.get(match[1], match[1]), name)
        if name:
            listed[name] = digest.lstrip("\\")
    return listed
