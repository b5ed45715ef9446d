"""Detect objects in image files (`scripts/predict.py`)."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track

from detector.data.image import ImageReader
from detector.data.image_files import images_among
from detector.inference.detector import Detector
from detector.types import Objects, Output, Size
from detector.visualize import draw
from detector.weights.thresholds import read_thresholds


def image_files(path: Path) -> list[Path]:
    """List the images in a folder, or the one image if `path` is a file.

    NumPy's arrays, `*.npy`, are images where the folder has no others.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: the folder has no images.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"input {str(path)!r}: no such file or folder")
    images = images_among(path.iterdir())
    if not images:
        raise ValueError(f"input {str(path)!r}: the folder has no images, such as *.jpg, *.png, *.tif or *.npy")
    return images


def plain_detections(
    objects: Objects, classes: Sequence[str], size: Size, outputs: Sequence[Output] = ()
) -> list[dict[str, object]]:
    """Convert detections to plain data: class, score, box (x, y, width, height), and the outputs of further heads.

    Args:
        objects: the detections of one image.
        classes: class names by label.
        size: (height, width) of the image.
        outputs: outputs of the model's further heads, such as masks as COCO's run-length codes.
    """
    xywh = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in objects.boxes.tolist()]
    rows: list[dict[str, object]] = [
        {"class": classes[label], "score": score, "bbox": box}
        for label, score, box in zip(objects.labels.tolist(), objects.scores.tolist(), xywh, strict=True)
    ]
    for output in outputs:
        for row, shape in zip(rows, output(objects, size), strict=True):
            row[output.key] = shape
    return rows


def adapted_reader(trained: ImageReader, config: DictConfig) -> ImageReader:
    """Return a detector's reader with the keys `range`, `exif` and `max_pixels` of `configs/predict.yaml`.

    Raises:
        ValueError: a value is out of range.
    """
    given = OmegaConf.to_container(config)
    assert isinstance(given, dict)
    keys = [key for key in ("range", "exif", "max_pixels") if given[key] is not None]
    if not keys:
        return trained
    if type(trained) is not ImageReader:
        raise ValueError(
            f"{keys[0]}={given[keys[0]]}: the detector reads images by {type(trained).__name__}; leave it out"
        )
    return ImageReader(
        trained.channels,
        trained.range if given["range"] is None else given["range"],
        trained.exif if given["exif"] is None else given["exif"],
        trained.max_pixels if given["max_pixels"] is None else given["max_pixels"],
    )


def predict(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
    """Detect objects in images: draw the detections on each, and write all to `detections.json`.

    `images.json` says what boxes and masks refer to: the size of each image as it was read, whether that is upright or
    as it is stored, and its EXIF orientation.

    Args:
        config: composed from `configs/predict.yaml`.
        overrides, folder: not used; see `detector.config.cli.Work`.
        console: where progress is shown.

    Raises:
        ValueError, OSError: the input or the checkpoint is invalid; or images cannot be read (the others are done).
    """
    del overrides, folder
    images, output = image_files(Path(config.input)), Path(config.output)
    best = config.threshold == "best"
    if not best and (not isinstance(config.threshold, int | float) or not 0 <= config.threshold <= 1):
        raise ValueError(f"threshold must be a score from 0 to 1, or best, not {config.threshold!r}")
    if output.is_file() or output.resolve() == images[0].resolve().parent:
        raise ValueError(f"output {str(output)!r}: give a folder of its own, apart from the images (output=FOLDER)")
    detector = Detector(
        config.checkpoint,
        config.device,
        config.precision,
        config.norm_eps,
        config.trust,
        detections=config.detections,
    )
    reader = adapted_reader(detector.reader, config)
    scores: list[float | None] = [config.threshold] * len(detector.classes)
    if best:
        scores = read_thresholds(str(config.checkpoint), detector.classes)
        if unknown := [name for name, score in zip(detector.classes, scores, strict=True) if score is None]:
            console.print(f"Not drawn, since none was found right: {', '.join(unknown)}", markup=False, soft_wrap=True)
    least = torch.tensor([math.inf if score is None else score for score in scores])
    output.mkdir(parents=True, exist_ok=True)
    stems = Counter(path.stem for path in images)
    found: dict[str, list[dict[str, object]]] = {}
    pixels: dict[str, dict[str, object]] = {}
    unread: list[str] = []
    for path in track(images, "Detecting", console=console):
        try:
            image, orientation = reader.read(path), reader.orientation(path)
        except (ValueError, OSError) as error:
            unread.append(str(error))
            continue
        objects = detector([image])[0]
        size = (image.shape[1], image.shape[2])
        kind = "as stored" if reader.exif is False else "upright"
        pixels[path.name] = {"width": size[1], "height": size[0], "pixels": kind, "exif_orientation": orientation}
        found[path.name] = plain_detections(objects, detector.classes, size, detector.model.heads.outputs)
        name = path.stem if stems[path.stem] == 1 else path.name
        drawn = objects.select(objects.scores >= least.to(objects.scores)[objects.labels])
        draw(image, drawn, detector.classes, 0.0).save(output / f"{name}.png")
    (output / "detections.json").write_text(json.dumps(found, indent=1) + "\n")
    (output / "images.json").write_text(json.dumps(pixels, indent=1) + "\n")
    console.print(
        f"{sum(map(len, found.values()))} detections in {len(found)} images: {output}/detections.json", markup=False
    )
    turned = sum(row["exif_orientation"] != 1 for row in pixels.values())
    if turned:
        kind = "as they are stored" if reader.exif is False else "upright, exif=false takes them as they are stored"
        console.print(f"{turned} images are turned by EXIF (images.json); pixels are those {kind}", markup=False)
    if unread:
        raise ValueError(f"{len(unread)} of {len(images)} images could not be read: {'; '.join(unread[:3])}")
