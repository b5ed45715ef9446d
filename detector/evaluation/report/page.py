"""Write the page on a detector's results, one HTML file with its pictures in it."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from detector.evaluation.accumulate import limits
from detector.evaluation.collector import ImageId
from detector.evaluation.measure import Estimate
from detector.evaluation.report import plots
from detector.evaluation.report.advice import MEANING, sentences
from detector.evaluation.report.facts import Facts, Mistakes, Threshold, largest
from detector.evaluation.table import beyond

WORST = 24
"""images that are shown"""
LONG_SIDE = 1000
"""of a picture, in pixels"""
CONFUSIONS = 15
"""The most pairs of classes that are listed."""
CLASSES = 12
"""Up to so many classes the whole matrix of confusions is shown."""

Draw = Callable[[ImageId, Mapping[int, float], Mistakes], tuple[Image.Image, Image.Image]]
"""(image, the lowest score that is drawn by label, what is wrong) -> pictures of its objects and its detections"""


@dataclass(frozen=True)
class WorstImage:
    """One of the worst images."""

    name: str
    missed: int
    wrong: int
    truth: str
    """picture of the objects, as a data URI"""
    found: str


def write_report(title: str, facts: Mapping[str, Facts], draw: Draw) -> str:
    """Write the page.

    Args:
        title: of the page.
        facts: of boxes, and of masks where there are some, by the name of the output; all but AP and the costs of
            errors is of the first.
        draw: draws one of the images.
    """
    main = next(iter(facts.values()))
    best = {label: t.score for label, t in enumerate(main.thresholds) if t.score is not None}
    environment = Environment(
        loader=PackageLoader("detector.evaluation.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    names = {image: str(main.collector.image(image).get("file_name", image)) for image in main.images}
    return environment.get_template("report.html.j2").render(
        title=title,
        images=len(main.images),
        objects=int(main.points.objects.sum()),
        detections=int(main.errors.counts.sum()),
        note=beyond(main.collector),
        limit=limits(main.collector)[-1],
        bins=[f"{side:g}" for side in main.collector.size_bins],
        scores=[(name, [_interval(own.estimates.get(key)) for key in SCORES]) for name, own in facts.items()],
        columns=SCORES,
        advice=sentences(main),
        costs=[(name, _costs(own)) for name, own in facts.items()],
        meaning=MEANING,
        classes=[_row(t) for t in main.thresholds],
        matrix=_matrix(main),
        confusions=_confusions(main),
        plots={name: _uri(drawing(main), "svg+xml") for name, drawing in DRAWINGS.items()},
        calibration_error=f"{100 * main.calibration_error:.1f}",
        worst=[_bad(main, image, names, draw, best) for image in main.worst(WORST)],
    )


NONE = "-"


def worst_images(facts: Facts) -> list[ImageId]:
    """List the images that the page shows, the worst first."""
    return [facts.images[place] for place in facts.worst(WORST)]


SCORES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
DRAWINGS: dict[str, Callable[[Facts], bytes]] = {
    "costs": plots.costs,
    "precision": plots.precision_recall,
    "threshold": plots.by_threshold,
    "sizes": plots.sizes_and_ious,
    "calibration": plots.calibration,
    "counts": plots.counts,
}


def _interval(estimate: Estimate | None) -> tuple[str, str]:
    if estimate is None:
        return NONE, ""
    value = f"{100 * estimate.value:.1f}"
    if estimate.low is None or estimate.high is None:
        return value, ""
    return value, f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"


def _costs(facts: Facts) -> list[list[str]]:
    numbers = facts.errors.numbers()
    sizes = list(facts.costs)
    return [
        [kind, str(numbers[kind]), *(f"{100 * facts.costs[size][kind]:.1f}" for size in sizes)]
        for kind in largest(facts.costs["all"])
    ]


def _row(threshold: Threshold) -> list[str]:
    score = NONE if threshold.score is None else f"{threshold.score:.2f}"
    shares = (threshold.precision, threshold.recall, threshold.f1)
    return [
        threshold.name,
        str(threshold.objects),
        score,
        *(NONE if share is None else f"{100 * share:.0f}" for share in shares),
        *(str(count) for count in (threshold.right, threshold.wrong, threshold.missed)),
    ]


def _matrix(facts: Facts) -> dict[str, Any] | None:
    """Return the matrix of confusions with shares of each row for its shades; None where there are many classes."""
    if len(facts.collector.classes) > CLASSES:
        return None
    matrix = facts.confusion.matrix
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    names = [*facts.collector.classes, "nothing"]
    cells = [
        [(str(count), f"{shade:.2f}") for count, shade in zip(counts, shades, strict=True)]
        for counts, shades in zip(matrix.tolist(), share.tolist(), strict=True)
    ]
    return {"columns": names, "rows": list(zip(names, cells, strict=True))}


def _confusions(facts: Facts) -> list[tuple[str, str, int, str]]:
    """List the pairs of classes that are most often taken for each other: truth, found as, how often, share."""
    matrix = facts.confusion.matrix[:-1, :-1].copy()
    total = facts.confusion.matrix[:-1].sum(1)
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:CONFUSIONS]
    names = facts.collector.classes
    pairs = [divmod(int(place), len(names)) for place in order]
    return [
        (names[a], names[b], int(matrix[a, b]), f"{100 * matrix[a, b] / total[a]:.0f}")
        for a, b in pairs
        if matrix[a, b]
    ]


def _bad(facts: Facts, image: int, names: Mapping[ImageId, str], draw: Draw, best: Mapping[int, float]) -> WorstImage:
    found = facts.confusion
    right = int(found.right[image])
    pictures = draw(facts.images[image], best, facts.mistakes(image))
    return WorstImage(
        names[facts.images[image]],
        int(found.objects[image]) - right,
        int(found.found[image]) - right,
        *(_uri(_jpeg(picture), "jpeg") for picture in pictures),
    )


def _jpeg(picture: Image.Image) -> bytes:
    small = picture.convert("RGB")
    small.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=82)
    return file.getvalue()


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
