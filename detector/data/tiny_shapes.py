"""Generate a dataset of many tiny geometric shapes in COCO's layout, on first use."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.data import scene
from detector.data.coco import CocoDataset
from detector.data.image import ImageReader
from detector.data.shapes import GOLDEN, draw_once, shown

CLASS = "object"
"""The only class: a shape of a few pixels cannot be told from another."""
GAP = 1.0
"""pixels between the boxes of two objects, at least"""
VERSION = 1
"""Part of the folder's name; increment it with every change of the generated images."""

Boxes = NDArray[np.float64]


class TinyShapesDataset(CocoDataset):
    """Read one split of the generated dataset, after generating both if their folder does not exist.

    Shapes of all kinds are painted as in `ShapesDataset`, beside each other, and are objects of one class, without
    masks. Their size is the square root of their box's area, which is their `area`, as in AI-TOD.

    Args:
        root: the folder's path without the hash of the parameters.
        split: "train" or "val"; they share no image.
        sizes: three rising sizes in pixels: the least, the one that divides very tiny and tiny objects, the greatest.
        shares: the proportions of very tiny and tiny objects, within which sizes are even; they need not sum to 1.
        objects: the minimum and the maximum number of objects in an image, between which numbers are even.
        image_size: height and width of the images in pixels.
        train: number of training images.
        val: number of validation images.
        seed: of the generator.
        keep_empty, masks, reader: as of `CocoDataset`; without effect, the first two, since every image has objects,
            and none has a mask.

    Raises:
        ValueError: a parameter is out of range.
    """

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "val"],
        *,
        sizes: Sequence[float] = (2, 8, 16),
        shares: Sequence[float] = (0.4, 0.6),
        objects: Sequence[int] = (50, 300),
        image_size: int = 512,
        train: int = 100,
        val: int = 40,
        seed: int = 0,
        keep_empty: bool = True,
        masks: bool = True,
        reader: ImageReader | None = None,
    ) -> None:
        if split not in ("train", "val"):
            raise ValueError(f"split must be 'train' or 'val', not {split!r}")
        if len(sizes) != 3 or not 1 < sizes[0] < sizes[1] < sizes[2] < image_size / 8:
            raise ValueError(
                f"sizes must be three rising ones between 1 and an eighth of image_size {image_size}, not {list(sizes)}"
            )
        if len(shares) != 2 or min(shares) < 0 or sum(shares) <= 0:
            raise ValueError(f"shares must be two numbers (very tiny, tiny), none negative, not {list(shares)}")
        if (
            len(objects) != 2
            or not 0 < objects[0] <= objects[1]
            or objects[1] * (2 * sizes[2]) ** 2 > 3 * image_size**2
        ):
            raise ValueError(
                f"objects must be two numbers, of which {image_size}x{image_size} pixels have room, not {list(objects)}"
            )
        if train < 1 or val < 1 or seed < 0:
            raise ValueError(f"train and val must be at least 1 and seed at least 0, not {train}, {val} and {seed}")
        parameters = {
            "version": VERSION,
            "sizes": [float(s) for s in sizes],
            "shares": [float(s) for s in shares],
            "objects": [int(n) for n in objects],
            "image_size": image_size,
            "train": train,
            "val": val,
            "seed": seed,
        }
        folder = draw_once(root, parameters, lambda *place: _write(parameters, *place))
        annotations = folder / "annotations" / f"instances_{split}.json"
        super().__init__(folder / split, annotations, keep_empty=keep_empty, masks=False, reader=reader)


def _images(
    parameters: dict[str, Any], key: tuple[int, int], count: int
) -> Iterator[tuple[NDArray[np.uint8], list[scene.Shape]]]:
    least, middle, greatest = parameters["sizes"]
    tiny_share = parameters["shares"][1] / sum(parameters["shares"])
    for index in range(count):
        rng = np.random.default_rng([*key, index])
        # The golden-ratio sequence is evenly distributed, so numbers are spread evenly over few images, too.
        low, high = parameters["objects"]
        number = low + int((GOLDEN * (index + 1)) % 1 * (high - low + 1))
        tiny = rng.random(number) < tiny_share
        sizes = np.where(tiny, rng.uniform(middle, greatest, number), rng.uniform(least, middle, number))
        shapes = _arrange(rng, np.sort(sizes)[::-1], parameters["image_size"])
        seen = [scene.whole_shape(shape, parameters["image_size"]) for shape in shapes]
        yield scene.paint(rng, seen, parameters["image_size"], distinct=False), shapes


def _arrange(rng: np.random.Generator, sizes: NDArray[np.float64], size: int) -> list[scene.Shape]:
    """Place a random shape of each size beside the others, the largest first."""
    shapes: list[scene.Shape] = []
    boxes = np.zeros((0, 4))
    for side in sizes:
        shape = _shape(rng, float(side))
        x1, y1, x2, y2 = shape.box()
        for _ in range(1000):
            x, y = rng.uniform(0, size - (x2 - x1)) - x1, rng.uniform(0, size - (y2 - y1)) - y1
            box = np.array([x1 + x, y1 + y, x2 + x, y2 + y])
            if not _near(box, boxes).any():
                break
        else:
            raise RuntimeError(f"no place found for object {len(shapes) + 1} of {len(sizes)} in {size}x{size} pixels")
        shapes.append(scene.Shape(shape.label, x, y, shape.a, shape.b, shape.angle))
        boxes = np.concatenate((boxes, box[None]))
    return shapes


def _shape(rng: np.random.Generator, side: float) -> scene.Shape:
    """Draw a random shape around the origin whose box has an area of side²."""
    label, aspect, angle = (
        int(rng.integers(len(scene.CLASSES))),
        math.exp(rng.uniform(-0.5, 0.5)),
        rng.uniform(-0.35, 0.35),
    )
    x1, y1, x2, y2 = scene.Shape(label, 0.0, 0.0, aspect**0.5, aspect**-0.5, angle).box()
    scale = side / math.sqrt((x2 - x1) * (y2 - y1))
    return scene.Shape(label, 0.0, 0.0, scale * aspect**0.5, scale * aspect**-0.5, angle)


def _near(box: Boxes, others: Boxes) -> NDArray[np.bool_]:
    """Test which boxes [N, 4] are closer than `GAP` to a box [4]."""
    near = (others[:, :2] < box[2:] + GAP) & (box[:2] < others[:, 2:] + GAP)
    return near[:, 0] & near[:, 1]


def _write(parameters: dict[str, Any], folder: Path, key: tuple[int, int], count: int) -> dict[str, Any]:
    """Write the images of a split as PNGs and return the content of the COCO JSON."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (pixels, shapes) in enumerate(shown(_images(parameters, key, count), folder, count), 1):
        name = f"{number:06d}.png"
        Image.fromarray(pixels).save(folder / name, compress_level=1)
        images.append({"id": number, "file_name": name, "width": pixels.shape[1], "height": pixels.shape[0]})
        for shape in shapes:
            x1, y1, x2, y2 = (round(float(v), 3) for v in shape.box())
            box = [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 1, "name": CLASS, "supercategory": "shape"}]
    return {"images": images, "annotations": annotations, "categories": categories}
