"""Find the folder of a JSON's images where it is not given."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

log = logging.getLogger(__name__)

_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')


def image_folder(annotations: Path, shared: Path | None = None, others: Path | None = None) -> Path:
    """Return the folder of a COCO JSON's images: that of the JSON, or else one shared with other images.

    Two folders may hold different pictures of the same names, so `shared` is only taken where the images are not beside
    the JSON, and no file of `others` has the name of one of them. Which folder it is, is logged.

    Args:
        annotations: the JSON.
        shared: the folder of other images; None: there is none.
        others: the JSON of those other images; None: it is not known.

    Raises:
        FileNotFoundError: neither folder holds the images.
        ValueError: both lists name the same file.
    """
    own = annotations.parent
    if shared is None or shared.resolve() == own.resolve() or not annotations.is_file():
        return own
    names = file_names(annotations)
    key = "dataset.val.images=FOLDER"
    absent = _first_absent(own, names)
    if absent is None:
        log.info("%s: its images are read from its own folder, %s; %s names another", annotations, own, key)
        return own
    if absent_too := _first_absent(shared, names):
        where = f"neither {own / absent} nor {shared / absent_too} exists"
        raise FileNotFoundError(f"{annotations}: {where}; give the folder of its images, {key}")
    known = others is not None and others.is_file() and others.resolve() != annotations.resolve()
    if twice := sorted(set(names) & set(file_names(others))) if others is not None and known else []:
        raise ValueError(
            f"{annotations} and {others} both name {twice[0]} ({len(twice)} files in both), so in {shared} it may be "
            f"another picture than the one meant: give the folder of {annotations}, {key}; it is "
            f"dataset.val.images={shared} if the pictures are the same"
        )
    log.info("%s: its images are read from %s, not from its own folder; %s names another", annotations, shared, key)
    return shared


def file_names(annotations: Path) -> list[str]:
    """Return the names of the images in a COCO JSON, without parsing the objects, which are most of it."""
    if annotations.suffix != ".json":
        return []
    names = (json.loads(match) for match in _FILE_NAME.findall(annotations.read_bytes()))
    return [str(name).replace("\\", "/") for name in names]


def _first_absent(folder: Path, names: list[str]) -> str | None:
    return next((name for name in names if not (folder / name).is_file()), None)
