"""Divide a detector's errors into TIDE's kinds, and measure how much AP each of them costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.bootstrap import LEVELS, Ints, Resamples, mean_of_known
from detector.evaluation.collector import Collector
from detector.evaluation.matching import overlaps
from detector.evaluation.records import Floats, Found, Integers, Kind, Record, detections, objects_of

Bools = NDArray[np.bool_]

MATCH_IOU, NONE_IOU = 0.5, 0.1
"""TIDE's IoU thresholds: from the first on a detection matches an object, up to the second it is of none."""

CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(6)
KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
"""Of errors, by number. A detection has one of the first five:

- classification: it would match an object of another class.
- localisation: it overlaps an object of its class too little.
- both: it overlaps an object of another class too little, or has another error still.
- duplicate: it would match an object that a detection of a higher score has matched.
- background: it overlaps no object.

An object is missed that neither matches a detection nor would match one if its class or its place were right.
"""

NO_ERROR = -1
"""The kind of a detection that matches an object."""


@dataclass(frozen=True)
class Errors:
    """The errors of N detections of G objects that count."""

    found: Found
    """the N detections: at most the collector's `limit` of each image, by descending score"""
    places: Integers
    """[N]: their places among all detections of the collector, image by image"""
    objects: list[Record]
    """the G objects, neither crowds nor ignored"""
    kind: Integers
    """[N]: of the detection's error, or NO_ERROR"""
    counts: Bools
    """[N]: whether it counts in AP: ignored detections do not, though they may have an error"""
    object: Integers
    """[N]: the object that it matches, or would match without its error of class or place, by position; -1: none"""
    mended: Bools
    """[N]: whether mending its error makes it the match of `object`: of several, that of the highest score does"""
    missed: Bools
    """[G]"""

    def average_precision(self, mend: Bools | None = None, found: Bools | None = None) -> float:
        """Compute COCO's AP at an IoU of 0.5, averaged over the classes that have objects.

        Args:
            mend: [N], the detections whose error is mended: they match their object, or are no longer there.
            found: [G], the missed objects that no longer count. A class of which nothing is left then, no detection
                either, is left out.
        """
        ranked = self._ranked(mend, found)
        values = [
            _average_precision(right, len(objects)) for rows, right, objects in ranked if len(objects) or len(rows)
        ]
        return float(np.mean(values)) if values else 0.0

    def _ranked(self, mend: Bools | None, found: Bools | None) -> list[tuple[Integers, Bools, Integers]]:
        """List for each class with objects its detections by descending score, whether each is right, and its objects.

        Detections and objects by position, those that count.
        """
        mend = np.zeros(len(self.kind), bool) if mend is None else mend
        gone = np.zeros(len(self.objects), bool) if found is None else found
        own = np.array([record["category_id"] for record in self.objects], np.int64)
        right = (self.kind == NO_ERROR) | (mend & self.mended)
        kept = np.where(mend, self.mended, self.counts)
        category = np.where(mend & self.mended, own[self.object] if len(own) else -1, self.found.categories)
        order = np.lexsort((-self.found.scores, category))
        order = order[kept[order]]
        classes = np.unique(own)
        starts, ends = (np.searchsorted(category[order], classes, side) for side in ("left", "right"))
        parts = [order[start:end] for start, end in zip(starts, ends, strict=True)]
        return [
            (part, right[part], np.flatnonzero((own == one) & ~gone)) for one, part in zip(classes, parts, strict=True)
        ]

    @cached_property
    def present(self) -> float:
        """COCO's AP at an IoU of 0.5, with all errors."""
        return self.average_precision()

    def costs(self, detections: Bools | None = None, objects: Bools | None = None) -> dict[str, float]:
        """Compute by how much AP at an IoU of 0.5 rises where the errors of one kind are mended, for each kind.

        Args:
            detections: [N], those whose errors are mended; None: all.
            objects: [G], those that are found; None: all.
        """
        mendings = self._mendings(detections, objects).items()
        return {name: max(self.average_precision(*mending) - self.present, 0.0) for name, mending in mendings}

    def _mendings(
        self, detections: Bools | None = None, objects: Bools | None = None
    ) -> dict[str, tuple[Bools | None, Bools | None]]:
        """Return for each kind of error the detections that are mended and the objects that no longer count."""
        among = True if detections is None else detections
        of = True if objects is None else objects
        found: dict[str, tuple[Bools | None, Bools | None]] = {
            name: ((self.kind == number) & among, None) for number, name in enumerate(KINDS)
        }
        return found | {KINDS[MISSED]: (None, self.missed & of)}

    def resampled_costs(self, repeats: Ints) -> dict[str, Floats]:
        """Compute `costs` on resampled images.

        Detections are compared with the objects of their own image, so their errors are the same on each resample.

        Args:
            repeats: int32 [B, I], how often each of the I images is in each resample.

        Returns:
            float64 [B] for each kind of error; NaN where a resample has no object.
        """
        images = np.array([record["image_id"] for record in self.objects], np.int64)
        resamples = Resamples(repeats)

        def precisions(before: Floats | None, mend: Bools | None = None, found: Bools | None = None) -> Floats:
            columns = []
            for place, (rows, right, objects) in enumerate(self._ranked(mend, found)):
                counts = np.bincount(images[objects], minlength=repeats.shape[1]).astype(np.int32)
                values = resamples.average_precision(self.found.images[rows], right, counts)
                if before is not None and len(rows):  # detections are left, but no object
                    values[np.isnan(values) & ~np.isnan(before[:, place])] = 0
                columns.append(values)
            return np.array(columns, np.float64).reshape(-1, len(repeats)).T  # [B, classes]

        before = precisions(None)
        base = mean_of_known(before)
        after = {name: mean_of_known(precisions(before, *mending)) for name, mending in self._mendings().items()}
        return {name: np.maximum(value - base, 0.0) for name, value in after.items()}

    def numbers(self) -> dict[str, int]:
        """Count the errors of each kind, of detections that count in AP."""
        kinds = self.kind[self.counts]
        counted = {name: int(np.count_nonzero(kinds == number)) for number, name in enumerate(KINDS)}
        return counted | {KINDS[MISSED]: int(np.count_nonzero(self.missed))}


def find_errors(collector: Collector, kind: Kind) -> Errors:
    """Find the errors of a collector's detections.

    Source: Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020, and its package
    tidecv 1.0.1. That averages over the classes that have detections or objects, this over those that have objects, as
    COCO does, where mending leaves some of either; and its recalls are n / 100, not COCO's. Else the numbers are equal.
    """
    known = objects_of(collector, kind)
    every = detections(collector, kind)
    chosen = _best(every, collector.limit)
    found = every.take(chosen)
    objects = [record for record in known if not record["ignore"]]
    regions = [record for record in known if record["ignore"]]
    images = len(collector.images)
    of_detections = ends(found.images, images)
    of_objects = ends(np.array([record["image_id"] for record in objects], np.int64), images)
    of_regions = ends(np.array([record["image_id"] for record in regions], np.int64), images)
    result = Errors(
        found,
        chosen,
        objects,
        np.full(len(chosen), BACKGROUND),
        np.ones(len(chosen), bool),
        np.full(len(chosen), -1),
        np.zeros(len(chosen), bool),
        np.ones(len(objects), bool),
    )
    for image in range(images):
        rows, columns, ignored = (slice(*ends[image : image + 2]) for ends in (of_detections, of_objects, of_regions))
        if rows.start < rows.stop:
            _examine(result, kind, rows, columns, regions[ignored])
    return result


def _best(found: Found, limit: int) -> Integers:
    """Return the positions of the best detections of each image, image by image, by descending score."""
    order = np.lexsort((-found.scores, found.images))
    first = np.searchsorted(found.images[order], found.images[order], "left")
    return order[np.arange(len(order)) - first < limit]


def ends(images: Integers, count: int) -> list[int]:
    """Return where the rows of each image begin, and where the last ones end."""
    return np.searchsorted(images, np.arange(count + 1)).tolist()  # type: ignore[no-any-return]


def _examine(errors: Errors, kind: Kind, rows: slice, columns: slice, regions: Sequence[Record]) -> None:
    """Find the errors of one image's detections and objects."""
    found, objects = errors.found, errors.objects[columns]
    own = np.arange(rows.start, rows.stop)
    every = overlaps(found, kind, own, objects)
    category = np.array([record["category_id"] for record in objects], np.int64)
    same = found.categories[rows][:, None] == category
    within, among = np.where(same, every, 0), np.where(same, 0, every)
    match = match_best(within)
    taken = np.isin(np.arange(len(objects)), match)
    kinds = np.full(len(match), BOTH)
    goal = match.copy()
    if len(objects):
        steps = [  # the last that holds decides
            (every.max(1) <= NONE_IOU, BACKGROUND, None),
            (np.where(taken, within, 0).max(1) >= MATCH_IOU, DUPLICATE, None),
            (among.max(1) >= MATCH_IOU, CLASSIFICATION, among.argmax(1)),
            ((within.max(1) >= NONE_IOU) & (within.max(1) <= MATCH_IOU), LOCALISATION, within.argmax(1)),
        ]
        for holds, number, aim in steps:
            chosen = holds & (match < 0)
            kinds[chosen] = number
            goal[chosen] = -1 if aim is None else aim[chosen]
    else:
        kinds[:] = BACKGROUND
    kinds[match >= 0] = NO_ERROR
    inside = (match < 0) & _inside(found, kind, own, regions)
    wrong = (match < 0) & (goal >= 0)
    usable = np.zeros(len(objects), bool)
    for row in np.flatnonzero(wrong):  # by descending score
        if not taken[goal[row]] and not usable[goal[row]]:
            errors.mended[rows.start + row] = usable[goal[row]] = True
    errors.kind[rows] = kinds
    errors.counts[rows] = ~inside
    errors.object[rows] = np.where(goal >= 0, goal + columns.start, -1)
    errors.missed[columns] = ~taken & ~usable


def match_best(overlap: Floats) -> Integers:
    """Match N detections, the best first, to the object that each overlaps most of those that are left; -1: to none."""
    match = np.full(len(overlap), -1)
    left = overlap.copy()
    for row in np.flatnonzero(overlap.max(1, initial=0) >= MATCH_IOU):
        column = int(left[row].argmax())
        if left[row, column] >= MATCH_IOU:
            match[row] = column
            left[:, column] = 0
    return match


def _inside(found: Found, kind: Kind, rows: Integers, regions: Sequence[Record]) -> Bools:
    """Tell which of an image's detections lie in an ignored region of their class."""
    inside = np.zeros(len(rows), bool)
    for region in regions:
        least = np.greater if region["iscrowd"] else np.greater_equal  # as TIDE, and as COCO and VOC
        overlap = overlaps(found, kind, rows, [region])
        inside |= (found.categories[rows] == region["category_id"]) & least(overlap[:, 0], MATCH_IOU)
    return inside


def _average_precision(hits: Bools, total: int) -> float:
    """Compute the average precision of one class from its detections, by descending score, and its objects."""
    if not total or not len(hits):
        return 0.0
    true = hits.cumsum()
    precision = np.maximum.accumulate((true / np.arange(1, len(true) + 1))[::-1])[::-1]
    reached = np.searchsorted(true / total, LEVELS, "left")
    return float(np.append(precision, 0)[reached].mean())
