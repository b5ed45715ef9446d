"""Compute average precision on bootstrap resamples of the images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.matching import Matches

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

LEVELS = np.linspace(0.0, 1.0, 101)
"""The recalls at which COCO samples the precision, with pycocotools' rounding."""

CELLS, LEAST_COLUMNS = 2**18, 64
"""About how many numbers are processed at once, so that they stay in the processor's cache; of so many resamples."""

SPARSE = 4
"""From so many detections for each true positive on, those between two true positives are added up first."""


def resample(images: int, seed: int, resamples: int) -> Ints:
    """Draw bootstrap resamples: as many images as there are, with replacement.

    They depend on the arguments alone, so that runs on the same images are measured on the same resamples.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 6.

    Args:
        images: number of images, I.
        seed: of the draws.
        resamples: number of resamples, B.

    Returns:
        int32 [B, I], how often each image is in each resample.

    Raises:
        ValueError: no images, or fewer than two resamples.
    """
    if images < 1 or resamples < 2:
        raise ValueError(f"a bootstrap needs an image and two resamples at least, not {images=} and {resamples=}")
    generator = np.random.default_rng((seed, images))
    return generator.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.int32)


def average_precision(ranked: NDArray[np.int64], matched: NDArray[np.bool_], objects: Ints, repeats: Ints) -> Floats:
    """Compute COCO's average precision of one class at one IoU threshold on resampled images.

    The mean, over the recalls 0, 0.01, ..., 1, of the highest precision at that recall or above: what pycocotools'
    `accumulate` computes from images repeated as often as `repeats` says.

    Args:
        ranked: [N], the image of each detection that is not ignored, by descending score.
        matched: [N], whether it is a true positive; else it is a false positive.
        objects: [I], the number of objects of each image that are not ignored.
        repeats: [B, I], how often each image is in each resample.

    Returns:
        float64 [B]; NaN where a resample has no object.
    """
    return Resamples(repeats).average_precision(ranked, matched, objects)


class Resamples:
    """The resamples of I images, laid out for many classes and thresholds.

    Args:
        repeats: int32 [B, I], how often each image is in each resample.
    """

    def __init__(self, repeats: Ints) -> None:
        self._by_image = np.ascontiguousarray(repeats.T)
        self._floats = repeats.astype(np.float64)  # whose product is exact for such counts, and faster

    def total(self, objects: Ints) -> Floats:
        """Count the objects of each resample, [B], from those of each image, [I]."""
        total: Floats = self._floats @ objects
        return total

    def average_precision(
        self, ranked: NDArray[np.int64], matched: NDArray[np.bool_], objects: Ints, total: Floats | None = None
    ) -> Floats:
        """Compute `average_precision`; `total` of the objects is computed where it is not given."""
        total = self.total(objects) if total is None else total
        return _average_precision(ranked, matched, total, self._by_image)


def _average_precision(ranked: NDArray[np.int64], matched: NDArray[np.bool_], total: Floats, repeats: Ints) -> Floats:
    """Compute `average_precision`; `repeats` is [I, B], `total` the objects of each resample, [B]."""
    result = np.where(total > 0, 0.0, np.nan)
    positives = np.flatnonzero(matched)
    if len(positives):
        ranked = ranked[: positives[-1] + 1]  # nothing after the last true positive can raise a precision
        columns = max(LEAST_COLUMNS, CELLS // len(ranked))
        for start in range(0, repeats.shape[1], columns):
            part = slice(start, start + columns)
            result[part] = _area(ranked, positives, repeats[:, part], total[part])
    return result


def _area(ranked: NDArray[np.int64], positives: NDArray[np.int64], repeats: Ints, total: Floats) -> Floats:
    # Precision falls between true positives, so the highest at a recall or above is that at a true positive.
    weights = repeats[ranked]
    found = weights[positives].cumsum(0, dtype=np.int32)
    if len(ranked) < SPARSE * len(positives):
        seen = weights.cumsum(0, dtype=np.int32)[positives]
    else:  # the detections between two true positives are added first, at once
        seen = np.empty_like(found)
        start = 0
        for row, end in enumerate((positives + 1).tolist()):
            np.add.reduce(weights[start:end], 0, out=seen[row])
            start = end
        seen = seen.cumsum(0, dtype=np.int32)
    best = found / (seen + np.spacing(1))
    best = np.maximum.accumulate(best[::-1], axis=0)[::-1]
    recall = found / np.where(total > 0, total, 1)
    reached = np.diff(_reached(recall), axis=0, prepend=0)
    mean: Floats = np.sum(reached * best, axis=0) / len(LEVELS)
    return np.where(total > 0, mean, np.nan)


def _reached(recall: Floats) -> Ints:
    """Count the `LEVELS` up to each recall in 0..1, as `np.searchsorted` does from the right, several times faster."""
    last = len(LEVELS) - 1
    place = np.minimum((recall * last).astype(np.int32), last)
    place += (LEVELS[np.minimum(place + 1, last)] <= recall) & (place < last)
    place -= LEVELS[place] > recall
    return place + 1


def average_precisions(matches: Matches, category_ids: Sequence[int], repeats: Ints) -> Floats:
    """Compute `average_precision` for each IoU threshold, class and range of areas.

    Args:
        matches: of N detections, in A ranges of areas at T thresholds.
        category_ids: of the C classes.
        repeats: int32 [B, I], how often each image is in each resample.

    Returns:
        float64 [B, T, C, A]; NaN without objects.
    """
    areas, thresholds, _ = matches.right.shape
    result = np.full((len(repeats), thresholds, len(category_ids), areas), np.nan)
    order = np.argsort(-matches.found.scores, kind="stable")  # orders equal scores as pycocotools does
    category = matches.found.categories[order]
    resamples = Resamples(repeats)
    truth = np.array([[r["category_id"], r["image_id"]] for r in matches.objects], np.int64).reshape(-1, 2)
    for label, number in enumerate(category_ids):
        own = order[category == number]
        image = matches.found.images[own]
        for area in range(areas):
            counted = truth[(truth[:, 0] == number) & ~matches.ignored[area], 1]
            if not len(counted):
                continue
            objects = np.bincount(counted, minlength=repeats.shape[1]).astype(np.int32)
            total = resamples.total(objects)
            for t in range(thresholds):
                keep = matches.counts[area, t, own]
                right = matches.right[area, t, own[keep]]
                result[:, t, label, area] = resamples.average_precision(image[keep], right, objects, total)
    return result


def mean_of_known(values: Floats) -> Floats:
    """Average over the last axis without NaNs; NaN if there are only NaNs. Unlike `np.nanmean`, without a warning."""
    known = ~np.isnan(values)
    number = known.sum(-1)
    result = np.full(len(values), np.nan)
    np.divide(np.where(known, values, 0).sum(-1), number, out=result, where=number > 0)
    return result
