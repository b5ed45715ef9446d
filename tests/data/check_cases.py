"""A generated set of two COCO files to corrupt and check."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from rich.console import Console

from detector.config.check import check

HEIGHT, WIDTH = 72, 96
TRAIN, VAL = 10, 3


@dataclass
class Files:
    """A set of two COCO files and their images; corruptions change it."""

    folder: Path
    train: dict[str, Any]
    val: dict[str, Any]

    def image(self, name: str) -> Path:
        return self.folder / name

    def object(self, number: int) -> dict[str, Any]:
        return next(a for a in self.train["annotations"] if a.get("id") == number)

    def write(self) -> None:
        for split, content in (("train", self.train), ("val", self.val)):
            if isinstance(content, str):
                (self.folder / f"{split}.json").write_text(content)
            else:
                (self.folder / f"{split}.json").write_text(json.dumps(content))


def texture(seed: int) -> np.ndarray:
    """A picture unlike those of other seeds."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))


def polygon(x: float, y: float, w: float, h: float) -> list[list[float]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def split(folder: Path, name: str, count: int, seed: int) -> dict[str, Any]:
    images, annotations = [], []
    for i in range(1, count + 1):
        file = f"{name}{i}.png"
        Image.fromarray(texture(seed + i)).save(folder / file)
        images.append({"id": i, "file_name": file, "width": WIDTH, "height": HEIGHT})
        for k, box in enumerate([(4.0, 5.0, 24.0, 30.0), (40.0, 20.0, 32.0, 40.0)]):
            annotations.append(
                {"id": 2 * i - 1 + k, "image_id": i, "category_id": 1 + k, "bbox": list(box), "iscrowd": 0,
                 "area": box[2] * box[3], "segmentation": polygon(*box)}
            )  # fmt: skip
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def run(files: Files, composed: DictConfig, **keys: Any) -> tuple[str, str | None]:
    """Check a set; returns what is printed, and the message with which the script exits with 1."""
    config = composed.copy()
    OmegaConf.set_struct(config, False)
    for name in ("train", "val"):
        config.dataset[name].annotations = str(files.folder / f"{name}.json")
        config.dataset[name].images = str(files.folder)
    for key, value in keys.items():
        config[key] = value
    out = io.StringIO()
    try:
        check(config, [], files.folder, Console(file=out, width=400))
    except ValueError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), None


Corruption = Callable[[Files], object]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def jpeg(source: str, target: str) -> Corruption:
    """Save a picture again with a loss, so that its pixels are other ones."""

    def change(files: Files) -> None:
        packed = io.BytesIO()
        Image.open(files.image(source)).save(packed, "JPEG", quality=80)
        Image.open(packed).save(files.image(target))

    return change


def few(files: Files) -> None:
    files.train["annotations"] = [a for a in files.train["annotations"] if a["category_id"] == 1 or a["id"] < 9]
