"""A COCO file of two images and three objects, to read and to change."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

CIRCLE = (np.hypot(*(np.mgrid[:20, :30] + 0.5 - np.array([10, 12])[:, None, None])) < 6).astype(np.uint8)


def packed(mask: np.ndarray) -> dict[str, Any]:
    code = rle.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": code["counts"].decode()}


def content() -> dict[str, Any]:
    box = {"iscrowd": 0, "area": 24.0, "bbox": [2, 3, 4, 6], "segmentation": [[2, 3, 6, 3, 6, 9, 2, 9]]}
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 30, "height": 20},
            {"id": 9, "file_name": "b.png", "width": 30, "height": 20},
        ],
        "categories": [{"id": 90, "name": "zebra"}, {"id": 4, "name": "ant"}],
        "annotations": [
            {**box, "id": 11, "image_id": 7, "category_id": 90},
            {**box, "id": 12, "image_id": 7, "category_id": 4, "bbox": [25, 15, 10, 10],
             "area": 112.0, "segmentation": packed(CIRCLE)},
            {**box, "id": 13, "image_id": 7, "category_id": 4, "iscrowd": 1, "area": 40.0,
             "segmentation": {"size": [20, 30], "counts": [100, 40, 460]}},
        ],
    }  # fmt: skip


def write(folder: Path, data: object) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(folder / name)
    path = folder / "set.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return folder, path


def change(path: str, value: object) -> dict[str, Any]:
    """`content` with the entry at `path` set to `value`, or removed where that is ...; the numbers index lists."""
    data = content()
    *way, last = (int(p) if p.isdigit() else p for p in path.split("."))
    node: Any = data
    for step in way:
        node = node[step]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return data
