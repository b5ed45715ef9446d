"""Add proposals to the samples of a dataset, for detectors without an RPN."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from detector import boxes as box_ops
from detector.data.wrapped import Wrapped
from detector.types import DetectionDataset, Sample

log = logging.getLogger(__name__)

ImageId = int | str


@dataclass(frozen=True)
class Proposals:
    """The K proposals of the N images of a split."""

    rows: dict[ImageId, int]
    """the number n of each image by its id"""
    ends: Tensor
    """int64 [N + 1]: the proposals of image n are boxes[ends[n] : ends[n + 1]]"""
    boxes: Tensor
    """float32 [K, 4], in pixels of the image on disk, by descending score"""

    def __getitem__(self, image: ImageId) -> Tensor:
        """Return the proposals of an image, float32 [R, 4]."""
        row = self.rows[image]
        return self.boxes[int(self.ends[row]) : int(self.ends[row + 1])]


class WithProposals(Wrapped):
    """Add proposals to the samples of a dataset, clipped to the image; those without area are dropped.

    Args:
        dataset: the images.
        proposals: those of all its images.
        source: the file they were read from, for messages.

    Raises:
        ValueError: an image of the dataset is not in the file.
    """

    def __init__(self, dataset: DetectionDataset, proposals: Proposals, source: str | Path) -> None:
        super().__init__(dataset)
        self.proposals = proposals
        images = dataset.ground_truth()["images"]
        missing = [i["id"] for i in images if i["id"] not in proposals.rows]
        if missing:
            raise ValueError(
                f"proposals {str(source)!r}: {len(missing)} of the dataset's {len(images)} images are not in it, such "
                f"as {missing[:3]}; it has {len(proposals.rows)} images of this split, such as "
                f"{list(proposals.rows)[:3]}. Let scripts/proposals.py write it for this dataset"
            )
        beyond = sum(_reaches_beyond(proposals[i["id"]], i["height"], i["width"]) for i in images)
        if 2 * beyond > len(images):
            log.warning(
                "proposals %s: in %d of %d images there are some beyond the edge; are they in pixels of the images on "
                "disk, and in the order of their format?",
                source,
                beyond,
                len(images),
            )

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        boxes = box_ops.clip(self.proposals[sample.id], sample.size)
        return replace(sample, proposals=boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)])


def _reaches_beyond(boxes: Tensor, height: int, width: int) -> bool:
    return bool(((boxes < -1) | (boxes > boxes.new_tensor([width, height, width, height]) + 1)).any())
