"""Suggest settings for a training set by rules, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from detector.data.page.numbers import Numbers
from detector.data.suggest.anchors import AnchorSet, best_ious, recalls, weighted_quantiles
from detector.data.suggest.fit import better, fit
from detector.data.suggest.settings import Present, Suggestion, Value
from detector.data.suggest.sizes import ENLARGED, LONGEST, STEP, InputSize, choose_size, class_weights, wanted_sides

SEARCHED, MEASURED = 2000, 20000
"""Boxes, drawn at random, by which anchors are fitted, and by which their recall is measured."""

BINS = 7
"""Bins along the side of an RoI."""

ROIS_AN_OBJECT, FEWEST_ROIS, MOST_ROIS = 2, 128, 512
"""Positive RoIs to be sampled for each object of a full image, and limits of all RoIs of an image."""

FULL = 0.95
"""Share of the images that have at most as many objects as a full one."""

PROPOSALS_AN_OBJECT, FEWEST_PROPOSALS, MOST_PROPOSALS = 4, 500, 2000
"""Proposals for each object of the fullest image, and their limits."""

COCO_DETECTIONS = 100
"""Detections of an image that COCO's AP counts, and the least that are kept."""

RARE = 0.05
"""Share of the objects below which a size bin has too few."""

CROP = 4
"""A crop is at least so many times as wide as the objects are long, but for the largest 1 %."""

COSTLY = 1.25
"""Factor of the pixels of a step up to which the batch stays, and training is on whole images."""

LARGER_BATCH = 4
"""Limit of the factor by which a batch becomes larger."""


def suggest(numbers: Numbers, present: Present) -> tuple[list[Suggestion], list[str]]:
    """Suggest settings for a training set.

    Returns:
        the suggestions, also those that leave a setting as it is; and sentences on what no key can set.

    Raises:
        ValueError: there are no objects.
    """
    if not len(numbers.labels):
        raise ValueError("dataset.train has no objects, from whose sizes settings could follow")
    size, why = choose_size(numbers, present.strides[0])
    crop = _crop(numbers, size, present)
    found = [*_input_size(numbers, size, present, why)]
    if present.anchors is not None:
        found += _anchors(numbers, size, present.anchors, present.divisibility)
    if len(present.roi_strides) > 1:
        found.append(_canonical_size(numbers, size, present))
    found.append(_detections(numbers, present))
    found.append(_rois(numbers, present, 1.0 if crop is None else min(crop**2 / size.pixels(numbers), 1.0)))
    if present.anchors is not None:
        found += _proposals(numbers, present)
    found.append(_size_bins(numbers, present))
    if crop is not None:
        found.append(_crops(numbers, size, present, crop))
    found += _batch(numbers, size, present, crop)
    return found, list(_tiles(numbers, size, present))


def _input_size(numbers: Numbers, size: InputSize, present: Present, why: str) -> Iterator[Suggestion]:
    """Suggest the size of validation images, and in training as many sizes as now, in the same proportion to it."""
    assert size.short is not None
    assert size.longest is not None
    kept = (size.scales(numbers) * np.minimum(numbers.widths, numbers.heights) > size.short - 0.5).mean()
    factor, reason = None, f"{kept:.0%} of the images keep that shorter side"
    if present.size.short is not None:
        factor = size.short / present.size.short
    shorts = present.train_short_sizes
    yield from _alike(
        "short_sizes",
        (None if shorts is None else list(shorts), None if present.size.short is None else [present.size.short]),
        ([size.short] if shorts is None or factor is None else [round(s * factor) for s in shorts], [size.short]),
        why,
    )
    longest = size.longest
    if present.train_longest not in (None, present.size.longest) and factor is not None:
        longest = round(present.train_longest * factor)
    yield from _alike("max_size", (present.train_longest, present.size.longest), (longest, size.longest), reason)


def _alike(
    name: str, before: tuple[Value | None, Value | None], after: tuple[Value, Value], reason: str
) -> Iterator[Suggestion]:
    """Suggest a key of training's and validation's augmentation: once if both are alike."""
    train, val = (f"dataset.{split}_augment.{name}" for split in ("train", "val"))
    if before[0] == before[1] and after[0] == after[1]:
        yield Suggestion((train, val), before[1], after[1], reason)
        return
    yield Suggestion((train,), before[0], after[0], "in the same proportion to validation's size as now")
    yield Suggestion((val,), before[1], after[1], reason)


def _anchors(numbers: Numbers, size: InputSize, present: AnchorSet, divisibility: int) -> Iterator[Suggestion]:
    whole = size.resize(numbers, divisibility)
    boxes = whole.sample(MEASURED)
    chosen = better(boxes, present, fit(whole.sample(SEARCHED), present))
    before, after = (
        " and ".join(f"{share:.0%}" for share in recalls(best_ious(boxes, anchors), boxes.weights))
        for anchors in (present, chosen)
    )
    sampled = f", of {MEASURED} drawn at random" if len(numbers.labels) > MEASURED else ""
    yield Suggestion(
        ("dataset.anchor_sizes",),
        _nested(present),
        _nested(chosen),
        f"recall at IoU 0.5 and 0.7: {after} of the objects{sampled} have such an anchor at the suggested input size; "
        f"with the present sizes and ratios {before}",
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
    """Put the border between the two finest levels at the median object, if others then span 7 to 14 cells."""
    stride = 2**present.canonical_level
    weights, sides = class_weights(numbers), size.sides(numbers)
    median = weighted_quantiles(sides, weights, (0.5,))[0]
    value = int(min(max(median * stride / present.roi_strides[1], BINS * stride), 2 * BINS * stride))
    border = value * present.roi_strides[1] / stride
    return Suggestion(
        ("dataset.canonical_size",),
        present.canonical_size,
        value,
        f"{weights[sides < border].sum():.0%} of the objects, those below {border:.0f} px, are pooled from stride "
        f"{present.roi_strides[0]}, the others from coarser levels, where each spans at least {value / stride:.1f} "
        f"cells ({BINS}: one a bin, to {2 * BINS}: FPN's)",
    )


def _detections(numbers: Numbers, present: Present) -> Suggestion:
    most = int(numbers.per_image.max())
    value = max(COCO_DETECTIONS, math.ceil(most * 1.25 / 100) * 100)
    reason = f"the fullest image has {most} objects; a quarter more, in hundreds"
    if value > COCO_DETECTIONS:
        reason += f". COCO's AP counts the first {COCO_DETECTIONS} of an image alone"
    return Suggestion(("dataset.detections",), present.detections, value, reason)


def _rois(numbers: Numbers, present: Present, share: float) -> Suggestion:
    full = float(np.quantile(numbers.per_image, FULL)) * share
    wanted = math.ceil(full * ROIS_AN_OBJECT / present.positive_fraction / 64) * 64
    return Suggestion(
        ("dataset.rois",),
        present.rois,
        min(max(wanted, FEWEST_ROIS), MOST_ROIS),
        f"{FULL:.0%} of the {'images' if share == 1 else 'crops'} have up to {full:.0f} objects, and "
        f"{ROIS_AN_OBJECT} positive RoIs for each are {present.positive_fraction:.0%} of {wanted}; "
        f"{FEWEST_ROIS} to {MOST_ROIS}",
    )


def _proposals(numbers: Numbers, present: Present) -> Iterator[Suggestion]:
    most = int(numbers.per_image.max())
    kept = min(max(math.ceil(most * PROPOSALS_AN_OBJECT / 100) * 100, FEWEST_PROPOSALS), MOST_PROPOSALS)
    before = min(2 * kept, MOST_PROPOSALS)
    for split, (pre, post) in (("train", present.train_topk), ("test", present.test_topk)):
        yield Suggestion(
            (f"dataset.rpn.{split}.pre_nms_topk",), pre, before, f"twice as many from each level, to {MOST_PROPOSALS}"
        )
        yield Suggestion(
            (f"dataset.rpn.{split}.post_nms_topk",),
            post,
            kept,
            f"{PROPOSALS_AN_OBJECT} for each of the {most} objects of the fullest image; {FEWEST_PROPOSALS} to "
            f"{MOST_PROPOSALS}",
        )


def _size_bins(numbers: Numbers, present: Present) -> Suggestion:
    shares = numbers.size_shares(present.size_bins)[-1]
    values = list(present.size_bins)
    reason = f"{' / '.join(f'{share:.0%}' for share in shares)} of the objects are small / medium / large now"
    if shares.min() < RARE:
        thirds = weighted_quantiles(np.sqrt(numbers.areas), class_weights(numbers), (1 / 3, 2 / 3))
        bins = [max(1, round(thirds[0])), max(2, round(thirds[0]) + 1, round(thirds[1]))]
        if numbers.size_shares(bins)[-1].min() >= RARE:
            values = list(bins)
            reason += "; thirds instead, each class counting alike. Only AP by size changes"
        else:
            reason += "; they are too alike for three sizes"
    return Suggestion(("dataset.size_bins",), list(present.size_bins), values, reason)


def _crop(numbers: Numbers, size: InputSize, present: Present) -> int | None:
    """Return the side of training crops with as many pixels as images have now; None where none are of use."""
    budget = present.size.pixels(numbers)
    if present.crop is not None or size.pixels(numbers) <= COSTLY * budget:
        return None
    largest = weighted_quantiles(size.longer_sides(numbers), class_weights(numbers), (0.99,))[0]
    side = math.ceil(math.sqrt(budget) / STEP) * STEP
    return side if CROP * largest <= side < (size.short or 0) else None


def _crops(numbers: Numbers, size: InputSize, present: Present, side: int) -> Suggestion:
    largest = weighted_quantiles(size.longer_sides(numbers), class_weights(numbers), (0.99,))[0]
    factor = size.pixels(numbers) / present.size.pixels(numbers)
    return Suggestion(
        ("dataset.train_augment.fixed_size",),
        None,
        [side, side],
        f"random crops with about as many pixels as images have now; whole ones would have {factor:.1f} times as many. "
        f"99 % of the objects are at most {largest:.0f} px long",
    )


def _batch(numbers: Numbers, size: InputSize, present: Present, crop: int | None) -> Iterator[Suggestion]:
    batch, reason = present.batch_size, "about as many pixels a step as now"
    if crop is None and present.crop is None:
        factor = present.size.pixels(numbers) / size.pixels(numbers)
        if not 1 / COSTLY <= factor <= COSTLY:
            most = max(batch, min(LARGER_BATCH * batch, len(numbers.widths)))
            batch = max(min(2, batch), min(int(batch * factor + 0.25), most))
    if batch != present.batch_size:
        reason = (
            f"about as many pixels a step as now. schedule.optimizer.lr stays as it is, as for AdamW and Muon; for SGD "
            f"multiply it by {batch / present.batch_size:.2g}"
        )
    yield Suggestion(("schedule.batch_size",), present.batch_size, batch, reason)
    mixed = len({*zip(numbers.widths.tolist(), numbers.heights.tolist(), strict=True)}) > 1
    yield Suggestion(
        ("schedule.val_batch_size",),
        present.val_batch_size,
        1 if mixed else present.val_batch_size,
        "images differ in size; without padding, detections do not depend on the batch"
        if mixed
        else "images have one size, and need no padding",
    )


def _tiles(numbers: Numbers, size: InputSize, present: Present) -> Iterator[str]:
    """Advise to cut images whose small objects stay too small at the largest size."""
    weights = class_weights(numbers)
    low = weighted_quantiles(size.sides(numbers), weights, (0.1,))[0]
    wanted = wanted_sides(present.strides[0])[0]
    stored = weighted_quantiles(numbers.sides, weights, (0.1,))[0]
    tile = int(LONGEST / min(ENLARGED, wanted / stored)) // STEP * STEP
    if low < wanted and tile < np.median(np.maximum(numbers.widths, numbers.heights)):
        lengths = numbers.box_sides.max(1)
        fits = lengths <= tile / 2
        overlap = math.ceil(round(weighted_quantiles(lengths[fits], weights[fits], (0.99,))[0], 3))
        cut = weights[~fits].sum() / weights.sum()
        which = f"99 % of the objects{' up to half a tile' if cut else ''}"
        yield (
            f"tiles: 10 % of the objects are below {low:.0f} px even so, and {wanted} px would be better. Cut the "
            f"images, also those to predict, into tiles of {tile} px that overlap by {overlap} px, which {which} do "
            "not exceed; then suggest again. No key does this"
        )
        if cut:
            yield (
                f"large objects: {cut:.0%} are longer than half such a tile, and would be cut. Train a second detector "
                "on whole images for them"
            )
