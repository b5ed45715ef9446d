"""Detect objects in images: python scripts/predict.py checkpoint=... input=FILE|FOLDER output=FOLDER."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from detector.config.command_line import run

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from detector.masks import Paste
    from detector.types import Objects, Size

EXTENSIONS = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def inputs(path: Path) -> list[Path]:
    """Return the image at `path`, or the images in that folder."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"input {str(path)!r}: no such file or folder")
    images = sorted(p for p in path.iterdir() if p.suffix.lower() in EXTENSIONS)
    if not images:
        raise ValueError(f"input {str(path)!r}: the folder holds no image ({' '.join(sorted(EXTENSIONS))})")
    return images


def record(objects: Objects, classes: list[str], size: Size, paste: Paste) -> list[dict[str, object]]:
    """Write detections as plain data: class, score, box (x, y, width, height) and, with masks, COCO's RLE."""
    from detector.masks import encode

    corners = objects.boxes
    xywh = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in corners.tolist()]
    rows: list[dict[str, object]] = [
        {"class": classes[label], "score": score, "bbox": box}
        for label, score, box in zip(objects.labels.tolist(), objects.scores.tolist(), xywh, strict=True)
    ]
    if objects.masks is not None:
        for row, mask in zip(rows, encode(paste(objects.masks, corners, size)), strict=True):
            row["segmentation"] = mask
    return rows


def main(config: DictConfig) -> None:
    """Draw the detections on each image and write them to detections.json."""
    from hydra.core.hydra_config import HydraConfig
    from rich.progress import track

    from detector.config import build
    from detector.config.cli import console
    from detector.data.image import read_image
    from detector.inference.detector import Detector
    from detector.visualize import draw

    build.check_additions("predict", HydraConfig.get().overrides.task)
    images, output = inputs(Path(config.input)), Path(config.output)
    if not isinstance(config.threshold, int | float) or not 0 <= config.threshold <= 1:
        raise ValueError(f"threshold must be a score from 0 to 1, not {config.threshold!r}")
    if output.is_file() or output.resolve() == images[0].resolve().parent:
        raise ValueError(f"output {str(output)!r}: give a folder of its own, apart from the images")
    detector = Detector(config.checkpoint, config.device, config.precision, config.norm_eps)
    output.mkdir(parents=True, exist_ok=True)
    stems = Counter(path.stem for path in images)
    found: dict[str, list[dict[str, object]]] = {}
    unread: list[str] = []
    for path in track(images, "Detecting", console=console):
        try:
            image = read_image(path)
        except (ValueError, OSError) as error:
            unread.append(str(error))
            continue
        objects = detector([image])[0]
        found[path.name] = record(objects, detector.classes, (image.shape[1], image.shape[2]), detector.paste)
        name = path.stem if stems[path.stem] == 1 else path.name
        draw(image, objects, detector.classes, config.threshold).save(output / f"{name}.png")
    (output / "detections.json").write_text(json.dumps(found, indent=1) + "\n")
    console.print(f"{sum(map(len, found.values()))} detections in {len(found)} images: {output}/detections.json")
    if unread:
        raise ValueError(f"{len(unread)} of {len(images)} images could not be read: {'; '.join(unread[:3])}")


if __name__ == "__main__":
    run("predict", main)
