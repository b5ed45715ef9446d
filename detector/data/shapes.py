"""Generate a dataset of geometric shapes in COCO's layout, on first use."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle
from rich.console import Console
from rich.progress import track

from detector.data import scene
from detector.data.coco import CocoDataset
from detector.data.image import ImageReader

T = TypeVar("T")

OBJECTS = (3, 10)
"""the minimum and the maximum number of objects in an image"""
GOLDEN = (math.sqrt(5) - 1) / 2
VERSION = 1
"""Part of the folder's name; increment it with every change of the generated images."""


class ShapesDataset(CocoDataset):
    """Read one split of the generated dataset, after generating both if their folder does not exist.

    The folder is `<root>-<hash>`, with a hash of the parameters, so other parameters have another folder.

    Args:
        root: the folder's path without the hash.
        split: "train" or "val"; they share no image.
        shares: the proportions of small, medium and large objects by `area`, the pixels of the visible mask; they need
            not sum to 1.
        size_bins: two sides in pixels; an object is small below the square of the first, large from the square of the
            second on.
        image_size: height and width of the images in pixels.
        train: number of training images.
        val: number of validation images.
        seed: of the generator.
        keep_empty: as of `CocoDataset`; without effect, since every image has objects.
        masks, reader: as of `CocoDataset`.

    Raises:
        ValueError: a parameter is out of range.
    """

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "val"],
        *,
        shares: Sequence[float] = (0.41, 0.34, 0.24),
        size_bins: Sequence[float] = (16, 48),
        image_size: int = 192,
        train: int = 400,
        val: int = 150,
        seed: int = 0,
        keep_empty: bool = True,
        masks: bool = True,
        reader: ImageReader | None = None,
    ) -> None:
        if split not in ("train", "val"):
            raise ValueError(f"split must be 'train' or 'val', not {split!r}")
        folder = generate(
            root, shares=shares, size_bins=size_bins, image_size=image_size, train=train, val=val, seed=seed
        )
        annotations = folder / "annotations" / f"instances_{split}.json"
        super().__init__(folder / split, annotations, keep_empty=keep_empty, masks=masks, reader=reader)


def generate(
    root: str | Path,
    *,
    shares: Sequence[float],
    size_bins: Sequence[float],
    image_size: int,
    train: int,
    val: int,
    seed: int,
) -> Path:
    """Generate both splits unless their folder exists; arguments and errors are those of `ShapesDataset`.

    The folder gets its final name only when it is complete, so that an interrupted run leaves no broken dataset and two
    processes can generate at once.

    Returns:
        the folder.
    """
    if len(shares) != 3 or min(shares) < 0 or sum(shares) <= 0:
        raise ValueError(f"shares must be three numbers (small, medium, large), none negative, not {list(shares)}")
    if len(size_bins) != 2 or not scene.SIDE[0] < size_bins[0] < size_bins[1] < image_size / 3:
        raise ValueError(
            f"size_bins must be two rising sides between {scene.SIDE[0]} and a third of image_size {image_size}, "
            f"not {list(size_bins)}"
        )
    if train < 1 or val < 1 or seed < 0:
        raise ValueError(f"train and val must be at least 1 and seed at least 0, not {train}, {val} and {seed}")
    parameters = {
        "version": VERSION,
        "shares": [float(s) for s in shares],
        "size_bins": [float(s) for s in size_bins],
        "image_size": image_size,
        "train": train,
        "val": val,
        "seed": seed,
    }
    return draw_once(root, parameters, lambda folder, key, count: _write(parameters, folder, key, count))


def draw_once(
    root: str | Path, parameters: Mapping[str, Any], write: Callable[[Path, tuple[int, int], int], dict[str, Any]]
) -> Path:
    """Draw the splits of a generated dataset unless its folder exists; see `generate`.

    Args:
        root: the folder's path without the hash of the parameters.
        parameters: of the images; `train`, `val` and `seed` are among them.
        write: writes the images of a split into its folder and returns the content of its COCO JSON; called with the
            folder, the key of its random numbers and the number of its images.

    Returns:
        the folder.
    """
    stamp = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:8]
    root = Path(root)
    folder = root.with_name(f"{root.name}-{stamp}")
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    work.chmod(0o755)
    try:
        (work / "parameters.json").write_text(json.dumps(parameters, indent=2) + "\n")
        (work / "annotations").mkdir()
        for number, split in enumerate(("train", "val")):
            (work / split).mkdir()
            content = write(work / split, (parameters["seed"], number), parameters[split])
            (work / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        try:
            os.rename(work, folder)
        except OSError:
            if not folder.is_dir():  # else another process has finished the same dataset first
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def shown(images: Iterator[T], folder: Path, count: int) -> Iterable[T]:
    """Show the progress of drawing `count` images into a split's folder."""
    name = folder.parent.name.lstrip(".").rpartition("-")[0]
    return track(images, f"Drawing {name}/{folder.name}", count, console=Console(stderr=True))


def _images(
    parameters: dict[str, Any], key: tuple[int, int], count: int
) -> Iterator[tuple[NDArray[np.uint8], list[scene.VisibleShape]]]:
    shares = np.cumsum(parameters["shares"]) / sum(parameters["shares"])
    edges = [0.0, *(s * s for s in parameters["size_bins"]), parameters["image_size"] ** 2 / 6]
    drawn = 0
    for index in range(count):
        rng = np.random.default_rng([*key, index])
        objects = int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))
        # The golden-ratio sequence is evenly distributed, so `shares` holds in any part of the dataset.
        spread = [(GOLDEN * (drawn + i)) % 1 for i in range(objects)]
        bins = [(edges[b], edges[b + 1]) for b in np.minimum(np.searchsorted(shares, spread, "right"), 2)]
        yield _image(rng, bins, parameters["image_size"])
        drawn += objects


def _image(
    rng: np.random.Generator, bins: list[tuple[float, float]], size: int
) -> tuple[NDArray[np.uint8], list[scene.VisibleShape]]:
    """Generate an image whose visible objects have areas in `bins`; each a range in pixels."""
    order = sorted(bins, reverse=True)  # large objects first, which are the hardest to place
    for attempt in range(1000):
        # In a crowded image the objects shrink within their bins, so that `shares` still holds.
        limits = [(low, low + (high - low) * max(0.9**attempt, 0.1)) for low, high in order]
        shapes = scene.arrange(rng, limits, size)
        objects = None if shapes is None else scene.visible_shapes(shapes, size)
        if objects is None:
            continue
        areas = sorted((seen.area for seen in objects), reverse=True)
        if all(low <= area < high for area, (low, high) in zip(areas, order, strict=True)):
            return scene.paint(rng, objects, size), objects
    raise RuntimeError(f"no arrangement of {len(bins)} objects found in {size}x{size} pixels")


def _write(parameters: dict[str, Any], folder: Path, key: tuple[int, int], count: int) -> dict[str, Any]:
    return _write_split(shown(_images(parameters, key, count), folder, count), folder)


def _write_split(images: Iterable[tuple[NDArray[np.uint8], list[scene.VisibleShape]]], folder: Path) -> dict[str, Any]:
    """Write the images as PNGs and return the content of the COCO JSON."""
    content: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name, "supercategory": "shape"} for i, name in enumerate(scene.CLASSES, 1)],
    }
    for number, (pixels, objects) in enumerate(images, 1):
        name = f"{number:06d}.png"
        Image.fromarray(pixels).save(folder / name, compress_level=1)
        height, width = pixels.shape[:2]
        content["images"].append({"id": number, "file_name": name, "width": width, "height": height})
        for seen in objects:
            packed = rle.encode(np.asfortranarray(seen.mask(width), dtype=np.uint8))
            x1, y1, x2, y2 = (float(v) for v in seen.box)
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": seen.label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": seen.area,
                    "iscrowd": 0,
                    "segmentation": {"size": [height, width], "counts": packed["counts"].decode("ascii")},
                }
            )
    return content
