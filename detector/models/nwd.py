"""Assign boxes to objects by the normalised Gaussian Wasserstein distance."""

from __future__ import annotations

from torch import Tensor

from detector.matching import Matches, all_negative, check_thresholds, crowded, rank
from detector.types import Target


class NWDMatcher:
    """Label boxes as positive, negative or ignored by their NWD from the ground truth (arXiv:2110.13389, section 3).

    The NWD, exp(-W / constant), is 1 for equal boxes and falls with the 2-Wasserstein distance W of their Gaussians:
    for boxes of one size that is the distance of their centres, whether or not they overlap.

    Args:
        constant: in pixels of the network's image; the paper takes the mean size of the objects, the square root of the
            product of their sides: 12.8 in AI-TOD, in the authors' code.
        high_threshold: NWD >= this with an object: positive.
        low_threshold: NWD < this with every object: negative; in between: ignored.
        allow_low_quality_matches: also make positive, for each object, the boxes nearest to it (ties included) that are
            not negative (the authors' min_pos_iou is 0.3, too). Each box is matched with the object that it is nearest
            to itself, as by `Matcher`; the authors' code gives such a box to the object that it is the nearest box of.
        crowd_threshold: a box of which at least this share lies within a crowd region is no negative.

    Raises:
        ValueError: not 0 < `low_threshold` <= `high_threshold` <= 1, or `constant` is not above 0.
    """

    def __init__(
        self,
        constant: float,
        high_threshold: float,
        low_threshold: float,
        allow_low_quality_matches: bool = False,
        crowd_threshold: float = 0.5,
    ) -> None:
        check_thresholds("NWD", low_threshold, high_threshold)
        if not constant > 0:
            raise ValueError(f"constant is the size of the objects in pixels, above 0, got {constant}")
        self.constant, self.high_threshold, self.low_threshold = constant, high_threshold, low_threshold
        self.allow_low_quality_matches, self.crowd_threshold = allow_low_quality_matches, crowd_threshold

    def __call__(self, boxes: Tensor, target: Target) -> Matches:
        """Match boxes [N, 4] with the ground truth of their image."""
        if len(target) == 0:
            return all_negative(boxes)
        found = rank(boxes, target, "wasserstein", 1)
        nwd = (-found.distance.sqrt() / self.constant).exp()
        positive, negative = nwd >= self.high_threshold, nwd < self.low_threshold
        if self.allow_low_quality_matches:
            positive = positive | ((found.ranked >= 0) & ~negative)
        return Matches(found.matched, positive, negative & (crowded(boxes, target) < self.crowd_threshold))
