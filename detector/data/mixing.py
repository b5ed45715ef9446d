"""Make one training image of several: mosaic and copy-paste.

A part of `dataset.mixing` is called with an augmented sample, the pool of all others, and a generator that depends on
(seed, epoch, index) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from detector.data.augment import Augment
from detector.data.epochs import class_frequencies, present_classes
from detector.data.transforms import ROUNDING
from detector.data.visible import canvas, join, paste, seen, together, union
from detector.types import DetectionDataset, Sample, Target

WHOLE = 0.5
"""An object that was pasted along with others is labelled if at least this share of it is visible."""


class Pool(Protocol):
    """The samples of a training set."""

    def __len__(self) -> int: ...

    def read(self, index: int, seed: int) -> Sample:
        """Read and augment a sample; all random choices follow from `seed`."""


class Mixing(Protocol):
    """A part of `dataset.mixing`."""

    def prepare(self, dataset: DetectionDataset) -> None:
        """Look at the training set, once, before the loader's workers start.

        Raises:
            ValueError: its samples cannot be mixed.
        """

    def __call__(self, sample: Sample, pool: Pool, generator: np.random.Generator) -> Sample:
        """Return the sample with others in it, or as it is; random choices are drawn from `generator` alone."""


class Mosaic:
    """Put windows of four images around a random point (Bochkovskiy et al. 2020, YOLOv4), at the size of the first.

    Each image is scaled and fills a quarter with a random window of it; where it is smaller, it touches the point and
    the rest is grey. Objects are cut at the edges, as by a crop.

    Args:
        p: probability.
        scale: [low, high], the range of the scale factor of each image, relative to its size after augmentation.
        centre: [low, high], the range of the point, as fractions of the height and the width.
        min_visible: objects of which a smaller share is left are dropped; crowds stay.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        p: float = 0.5,
        *,
        scale: Sequence[float] = (0.5, 1.0),
        centre: Sequence[float] = (0.25, 0.75),
        min_visible: float = 0.1,
    ) -> None:
        _check_probability("mosaic", p, min_visible)
        if len(centre) != 2 or not 0 < centre[0] <= centre[1] < 1:
            raise ValueError(f"mosaic: centre must be a range of fractions between 0 and 1, not {list(centre)}")
        self.p, self.min_visible = p, min_visible
        self.resize = Augment(scale=scale)
        self.centre = centre[0], centre[1]

    def prepare(self, dataset: DetectionDataset) -> None:
        """Check that objects have no annotations that cannot be moved."""
        if self.p > 0:
            _check_movable("mosaic", dataset[0])

    def __call__(self, sample: Sample, pool: Pool, generator: np.random.Generator) -> Sample:
        """Combine a sample with three others."""
        if generator.random() >= self.p:
            return sample
        size = sample.size
        y, x = (min(max(round(side * generator.uniform(*self.centre)), 1), max(side - 1, 1)) for side in size)
        others = [pool.read(int(generator.integers(len(pool))), int(generator.integers(2**32))) for _ in range(3)]
        parts = [sample, *others]
        corners = [(rows, columns) for rows in ((0, y), (y, size[0])) for columns in ((0, x), (x, size[1]))]
        image = canvas(together([part.image for part in parts]), size)
        targets, proposals = [], []
        for (rows, columns), which in zip(corners, generator.permutation(4).tolist(), strict=True):
            part = self.resize(parts[which], int(generator.integers(2**32)))
            offset = tuple(
                _start(span, length, generator) for span, length in zip((rows, columns), part.size, strict=True)
            )
            region = np.zeros(size, bool)
            region[rows[0] : rows[1], columns[0] : columns[1]] = True
            paste(image, part.image, (offset[0], offset[1]), region)
            targets.append(seen(part.target, part.size, region, (offset[0], offset[1]), self.min_visible))
            if part.proposals is not None:
                moved = part.proposals + part.proposals.new_tensor([offset[1], offset[0]] * 2)
                low, high = moved.new_tensor([columns[0], rows[0]] * 2), moved.new_tensor([columns[1], rows[1]] * 2)
                moved = moved.maximum(low).minimum(high)
                proposals.append(moved[(moved[:, 2:] - moved[:, :2] > ROUNDING).all(1)])
        return replace(
            sample, image=image, target=join(targets, size), proposals=torch.cat(proposals) if proposals else None
        )


class CopyPaste:
    """Paste objects of another image (Ghiasi et al. 2021), by their masks, or by their boxes where there are no masks.

    The other image is augmented by itself, lies where it would lie in a batch (or, if its size differs, anywhere within
    or around), and a random number of its objects is pasted. Boxes and masks of objects that are then covered are cut
    to what is visible. Further objects of the other image of which half comes along, within a box say, are labelled.

    Args:
        p: probability.
        max_objects: paste at most so many; None: up to all.
        max_side: paste only objects up to this side (square root of the box's area), in pixels after augmentation.
        classes: paste only objects of these classes, by name, from images that have them; None: of all.
        rare_threshold: paste only objects of classes in less than this share of the images, from images that have them.
        min_visible: objects of which a smaller share is visible are dropped; crowds stay.

    Raises:
        ValueError: an argument out of range.
    """

    uses_masks = True
    """masks are read, if the training set has any, also for models without a mask head"""

    def __init__(
        self,
        p: float = 0.5,
        *,
        max_objects: int | None = None,
        max_side: float | None = None,
        classes: Sequence[str] | None = None,
        rare_threshold: float | None = None,
        min_visible: float = 0.1,
    ) -> None:
        _check_probability("copy_paste", p, min_visible)
        for name, number in (("max_objects", max_objects), ("max_side", max_side)):
            if number is not None and number < 1:
                raise ValueError(f"copy_paste: {name} must be at least 1, not {number}")
        if rare_threshold is not None and not 0 < rare_threshold <= 1:
            raise ValueError(f"copy_paste: rare_threshold must be a share above 0 and up to 1, not {rare_threshold}")
        if classes is not None and (isinstance(classes, str) or not classes):
            raise ValueError(f"copy_paste: classes must be a list of names, such as [helmet], not {classes!r}")
        self.p, self.min_visible = p, min_visible
        self.max_objects, self.max_side, self.rare_threshold = max_objects, max_side, rare_threshold
        self.classes = None if classes is None else list(classes)
        self.labels: NDArray[np.bool_] | None = None
        self.sources: NDArray[np.int64] | None = None

    def prepare(self, dataset: DetectionDataset) -> None:
        """Find the images with objects of the chosen classes; check that objects can be moved, and that there are some.

        Raises:
            ValueError: a class is unknown, or no image has an object that may be pasted.
        """
        if self.p == 0:
            return
        first = dataset[0]
        _check_movable("copy_paste", first)
        if first.proposals is not None:
            raise ValueError(
                "copy_paste: given proposals do not know of pasted objects: leave dataset.mixing.copy_paste.p=0"
            )
        if self.rare_threshold is None and self.classes is None:
            return
        present = present_classes(dataset)
        frequencies = class_frequencies(present)
        self.labels = _among(dataset.classes, self.classes) & (frequencies > 0)
        if self.rare_threshold is not None:
            chosen = frequencies[self.labels]
            self.labels &= frequencies < self.rare_threshold
            if len(chosen) and not self.labels.any():
                raise ValueError(
                    f"copy_paste: no class is in less than rare_threshold={self.rare_threshold} of the images; the "
                    f"rarest is in {chosen.min():.3g}"
                )
        self.sources = np.flatnonzero(present[:, self.labels].any(1))
        if not len(self.sources):
            raise ValueError(f"copy_paste: no image has an object of {self.classes or 'any class'} to paste")

    def __call__(self, sample: Sample, pool: Pool, generator: np.random.Generator) -> Sample:
        """Paste objects of another sample."""
        if generator.random() >= self.p:
            return sample
        number = int(generator.integers(len(pool) if self.sources is None else len(self.sources)))
        index = number if self.sources is None else int(self.sources[number])
        source = pool.read(index, int(generator.integers(2**32)))
        room = [own - other for own, other in zip(sample.size, source.size, strict=True)]
        dy, dx = (int(generator.integers(min(r, 0), max(r, 0) + 1)) for r in room)
        candidates = np.flatnonzero(self._eligible(source.target))
        if not len(candidates):
            return sample
        most = len(candidates) if self.max_objects is None else min(self.max_objects, len(candidates))
        chosen = generator.choice(candidates, int(generator.integers(1, most + 1)), replace=False)
        region = union(source.target.select(torch.from_numpy(chosen)), source.size, sample.size, (dy, dx))
        image = together([sample.image, source.image]).clone()
        paste(image, source.image, (dy, dx), region)
        below = seen(sample.target, sample.size, ~region, (0, 0), self.min_visible)
        others = np.ones(len(source.target), bool)
        others[chosen] = False
        least = np.where(others, max(self.min_visible, WHOLE), self.min_visible)
        above = seen(source.target, source.size, region, (dy, dx), least)
        return replace(sample, image=image, target=join([below, above], sample.size))

    def _eligible(self, target: Target) -> NDArray[np.bool_]:
        sides = (target.boxes[:, 2:] - target.boxes[:, :2]).prod(1).sqrt()
        eligible = ~target.crowd
        if self.max_side is not None:
            eligible = eligible & (sides <= self.max_side)
        if self.labels is not None:
            eligible = eligible & torch.from_numpy(self.labels)[target.labels]
        return np.asarray(eligible.numpy())


def _among(classes: Sequence[str], chosen: Sequence[str] | None) -> NDArray[np.bool_]:
    """Return which classes are chosen, [C]; None chooses all.

    Raises:
        ValueError: a chosen one is unknown.
    """
    for name in chosen or ():
        if name not in classes:
            near = get_close_matches(str(name), classes, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"copy_paste: classes: there is no class {name!r} among {list(classes)}{hint}")
    return np.array([chosen is None or name in chosen for name in classes], bool)


def _check_probability(name: str, p: float, min_visible: float) -> None:
    for key, value in (("p", p), ("min_visible", min_visible)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: {key} must be from 0 to 1, not {value}")


def _check_movable(name: str, sample: Sample) -> None:
    if sample.target.extra:
        raise ValueError(
            f"{name}: it cannot move {', '.join(sorted(sample.target.extra))} of the objects, only boxes and masks: "
            f"leave dataset.mixing.{name}.p=0"
        )


def _start(span: tuple[int, int], length: int, generator: np.random.Generator) -> int:
    """Return where rows or columns begin that fill a span; shorter ones touch the end that is inside the image."""
    begin, end = span
    if length >= end - begin:
        return begin - int(generator.integers(length - (end - begin) + 1))
    return begin if begin > 0 else end - length
