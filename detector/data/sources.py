"""Read annotation files of any format, told by their names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from detector.data.annotations import Annotations
from detector.data.arrange import join
from detector.data.coco import Areas, Crowds, find_images, read_coco
from detector.data.image import ImageReader
from detector.data.image_folder import Folders
from detector.data.packed import Strings
from detector.data.voc_annotations import read_voc
from detector.data.voc_files import voc_list
from detector.data.voc_origin import Origin
from detector.data.yolo import read_yolo
from detector.data.yolo_files import is_yolo

KINDS = (
    "annotations must be a COCO file, *.json; a list of a VOC folder, FOLDER/ImageSets/Main/*.txt, or a folder of XML "
    "files; or YOLO's data.yaml, obj.data or classes.txt"
)


@dataclass(frozen=True)
class Options:
    """How annotations are read."""

    areas: Areas = "stated"
    """of a JSON, as of `read_coco`"""
    crowds: Crowds = "regions"
    """of a JSON, as of `read_coco`"""
    origin: Origin = 1
    """of XML files, as of `read_voc`"""
    unannotated: Literal["error", "empty"] = "error"
    """of XML files, as of `read_voc`"""
    split: str = "train"
    """of a data.yaml or an obj.data"""
    reader: ImageReader | None = None
    """reads the images, and their sizes where a format does not state them; None: one for RGB of 8 bits"""


def open_sources(paths: Sequence[Path], folders: Folders, options: Options) -> tuple[Annotations, Path, bool | None]:
    """Read annotation files, and find their images.

    Args:
        paths: of one format; several JSONs are joined, and several lists or folders of XML files.
        folders: where the images may be.
        options: how the files are read.

    Returns:
        the annotations, the folder that the paths of the images are relative to, and for XML files whether the lists
        are of images that have masks; None for other formats.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: there are none, or of several formats; or a file is malformed.
    """
    if not paths:
        raise ValueError("annotations is an empty list; give at least one file")
    if all(path.suffix == ".json" for path in paths):
        table, folder = _read_coco(paths, folders, options)
        return table, folder, None
    if all(path.is_dir() or _is_list(path) for path in paths):
        lists = [voc_list(path, folders.given) for path in paths]
        root = Path(os.path.commonpath([os.path.abspath(part.images) for part in lists]))
        table = read_voc(lists, root, origin=options.origin, unannotated=options.unannotated, reader=options.reader)
        return table, root, all(path.absolute().parent.name == "Segmentation" for path in paths)
    if absent := next((path for path in paths if not path.exists()), None):
        raise FileNotFoundError(f"{absent}: no such file or folder of annotations")
    if len(paths) == 1 and is_yolo(paths[0]):
        table = read_yolo(paths[0], options.split, folders.given, options.reader)
        return table, paths[0].absolute().parent, None
    if len(paths) > 1 and all(path.suffix == ".json" or path.is_dir() or _is_list(path) for path in paths):
        raise ValueError(f"annotations={[str(path) for path in paths]}: files of one format only can be joined")
    raise ValueError(f"{paths[0]}: {KINDS}" + ("" if len(paths) == 1 else "; several can be joined, but not of YOLO"))


def _is_list(path: Path) -> bool:
    return path.suffix == ".txt" and path.absolute().parent.parent.name == "ImageSets"


def _read_coco(paths: Sequence[Path], folders: Folders, options: Options) -> tuple[Annotations, Path]:
    tables = []
    for path in paths:
        table = read_coco(path, areas=options.areas, crowds=options.crowds)
        folder = folders.of(path, list(table.files))
        table = find_images(table, folder)
        if len(paths) > 1:
            table = replace(table, files=Strings.pack(os.path.abspath(folder / name) for name in table.files))
        tables.append(table)
    return join(tables), folder
