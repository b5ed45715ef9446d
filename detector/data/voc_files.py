"""Find the files of datasets in VOC's format: folders of XML files and images, and lists of image names."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from detector.data.image_files import NO_IMAGES, SUFFIXES, images_among
from detector.data.text import read_lines
from detector.data.voc_xml import Description
from detector.data.yolo_files import is_yolo

log = logging.getLogger(__name__)

LAYOUT = (
    "VOC's layout is <data_dir>/VOCdevkit/VOC2007 with the folders JPEGImages/*.jpg, Annotations/*.xml and "
    "ImageSets/Main/*.txt"
)

ANNOTATIONS = ("Annotations", "annotations", "labels")
"""Names of folders of XML files: VOC's own, others', and FiftyOne's, which may also be of other formats."""

IMAGES = ("JPEGImages", "images", "data")
"""Names of folders of images beside them."""


Listing = dict[str, list[str]]
"""The files in a folder and below, relative to it, by their paths without suffix."""


@dataclass(frozen=True)
class VocList:
    """A part of a dataset: where its annotations and images lie, and which of them are used."""

    annotations: Path
    """folder of the XML files"""
    images: Path
    """folder of the images, which may be the same"""
    names: Path | None = None
    """a text file of the images' names, without suffix, one on each line; None: all that `list_stems` finds"""

    @property
    def source(self) -> Path:
        """What lists the images, for messages."""
        return self.annotations if self.names is None else self.names


def voc_list(path: Path, images: Path | None = None) -> VocList:
    """Find the parts of a VOC dataset by a path.

    Args:
        path: a list of a VOC folder, `FOLDER/ImageSets/Main/NAME.txt`, a VOC folder without lists, or a folder of XML
            files, beside which the images may lie.
        images: the folder of the images; None: one of `IMAGES` beside a folder of XML files that is named as in
            `ANNOTATIONS`, else that of the XML files.

    Raises:
        FileNotFoundError: there is no such file or folder, or it holds no XML file.
    """
    if path.suffix == ".txt":
        folder, names = path.absolute().parent.parent.parent, path
    else:
        folder, names = path, None
    annotations = _annotations(folder, names)
    if not annotations.is_dir():
        raise FileNotFoundError(f"{annotations}: no such folder. {LAYOUT}; or a folder of images and XML files")
    if names is None and not xml_files(annotations):
        raise FileNotFoundError(f"{annotations}: the folder holds no XML file{_others(folder)}. {LAYOUT}")
    if images is None:
        images = folder if annotations == folder and folder.name not in ANNOTATIONS else _images(annotations, folder)
    return VocList(annotations, images, names)


def _annotations(folder: Path, names: Path | None) -> Path:
    """Choose the folder of the XML files; one of another name than VOC's only if XML files lie nowhere else."""
    own, *others = (folder / name for name in ANNOTATIONS)
    if own.is_dir() and (names is not None or xml_files(own)):
        return own
    if _visible(folder, folder.glob("*.xml")):
        return folder
    return next((place for place in others if xml_files(place)), folder)


def _images(annotations: Path, folder: Path) -> Path:
    """Choose the folder of the images: VOC's own, or the first that holds images; `data` comes after the XML files'."""
    own, images, data = (annotations.parent / name for name in IMAGES)
    with_xml = any(images_among(place.iterdir()) for place in {path.parent for path in xml_files(annotations)})
    if annotations == folder and with_xml:  # the user names it
        return annotations
    if own.is_dir():
        return own
    if _has_images(images):
        return images
    if not with_xml and _has_images(data):
        return data
    return images if images.is_dir() and not with_xml else annotations


def _others(folder: Path) -> str:
    """Name the files of other formats in a folder, for a message."""
    found = sorted(p.name for p in folder.iterdir() if p.is_file() and (p.suffix == ".json" or is_yolo(p)))
    return f", but {', '.join(found[:5])}: dataset.annotations={folder / found[0]} names a file" if found else ""


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in folder.rglob("*"))


def xml_files(folder: Path) -> list[Path]:
    """List the XML files in a folder, or if there are none, those below it, sorted; hidden ones are left out.

    What lies below others is often a copy, or another split.
    """
    return _visible(folder, folder.glob("*.xml")) or _visible(folder, folder.rglob("*.xml"))


def _visible(folder: Path, paths: Iterable[Path]) -> list[Path]:
    found = sorted(paths)
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def list_folder(folder: Path) -> Listing:
    """List what may be images; one listing is faster than a look-up of each of a hundred thousand files."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of images. {LAYOUT}")
    listing: Listing = {}
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        prefix = os.path.relpath(place, folder).replace(os.sep, "/")
        for name in sorted(names):
            stem, suffix = os.path.splitext(name if prefix == "." else f"{prefix}/{name}")
            if suffix and suffix.lower() not in NO_IMAGES and not name.startswith("."):
                listing.setdefault(stem, []).append(stem + suffix)
    return listing


def list_stems(part: VocList, listing: Listing) -> list[str]:
    """List the images by their paths without suffix: those of the list, or all in the folders of XML files.

    Images in other folders, such as masks and thumbnails, do not count.
    """
    if part.names is not None:
        return _listed(part.names, part.annotations, listing)
    used = xml_files(part.annotations)
    _say_unused(part.annotations, used)
    described = {path.relative_to(part.annotations).with_suffix("").as_posix() for path in used}
    folders = {os.path.dirname(stem) for stem in described}
    beside = (Path(name) for stem, names in listing.items() if os.path.dirname(stem) in folders for name in names)
    return sorted(described | {os.path.splitext(path.as_posix())[0] for path in images_among(beside)})


def _say_unused(folder: Path, used: list[Path]) -> None:
    """Log a warning if there are further XML files below a folder."""
    unused = sorted(set(_visible(folder, folder.rglob("*.xml"))) - set(used))
    if unused:
        log.warning(
            "%s holds XML files itself, so %d in folders below it are not read, such as %s; to read them, too, give a "
            "list of folders",
            folder,
            len(unused),
            unused[0],
        )


def _listed(path: Path, annotations: Path, listing: Listing) -> list[str]:
    """Read the image names of a list, one on each line; lists of one class have a flag, -1, 0 or 1, behind the name.

    The whole line is the name where an XML or an image has it.
    """
    if not path.is_file():
        present = sorted(p.stem for p in path.parent.glob("*.txt") if "_" not in p.stem)
        raise FileNotFoundError(f"{path}: no such list of images; there are {present or 'none'} beside it. {LAYOUT}")
    names = []
    for line in map(str.strip, read_lines(path)):
        name, *flag = line.rsplit(maxsplit=1) if line else [""]
        if flag and (flag[0] not in ("-1", "0", "1") or line in listing or (annotations / f"{line}.xml").is_file()):
            name = line
        names += [name] if name else []
    return names


def find_image(part: VocList, stem: str, description: Description | None, listing: Listing) -> Path:
    """Find the image of an XML: a list names it, `filename` adds only its suffix and is wrong in many exports.

    Raises:
        FileNotFoundError: there is none.
    """
    names = listing.get(stem, [])
    stated = "" if description is None else description.filename or f"{os.path.basename(stem)}.jpg"
    if exact := [name for name in names if os.path.basename(name) == stated]:
        return part.images / exact[0]
    others = (p for p in sorted(part.images.glob(f"{glob.escape(stem)}.*")) if p.suffix.lower() not in NO_IMAGES)
    found = [part.images / name for name in names] or list(others)
    if not found:
        described = f"{part.annotations / stem}.xml describes it" if description else f"{part.source} lists it"
        raise FileNotFoundError(f"{part.images / stem}.jpg: no such image, but {described}")
    return found[0]
