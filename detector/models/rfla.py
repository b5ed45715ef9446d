"""Assign boxes to objects by the ranking of their receptive fields."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.matching import MOST_RANKED, Matches, all_negative, crowded, rank
from detector.models.resnet import ResNet
from detector.types import Target


class RFLAMatcher:
    """Label the boxes nearest to each object as positive, in two rounds (arXiv:2208.08738, section 3.3).

    How near a box is, is its receptive field distance, 1 / (1 + KL), where KL is the Kullback-Leibler divergence of the
    box's Gaussian from the object's (equation 5). As published, the boxes are effective receptive fields, of which
    `effective_receptive_fields` gives the sizes; any anchors can be ranked.

    Args:
        topk: boxes of each object in the first round, and in the second, where all boxes are smaller; those that are as
            near as the last of these are added. Boxes that are positive since the first round stay what they are.
        decay: factor of the sides in the second round.
        ignore_threshold: boxes of the second round that are nearer than this to some object, but not positive, are
            ignored; all others are negative (0.8 in the authors' code).
        crowd_threshold: a box of which at least this share lies within a crowd region is no negative.

    A box that is among the nearest of several objects is matched with the one that it is nearest to (the authors' code:
    with the last in the file).

    Raises:
        ValueError: `topk` is not two whole numbers from 1 to 16, or another number is out of range.
    """

    def __init__(
        self,
        topk: Sequence[int] = (3, 1),
        decay: float = 0.9,
        ignore_threshold: float = 0.8,
        crowd_threshold: float = 0.5,
    ) -> None:
        if len(topk) != 2 or not all(isinstance(k, int) and 1 <= k <= MOST_RANKED for k in topk):
            raise ValueError(f"topk must be two whole numbers of boxes, from 1 to {MOST_RANKED}, got {list(topk)}")
        if not 0 < decay <= 1 or not 0 < ignore_threshold <= 1:
            raise ValueError(
                f"decay and ignore_threshold must be above 0 and at most 1, got {decay=} {ignore_threshold=}"
            )
        self.topk, self.decay = tuple(topk), decay
        self.ignore_threshold, self.crowd_threshold = ignore_threshold, crowd_threshold

    def __call__(self, boxes: Tensor, target: Target) -> Matches:
        """Match boxes [N, 4] with the ground truth of their image."""
        if len(target) == 0:
            return all_negative(boxes)
        first = rank(boxes, target, "divergence", self.topk[0])
        second = rank(shrink(boxes, self.decay), target, "divergence", self.topk[1])
        ranked = torch.where(first.ranked >= 0, first.ranked, second.ranked)
        positive = ranked >= 0
        far = 1 / (1 + second.distance) < self.ignore_threshold
        negative = far & ~positive & (crowded(boxes, target) < self.crowd_threshold)
        return Matches(ranked.clamp(min=0), positive, negative)


def shrink(boxes: Tensor, factor: float) -> Tensor:
    """Scale the sides of boxes [N, 4] around their centres."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (factor / 2)
    return torch.cat((centre - half, centre + half), 1)


def effective_receptive_fields(
    network: str | None, depth: int | None, strides: Sequence[int], fraction: float = 0.5
) -> list[float]:
    """Compute the sides of the effective receptive fields of a ResNet's pyramid (arXiv:2208.08738, section 3.2).

    Args:
        network: of the body, such as `resnet50`, whose theoretical receptive fields are 35, 91, 267, 427, 555 pixels.
        depth: residual stages of the body.
        strides: of the pyramid's levels; each level beyond the body's counts as a 3x3 convolution, as in the authors'
            code.
        fraction: effective / theoretical receptive field.

    Returns:
        for each level the side in pixels.

    Raises:
        ValueError: there is no ResNet with a pyramid, or `fraction` is not above 0.
    """
    if network is None or depth is None or len(strides) < 2:
        raise ValueError(
            "assignment=rfla takes the receptive fields of a feature pyramid over a ResNet, and this backbone is none: "
            "use assignment=rfla_anchors, which ranks the anchors"
        )
    if not fraction > 0:
        raise ValueError(f"fraction must be above 0, got {fraction}")
    with torch.device("meta"):
        body = ResNet(network, depth=depth)
    sides, side, jump = {}, 1, 1
    for part in (body.stem, *(body.get_submodule(stage) for stage in body.stages)):
        for layer in part.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.MaxPool2d) and _width(layer.kernel_size) > 1:
                side += (_width(layer.kernel_size) - 1) * jump
                jump *= _width(layer.stride)
        sides[jump] = side
    for stride in strides:
        if stride not in sides:
            side += 2 * stride
            sides[stride] = side
    return [fraction * sides[stride] for stride in strides]


def _width(pair: int | tuple[int, ...]) -> int:
    return pair if isinstance(pair, int) else pair[0]
