"""Find the folder of a JSON's images where it is not given."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detector.data.image_files import file_read, relative_to

log = logging.getLogger(__name__)

KEY = "dataset.val.images=FOLDER"

_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')


@dataclass(frozen=True)
class Folders:
    """Where the images of JSONs may be."""

    given: Path | None = None
    """the folder; None: it is looked for"""
    shared: Path | None = None
    """the folder of other images, which may hold these, too; None: there is none"""
    others: Sequence[Path] = ()
    """the JSONs of those other images, as far as they are known"""

    def of(self, annotations: Path, names: Sequence[str]) -> Path:
        """Return the folder of a JSON's images: the given one, that of the JSON, or else the shared one.

        Two folders may hold different pictures of the same names, so `shared` is only taken where the images are not
        beside the JSON, and no file of `others` has the name of one of them. Which folder it is, is logged.

        Args:
            annotations: the JSON.
            names: of its images.

        Raises:
            FileNotFoundError: neither folder holds the images.
            ValueError: both lists name the same file.
        """
        own = annotations.parent
        if self.given is not None:
            return self.given
        if self.shared is None or self.shared.resolve() == own.resolve():
            return own
        absent = _first_absent(own, names)
        if absent is None:
            log.info("%s: its images are read from its own folder, %s; %s names another", annotations, own, KEY)
            return own
        if absent_too := _first_absent(self.shared, names):
            where = f"neither {own / absent} nor {self.shared / absent_too} exists"
            raise FileNotFoundError(f"{annotations}: {where}; give the folder of its images, {KEY}")
        known = [o for o in self.others if o.is_file() and o.resolve() != annotations.resolve()]
        files = _files(self.shared, names) if known else set()
        for other in known:
            if twice := sorted(files & _files(self.shared, file_names(other))):
                first = relative_to(Path(twice[0]), self.shared)
                raise ValueError(
                    f"{annotations} and {other} both name {first} ({len(twice)} files in both), so in {self.shared} "
                    f"it may be another picture than the one meant: give the folder of {annotations}, {KEY}; it is "
                    f"dataset.val.images={self.shared} if the pictures are the same"
                )
        log.info(
            "%s: its images are read from %s, not from its own folder; %s names another", annotations, self.shared, KEY
        )
        return self.shared


def file_names(annotations: Path) -> list[str]:
    """Return the names of the images in a COCO JSON as it writes them, without parsing the objects, most of it."""
    if annotations.suffix != ".json":
        return []
    return [str(json.loads(match)) for match in _FILE_NAME.findall(annotations.read_bytes())]


def _files(folder: Path, names: Sequence[str]) -> set[str]:
    """Return the paths of the files that names mean, so that one in several spellings is the same."""
    root = os.path.abspath(folder)
    return {file_read(root, name) for name in names}


def _first_absent(folder: Path, names: Sequence[str]) -> str | None:
    root = os.path.abspath(folder)
    absent = (name for name in names if not os.path.isfile(file_read(root, name)))
    return next((name.replace("\\", "/") for name in absent), None)
