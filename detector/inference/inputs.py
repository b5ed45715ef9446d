"""Find what to detect objects in: images, folders of images, patterns of names, videos, names from standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from detector.data.image_files import SUFFIXES, images_among

VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
"""Suffixes of videos, in small letters."""

STDIN = "-"
"""`input=-`: names are read from standard input, one a line."""


@dataclass(frozen=True)
class Input:
    """An image or a video."""

    path: Path
    name: str
    """its path below the folder, or the fixed part of the pattern, that was given, with slashes"""
    stem: str
    """the same without the suffix, or with it where two files differ in nothing else: names what is written of it"""

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its suffix."""
        return is_video(self.path)


def is_video(path: Path) -> bool:
    """Return whether a file is a video, by its suffix."""
    return path.suffix.lower() in VIDEOS


def find_inputs(
    given: str | Sequence[str], output: Path | None = None, lines: Iterable[str] | None = None
) -> list[Input]:
    """Find the images and videos that `input=` means.

    Args:
        given: an image, a video, a folder, a pattern with `*`, `?`, `[...]` or `**`, `-` for names from standard input,
            or a list of these but the last. A file of that very name comes before a pattern. Of a folder, the images in
            it and below are taken, without hidden folders; its videos are not.
        output: a folder that is not searched.
        lines: standard input; None: that of the process.

    Returns:
        each file once, in the order given, those of a folder or a pattern sorted.

    Raises:
        FileNotFoundError: there is no such file or folder; those of a list are not looked for.
        ValueError: a folder has no images, a pattern matches no file, or nothing is given.
    """
    if given == STDIN:
        names = [line.rstrip("\r\n") for line in (sys.stdin if lines is None else lines)]
        given = [name for name in names if name.strip()]
        if not given:
            raise ValueError("input=-: standard input has no names of images; write one a line")
    if isinstance(given, str):
        path = Path(given)
        found = _files(given, output)
        place = path.parent if path.exists() else _fixed_part(given)
        root = path if path.is_dir() else place
    else:
        if not given:
            raise ValueError("input=[] names no image")
        found = [file for name in given for file in (_files(str(name), output) if _is_many(name) else [Path(name)])]
        parents = [os.path.abspath(file.parent) for file in found]
        root = Path(os.path.commonpath(parents)) if len({Path(p).anchor for p in parents}) == 1 else Path()
    found = list({os.path.abspath(file): file for file in reversed(found)}.values())[::-1]
    return list(_named(found, root))


def image_files(path: Path, output: Path | None = None, key: str = "input") -> list[Path]:
    """List the images in a folder and below, sorted, or the one image if `path` is a file.

    NumPy's arrays, `*.npy`, are images where the folder has no others. Hidden folders are not searched.

    Args:
        path: the folder or file.
        output: a folder that is not searched.
        key: that it was given by, for messages.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: the folder has no images.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{key} {str(path)!r}: no such file or folder")
    files = list(_below(path, None if output is None else output.resolve()))
    images = images_among(files)
    if not images:
        videos = sum(is_video(file) for file in files)
        more = f"; it has {videos} videos, give one of them, or a pattern such as '{path}/*.mp4'" if videos else ""
        raise ValueError(f"{key} {str(path)!r}: the folder has no images, such as *.jpg, *.png, *.tif or *.npy{more}")
    return images


def _below(folder: Path, output: Path | None) -> Iterator[Path]:
    """List the files in a folder and below, without hidden folders and `output`."""
    for root, folders, files in os.walk(folder):
        here = Path(root)
        folders[:] = [name for name in folders if not name.startswith(".") and (here / name).resolve() != output]
        yield from (here / name for name in files)


def _is_many(name: str) -> bool:
    """Return whether a name means a folder or a pattern; a file that is missing is noticed where it is read."""
    return os.path.isdir(name) or (glob.has_magic(name) and not os.path.exists(name))


def _files(given: str, output: Path | None) -> list[Path]:
    """List the files that one of the names means."""
    path = Path(given)
    if path.exists() or not glob.has_magic(given):
        return image_files(path, output)
    ignored = None if output is None else output.resolve()
    matches = [Path(name) for name in sorted(glob.glob(given, recursive=True))]
    files = [
        file
        for file in matches
        if file.is_file()
        and (file.suffix.lower() in SUFFIXES or file.suffix.lower() == ".npy" or is_video(file))
        and ignored not in file.resolve().parents
    ]
    if not files:
        others = f", but {len(matches)} others, such as {matches[0]}" if matches else ""
        raise ValueError(f"input {given!r}: the pattern matches no image or video{others}")
    return files


def _fixed_part(pattern: str) -> Path:
    """Return the folder before the first part of a pattern that has a wildcard."""
    fixed: list[str] = []
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def _named(files: Sequence[Path], root: Path) -> Iterator[Input]:
    """Name files by their paths below a folder."""
    absolute = os.path.abspath(root)
    names = []
    for file in files:
        path = Path(os.path.abspath(file))
        below = path.is_relative_to(absolute)
        names.append(path.relative_to(absolute).as_posix() if below else path.as_posix().lstrip("/").replace(":", ""))
    stems = [str(PurePosixPath(name).with_suffix("")) for name in names]
    times = Counter(stems)
    for file, name, stem in zip(files, names, stems, strict=True):
        yield Input(file, name, stem if times[stem] == 1 else name)
