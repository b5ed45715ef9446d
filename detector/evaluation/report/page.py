"""Write the page on a detector's results, one HTML file with its pictures in it."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from detector.evaluation.accumulate import limits
from detector.evaluation.collector import ImageId
from detector.evaluation.confusion import confused_pairs
from detector.evaluation.errors import KINDS, MISSED
from detector.evaluation.measure import Estimate
from detector.evaluation.report import plots
from detector.evaluation.report.advice import MEANING, advise, summary
from detector.evaluation.report.facts import FEW, OFTEN, Facts, Mistakes, Threshold, largest
from detector.evaluation.table import beyond

WORST = 24
"""images that are shown"""
FURTHER = 6
"""The most further ones, on which at most a tenth of the objects is found."""
LONG_SIDE = 1000
"""of a picture, in pixels"""
CONFUSIONS = 15
"""The most pairs of classes that are listed."""
NAME = 40
"""Characters of an image's name that are shown."""
CLASSES = 12
"""Up to so many classes the whole matrix of confusions is shown."""

Draw = Callable[[ImageId, Mistakes], tuple[Image.Image, Image.Image]]
"""(image, what is kept and wrong) -> pictures of its objects and its detections"""


@dataclass(frozen=True)
class WorstImage:
    """One of the worst images."""

    name: str
    whole: str
    """its name, uncut"""
    objects: int
    missed: int
    wrong: int
    at_limit: bool
    """whether the limit of detections was reached, with more objects"""
    truth: str
    """picture of the objects, as a data URI"""
    found: str


def write_report(
    title: str,
    facts: Mapping[str, Facts],
    draw: Draw,
    checkpoint: str | None = None,
    possible: Collection[str] = (),
) -> str:
    """Write the page.

    Args:
        title: of the page.
        facts: of boxes, and of masks where there are some, by the name of the output; all but AP and the costs of
            errors is of the first.
        draw: draws one of the images.
        checkpoint: of the detector, for commands; None: there is none.
        possible: overrides of the training that it is not trained with, and may be.
    """
    main = next(iter(facts.values()))
    several = len(main.collector.classes) > 1
    environment = Environment(
        loader=PackageLoader(__name__.rpartition(".")[0]), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    names = {image: str(main.collector.image(image).get("file_name", image)) for image in main.images}
    return environment.get_template("report.html.j2").render(
        title=title,
        summary=summary(main),
        images=len(main.images),
        objects=int(main.points.objects.sum()),
        detections=int(main.errors.counts.sum()),
        note=beyond(main.collector),
        limit=limits(main.collector)[-1],
        bins=[f"{side:g}" for side in main.collector.size_bins],
        scores=[(name, [_interval(own.estimates.get(key)) for key in SCORES]) for name, own in facts.items()],
        columns=SCORES,
        advice=advise(main, possible),
        checkpoint=None if checkpoint is None else shlex.quote(checkpoint),
        costs=[(name, _costs(own, own is main)) for name, own in facts.items()],
        meaning=MEANING,
        present=f"{100 * main.errors.present:.1f}",
        classes=[(_row(t), t.objects < FEW) for t in _sorted(main.thresholds)],
        rare=sum(t.objects < FEW for t in main.thresholds if t.objects),
        known=sum(t.objects > 0 for t in main.thresholds),
        together=main.together,
        found_below=main.found_below,
        apart=int(np.count_nonzero(main.errors.missed)),
        few=FEW,
        balances=[(_row(t), False) for t in main.balances],
        further=len(shown(main)) > len(main.worst(WORST)),
        most=main.collector.limit,
        several=several,
        matrix=_matrix(main) if several else None,
        confusions=_confusions(main) if several else [],
        pairs=len(confused_pairs(main.confusion)),
        often=OFTEN,
        plots={name: _uri(drawing(main), "svg+xml") for name, drawing in DRAWINGS.items()},
        worst=[_bad(main, image, names, draw) for image in shown(main)],
    )


NONE = "-"


def shown(facts: Facts) -> list[int]:
    """Return the positions of the images that the page shows: the worst, and some with nearly all objects missed."""
    worst = facts.worst(WORST)
    return worst + [image for image in facts.nearly_all_missed if image not in worst][:FURTHER]


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


def _costs(facts: Facts, main: bool) -> list[list[str]]:
    """Return the rows of the costs of errors; only the main facts have the thresholds that leave some of them."""
    numbers = facts.errors.numbers()
    left = facts.errors.kind[facts.kept] if main else None
    known = ["all", *(size for size in facts.costs if f"AP{size[0]}" in facts.estimates)]
    return [
        [
            kind,
            *(f"{100 * costs[kind]:.1f}" if size in known else NONE for size, costs in facts.costs.items()),
            str(numbers[kind]),
            NONE if left is None or kind == KINDS[MISSED] else str(np.count_nonzero(left == KINDS.index(kind))),
        ]
        for kind in largest(facts.costs["all"])
    ]


def _sorted(thresholds: Sequence[Threshold]) -> list[Threshold]:
    """Sort classes by the objects that are missed, those with few objects last."""
    return sorted(thresholds, key=lambda t: (t.objects < FEW, -t.missed))


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
    matrix = facts.confusion
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    names = [*facts.collector.classes, "nothing"]
    cells = [
        [(str(count), f"{shade:.2f}") for count, shade in zip(counts, shades, strict=True)]
        for counts, shades in zip(matrix.tolist(), share.tolist(), strict=True)
    ]
    return {"columns": names, "rows": list(zip(names, cells, strict=True))}


def _confusions(facts: Facts) -> list[tuple[str, str, int, str]]:
    """List the pairs of classes that are most often taken for each other: truth, found as, how often, share."""
    total = facts.confusion[:-1].sum(1)
    names = facts.collector.classes
    pairs = confused_pairs(facts.confusion)[:CONFUSIONS]
    return [(names[a], names[b], number, f"{100 * number / total[a]:.0f}") for a, b, number in pairs]


def _bad(facts: Facts, image: int, names: Mapping[ImageId, str], draw: Draw) -> WorstImage:
    found, name = facts.by_image, names[facts.images[image]]
    pictures = draw(facts.images[image], facts.mistakes(image))
    return WorstImage(
        _short(name),
        name,
        int(found.objects[image]),
        int(found.missed[image]),
        int(found.wrong[image]),
        image in facts.at_limit,
        *(_uri(_jpeg(picture), "jpeg") for picture in pictures),
    )


def _short(name: str) -> str:
    """Leave out the middle of a long name."""
    end = (NAME - 5) // 2
    return name if len(name) <= NAME else f"{name[:end]} ... {name[-end:]}"


def _jpeg(picture: Image.Image) -> bytes:
    small = picture.convert("RGB")
    small.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=82)
    return file.getvalue()


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
