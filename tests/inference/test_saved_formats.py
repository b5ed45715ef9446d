"""Each format that a prediction is written in, read back by the dataset's own readers."""

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from detector.data.coco import CocoDataset
from detector.inference.output_folder import OutputFolder, earlier_files
from detector.inference.results import Found, plain_detections
from detector.inference.saving import FORMATS, check_formats, make_savers
from detector.masks import MaskOutput
from detector.types import Objects

CLASSES = ["cat", "dog"]
SIZES = {"a.png": (60, 80), "below/b.png": (50, 40)}


def results(masks: bool) -> list[Found]:
    """Three objects, the last not drawn, of which the second covers a part of the first; and none."""
    yes = torch.ones(28, 28)
    ring = yes.clone()
    ring[8:20, 8:20] = 0
    objects = Objects(
        torch.tensor([[10.0, 10.0, 40.0, 50.0], [30.0, 20.0, 60.5, 55.25], [1.0, 1.0, 9.0, 9.0]]),
        torch.tensor([0.9, 0.8, 0.1]),
        torch.tensor([1, 0, 1]),
        torch.stack([yes, ring, yes]) if masks else None,
    )
    found = []
    for number, ((name, size), kept) in enumerate(
        zip(SIZES.items(), (objects, objects.select(torch.zeros(0).long())), strict=True), 1
    ):
        rows = plain_detections(kept, CLASSES, size, [MaskOutput()] if masks else [])
        stem = name.removesuffix(".png")
        found.append(Found(name, stem, number, size, kept, kept.scores >= 0.5, rows))
    return found


def save(path: Path, formats: list[str], masks: bool = True) -> list[Found]:
    folder = OutputFolder(path)
    savers = make_savers(formats, folder, CLASSES, masks)
    found = results(masks)
    for one in found:
        for saver in savers.values():
            saver.add(one, lambda one=one: (torch.zeros(3, *one.size, dtype=torch.uint8), 1))  # type: ignore[misc]
    for saver in savers.values():
        saver.close()
    folder.close()
    return found


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_all_formats_keep_the_folders_and_are_listed(tmp_path: Path) -> None:
    save(tmp_path / "out", list(FORMATS))
    expected = {
        *("detections.json", "detections.csv", "coco_results.json", "image_info.json", "annotations.json"),
        *("a.png", "below/b.png", "masks/a.png", "masks/below/b.png", "yolo/classes.txt"),
        *("yolo/labels/a.txt", "yolo/labels/below/b.txt", "voc/Annotations/a.xml", "voc/Annotations/below/b.xml"),
    }
    assert set(earlier_files(tmp_path / "out")) == expected


def test_all_detections_are_in_the_json_and_the_table(tmp_path: Path) -> None:
    found = save(tmp_path / "out", ["csv"])
    written = read(tmp_path / "out" / "detections.json")
    assert written == {one.name: one.rows for one in found}
    assert [row["class"] for row in written["a.png"]] == ["dog", "cat", "dog"]
    with (tmp_path / "out" / "detections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["image"], r["number"], r["class"], r["frame"]) for r in rows] == [
        ("a.png", "1", "dog", ""),
        ("a.png", "2", "cat", ""),
        ("a.png", "3", "dog", ""),
    ]
    assert [float(rows[1][key]) for key in ("x", "y", "width", "height")] == [30, 20, 30.5, 35.25]
    assert float(rows[1]["score"]) == pytest.approx(0.8)


def test_coco_results_are_read_by_pycocotools(tmp_path: Path) -> None:
    found = save(tmp_path / "out", ["coco"])
    info = read(tmp_path / "out" / "image_info.json")
    assert [(i["id"], i["file_name"], i["height"], i["width"]) for i in info["images"]] == [
        (1, "a.png", 60, 80),
        (2, "below/b.png", 50, 40),
    ]
    assert {c["id"]: c["name"] for c in info["categories"]} == {1: "cat", 2: "dog"}
    truth = COCO()
    truth.dataset = info | {"info": {}}
    truth.createIndex()
    loaded = truth.loadRes(str(tmp_path / "out" / "coco_results.json"))
    assert [a["category_id"] for a in loaded.anns.values()] == [2, 1, 2]
    assert rle.decode(loaded.anns[1]["segmentation"]).sum() == rle.area(found[0].rows[0]["segmentation"])


@pytest.mark.parametrize("masks", [True, False])
def test_annotations_are_what_is_drawn(tmp_path: Path, masks: bool) -> None:
    found = save(tmp_path / "out", ["annotations"], masks)
    for name, (height, width) in SIZES.items():
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height)).save(tmp_path / "images" / name)
    dataset = CocoDataset(tmp_path / "images", tmp_path / "out" / "annotations.json")
    assert dataset.classes == CLASSES
    sample = dataset[0]
    assert sample.target.labels.tolist() == [1, 0]
    torch.testing.assert_close(sample.target.boxes, found[0].objects.boxes[:2])
    assert len(dataset[1].target) == 0
    written = read(tmp_path / "out" / "annotations.json")
    assert [a["id"] for a in written["annotations"]] == [1, 2]
    assert [a["score"] for a in written["annotations"]] == pytest.approx([0.9, 0.8])
    if not masks:
        assert "segmentation" not in written["annotations"][0]
        return
    assert sample.target.masks is not None
    for i in range(2):
        (polygon,) = written["annotations"][i]["segmentation"]
        assert len(polygon) < 60
        expected = torch.from_numpy(rle.decode(found[0].rows[i]["segmentation"]).astype(bool))
        mask = sample.target.masks.dense(i)
        assert (mask & expected).sum() / (mask | expected).sum() > 0.95


def test_voc_has_the_drawn_boxes_counted_from_one(tmp_path: Path) -> None:
    save(tmp_path / "out", ["voc"])
    root = ElementTree.parse(tmp_path / "out" / "voc" / "Annotations" / "a.xml").getroot()
    assert root.findtext("filename") == "a.png"
    assert [o.findtext("name") for o in root.iter("object")] == ["dog", "cat"]
    box = root.findall("object/bndbox")[1]
    assert [float(box.findtext(key) or "") for key in ("xmin", "ymin", "xmax", "ymax")] == [31, 21, 60.5, 55.25]
    empty = ElementTree.parse(tmp_path / "out" / "voc" / "Annotations" / "below" / "b.xml").getroot()
    assert (empty.findtext("filename"), empty.findtext("size/width"), empty.find("object")) == (
        "below/b.png",
        "40",
        None,
    )


@pytest.mark.parametrize("masks", [True, False])
def test_yolo_has_polygons_or_boxes(tmp_path: Path, masks: bool) -> None:
    save(tmp_path / "out", ["yolo"], masks)
    labels = tmp_path / "out" / "yolo" / "labels"
    first, second = (line.split() for line in (labels / "a.txt").read_text().splitlines())
    assert (first[0], second[0]) == ("1", "0")
    assert (labels / "below" / "b.txt").read_text() == ""
    assert (tmp_path / "out" / "yolo" / "classes.txt").read_text() == "cat\ndog\n"
    numbers = np.array(second[1:], float).reshape(-1, 2) * (80, 60)
    if masks:
        assert len(numbers) > 4
        assert np.abs(np.concatenate((numbers.min(0), numbers.max(0))) - [30, 20, 60.5, 55.25]).max() <= 1
    else:
        assert numbers == pytest.approx(np.array([[45.25, 37.625], [30.5, 35.25]]))


def test_masks_are_numbered_and_the_better_lies_on_top(tmp_path: Path) -> None:
    found = save(tmp_path / "out", ["masks"])
    with Image.open(tmp_path / "out" / "masks" / "a.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.dtype == np.uint8
    first, second = (rle.decode(found[0].rows[i]["segmentation"]).astype(bool) for i in range(2))
    assert (first & second).any()
    assert np.array_equal(pixels, np.where(first, 1, np.where(second, 2, 0)))
    with Image.open(tmp_path / "out" / "masks" / "below" / "b.png") as picture:
        assert picture.size == (40, 50)
        assert not np.asarray(picture).any()


def test_formats_are_checked() -> None:
    assert check_formats("csv", masks=False) == ["csv"]
    assert check_formats(None, masks=False) == []
    assert check_formats(["voc", "csv", "voc"], masks=False) == ["voc", "csv"]
    with pytest.raises(ValueError, match=r"save='pdf': there is no such format; choose among \[images, csv, coco"):
        check_formats(["csv", "pdf"], masks=True)
    with pytest.raises(ValueError, match="save=masks: the detector has no masks"):
        check_formats(["masks"], masks=False)
