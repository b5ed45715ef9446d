"""Measure Boundary AP: the AP of masks whose edges must agree, too."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from detector.evaluation.accumulate import limits
from detector.evaluation.coco import CocoMetric, mean
from detector.evaluation.collector import Collector
from detector.evaluation.comparison import Comparison
from detector.evaluation.metric import Metric
from detector.evaluation.records import Record, detections, truths

RATIO = 0.02
"""The width of the boundary as a share of the image's diagonal, as in the paper on COCO and LVIS."""


class BoundaryMetric(Metric):
    """Measure AP by Boundary IoU (Cheng et al., CVPR 2021), from the masks of the output with the key `segmentation`.

    Two masks agree as far as both their IoU and their Boundary IoU say: the IoU of what lies in each within a share of
    the image's diagonal from its edge, at least a pixel (section 4). An object that is no wider than twice that is all
    boundary, and its Boundary IoU the IoU. The metrics are `boundary/AP AP50 AP75 APs APm APl`, COCO's otherwise, with
    as many detections of an image as the collector's `limit` where that is above 100. There are none without masks.

    Args:
        collector: of the detections.
        ratio: the share; the paper's 0.02, and 0.005 on the large images of Cityscapes in the authors' code.

    Raises:
        ValueError: `ratio` is not above 0, or above 1.
    """

    def __init__(self, collector: Collector, ratio: float = RATIO) -> None:
        super().__init__(collector)
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must be a share of the image's diagonal above 0 and up to 1, not {ratio}")
        self.ratio = ratio

    def results(self) -> dict[str, float]:
        """Measure AP; see `Metric.results`."""
        masks = self.collector.output("segmentation")
        if masks is None or not self.collector.images:
            return {}
        areas = CocoMetric(self.collector).areas()
        category_ids = sorted(set(self.collector.category_ids))
        known, found = truths(self.collector, "mask"), detections(self.collector, "mask").records()
        most = limits(self.collector)[-1:]
        comparison = _Comparison(self.ratio, self.collector.images, category_ids, areas, known, found, most)
        precision, thresholds = comparison.eval["precision"][..., 0], comparison.params.iouThrs
        values = {
            "AP": mean(precision[..., 0]),
            "AP50": mean(precision[thresholds == 0.5, ..., 0]),
            "AP75": mean(precision[thresholds == 0.75, ..., 0]),
            **{f"AP{size}": mean(precision[..., area]) for area, size in enumerate("sml", 1)},
        }
        return {f"boundary/{name}": value for name, value in values.items() if value is not None}


class _Comparison(Comparison):
    """Take the lesser of the IoU and the Boundary IoU of masks; crowd regions have no boundary."""

    def __init__(self, ratio: float, *args: Any) -> None:
        self.ratio = ratio
        super().__init__("mask", *args)

    def computeIoU(self, imgId: int, catId: int) -> Any:
        """Compute it of detections, best first, and ground truth."""
        ious = super().computeIoU(imgId, catId)
        objects: list[Record] = self._gts[imgId, catId]
        plain = [column for column, o in enumerate(objects) if not o["iscrowd"] and not o.get("unknown")]
        if not plain or not len(ious):
            return ious
        found = sorted(self._dts[imgId, catId], key=lambda record: -record["score"])[: len(ious)]
        edges, own = (
            [boundary(o["segmentation"], self.ratio) for o in some] for some in (found, [objects[i] for i in plain])
        )
        ious[:, plain] = np.minimum(ious[:, plain], coco_mask.iou(edges, own, [0] * len(own)))
        return ious


def boundary(code: dict[str, Any], ratio: float = RATIO) -> dict[str, Any]:
    """Take the run-length code of a mask's boundary from that of the mask.

    Args:
        code: COCO's, `size` and `counts`.
        ratio: the boundary's width / the diagonal; rounded to pixels, at least one.
    """
    height, width = code["size"]
    mask: NDArray[np.uint8] = np.asarray(coco_mask.decode(code))
    pixels = max(round(ratio * float(np.hypot(height, width))), 1)
    framed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)  # the image's edge is one
    inner = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=pixels)[1:-1, 1:-1]
    found: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask - inner))
    return found
