"""Say in sentences what a detector finds, what its errors cost, and what may help."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from detector.evaluation.confusion import confused_pairs
from detector.evaluation.errors import CLASSIFICATION, KINDS, MISSED
from detector.evaluation.report.facts import FEW, NOTHING_RIGHT, OFTEN, Facts, largest

SMALL = 0.005
"""Costs below half a point of AP are not spoken of."""


@dataclass(frozen=True)
class Advice:
    """What is the case, and what may help."""

    case: str
    remedy: str
    lead: str = ""
    """what the changes below do; said where there are any"""
    changes: tuple[str, ...] = ()
    """overrides for the command of the training"""
    commands: tuple[tuple[str, str], ...] = ()
    """scripts and overrides that need no training"""


MEANING = {
    "classification": "in the right place, but taken for another class",
    "localisation": "on an object of its class, but placed badly: an IoU of 0.1 to 0.5",
    "both": "of the wrong class, and placed badly",
    "duplicate": "of an object that a detection with a higher score has found already",
    "background": "where no object is",
    "missed": "an object that no detection lies on, not even a wrong one",
}

HELP = {
    "classification": Advice(
        "Objects are found in the right place, but taken for another class",
        "Look below at which classes are taken for which: are their labels sound? Could they be one class?",
        "If some are rare, repeat their images:",
        ("dataset.repeat_threshold=0.1",),
    ),
    "localisation": Advice(
        "Objects are found, but placed badly",
        "Look at the worst images: are the annotations' edges drawn exactly, and is each object annotated by itself?",
        "Made for exact places:",
        ("pooler=roialign", "model=cascade_rcnn", "model=cascade_mask_rcnn"),
    ),
    "both": Advice(
        "Detections are of the wrong class and placed badly", "These are mostly the foot of other errors: mend those."
    ),
    "duplicate": Advice(
        "Objects are found more than once",
        "Unless your objects overlap each other, a lower model.heads.select.nms_thresh in the training's configuration "
        "merges boxes already at a smaller overlap.",
    ),
    "background": Advice(
        "Detections lie where no object is",
        "Look at the worst images: are these objects that nobody has annotated? Then annotate them. Else keep "
        "detections from the best thresholds on.",
        "Train on images without objects, too:",
        ("dataset.train.keep_empty=true",),
        (("predict", "input=IMAGES threshold=best"),),
    ),
    "missed": Advice(
        "Objects are not found at all",
        "Train longer. Let the suggestion for your data choose the size of the input, anchors and number of RoIs "
        "(scripts/data.py suggest), then train with what it writes.",
    ),
}

SELDOM = "No class is often taken for a certain other one: train longer."
"""of errors of classification"""


def summary(facts: Facts) -> str:
    """Say in words how many objects are found and how many detections right, from the best thresholds on."""
    found = facts.together
    if not found.objects:
        return "There are no objects to find."
    if not found.right:
        return f"None of the {found.objects} objects is found; {found.wrong} detections score {NOTHING_RIGHT} or more."
    assert found.recall is not None
    assert found.precision is not None
    first = f"{100 * found.recall:.0f} of 100 objects are found ({found.right} of {found.objects})"
    second = f"{100 * found.precision:.0f} of 100 detections are right ({found.right} of {found.right + found.wrong})"
    return f"With detections kept from the best threshold of each class on, {first}, and {second}."


def advise(facts: Facts, possible: Collection[str] = ()) -> list[Advice]:
    """Return what may help, what costs most first.

    Args:
        facts: of a detector.
        possible: overrides of the training that it is not trained with, and may be.
    """
    if not facts.errors.objects:
        return [Advice("There are no objects to find.", "Evaluate on images with annotations.")]
    if facts.errors.present < SMALL:
        return [*_limit(facts), _nothing(facts)]
    costs = facts.costs["all"]
    found = []
    for kind in largest(costs):
        if costs[kind] >= SMALL:
            case = f"{HELP[kind].case}: this costs {100 * costs[kind]:.1f} points of AP50 ({_numbers(facts, kind)})."
            seldom = kind == KINDS[CLASSIFICATION] and not _often(facts)
            found.append(replace(HELP[kind], case=case, remedy=SELDOM if seldom else HELP[kind].remedy))
    every = [*_limit(facts), *_nearly_all_missed(facts), *found, *_sizes(facts), *_classes(facts), *_scores(facts)]
    return [replace(one, changes=tuple(change for change in one.changes if change in possible)) for one in every]


def _numbers(facts: Facts, kind: str) -> str:
    """Say how many errors of a kind there are, and of which classes most objects are missed."""
    number = facts.errors.numbers()[kind]
    if kind != KINDS[MISSED]:
        kept = int(np.count_nonzero(facts.errors.kind[facts.kept] == KINDS.index(kind)))
        return f"{kept} of the detections that are kept, {number} with those of low scores"
    if len(facts.thresholds) < 2:
        return f"{number} objects"
    classes = np.array([o["category_id"] for o in facts.errors.objects])[facts.errors.missed]
    counts = [int(np.count_nonzero(classes == one)) for one in facts.collector.category_ids]
    most = sorted(zip(counts, facts.collector.classes, strict=True), key=lambda pair: -pair[0])[:3]
    return f"{number} objects, above all {', '.join(f'{name} {count}' for count, name in most if count)}"


def _often(facts: Facts) -> bool:
    """Tell whether some class is taken for another more than once."""
    pairs = confused_pairs(facts.confusion)
    return bool(pairs) and pairs[0][2] >= OFTEN


def _nothing(facts: Facts) -> Advice:
    """Speak of a detector that finds nothing, to which no single kind of error makes a difference."""
    numbers = facts.errors.numbers()
    counted = ", ".join(f"{count} {kind}" for kind, count in numbers.items() if count)
    return Advice(
        f"Next to nothing is found right (AP50 {100 * facts.errors.present:.1f}). Errors: {counted}.",
        "Train longer, and look at the curves of the losses. Do the images have the objects that were trained on, at "
        "that scale? Compare the two pictures of the worst images below.",
    )


def _limit(facts: Facts) -> list[Advice]:
    """Speak of images on which the limit of detections is reached."""
    images, limit = facts.at_limit, facts.collector.limit
    if not images:
        return []
    missed, most = facts.by_image.missed[images].sum(), facts.by_image.objects[images].max()
    enough = -(-int(most) // 100) * 100
    return [
        Advice(
            f"On {len(images)} of {len(facts.images)} images the limit of {limit} detections was reached: {missed} of "
            "the objects there are missed.",
            "Allow as many detections as there are objects.",
            commands=(("evaluate", f"dataset.detections={enough}"), ("predict", f"input=IMAGES detections={enough}")),
        )
    ]


def _nearly_all_missed(facts: Facts) -> list[Advice]:
    """Speak of images on which next to nothing is found."""
    images, missed = facts.nearly_all_missed, facts.by_image.missed
    lost = int(missed[images].sum())
    if not images or lost < 0.05 * missed.sum():
        return []
    share = f"{len(images)} of {np.count_nonzero(facts.by_image.objects)} images with objects"
    return [
        Advice(
            f"On {share} at most a tenth of the objects is found: {lost} of the {missed.sum()} missed objects are "
            "theirs.",
            "Look at them below: how do they differ from the others, in light, colour, scale or kind of object? Add "
            "such images to the training.",
        )
    ]


def _sizes(facts: Facts) -> list[Advice]:
    """Speak of sizes that are found far worse than the best one."""
    known = [part for part in facts.bins if part.objects >= FEW]
    if len(known) < 2:
        return []
    best = max(known, key=lambda part: part.ap50)
    found = []
    for smaller in (True, False):
        parts = [p for p in known if (p.low < best.low) == smaller and p.ap50 < min(0.7 * best.ap50, best.ap50 - 0.1)]
        if parts:
            listed = ", ".join(f"AP50 {100 * p.ap50:.0f} for sides of {p.sides} ({p.objects} objects)" for p in parts)
            case = (
                f"{'Smaller' if smaller else 'Larger'} objects are found worse than those of {best.sides} "
                f"(AP50 {100 * best.ap50:.0f}): {listed}."
            )
            way = (
                "A larger input helps most"
                if smaller
                else "Are such objects in the training set, and are the largest anchors as large? A smaller input, or "
                "more such images, helps"
            )
            found.append(
                Advice(case, f"{way}; scripts/data.py suggest chooses the input and the anchors for your data.")
            )
    return found


def _classes(facts: Facts) -> list[Advice]:
    scored = [(t.f1 or 0.0, t) for t in facts.thresholds if t.objects >= FEW]
    if len(scored) < 3:
        return []
    middle = float(np.median([f1 for f1, _ in scored]))
    weak = sorted((pair for pair in scored if pair[0] < middle - 0.15), key=lambda pair: pair[0])[:5]
    if not weak:
        return []
    names = ", ".join(f"{t.name} ({100 * f1:.0f} %, {t.objects} objects)" for f1, t in weak)
    return [
        Advice(
            f"Some classes are far below the median F1 of {100 * middle:.0f} %: {names}.",
            "Look at their images. If the training set holds few of them, annotate more.",
            "Repeat their images:",
            ("dataset.repeat_threshold=0.1",),
        )
    ]


def _scores(facts: Facts) -> list[Advice]:
    """Speak of ranges of scores in which far more or fewer detections are right than the score says."""
    off = [part for part in facts.calibration if part[2] >= FEW and abs(part[0] - part[1]) >= 0.15]
    if facts.calibration_error < 0.1 or not off:
        return []
    most = sorted(sorted(off, key=lambda part: -abs(part[0] - part[1]) * part[2])[:3])
    listed = ", ".join(f"{100 * share:.0f} % at about {score:.2f}" for score, share, _ in most)
    return [
        Advice(
            f"A score is not the share of detections that are right. By score, right are {listed}.",
            "Do not read scores as probabilities: choose thresholds from the tables below.",
        )
    ]
