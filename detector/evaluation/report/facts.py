"""Gather what the page on a detector's results shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from detector.evaluation.accumulate import Accumulated, accumulate, limits
from detector.evaluation.coco import UNBOUNDED
from detector.evaluation.collector import Collector, ImageId
from detector.evaluation.confusion import confusion
from detector.evaluation.errors import KINDS, NO_ERROR, Bools, Errors, find_errors
from detector.evaluation.measure import Estimate, bins, measure_collected
from detector.evaluation.records import Floats, Integers, Kind
from detector.evaluation.thresholds import OperatingPoints, operating_points

BINS = 10
"""Of scores, to compare them with the share of detections that are right."""

FEW = 10
"""Fewer objects or detections say little."""

OFTEN = 2
"""How often one class is taken for another, at least, to be spoken of."""

NOTHING_RIGHT = 0.5
"""The score from which on detections are counted and drawn where none is right."""

BALANCED = "balanced"
AIMS = {"fewer missed": 2.0, BALANCED: 1.0, "fewer false alarms": 0.5}
"""What a threshold is for, and how much more recall matters then than precision: the beta of an F measure."""


@dataclass(frozen=True)
class Threshold:
    """A threshold of the score and what it gives."""

    name: str
    objects: int
    score: float | None
    """None where no object of any class is found"""
    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float | None:
        """Of the detections from the threshold on, the share that is right; None without detections."""
        found = self.right + self.wrong
        return self.right / found if found else None

    @property
    def recall(self) -> float | None:
        """Of the objects, the share that is found; None without objects."""
        return self.right / self.objects if self.objects else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of both; None without objects."""
        return 2 * self.right / (2 * self.right + self.wrong + self.missed) if self.objects else None


@dataclass(frozen=True)
class Bin:
    """The objects of one fine size bin."""

    low: float
    high: float
    """the sides in pixels, the second excluded"""
    objects: int
    ap50: float

    @property
    def sides(self) -> str:
        """The sides in words."""
        return f"{self.low:g} px and more" if np.isinf(self.high) else f"{self.low:g} to {self.high:g} px"


@dataclass(frozen=True)
class Counts:
    """Numbers of objects and of kept detections of each of I images, [I]."""

    objects: Integers
    missed: Integers
    kept: Integers
    wrong: Integers


@dataclass(frozen=True)
class Mistakes:
    """What is wrong on an image, from the best thresholds on."""

    missed: Floats
    """[M, 4]: boxes of the missed objects: x, y, width, height"""
    labels: Integers
    """[M]: their classes"""
    kept: Integers
    """[K]: positions of the detections that are kept, among those of the image"""
    wrong: Bools
    """[K]: which of them are wrong"""


class Facts:
    """What is known of one kind of a collector's detections; each is computed when it is first asked for."""

    def __init__(self, collector: Collector, kind: Kind, seed: int = 0, resamples: int = 1000) -> None:
        self.collector = collector
        self.kind: Kind = kind
        self._draws = seed, resamples

    @cached_property
    def images(self) -> list[ImageId]:
        """The measured images."""
        return self.collector.images

    @cached_property
    def errors(self) -> Errors:
        """The kind of each detection's error."""
        return find_errors(self.collector, self.kind)

    @cached_property
    def points(self) -> OperatingPoints:
        """Precision and recall by score, of each class."""
        return operating_points(self.errors, self.collector.category_ids)

    @cached_property
    def curves(self) -> Accumulated:
        """Precision by recall, as COCO interpolates it."""
        return accumulate(self.collector, self.kind, {"all": (0, UNBOUNDED)}, limits(self.collector))

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """AP by size and IoU with its bootstrap interval, at the collector's limit of detections."""
        return measure_collected(self.collector, self.kind, *self._draws, max_dets=limits(self.collector)).estimates()

    @cached_property
    def balances(self) -> list[Threshold]:
        """One threshold for all classes together, for each of `AIMS`; none where no object is found."""
        points = self.points.together()
        found = []
        for aim, beta in AIMS.items():
            if points.scores and (score := points.best(0, beta)) is not None:
                found.append(Threshold(aim, int(points.objects[0]), score, *points.at(0, score)))
        return found

    @cached_property
    def thresholds(self) -> list[Threshold]:
        """The best threshold of each class; where it has few objects, or none is found, that of all classes."""
        common = next((balance.score for balance in self.balances if balance.name == BALANCED), None)
        found = []
        for label, name in enumerate(self.collector.classes):
            objects = int(self.points.objects[label])
            own = self.points.best(label) if objects >= FEW else None
            score = common if own is None else own
            counts = self.points.at(label, NOTHING_RIGHT if score is None else score)
            found.append(Threshold(name, objects, score, *counts))
        return found

    @cached_property
    def score_thresholds(self) -> list[float]:
        """The score from which on detections of each class are kept; `NOTHING_RIGHT` where nothing is right."""
        return [NOTHING_RIGHT if threshold.score is None else threshold.score for threshold in self.thresholds]

    @cached_property
    def kept(self) -> Bools:
        """[N]: the errors' detections that count and are kept."""
        place = {category: label for label, category in enumerate(self.collector.category_ids)}
        lowest = [self.score_thresholds[place[category]] for category in self.errors.found.categories.tolist()]
        return self.errors.counts & (self.errors.found.scores >= np.array(lowest, np.float64))

    @cached_property
    def right(self) -> Bools:
        """[N]: the detections that are kept and match an object."""
        right: Bools = self.kept & (self.errors.kind == NO_ERROR)
        return right

    @cached_property
    def missed(self) -> Bools:
        """[G]: the objects that no detection that is kept matches."""
        missed = np.ones(len(self.errors.objects), bool)
        missed[self.errors.object[self.right]] = False
        return missed

    @cached_property
    def together(self) -> Threshold:
        """What is right, wrong and missed of all classes, each with its threshold."""
        right, kept = int(self.right.sum()), int(self.kept.sum())
        return Threshold("all classes", len(self.errors.objects), None, right, kept - right, int(self.missed.sum()))

    @cached_property
    def found_below(self) -> int:
        """The number of objects that only detections below the thresholds find."""
        return int(np.count_nonzero((self.errors.kind == NO_ERROR) & self.errors.counts & ~self.kept))

    @cached_property
    def by_image(self) -> Counts:
        """The numbers of each image."""
        places = np.array([record["image_id"] for record in self.errors.objects], np.int64)
        images = self.errors.found.images
        parts = places, places[self.missed], images[self.kept], images[self.kept & ~self.right]
        return Counts(*(np.bincount(part, minlength=len(self.images)) for part in parts))

    @cached_property
    def bins(self) -> list[Bin]:
        """The fine size bins that hold objects."""
        areas = np.array([record["area"] for record in self.errors.objects], np.float64)
        found = []
        for name, (low, high) in bins().items():
            number = int(np.count_nonzero((areas >= low**2) & (areas < high**2)))
            if number and f"AP50{name}" in self.estimates:
                found.append(Bin(low, high, number, self.estimates[f"AP50{name}"].value))
        return found

    @cached_property
    def confusion(self) -> Integers:
        """[C + 1, C + 1]: which class is taken for which, of the detections that are kept; see `confusion`."""
        return confusion(self.errors, self.kind, self.collector.category_ids, self.kept, len(self.images))

    @cached_property
    def costs(self) -> dict[str, dict[str, float]]:
        """What each kind of error costs in AP50, of all objects and by size: {size: {kind: cost}}."""
        small, large = (side**2 for side in self.collector.size_bins)
        ranges = {"all": (0.0, np.inf), "small": (0.0, small), "medium": (small, large), "large": (large, np.inf)}
        areas = np.array([record["area"] for record in self.errors.objects], np.float64)
        own = self.errors.found.areas.copy()  # of the object that a detection would match, else its own
        goal = self.errors.object
        own[goal >= 0] = areas[goal[goal >= 0]]
        return {
            name: self.errors.costs(_within(own, low, high), _within(areas, low, high))
            for name, (low, high) in ranges.items()
        }

    @cached_property
    def calibration(self) -> list[tuple[float, float, int]]:
        """Mean score, share that is right, and number of the detections in each of ten equal ranges of scores."""
        counted = self.errors.counts
        scores, right = self.errors.found.scores[counted], self.errors.kind[counted] == NO_ERROR
        place = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
        found = []
        for number in range(BINS):
            own = place == number
            if own.any():
                found.append((float(scores[own].mean()), float(right[own].mean()), int(own.sum())))
        return found

    @property
    def calibration_error(self) -> float:
        """By how much scores and shares differ on average over the detections."""
        total = sum(count for _, _, count in self.calibration)
        return sum(abs(score - share) * count for score, share, count in self.calibration) / max(total, 1)

    def mistakes(self, image: int) -> Mistakes:
        """Return what is wrong on an image, from the best thresholds on.

        Args:
            image: its position.
        """
        label = {category: place for place, category in enumerate(self.collector.category_ids)}
        missed = [
            (label[record["category_id"]], record["bbox"])
            for record, gone in zip(self.errors.objects, self.missed, strict=True)
            if gone and record["image_id"] == image
        ]
        own = np.flatnonzero(self.kept & (self.errors.found.images == image))
        own = own[np.argsort(self.errors.places[own])]
        return Mistakes(
            np.array([box for _, box in missed], np.float64).reshape(-1, 4),
            np.array([place for place, _ in missed], np.int64),
            self.errors.places[own] - self._starts[image],
            ~self.right[own],
        )

    @cached_property
    def _starts(self) -> Integers:
        """[I]: the place of each image's first detection among all of the collector."""
        numbers = [len(self.collector.detections(name).labels) for name in self.images]
        return np.cumsum([0, *numbers])[:-1]

    def worst(self, count: int) -> list[int]:
        """Return the positions of the images with the most objects missed and detections wrong, the worst first."""
        mistakes = self.by_image.missed + self.by_image.wrong
        order = np.argsort(-mistakes, kind="stable")[:count]
        return [int(image) for image in order if mistakes[image]]

    @cached_property
    def nearly_all_missed(self) -> list[int]:
        """The positions of the images on which at most a tenth of the objects is found."""
        objects, found = self.by_image.objects, self.by_image.objects - self.by_image.missed
        return np.flatnonzero((objects > 0) & (10 * found <= objects)).tolist()

    @cached_property
    def at_limit(self) -> list[int]:
        """The positions of the images on which as many detections as may be are kept, and more objects are."""
        limit = self.collector.limit
        return np.flatnonzero((self.by_image.kept >= limit) & (self.by_image.objects > limit)).tolist()


def _within(values: Floats, low: float, high: float) -> Bools:
    return (values >= low) & (values <= high)  # as COCO's ranges of areas


def largest(costs: dict[str, float]) -> list[str]:
    """Sort the kinds of errors by what they cost, the most first."""
    return sorted(KINDS, key=lambda kind: -costs[kind])
