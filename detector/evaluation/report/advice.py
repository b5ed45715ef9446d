"""Say in sentences what a detector's errors cost, and what may help."""

from __future__ import annotations

import numpy as np

from detector.evaluation.errors import KINDS, MISSED
from detector.evaluation.report.facts import Facts, largest

MEANING = {
    "classification": "objects are found in the right place, but taken for another class",
    "localisation": "objects are found, but their boxes or masks overlap them too little (an IoU of 0.1 to 0.5)",
    "both": "detections lie beside objects of another class",
    "duplicate": "objects are found more than once",
    "background": "detections lie where no object is",
    "missed": "objects are not found at all",
}

HELP = {
    "classification": "Look at the classes that are taken for each other: are their labels sound, could they be one "
    "class (dataset.classes joins them)? Train longer, or with rare classes repeated (dataset.repeat_threshold).",
    "localisation": "Use pooler=roialign and a larger input (short_sizes); model=cascade_rcnn is made for good boxes. "
    "Check how exactly the annotations' edges are drawn: scripts/data.py check.",
    "both": "Mostly the foot of other errors: mend those first.",
    "duplicate": "Lower model.heads.select.nms_thresh, unless objects overlap each other.",
    "background": "Look at the worst images: are they objects that nobody has annotated? Add images without objects "
    "(dataset.train.keep_empty=true), and keep detections from the best thresholds on.",
    "missed": "Compare the objects' sizes with anchors and input: scripts/data.py suggest. Allow more detections and "
    "RoIs (dataset.detections, dataset.rois), and train longer.",
}
SMALL = 0.005
"""Costs below half a point of AP are not spoken of."""


def sentences(facts: Facts) -> list[tuple[str, str]]:
    """Return (what is the case, what may help) for what costs most, the most first."""
    found: list[tuple[str, str]] = []
    if not facts.errors.objects:
        return [("There are no objects to find.", "Evaluate on images with annotations.")]
    if facts.errors.present < SMALL:
        return [*_limit(facts), _nothing(facts)]
    costs, numbers = facts.costs["all"], facts.errors.numbers()
    for kind in largest(costs):
        if costs[kind] >= SMALL:
            what = "objects" if kind == KINDS[MISSED] else "detections"
            case = f"{100 * costs[kind]:.1f} points of AP50: {MEANING[kind]} ({numbers[kind]} {what})."
            found.append((case, HELP[kind]))
    return _limit(facts) + found + _sizes(facts) + _classes(facts) + _scores(facts)


def _nothing(facts: Facts) -> tuple[str, str]:
    """Speak of a detector that finds nothing, to which no single kind of error makes a difference."""
    numbers = facts.errors.numbers()
    counted = ", ".join(f"{count} {kind}" for kind, count in numbers.items() if count)
    case = f"Next to nothing is found right (AP50 {100 * facts.errors.present:.1f}). Errors: {counted}."
    return case, (
        "Train longer, and look at the losses in metrics.csv. Do the images have the objects that were trained on, at "
        "that scale? Compare the two pictures of the worst images below."
    )


def _limit(facts: Facts) -> list[tuple[str, str]]:
    """Speak of images with more objects than an image may have detections."""
    counts, limit = facts.confusion.objects, facts.collector.limit
    over = int(np.maximum(counts - limit, 0).sum())
    if not over:
        return []
    many = f"{np.count_nonzero(counts > limit)} of {len(counts)} images"
    case = f"{many} with more than {limit} objects each: {over} of these cannot be found."
    return [(case, f"Allow as many detections as there are: dataset.detections={-(-int(counts.max()) // 100) * 100}.")]


def _sizes(facts: Facts) -> list[tuple[str, str]]:
    known = [size for size in ("small", "medium", "large") if f"AP{size[0]}" in facts.estimates]
    values = {size: facts.estimates[f"AP{size[0]}"].value for size in known}
    if "small" not in values or values["small"] + 0.05 > max(values.values()):
        return []
    best = max(values, key=lambda size: values[size])
    case = f"Small objects reach an AP of {100 * values['small']:.1f}, {best} ones {100 * values[best]:.1f}."
    return [
        (case, "A larger input helps small objects most; see scripts/data.py suggest for input, anchors and tiles.")
    ]


def _classes(facts: Facts) -> list[tuple[str, str]]:
    scored = [threshold for threshold in facts.thresholds if threshold.objects]
    if len(scored) < 3:
        return []
    middle = float(np.median([threshold.f1 or 0.0 for threshold in scored]))
    weak = sorted((t for t in scored if (t.f1 or 0.0) < middle - 0.15), key=lambda t: t.f1 or 0.0)[:5]
    if not weak:
        return []
    names = ", ".join(f"{t.name} ({100 * (t.f1 or 0.0):.0f} %, {t.objects} objects)" for t in weak)
    case = f"Some classes are far below the median F1 of {100 * middle:.0f} %: {names}."
    return [
        (case, "Few objects: annotate more, or repeat them (dataset.repeat_threshold). Many: look at their images.")
    ]


def _scores(facts: Facts) -> list[tuple[str, str]]:
    if facts.calibration_error < 0.1:
        return []
    scores, shares, counts = (np.array(column) for column in zip(*facts.calibration, strict=True))
    high = float(((scores - shares) * counts).sum()) > 0
    case = f"Scores are too {'high' if high else 'low'}: by {100 * facts.calibration_error:.0f} points on average."
    return [(case, "Do not read a score as a probability; choose thresholds from the table.")]
