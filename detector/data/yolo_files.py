"""Find the parts of a dataset in YOLO's layouts: class names, images, and the text files of their labels."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from detector.data.image_files import images_among
from detector.data.text import read_lines
from detector.data.yolo_labels import labels_beside, most_labels, say_shared, say_unused, usual_labels
from detector.data.yolo_points import PointShape, point_shape

LAYOUT = (
    "YOLO's layout is a data.yaml with `train`, `val` and `names`, images in FOLDER/images/train and their labels in "
    "FOLDER/labels/train/*.txt"
)

SPLITS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
"""The keys of a split's images; `valid` is Darknet's."""


@dataclass(frozen=True)
class YoloFiles:
    """The parts of a split."""

    classes: dict[int, str]
    """names by class number, in the order of the numbers"""
    images: list[Path]
    """in the order of the list or the folder; one may be there again"""
    labels: list[Path]
    """the text file of each image, which need not exist"""
    points: PointShape | None = None
    """how many numbers of key points follow each box; None: none"""


def is_yolo(path: Path) -> bool:
    """Return whether a file is of YOLO, by its name: `*.yaml`, Darknet's `*.data` and `*.names`, or `classes.txt`."""
    return path.suffix in (".yaml", ".yml", ".data", ".names") or path.name == "classes.txt"


def names_splits(path: Path) -> bool:
    """Return whether a file of YOLO says where the images of its splits are, besides naming the classes.

    Raises:
        FileNotFoundError, ValueError: as of `find_files`.
    """
    settings = _settings(path)
    return any(settings.get(key) for keys in SPLITS.values() for key in keys)


def find_files(path: Path, split: str = "train", images: Path | None = None) -> YoloFiles:
    """Find the parts of a split.

    The images of a data.yaml or an obj.data are those under the split's key, and their labels are where `label_file`
    says. A file that names classes alone belongs to one folder of images: `images` beside it, or else its own folder;
    their labels are in `labels` beside it, or beside the images.

    Args:
        path: a `data.yaml`, as of ultralytics; an `obj.data`, as of Darknet, datumaro and CVAT; or names of classes,
            one on each line: an `obj.names`, or a `classes.txt`, as of LabelImg and Label Studio. A `notes.json`
            beside the latter, as of Label Studio, says the class numbers.
        split: train, val, or test.
        images: the folder of the images, in place of the ones that the file names.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: a file is malformed; the message names it.
    """
    files = _find(path, split, images)
    say_shared(files.images, files.labels)
    say_unused(files.images, files.labels)
    return files


def _find(path: Path, split: str, images: Path | None) -> YoloFiles:
    settings = _settings(path)
    classes, points = _classes(settings, path), point_shape(settings, path)
    own = any(settings.get(key) for keys in SPLITS.values() for key in keys)
    if images is None and own:
        found = list(_images(settings, path, split))
        return YoloFiles(classes, found, usual_labels(found, path), points)
    home = path.absolute().parent
    beside = home / "images"
    folder = images.absolute() if images is not None else beside if beside.is_dir() else home
    if images is None and not images_among(folder.rglob("*")):
        raise FileNotFoundError(
            f"{folder}: the folder holds no image, and {path} names none; give their folder, dataset.images=FOLDER"
        )
    found = _folder(folder, path)
    labels = usual_labels(found, path)
    if not own:
        labels = most_labels([labels, *labels_beside(home / "labels", folder, found)], found)
    return YoloFiles(classes, found, labels, points)


def _settings(path: Path) -> dict[str, Any]:
    """Read the keys of a file of any layout; `names` holds the class names."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. {LAYOUT}")
    if path.suffix == ".data":
        return _darknet(path)
    if path.suffix not in (".yaml", ".yml"):
        return {"names": _numbered(path) or _lines(path)}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: YAML, but not YOLO's: it has no keys. {LAYOUT}")
    return content


def _darknet(path: Path) -> dict[str, Any]:
    """Read an obj.data, whose lines are `key = value`, and the names that it points to."""
    settings: dict[str, Any] = {}
    for number, line in enumerate(_lines(path), 1):
        key, found, value = (part.strip() for part in line.partition("="))
        if not found and not line.startswith(("#", ";")):
            raise ValueError(f"{path}: its line {number} is not `key = value`, but {line[:80]!r}")
        settings[key] = value
    count = str(settings.pop("classes", ""))
    if "names" in settings:
        tried = _tried(str(settings["names"]), settings, path)
        place = next((p for p in tried if p.is_file()), None)
        if place is None:
            raise FileNotFoundError(f"{tried[0]}: no such file of class names, but {path} names it")
        settings["names"] = _lines(place)
    return settings | ({"nc": int(count)} if count.isdecimal() else {})


def _numbered(path: Path) -> dict[int, str] | None:
    """Read the class numbers from the `notes.json` beside a classes.txt, whose lines may be in another order."""
    notes = path.with_name("notes.json")
    if not notes.is_file():
        return None
    try:
        pairs = [(int(c["id"]), str(c["name"])) for c in json.loads(notes.read_text(encoding="utf-8"))["categories"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{notes}: not Label Studio's, whose `categories` have `id` and `name` ({error})") from error
    numbers = dict(pairs)
    if len(set(pairs)) > len(numbers) or set(numbers.values()) != set(_lines(path)):
        raise ValueError(
            f"{notes} and {path} must name the same classes, one for each number, not {sorted(set(pairs))} and "
            f"{_lines(path)}; without {notes.name}, class numbers count the lines"
        )
    return numbers


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_lines(path) if line.strip()]


def _classes(settings: Mapping[str, Any], path: Path) -> dict[int, str]:
    """Read the names by class number, a list or a dict, and compare them with `nc`."""
    names, count = settings.get("names"), settings.get("nc")
    if names is None and isinstance(count, int) and count > 0:
        names = [f"class_{i}" for i in range(count)]
    entries: dict[Any, Any] = dict(enumerate(names)) if isinstance(names, list) else names or {}
    if (
        not isinstance(entries, dict)
        or not entries
        or not all(str(k).isdecimal() and isinstance(v, str | int | float) for k, v in entries.items())
    ):
        raise ValueError(f"{path}: `names` must be a list of class names, or a dict of them by number, not {names!r}")
    classes = {int(number): str(entries[number]) for number in sorted(entries, key=int)}
    if count is not None and count != len(classes):
        raise ValueError(f"{path}: nc is {count}, but there are {len(classes)} names: {list(classes.values())}")
    if len(set(classes.values())) < len(entries):
        raise ValueError(f"{path}: the names {list(entries.values())} repeat")
    return classes


def _tried(
    name: str, settings: Mapping[str, Any], path: Path, *, of_list: Path | None = None, above: bool = True
) -> list[Path]:
    """List where a path may lead that stands in `path`, or in the list `of_list` that this names.

    Darknet runs in the folder above that of an obj.data, whose other folders may be of other datasets: they count, if
    `above` is true, where nothing is found in the obj.data's own. `path` of a data.yaml is often of another machine.
    """
    listed = [of_list.parent] if of_list else []
    if path.suffix != ".data":
        home = path.absolute().parent
        roots = [*listed, *([home / str(settings["path"])] if settings.get("path") else []), home]
        return [root / spelling for spelling in _spellings(name) for root in roots]
    home = _home(path)
    tried = [root / spelling for spelling in _spellings(name) for root in (*listed, home)]
    outer = home.parent / name.replace("\\", "/")
    return [outer, *tried] if _names_home(name, home) else [*tried, outer] if above else tried


def _home(path: Path) -> Path:
    return Path(os.path.abspath(path)).parent


def _names_home(name: str, home: Path) -> bool:
    return Path(name.replace("\\", "/")).parts[:1] == (home.name,)


def _spellings(name: str) -> list[str]:
    """List how a path may be meant; datumaro writes data/train.txt beside train.txt, Roboflow ../train/images."""
    plain = name.replace("\\", "/")
    return list(dict.fromkeys((name, plain, plain.removeprefix("../"), plain.removeprefix("data/"))))


def _images(settings: Mapping[str, Any], path: Path, split: str) -> Iterator[Path]:
    """Find the images of a split: those of a folder, a text file of paths, or a list of these."""
    value = next((settings[key] for key in SPLITS.get(split, (split,)) if key in settings), None)
    values = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, str) and v]
    if not values or (isinstance(value, list) and len(values) < len(value)):
        known = [key for keys in SPLITS.values() for key in keys if settings.get(key)]
        way_out = "; dataset.val_share=0.2 holds out a share of `train`" if split == "val" and "train" in known else ""
        raise ValueError(
            f"{path}: `{split}` must be a folder, a list of images, or several, not {value!r}; it has {known}{way_out}"
        )
    for entry in values:
        tried = _tried(entry, settings, path)
        place = next((Path(os.path.normpath(p)) for p in tried if p.exists()), None)
        if place is None:
            raise FileNotFoundError(f"{tried[0]}: no such folder or list of images, but {path} names it. {LAYOUT}")
        yield from _folder(place, path) if place.is_dir() else _listed(place, entry, settings, path)


def _folder(place: Path, path: Path) -> list[Path]:
    found = images_among(place.rglob("*"))
    if not found:
        raise FileNotFoundError(f"{place}: the folder holds no image, but {path} names it. {LAYOUT}")
    return found


def _listed(place: Path, entry: str, settings: Mapping[str, Any], path: Path) -> Iterator[Path]:
    """Find the images of the list `place`, which stands as `entry` in `path`."""
    # If the list is the folder's own but is not named from above, it has been moved, and its images with it.
    above = _names_home(entry, _home(path)) or not place.is_relative_to(_home(path))
    for name in _lines(place):
        tried = _tried(name, settings, path, of_list=place, above=above)
        image = next((p for p in tried if p.is_file()), None)
        if image is None:
            raise FileNotFoundError(f"{tried[0]}: no such image, but {place} lists it")
        yield Path(os.path.normpath(image))
