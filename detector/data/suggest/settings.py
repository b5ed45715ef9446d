"""Suggest settings for a training set, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from detector.data.page.numbers import Numbers
from detector.data.suggest.anchors import AnchorSet, fit, recalls, weighted_quantiles
from detector.data.suggest.sizes import (
    ENLARGED,
    LONGEST,
    SMALL_CELLS,
    InputSize,
    choose_size,
    class_weights,
    sides,
)

Value = int | float | list[int] | list[float] | list[list[float]]

SEARCHED, MEASURED = 2000, 20000
"""Boxes, drawn at random, by which anchors are fitted, and by which their recall is measured."""

BINS = 7
"""Bins along a side of a RoI."""

ROIS_AN_OBJECT = 2
"""Positive RoIs that are sampled for each object of a full image."""

PROPOSALS_AN_OBJECT = 4
"""Proposals kept for each object of the fullest image."""

FULL, MOST_ROIS = 0.95, 512
LARGEST_BATCH_FACTOR = 4
CROP_OF_OBJECT = 4
"""A crop's side is at least so many times that of all but the largest objects."""


@dataclass(frozen=True)
class Present:
    """The settings that are chosen now."""

    size: InputSize
    anchors: AnchorSet | None
    """None: the proposals are given"""
    canonical_size: float
    canonical_level: int
    strides: tuple[int, ...]
    """of the backbone's levels, ascending"""
    roi_strides: tuple[int, ...]
    """of the levels that RoIs are pooled from, ascending"""
    divisibility: int
    """images are padded to multiples of it"""
    detections: int
    rois: int
    positive_fraction: float
    train_topk: tuple[int, int]
    """proposals before and after NMS"""
    test_topk: tuple[int, int]
    size_bins: tuple[float, float]
    batch_size: int
    val_batch_size: int
    crop: Sequence[int] | None
    """`fixed_size` of the training's augmentation"""


@dataclass(frozen=True)
class Suggestion:
    """A setting of one or several keys, and why."""

    keys: tuple[str, ...]
    present: Value | None
    value: Value | None
    reason: str


def suggest(numbers: Numbers, present: Present) -> tuple[list[Suggestion], list[str]]:
    """Suggest settings for a training set.

    Returns:
        the suggestions, also those that leave a setting as it is; and sentences on what no key can set.

    Raises:
        ValueError: there are no objects.
    """
    if not len(numbers.labels):
        raise ValueError("there are no objects in the training images, from which the settings could follow")
    size, why = choose_size(numbers, present.strides[0], max(present.divisibility, 32))
    ways = [f"dataset.{split}_augment" for split in ("train", "val")]
    found = [
        Suggestion(tuple(f"{w}.short_sizes" for w in ways), [present.size.short], [size.short], why),
        Suggestion(
            tuple(f"{w}.max_size" for w in ways),
            present.size.longest,
            size.longest,
            "so that 95 % of the images keep that shorter side"
            if size.longest < LONGEST
            else "the longest side that fits most memories",
        ),
    ]
    if present.anchors is not None:
        found += _anchors(numbers, size, present.anchors, present.divisibility)
    if len(present.roi_strides) > 1:
        found.append(_canonical_size(numbers, size, present))
    found += _counts(numbers, present)
    found.append(_size_bins(numbers, present))
    found += _batch(numbers, size, present)
    return found, list(_tiles(numbers, size, present))


def _anchors(numbers: Numbers, size: InputSize, present: AnchorSet, divisibility: int) -> Iterator[Suggestion]:
    boxes = size.resize(numbers, divisibility).sample(MEASURED)
    chosen = fit(boxes.sample(SEARCHED), present)
    before, after = (" and ".join(f"{share:.0%}" for share in recalls(boxes, anchors)) for anchors in (present, chosen))
    sampled = f", measured on {MEASURED} of them" if len(numbers.labels) > MEASURED else ""
    yield Suggestion(
        ("dataset.anchor_sizes",),
        _nested(present),
        _nested(chosen),
        f"an anchor overlaps {after} of the objects with an IoU of 0.5 and 0.7, at this input size; with the present "
        f"sizes and ratios {before}{sampled}",
    )
    low, high = weighted_quantiles(numbers.ratios, class_weights(numbers), (0.05, 0.95))
    yield Suggestion(
        ("model.proposer.anchors.ratios",),
        list(present.ratios),
        list(chosen.ratios),
        f"height / width of 90 % of the objects is {low:.2g} to {high:.2g}; as few ratios as reach that recall",
    )
    yield Suggestion(
        ("backbone.anchors",), present.per_cell, chosen.per_cell, "anchors of a cell: sizes of a level times ratios"
    )


def _nested(anchors: AnchorSet) -> Value:
    """Return sizes as the key takes them: those of the only level, or one or several of each."""
    if len(anchors.sizes) == 1:
        return list(anchors.sizes[0])
    if len(anchors.sizes[0]) == 1:
        return [size for (size,) in anchors.sizes]
    return [list(level) for level in anchors.sizes]


def _canonical_size(numbers: Numbers, size: InputSize, present: Present) -> Suggestion:
    """Put the border between the two finest levels at the median object, within 7 to 14 cells an RoI."""
    stride = 2**present.canonical_level
    median = weighted_quantiles(sides(numbers, size), class_weights(numbers), (0.5,))[0]
    least, most = BINS * stride, 2 * BINS * stride
    value = int(min(max(median * stride / present.roi_strides[1], least), most))
    border = value * present.roi_strides[1] / stride
    share = float(class_weights(numbers)[sides(numbers, size) < border].sum())
    return Suggestion(
        ("dataset.canonical_size",),
        present.canonical_size,
        value,
        f"{share:.0%} of the objects, those below {border:.0f} px, are pooled from stride "
        f"{present.roi_strides[0]}, the others from coarser levels, where they span at least {value / stride:.1f} "
        f"cells ({BINS}, one a bin, to {2 * BINS}, FPN's)",
    )


def _counts(numbers: Numbers, present: Present) -> Iterator[Suggestion]:
    most = int(numbers.per_image.max())
    full = float(np.quantile(numbers.per_image, FULL))
    yield Suggestion(
        ("dataset.detections",),
        present.detections,
        max(100, math.ceil(most * 1.25 / 100) * 100),
        f"the fullest image has {most} objects, and a quarter more is kept"
        + ("; COCO's AP counts the first 100 of an image alone" if most > 100 else ""),
    )
    wanted = full * ROIS_AN_OBJECT / present.positive_fraction
    yield Suggestion(
        ("dataset.rois",),
        present.rois,
        min(MOST_ROIS, max(128, math.ceil(wanted / 64) * 64)),
        f"{FULL:.0%} of the images have up to {full:.0f} objects, {ROIS_AN_OBJECT} positive RoIs for each, which are "
        f"{present.positive_fraction:.0%} of them; 128 to {MOST_ROIS}",
    )
    kept = min(2000, max(500, math.ceil(most * PROPOSALS_AN_OBJECT / 100) * 100))
    before = max(1000, min(2000, 2 * kept))
    for split, (pre, post) in (("train", present.train_topk), ("test", present.test_topk)):
        yield Suggestion((f"dataset.rpn.{split}.pre_nms_topk",), pre, before, "twice as many from each level, to 2000")
        yield Suggestion(
            (f"dataset.rpn.{split}.post_nms_topk",),
            post,
            kept,
            f"{PROPOSALS_AN_OBJECT} for each of the {most} objects of the fullest image; 500 to 2000",
        )


def _size_bins(numbers: Numbers, present: Present) -> Suggestion:
    shares = numbers.size_shares(present.size_bins)[-1]
    values: Value = list(present.size_bins)
    if shares.min() < 0.05:
        values = [
            round(float(v)) for v in weighted_quantiles(np.sqrt(numbers.areas), class_weights(numbers), (1 / 3, 2 / 3))
        ]
    text = " / ".join(f"{share:.0%}" for share in shares)
    reason = f"small / medium / large are {text} of the objects now"
    if values != list(present.size_bins):
        reason += "; thirds measure each. AP itself does not change"
    return Suggestion(("dataset.size_bins",), list(present.size_bins), values, reason)


def _batch(numbers: Numbers, size: InputSize, present: Present) -> Iterator[Suggestion]:
    """Keep the pixels of a step: by crops where objects are far smaller than images, else by the size of the batch."""
    budget = present.size.pixels(numbers)
    if present.crop is not None:
        return
    ratio = size.pixels(numbers) / budget
    largest = weighted_quantiles(sides(numbers, size), class_weights(numbers), (0.99,))[0]
    side = math.ceil(math.sqrt(budget) / 32) * 32
    batch = present.batch_size
    rate = "The learning rate stays (schedule.optimizer.lr); of SGD it is scaled with the batch"
    if ratio > 1.25 and side >= CROP_OF_OBJECT * largest and side <= size.short:
        yield Suggestion(
            ("dataset.train_augment.fixed_size",),
            None,
            [side, side],
            f"training on random crops: as many pixels a step as at {present.size.short} px, whole images being "
            f"{ratio:.1f} times as large. A crop is {side / largest:.1f} times as wide as 99 % of the objects",
        )
    else:
        batch = max(min(2, batch), min(LARGEST_BATCH_FACTOR * batch, math.floor(batch / ratio + 0.25)))
    yield Suggestion(
        ("schedule.batch_size",),
        present.batch_size,
        batch,
        f"about as many pixels a step as with {present.batch_size} images at {present.size.short} px. {rate}"
        if batch != present.batch_size
        else "as before",
    )
    mixed = len({*zip(numbers.widths.tolist(), numbers.heights.tolist(), strict=True)}) > 1
    yield Suggestion(
        ("schedule.val_batch_size",),
        present.val_batch_size,
        1 if mixed else present.val_batch_size,
        "images differ in size; without padding, detections do not depend on the batch" if mixed else "as before",
    )


def _tiles(numbers: Numbers, size: InputSize, present: Present) -> Iterator[str]:
    weights = class_weights(numbers)
    low = weighted_quantiles(sides(numbers, size), weights, (0.1,))[0]
    wanted = SMALL_CELLS * present.strides[0]
    stored_low, stored_high = weighted_quantiles(numbers.sides, weights, (0.1, 0.99))
    factor = min(ENLARGED, wanted / stored_low)
    tile = int(LONGEST / factor / 32) * 32
    if low < wanted and tile < np.median(np.maximum(numbers.widths, numbers.heights)):
        yield (
            f"tiles: 10 % of the objects are below {low:.0f} px even at {size.short} px. Cut the images, and those to "
            f"predict, into tiles of {tile} px that overlap by {math.ceil(stored_high)} px, the side of all but 1 % of "
            f"the objects, and suggest again; no key does it"
        )
