"""Read and augment samples: images with many objects that have polygons, and images of COCO's size and density."""

from __future__ import annotations

import atexit
import json
import math
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from detector.data.augment import Augment
from detector.data.coco import CocoDataset

POINTS = 24
"""of a polygon"""


def write(folder: Path, images: int, size: tuple[int, int], objects: int, radii: tuple[float, float]) -> Path:
    """Write JPEGs and their annotations, blobs with polygons anywhere on the images; return the path of the JSON."""
    rng = np.random.default_rng(0)
    height, width = size
    records: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number in range(images):
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(folder / f"{number}.jpg")
        records.append({"id": number + 1, "file_name": f"{number}.jpg", "height": height, "width": width})
        for _ in range(objects):
            radius = math.exp(rng.uniform(math.log(radii[0]), math.log(radii[1])))
            centre = rng.uniform(radius, np.array([width, height]) - radius)
            angle = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
            reach = radius * rng.uniform(0.6, 1, POINTS)
            points = centre + np.stack((reach * np.cos(angle), reach * np.sin(angle)), 1)
            corner, side = points.min(0), np.ptp(points, 0)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": [*corner.tolist(), *side.tolist()],
                    "area": float(side.prod()),
                    "segmentation": [points.ravel().tolist()],
                }
            )
    content = {"images": records, "annotations": annotations, "categories": [{"id": 1, "name": "blob"}]}
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def ours(
    images: int,
    size: tuple[int, int],
    objects: int,
    radii: tuple[float, float],
    masks: bool,
    device: torch.device,
) -> Callable[[], object]:
    """Prepare reading all images, flipping them and resizing them to 800 px, at most 1333, in one thread."""
    del device
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="aligned-rcnn-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = write(folder, images, size, objects, radii)
    dataset = CocoDataset(path.parent, path, masks=masks)
    augment = Augment([800], 1333, horizontal_flip=0.5)

    def call() -> None:
        for index in range(images):
            augment(dataset[index], index)

    return call


MANY = (6.0, 40.0)
COCO = (15.0, 150.0)
CASES = {
    "1 image of 1024 px, 300 masks": {"ours": partial(ours, 1, (1024, 1024), 300, MANY, True)},
    "1 image of 2048 px, 600 masks": {"ours": partial(ours, 1, (2048, 2048), 600, MANY, True)},
    "1 image of 2048 px, 600 boxes": {"ours": partial(ours, 1, (2048, 2048), 600, MANY, False)},
    "20 images of 480 x 640 px, 8 masks each": {"ours": partial(ours, 20, (480, 640), 8, COCO, True)},
    "20 images of 480 x 640 px, 8 boxes each": {"ours": partial(ours, 20, (480, 640), 8, COCO, False)},
}
