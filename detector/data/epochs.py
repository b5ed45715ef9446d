"""Which samples an epoch holds: each once, those of rare classes more often, those without objects at most a share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from detector.types import DetectionDataset


@dataclass(frozen=True)
class Place:
    """What identifies a sample in the stream."""

    epoch: int
    index: int
    """into the dataset"""
    copy: int = 0
    """counts the repetitions of the sample within the epoch, which are augmented differently"""


class Epochs:
    """Order the samples of a dataset, epoch after epoch, as a function of the epoch alone.

    An epoch is a permutation of the dataset; or, with `repeats` or `empty`, of a multiset of its samples, whose size is
    the same in each epoch. A sample with a repeat factor of 2.3 is there two or three times, the third time in three
    epochs of ten, drawn by systematic sampling. Of the samples without objects each epoch draws others.

    Args:
        length: samples in the dataset.
        seed: of the order.
        repeats: float [length], the repeat factor of each sample, at least 1; None: each is there once.
        empty: bool [length], samples without objects; None: they are treated as all others.
        empty_share: at most this share of an epoch are samples without objects, from 0 to below 1.

    Raises:
        ValueError: a number is out of range, or an epoch would hold no sample.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        *,
        repeats: NDArray[np.float64] | None = None,
        empty: NDArray[np.bool_] | None = None,
        empty_share: float = 0.0,
    ) -> None:
        if length < 1 or (repeats is not None and repeats.min() < 1):
            raise ValueError(f"there must be samples, with repeat factors of at least 1, not {length} and {repeats}")
        if not isinstance(empty_share, int | float) or not 0 <= empty_share < 1:
            raise ValueError(f"empty_share must be a share from 0 to below 1, not {empty_share!r}")
        self.length, self.seed = length, seed
        self.repeats, self.empty = repeats, empty
        filled = np.ones(length, bool) if empty is None else ~empty
        if not filled.any():
            raise ValueError("no image of the training set has an object to train on")
        self.filled = round(float(np.sum(filled if repeats is None else repeats[filled])))
        self.empties = min(int(np.sum(~filled)), int(empty_share / (1 - empty_share) * self.filled + 1e-9))
        self._order = lru_cache(maxsize=2)(self._compute)

    def __len__(self) -> int:
        """Return the number of samples in each epoch."""
        return self.filled + self.empties

    @property
    def chosen(self) -> bool:
        """Whether an epoch is not simply each sample once."""
        return self.repeats is not None or self.empty is not None

    def summary(self) -> str:
        """Return a sentence on what an epoch holds."""
        parts = []
        if self.repeats is not None:
            parts.append(f"{int((self.repeats > 1).sum())} images are repeated, up to {self.repeats.max():.1f} times")
        if self.empty is not None:
            parts.append(f"{self.empties} of {int(self.empty.sum())} images without objects are drawn")
        return f"An epoch has {len(self)} images" + "".join(f"; {part}" for part in parts)

    def place(self, position: int) -> Place:
        """Return the sample at `position` >= 0 of the stream of all epochs."""
        epoch, rest = divmod(position, len(self))
        indices, copies = self._order(epoch)
        return Place(epoch, int(indices[rest]), int(copies[rest]))

    def _compute(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        generator = np.random.default_rng((self.seed, epoch))
        indices = generator.permutation(self.length)
        if not self.chosen:
            return indices, np.zeros(self.length, np.int64)
        empty = np.zeros(self.length, bool) if self.empty is None else self.empty[indices]
        filled = indices[~empty]
        counts = np.ones(len(filled), np.int64)
        if self.repeats is not None:
            counts += _rounded(self.repeats[filled] - 1, self.filled - len(filled), float(generator.random()))
        counts = np.concatenate((counts, np.ones(self.empties, np.int64)))
        chosen = np.concatenate((filled, indices[empty][: self.empties]))
        copies = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        shuffled = generator.permutation(len(self))
        return np.repeat(chosen, counts)[shuffled], copies[shuffled]


def _rounded(numbers: NDArray[np.float64], total: int, start: float) -> NDArray[np.int64]:
    """Round numbers up or down so that they sum to `total`, each with its fraction as the probability of up.

    Systematic sampling: the numbers are laid end to end, and those marks of a ruler of unit steps that lie in each are
    counted; it begins at `start`, in 0..1. `total` is their rounded sum, to which they are scaled before.
    """
    if total == 0:
        return np.zeros(len(numbers), np.int64)
    ends = numbers.cumsum()
    marks = np.floor(ends * (total / ends[-1]) + start).astype(np.int64)
    marks[ends == ends[-1]] = total  # floor may be one off there, by the rounding of the sum
    counts: NDArray[np.int64] = np.diff(marks, prepend=0)
    return counts


def present_classes(dataset: DetectionDataset) -> NDArray[np.bool_]:
    """Return which classes have objects in which images, bool [N, C]; crowds do not count.

    They are those of `dataset.ground_truth()`, whose images are in the order of the samples.
    """
    truth = dataset.ground_truth()
    rows = {image["id"]: row for row, image in enumerate(truth["images"])}
    columns = {category: label for label, category in enumerate(dataset.category_ids)}
    present = np.zeros((len(dataset), len(columns)), bool)
    for annotation in truth["annotations"]:
        if not annotation.get("iscrowd"):
            present[rows[annotation["image_id"]], columns[annotation["category_id"]]] = True
    return present


def class_frequencies(present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return f(c), the share of the images with objects that hold one of class c, [C]."""
    frequencies: NDArray[np.float64] = present.sum(0) / max(int(present.any(1).sum()), 1)
    return frequencies


def repeat_factors(present: NDArray[np.bool_], threshold: float) -> NDArray[np.float64]:
    """Return how often an epoch repeats each image, [N], at least 1 (Gupta et al. 2019, LVIS, appendix B).

    r(c) = max(1, sqrt(threshold / f(c))), and an image is repeated for the rarest of its classes.

    Args:
        present: the classes in each image, [N, C].
        threshold: classes in a smaller share of the images are repeated, above 0; LVIS: 0.001.

    Raises:
        ValueError: the threshold is out of range.
    """
    if not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        raise ValueError(f"repeat_threshold must be a share above 0 and up to 1, such as 0.001, not {threshold!r}")
    frequencies = class_frequencies(present)
    found = frequencies > 0
    factors = np.ones(len(frequencies))
    factors[found] = np.maximum(1, np.sqrt(threshold / frequencies[found]))
    repeats: NDArray[np.float64] = np.where(present, factors, 1.0).max(1, initial=1.0)
    return repeats


def epochs_of(
    dataset: DetectionDataset, seed: int, repeat_threshold: float | None = None, empty_share: float | None = None
) -> Epochs:
    """Make the epochs of a training set.

    Args:
        dataset: the training set.
        seed: of the order.
        repeat_threshold: see `repeat_factors`; None: no image is repeated.
        empty_share: at most this share of an epoch are images without objects, or with crowds only; None: all are used.

    Raises:
        ValueError: a number is out of range, or no image has an object.
    """
    if repeat_threshold is None and empty_share is None:
        return Epochs(len(dataset), seed)
    return arrange(present_classes(dataset), seed, repeat_threshold, empty_share)


def arrange(
    present: NDArray[np.bool_], seed: int, repeat_threshold: float | None = None, empty_share: float | None = None
) -> Epochs:
    """Make the epochs of a training set by the classes that are present in its images, [N, C]; see `epochs_of`."""
    repeats = None if repeat_threshold is None else repeat_factors(present, repeat_threshold)
    empty: NDArray[np.bool_] | None = None if empty_share is None else ~np.asarray(present.any(1))
    return Epochs(len(present), seed, repeats=repeats, empty=empty, empty_share=empty_share or 0.0)
