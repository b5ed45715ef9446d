"""Write the ground truth beside the predictions, for other programs that measure."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detector.evaluation.collector import Collector, write_list
from detector.evaluation.records import truths

TRUTH = "truth.json"
"""Name of the file in `predictions/`."""

NUMBERED = ".numbered.json"
"""End of the names of predictions by the numbers of images in `truth.json`, where the dataset has names."""

IMAGE_KEYS = ("file_name", "height", "width")


def write_truth(collector: Collector, folder: str | Path) -> None:
    """Write `predictions/truth.json`: the measured images and their objects as a COCO JSON, in whole-number ids.

    pycocotools and others that measure take it with the predictions beside it. Images have the dataset's ids, where
    these are numbers; else their places from 1 on, and the predictions are written once more by these numbers, as
    `box.numbered.json`. Objects are numbered from 1, since pycocotools cannot find an object of id 0; sizes are those
    that were measured by, of the mask or box where the dataset states none. `ignore: 1` marks objects that do not
    count; pycocotools, which reads crowds alone, counts them.

    Args:
        collector: of detections.
        folder: the run's; `predictions/` is in it.
    """
    target = Path(folder) / "predictions"
    images = collector.images
    named = any(isinstance(image, str) for image in images)
    number = {image: place if named else image for place, image in enumerate(images, 1)}
    entries = (
        {"id": number[image], **{key: entry[key] for key in IMAGE_KEYS if key in entry}}
        for image in images
        for entry in [collector.image(image)]
    )
    categories = ({"id": i, "name": n} for i, n in zip(collector.category_ids, collector.classes, strict=True))
    whole = target / TRUTH
    with whole.with_suffix(".tmp").open("w", encoding="utf-8") as file:
        file.write('{"images": ')
        write_list(file, entries)
        file.write(', "categories": ')
        write_list(file, categories)
        file.write(', "annotations": ')
        write_list(file, _objects(collector, [number[image] for image in images]))
        file.write("}")
    whole.with_suffix(".tmp").replace(whole)
    if named:
        for name, key in collector.written():
            with (target / f"{name}{NUMBERED}").open("w", encoding="utf-8") as file:
                write_list(file, ({**row, "image_id": number[row["image_id"]]} for row in collector.rows(name, key)))


def _plain(segmentation: Any) -> Any:
    """Return polygons or run lengths as JSON takes them."""
    if not isinstance(segmentation, dict):
        return [[float(number) for number in polygon] for polygon in segmentation]
    counts = segmentation["counts"]
    counts = counts.decode("ascii") if isinstance(counts, bytes) else counts
    counts = counts if isinstance(counts, str) else [int(count) for count in counts]
    return {"size": [int(side) for side in segmentation["size"]], "counts": counts}


def _objects(collector: Collector, numbers: list[Any]) -> Iterable[dict[str, Any]]:
    own = (annotation for image in collector.images for annotation in collector.annotations(image))
    for record, annotation in zip(truths(collector, "box"), own, strict=True):
        if record["category_id"] not in collector.category_ids:
            continue
        row = {"id": record["id"], "image_id": numbers[record["image_id"]], "category_id": record["category_id"]}
        row |= {"bbox": [float(side) for side in record["bbox"]], "area": float(record["area"])}
        row["iscrowd"] = record["iscrowd"]
        if record["ignore"] and not record["iscrowd"]:
            row["ignore"] = 1
        if annotation.get("segmentation"):
            row["segmentation"] = _plain(annotation["segmentation"])
        yield row
