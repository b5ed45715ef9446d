"""Let a trained detector read the images of another dataset as those of its training."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detector.config.targets import target_of
from detector.data.image import MAX_PIXELS

READING = ("channels", "range", "exif", "max_pixels")
"""Keys of `dataset` that are arguments of its reader of images."""

OF_TRAINING = ("channels", "range")
"""Those of them that stay as in the training, unless they are given."""

UNSTATED: dict[str, Any] = {
    "_target_": "detector.data.image.ImageReader",
    "channels": 3,
    "range": None,
    "exif": None,
    "max_pixels": MAX_PIXELS,
}
"""The reader of detectors that were trained when a configuration could not choose one."""

SPLITS = ("train", "val")

PLACES = ("reader", "train.reader", "val.reader")
"""Keys below `dataset` of the readers."""


def is_of_reading(key: str) -> bool:
    """Return whether a key says how images are read: `dataset.exif`, `dataset.reader.exif`, `dataset.val.reader`."""
    known = [*(f"dataset.{name}." for name in READING), *(f"dataset.{place}." for place in PLACES)]
    return f"{key}.".startswith(tuple(known))


def takes_reader(split: DictConfig | None) -> bool:
    """Return whether the `_target_` of a split has an argument `reader`."""
    if split is None or "_target_" not in split:
        return False
    return "reader" in inspect.signature(target_of(split)).parameters


def add_readers(dataset: DictConfig) -> None:
    """Add the keys of `parts/images` to a dataset that has none, in place, if its splits take a reader."""
    splits = [node for name in SPLITS if takes_reader(node := dataset.get(name)) and "reader" not in node]
    if not splits:
        return
    for name in READING:
        dataset.setdefault(name, UNSTATED[name])
    dataset.setdefault("reader", UNSTATED)
    for node in splits:
        node.reader = UNSTATED


def followers(key: str) -> list[str]:
    """Return the keys that a configuration derives from a key of reading, as `dataset.val.reader` is `dataset.reader`.

    Those of a resolved configuration no longer follow by themselves.
    """
    parts = key.split(".")
    if parts[1] in READING:
        return [f"dataset.{place}.{parts[1]}" for place in PLACES]
    return [".".join(["dataset", split, *parts[1:]]) for split in SPLITS] if parts[1] == "reader" else []


def read_alike(given: DictConfig, before: DictConfig, explicit: Collection[str]) -> None:
    """Let the readers of another dataset have the channels and the range of the training, unless they were given.

    Args:
        given: the node `dataset`, changed in place.
        before: that of the training.
        explicit: the keys that the user has given.

    Raises:
        ValueError: the images have other channels than those of the training.
    """
    for place in PLACES:
        node = OmegaConf.select(given, place)
        for name in OF_TRAINING if isinstance(node, DictConfig) else ():
            sources = [f"dataset.{place}.{name}", f"dataset.{place}", f"dataset.reader.{name}", "dataset.reader"]
            chosen = next((key for key in (*sources, f"dataset.{name}") if key in explicit), None)
            theirs = _of_training(before, place, name)
            if chosen is None and name in node:
                node[name] = theirs
            elif name == "channels" and node.get(name, theirs) != theirs:
                raise ValueError(f"{chosen}={node[name]}: the detector was trained on {theirs}; leave it out")


def unread(given: DictConfig, splits: Sequence[str], explicit: Collection[str]) -> Iterator[str]:
    """Yield why keys of reading have no effect on splits whose datasets take no reader."""
    for split in splits:
        node = given.get(split)
        keys = [k for k in explicit if is_of_reading(k) and k.split(".")[1] in ("reader", split, *READING)]
        if keys and node is not None and not takes_reader(node):
            yield f"{', '.join(keys)} (dataset.{split} reads its images itself: {node['_target_']} takes no `reader`)"


def _of_training(before: DictConfig, place: str, name: str) -> object:
    """Return an argument of the training's reader at a place, or of the next one that there is."""
    for key in (f"{place}.{name}", f"reader.{name}", name):
        parent, _, last = key.rpartition(".")
        node = OmegaConf.select(before, parent) if parent else before
        if isinstance(node, DictConfig) and last in node:
            return node[last]
    return UNSTATED[name]
