"""Accumulate precision and recall as COCO does, by hotcoco: equal to pycocotools to the last bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hotcoco
import numpy as np
from numpy.typing import NDArray

from detector.evaluation.collector import Collector
from detector.evaluation.comparison import LIMITS, Comparison
from detector.evaluation.records import Found, Kind, Record, detections, truths

Floats = NDArray[np.float64]

IGNORED = -1.0
"""The area of an ignored object: below every range, so that hotcoco, which reads no `ignore`, ignores it, too."""


@dataclass(frozen=True)
class Accumulated:
    """Precision and recall of T IoU thresholds, 101 recalls, C classes, A ranges of areas, M most detections."""

    precision: Floats
    """[T, 101, C, A, M]: interpolated; 0 beyond the recall that is reached, -1 without objects"""
    scores: Floats
    """[T, 101, C, A, M]: the score from which on detections reach the recall"""
    recall: Floats
    """[T, C, A, M]: of all detections; -1 without objects"""
    thresholds: Floats
    """[T]: 0.5, 0.55, ..., 0.95"""
    category_ids: list[int]
    """[C]: ascending"""
    objects: NDArray[np.int64]
    """[C]: objects that count, neither crowds nor ignored"""


def limits(collector: Collector) -> list[int]:
    """Return COCO's numbers of best detections of an image and class, and the collector's own where it is higher."""
    return [*LIMITS, *([collector.limit] if collector.limit > LIMITS[-1] else [])]


def accumulate(
    collector: Collector, kind: Kind, areas: Mapping[str, tuple[float, float]], max_dets: Sequence[int]
) -> Accumulated:
    """Accumulate the precision and recall of a collector's detections as COCO does.

    hotcoco does it, but where the mask of an object is unknown, which it has no place for: there pycocotools does (see
    `Comparison`).

    Args:
        collector: of detections on one image at least.
        kind: boxes or masks.
        areas: named ranges of areas in square pixels.
        max_dets: M ascending numbers of detections of an image and class, of which the best are taken.
    """
    return accumulate_records(collector, kind, areas, max_dets, truths(collector, kind), detections(collector, kind))


def accumulate_records(
    collector: Collector,
    kind: Kind,
    areas: Mapping[str, tuple[float, float]],
    max_dets: Sequence[int],
    known: Sequence[Record],
    found: Found,
) -> Accumulated:
    """Accumulate as `accumulate`, from `truths` and `detections` of the collector, the areas of which may be others."""
    category_ids = sorted(set(collector.category_ids))
    if any(record.get("unknown") for record in known):
        comparison = Comparison(kind, collector.images, category_ids, areas, known, found.records(), max_dets)
        result: Mapping[str, Any] = comparison.eval
        thresholds: Floats = comparison.params.iouThrs
    else:
        result, thresholds = _fast(collector, kind, areas, max_dets, known, found)
    counted = Counter(record["category_id"] for record in known if not record["ignore"])
    objects = np.array([counted[category] for category in category_ids], np.int64)
    precision, scores, recall = (np.asarray(result[name]) for name in ("precision", "scores", "recall"))
    return Accumulated(precision, scores, recall, thresholds, category_ids, objects)


def _fast(
    collector: Collector,
    kind: Kind,
    areas: Mapping[str, tuple[float, float]],
    max_dets: Sequence[int],
    known: Sequence[Record],
    found: Found,
) -> tuple[Mapping[str, Any], Floats]:
    places = {category: place for place, category in enumerate(sorted(set(collector.category_ids)))}
    known = [record for record in known if record["category_id"] in places]
    images = [collector.image(image) if kind == "mask" else {"height": 1, "width": 1} for image in collector.images]
    crowd = np.array([record["iscrowd"] for record in known], bool)
    ignored = np.array([record["ignore"] for record in known], bool) & ~crowd
    truth = hotcoco.COCO.from_arrays(
        [{"id": i, "height": image["height"], "width": image["width"]} for i, image in enumerate(images)],
        [{"id": place, "name": str(category)} for category, place in places.items()],
        np.array([record["image_id"] for record in known], np.int64),
        np.array([places[record["category_id"]] for record in known], np.int64),
        np.array([record["bbox"] for record in known], np.float64).reshape(-1, 4),
        area=np.where(ignored, IGNORED, [record["area"] for record in known]),
        iscrowd=crowd,
        segmentation=[record["segmentation"] for record in known] if kind == "mask" else None,
    )
    labels = np.searchsorted(list(places), found.categories)
    rows = np.column_stack((found.images, found.boxes, found.scores, labels))
    detected = truth.load_res(rows, segmentation=found.codes)
    if found.codes is not None or not np.array_equal(found.areas, found.boxes[:, 2:].prod(1)):
        detected.update_anns(ids=np.arange(1, len(rows) + 1), area=found.areas)
    evaluation = hotcoco.COCOeval(truth, detected, "bbox" if kind == "box" else "segm")
    parameters = evaluation.params
    parameters.cat_ids = list(places.values())
    parameters.area_rng_lbl, parameters.area_rng = list(areas), [list(area) for area in areas.values()]
    parameters.max_dets = list(max_dets)
    evaluation.evaluate()
    evaluation.accumulate()
    result = evaluation.eval
    assert result is not None
    return result, np.array(parameters.iou_thrs)
