"""Where it matters: the images on which two runs differ most, drawn beside each other."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco_mask

from detector.ablation.collect import KINDS
from detector.config import build
from detector.evaluation.coco import Kind
from detector.evaluation.collector import ImageDetections, ImageId
from detector.evaluation.measure import MatchedObjects, match_objects
from detector.evaluation.predictions import detections_of, read_predictions
from detector.masks import MaskOutput
from detector.training.folder import configuration
from detector.types import DetectionDataset, Objects, Sample, Target
from detector.visualize import draw

SHEET = "showcase.png"
MOST = 10
THRESHOLD = 0.5
TILE, GAP, LINE = 384, 12, 26
"""In pixels: the side of a picture, between pictures, a line of text."""


@dataclass(frozen=True)
class Case:
    """One image on which two runs differ."""

    image: ImageId
    objects: int
    """true objects that count"""
    first: float
    """mean IoU of the objects with the detections that found them, in the first run; 0 for an object not found"""
    second: float
    """the same in the second"""

    @property
    def difference(self) -> float:
        """The second minus the first."""
        return self.second - self.first


def cases(first: MatchedObjects, second: MatchedObjects, most: int = MOST) -> list[Case]:
    """The images with the largest difference in mean IoU, whichever run is better, the largest first.

    An object that a run did not find counts as 0: left out, an image where only one run finds anything would not show.
    Among equals the order of the truth counts.

    Raises:
        ValueError: the two were not measured against the same objects.
    """
    if first.images != second.images or not np.array_equal(first.boxes, second.boxes):
        raise ValueError(
            f"two runs can be compared on the same objects only; these have {len(first)} and {len(second)}"
        )
    own: dict[ImageId, list[int]] = defaultdict(list)
    for place, image in enumerate(first.images):
        own[image].append(place)
    a, b = np.nan_to_num(first.ious), np.nan_to_num(second.ious)
    found = [
        Case(image, len(places), float(a[places].mean()), float(b[places].mean())) for image, places in own.items()
    ]
    return sorted(found, key=lambda case: -abs(case.difference))[:most]


def showcases(first: Path, second: Path, output: Path, labels: tuple[str, str]) -> dict[str, Path]:
    """`showcase` of each kind that both runs have predicted and that has objects; the pictures by caption.

    Args:
        first, second, output, labels: as of `showcase`; masks have a folder `mask` of their own.
    """
    found: dict[str, Path] = {}
    for kind in KINDS:
        if all((run / "predictions" / f"{kind}.json").is_file() for run in (first, second)):
            folder = output if kind == "box" else output / kind
            if showcase(first, second, folder, labels, kind):
                what = {"box": "boxes", "mask": "masks"}[kind]
                found[f"the images whose {what} differ most between {labels[0]} and {labels[1]}"] = folder / SHEET
    return found


def showcase(
    first: str | Path,
    second: str | Path,
    output: str | Path,
    labels: tuple[str, str],
    kind: Kind = "box",
    most: int = MOST,
) -> list[Case]:
    """Write `showcase.png`, the images on which two runs differ most (truth, first, second), and `showcase.csv`.

    Nothing is written where no object counts.

    Args:
        first: a run's folder, with `config.yaml` and `predictions/KIND.json`; its dataset is the one that is drawn.
        second: another's, on the same validation images.
        output: the folder to write into; it is made.
        labels: what the runs are called.
        kind: whether boxes or masks are compared, and drawn.
        most: so many images.

    Raises:
        ValueError: a run has no configuration or no predictions, they are of different datasets, or `most` is below 1.
    """
    if most < 1:
        raise ValueError(f"most must be at least 1, not {most}")
    configs = [configuration(Path(run)) for run in (first, second)]
    names = [str(config.dataset.name) for config in configs]
    if names[0] != names[1]:
        raise ValueError(f"runs can be shown side by side on the same dataset only; these are on {' and '.join(names)}")
    dataset = build.build_dataset(configs[0], "val")
    truth = dataset.ground_truth()
    predictions = [read_predictions(Path(run) / "predictions" / f"{kind}.json") for run in (first, second)]
    one, other = (match_objects(truth, rows, kind) for rows in predictions)
    chosen = cases(one, other, most)
    if not chosen:
        return []
    ids = [image["id"] for image in truth["images"]]
    found = [detections_of(kind, rows, ids, dataset.category_ids) for rows in predictions]
    samples = _samples(dataset, [case.image for case in chosen], ids)
    if kind == "box":
        samples = [replace(sample, target=replace(sample.target, masks=None)) for sample in samples]
    rows = [
        _row(case, sample, [_drawable(detections[case.image]) for detections in found], dataset.classes, labels)
        for case, sample in zip(chosen, samples, strict=True)
    ]
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    _sheet(rows).save(output / SHEET, format="PNG", optimize=True)
    _write(chosen, output / "showcase.csv", labels)
    return chosen


def _samples(dataset: DetectionDataset, wanted: Sequence[ImageId], ids: Sequence[ImageId]) -> list[Sample]:
    """The samples of these images; most datasets number them as their truth does, others are searched."""
    found: dict[ImageId, Sample] = {}
    guesses = [ids.index(image) for image in wanted]
    for index in [*guesses, *range(len(dataset))]:
        if len(found) == len(set(wanted)):
            break
        if index < len(dataset):
            sample = dataset[index]
            if sample.id in wanted:
                found[sample.id] = sample
    if missing := [image for image in wanted if image not in found]:
        raise ValueError(f"images {missing} are in the truth, but not in the dataset")
    return [found[image] for image in wanted]


def _drawable(found: ImageDetections) -> Objects | Target:
    """Detections for `draw`; masks, which are of the whole image as the truth's are, without scores."""
    boxes, labels = torch.from_numpy(found.boxes.astype(np.float32)), torch.from_numpy(found.labels)
    boxes[:, 2:] += boxes[:, :2]
    scores = torch.from_numpy(found.scores.astype(np.float32))
    masks = found.shapes.get(MaskOutput.name)
    if not masks:
        return Objects(boxes, scores, labels)
    plain = torch.zeros(len(boxes), dtype=torch.bool)
    pixels = torch.from_numpy(coco_mask.decode(masks)).permute(2, 0, 1).bool()
    return Target(boxes, labels, plain, plain, pixels).select(scores >= THRESHOLD)


Pictures = list[tuple[str, Image.Image]]


def _row(
    case: Case, sample: Sample, found: Sequence[Objects | Target], classes: Sequence[str], labels: tuple[str, str]
) -> Pictures:
    """Titles and pictures: the truth, then either run's."""
    truth = draw(sample.image, sample.target, classes)
    row = [(f"image {case.image}: {case.objects} objects", _fit(truth))]
    for label, objects_found, value in zip(labels, found, (case.first, case.second), strict=True):
        row.append((f"mean IoU {value:.2f}: {label}", _fit(draw(sample.image, objects_found, classes, THRESHOLD))))
    return row


def _fit(picture: Image.Image) -> Image.Image:
    ratio = TILE / max(picture.size)
    size = max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _sheet(rows: Sequence[Pictures]) -> Image.Image:
    font = ImageFont.load_default(15)
    heights = [max(picture.height for _, picture in row) + LINE + GAP for row in rows]
    width = 3 * (TILE + GAP) + GAP
    sheet = Image.new("RGB", (width, sum(heights) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    y = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, (title, picture) in enumerate(row):
            x = GAP + column * (TILE + GAP)
            while title and pen.textlength(title, font=font) > TILE:
                title = title[:-2].rstrip(".") + "."
            pen.text((x, y), title, fill="black", font=font)
            sheet.paste(picture, (x, y + LINE))
        y += height
    return sheet


def _write(chosen: Sequence[Case], path: Path, labels: tuple[str, str]) -> None:
    header = ["image", "objects", *(f"mean IoU, {label}" for label in labels), "difference"]
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(header)
        lines.writerows([case.image, case.objects, case.first, case.second, case.difference] for case in chosen)
