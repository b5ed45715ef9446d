"""Count the images and objects of a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from detector.types import DetectionDataset


@dataclass(frozen=True)
class Summary:
    """Counts over a dataset's ground truth; crowds and ignored objects are in `ignored` alone."""

    images: int
    empty: int
    """images without an object"""
    objects: int
    ignored: int
    """crowds and difficult objects"""
    per_class: dict[str, int]
    small: float
    """the fraction of objects that are small, 0..1; `medium` and `large` alike. One on an edge is in two, as in COCO"""
    medium: float
    large: float


def summarise(dataset: DetectionDataset, size_bins: Sequence[float]) -> Summary:
    """Count a dataset's images, and its objects by class and size.

    Args:
        dataset: the dataset.
        size_bins: two sides in pixels; an object is small up to the square of the first, large from the square of the
            second on, and medium from the one to the other.
    """
    ground_truth = dataset.ground_truth()
    counted = [a for a in ground_truth["annotations"] if not a.get("iscrowd") and not a.get("ignore")]
    # An object that is ignored in several classes counts once.
    ignored = {(a["image_id"], *a["bbox"]) for a in ground_truth["annotations"] if a.get("iscrowd") or a.get("ignore")}
    names = dict(zip(dataset.category_ids, dataset.classes, strict=True))
    classes = Counter(names[a["category_id"]] for a in counted)
    low, high = (side * side for side in size_bins)
    areas = [a.get("area", a["bbox"][2] * a["bbox"][3]) for a in counted]
    ranges = {"small": (0.0, low), "medium": (low, high), "large": (high, float("inf"))}
    shares = {
        size: sum(least <= area <= most for area in areas) / max(len(areas), 1)
        for size, (least, most) in ranges.items()
    }
    return Summary(
        images=len(ground_truth["images"]),
        empty=len(ground_truth["images"]) - len({a["image_id"] for a in ground_truth["annotations"]}),
        objects=len(counted),
        ignored=len(ignored),
        per_class={name: classes[name] for name in dataset.classes},
        **shares,
    )
