"""Draw the images on which two runs differ most, side by side."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from detector.ablation.collect import predicted_kinds, predictions_file, validation_set
from detector.evaluation.collector import ImageDetections, ImageId
from detector.evaluation.drawing import drawable, samples_of
from detector.evaluation.measure import MatchedObjects, match_objects
from detector.evaluation.predictions import detections_of, read_predictions
from detector.evaluation.records import Kind
from detector.training.folder import read_config
from detector.types import Sample
from detector.visualize import draw

SHEET = "showcase.png"
MOST = 10
THRESHOLD = 0.5
TILE, GAP, LINE = 384, 12, 26
"""The side of a picture, the gap between pictures and the height of a line of text, in pixels."""


@dataclass(frozen=True)
class Case:
    """One image on which two runs differ."""

    image: ImageId
    objects: int
    """number of ground-truth objects that count"""
    first: float
    """mean IoU of its objects with the detections that match them in the first run; unmatched objects count as 0"""
    second: float
    """the same in the second run"""

    @property
    def difference(self) -> float:
        """The second run's mean IoU minus the first's."""
        return self.second - self.first


def cases(first: MatchedObjects, second: MatchedObjects, most: int = MOST) -> list[Case]:
    """Rank images by the absolute difference of their mean IoU, the largest first, and return the first `most`.

    An unmatched object counts as 0: if it were left out, images where only one run has matches would not be ranked.
    Ties keep the order of the ground truth.

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
    """Write the `showcase` of each kind of prediction that both runs have.

    Args:
        first, second, output, labels: as in `showcase`; further kinds than boxes have a folder of their own, such as
            `mask`.

    Returns:
        pictures by caption, for the kinds with objects that count.
    """
    found: dict[str, Path] = {}
    for kind in predicted_kinds(first):
        if kind in predicted_kinds(second):
            folder = output if kind == "box" else output / kind
            if showcase(first, second, folder, labels, kind):
                what = "boxes" if kind == "box" else f"{kind}s"
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
    """Write `showcase.png`, the images on which two runs differ most (ground truth, first, second), and `showcase.csv`.

    Nothing is written if no object counts.

    Args:
        first: folder of a run, with `config.yaml` and `predictions/KIND.json`; its validation images are drawn.
        second: folder of another run on the same validation images.
        output: the folder to write into; it is made if need be.
        labels: names of the runs.
        kind: the kind of prediction to compare and draw.
        most: the number of images, at most.

    Raises:
        ValueError: a run has no configuration or no predictions, they are of different datasets, or `most` is below 1.
    """
    if most < 1:
        raise ValueError(f"most must be at least 1, not {most}")
    configs = [read_config(Path(run)) for run in (first, second)]
    names = [str(config.dataset.name) for config in configs]
    if names[0] != names[1]:
        raise ValueError(f"runs can be shown side by side on the same dataset only; these are on {' and '.join(names)}")
    dataset = validation_set(Path(first))
    truth = dataset.ground_truth()
    predictions = [read_predictions(predictions_file(Path(run), kind)) for run in (first, second)]
    one, other = (match_objects(truth, rows, kind) for rows in predictions)
    chosen = cases(one, other, most)
    if not chosen:
        return []
    drawn = [case.image for case in chosen]
    kept = [[row for row in rows if row["image_id"] in drawn] for rows in predictions]
    found = [detections_of(kind, rows, drawn, dataset.category_ids) for rows in kept]
    rows = []
    for case, sample in zip(chosen, samples_of(dataset, drawn), strict=True):
        if kind == "box":
            sample = replace(sample, target=replace(sample.target, masks=None))
        rows.append(_row(case, sample, [detections[case.image] for detections in found], dataset.classes, labels))
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    _sheet(rows).save(output / SHEET, format="PNG", optimize=True)
    _write(chosen, output / "showcase.csv", labels)
    return chosen


Pictures = list[tuple[str, Image.Image]]


def _row(
    case: Case, sample: Sample, found: Sequence[ImageDetections], classes: Sequence[str], labels: tuple[str, str]
) -> Pictures:
    """Draw the ground truth and the detections of both runs, with titles."""
    truth = draw(sample.image, sample.target, classes)
    row = [(f"image {case.image}: {case.objects} objects", _fit(truth))]
    for label, detections, value in zip(labels, found, (case.first, case.second), strict=True):
        kept = np.flatnonzero(detections.scores >= THRESHOLD)
        picture = draw(sample.image, drawable(detections, kept), classes, THRESHOLD)
        row.append((f"mean IoU {value:.2f}: {label}", _fit(picture)))
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
