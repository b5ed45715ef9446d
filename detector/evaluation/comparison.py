"""Match detections to ground truth with pycocotools, from records in memory."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from detector.evaluation.collector import ImageId
from detector.evaluation.records import Floats, Kind, Record

SAME_BOX = 0.5
"""From this IoU of their boxes on, a detection is of an object whose mask is not known."""

LIMITS = (1, 10, 100)
"""COCO's numbers of detections of an image and class, the best ones, that recall is measured at; the last is AP's."""


class Comparison(COCOeval):  # type: ignore[misc]  # pycocotools has no types
    """Run pycocotools' evaluation on records instead of files.

    pycocotools' own loading is not used: it overwrites `ignore` with `iscrowd`, takes a match with the annotation of id
    0 for no match, and fails without detections. Its matching and accumulation are used unchanged. `evalImgs` and
    `eval` are as pycocotools documents them; an `image_id` in them is a position in `images`. `truths` holds the
    ground-truth records by position and category id, in the order of the columns of `ious`. Where a record has
    `unknown`, its mask is not known: it overlaps entirely with detections whose box has at least `SAME_BOX` IoU with
    its own, and with no others.
    """

    def __init__(
        self,
        kind: Kind,
        images: list[ImageId],
        category_ids: list[int],
        areas: Mapping[str, tuple[float, float]],
        truths: Sequence[Record],
        detections: Sequence[Record],
        max_dets: Sequence[int] = LIMITS,
    ) -> None:
        super().__init__(iouType="bbox" if kind == "box" else "segm")
        self.images = images
        self.truths = _grouped(truths)
        self._gts, self._dts = (defaultdict(list, records) for records in (self.truths, _grouped(detections)))
        self.params.maxDets = list(max_dets)
        self.params.imgIds = list(range(len(images)))
        self.params.catIds = category_ids
        self.params.areaRngLbl = list(areas)
        self.params.areaRng = [list(area) for area in areas.values()]
        with contextlib.redirect_stdout(io.StringIO()):
            self.evaluate()
            self.accumulate()

    def computeIoU(self, imgId: int, catId: int) -> Any:
        """Compute the IoU of detections, best first, and ground truth."""
        ious = super().computeIoU(imgId, catId)
        truths = self._gts[imgId, catId]
        unknown = [column for column, record in enumerate(truths) if record.get("unknown")]
        if unknown and len(ious):
            found = sorted(self._dts[imgId, catId], key=lambda record: -record["score"])[: len(ious)]
            boxes = [np.array([r["bbox"] for r in records], np.float64) for records in (found, truths)]
            ious[:, unknown] = overlap_of_unknown(boxes[0], boxes[1][unknown])
        return ious

    def _prepare(self) -> None:
        pass


def overlap_of_unknown(boxes: Floats, objects: Floats) -> Floats:
    """Compute what counts as the IoU [N, M] of masks with objects whose mask is not known: 1 from `SAME_BOX` on, or 0.

    Args:
        boxes: [N, 4] of detections: x, y, width, height.
        objects: [M, 4].
    """
    return (np.asarray(coco_mask.iou(boxes, objects, [0] * len(objects))) >= SAME_BOX).astype(np.float64)


def _grouped(records: Sequence[Record]) -> dict[tuple[int, int], list[Record]]:
    """Group records by the position of their image and by category."""
    groups: dict[tuple[int, int], list[Record]] = defaultdict(list)
    for record in records:
        groups[record["image_id"], record["category_id"]].append(record)
    return groups
