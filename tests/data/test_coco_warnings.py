"""COCO files that are read with a warning: doubtful ids, categories, boxes, masks, areas and crowds."""

import logging

import pytest
import torch

from detector.data.coco import CocoDataset
from tests.conftest import dense
from tests.data.coco_cases import CIRCLE, change, content, write


def test_categories_of_one_name_are_told_apart(tmp_path, caplog):
    data = content()
    data["categories"] += [{"id": 5, "name": "ant"}]
    dataset = CocoDataset(*write(tmp_path, data))
    assert dataset.classes == ["ant (id 4)", "ant (id 5)", "zebra"]
    assert [c["name"] for c in dataset.ground_truth()["categories"]] == dataset.classes
    assert "['ant']" in caplog.text


def test_boxes_without_area_or_outside_are_counted_reported_and_skipped(tmp_path, caplog):
    data = content()
    bad = [[2, 3, 0, 6], [2, 3, 4, 0], [2, 3, -4, 6], [30, 3, 4, 6], [-9, 0, 9, 5], [0, 20, 5, 5]]
    first = data["annotations"][0]
    data["annotations"] += [{**first, "id": 100 + i, "bbox": box} for i, box in enumerate(bad)]
    with caplog.at_level(logging.WARNING):
        dataset = CocoDataset(*write(tmp_path, data))
    assert len(dataset[0].target) == 3
    assert [a["id"] for a in dataset.ground_truth()["annotations"]] == [11, 12, 13]
    assert len(caplog.records) == 1
    assert "skipped 6 of 9 boxes: 3 outside the image, 3 without area" in caplog.text
    assert "set.json" in caplog.text


@pytest.mark.parametrize("without", [{"segmentation": []}, {"segmentation": None}, {}])
def test_objects_without_a_mask_among_others(without, tmp_path, caplog):
    mixed = content()
    del mixed["annotations"][0]["segmentation"]
    mixed["annotations"][0] |= without
    dataset = CocoDataset(*write(tmp_path, mixed))
    assert dataset.has_masks
    assert "1 of 3 objects have no segmentation" in caplog.text
    masks, whole = dataset[0].target.masks, CocoDataset(*write(tmp_path, content()))[0].target.masks
    assert (masks.known.tolist(), whole.known.tolist()) == ([False, True, True], [True] * 3)
    assert not masks.dense(0).any()
    assert torch.equal(dense(masks)[1:], dense(whole)[1:])
    assert CocoDataset(*write(tmp_path, mixed), masks=False)[0].target.masks is None


def test_ids_that_repeat_or_are_missing_are_numbered_anew(tmp_path, caplog):
    data = content()
    for annotation, number in zip(data["annotations"], (0, 0, "x"), strict=True):
        annotation["id"] = number
    dataset = CocoDataset(*write(tmp_path, data))
    assert [a["id"] for a in dataset.ground_truth()["annotations"]] == [1, 2, 3]
    assert "ids are numbered anew" in caplog.text
    caplog.clear()
    for annotation in data["annotations"]:
        del annotation["id"]
    assert len(CocoDataset(*write(tmp_path, data))[0].target) == 3
    assert not caplog.records


@pytest.mark.parametrize(("key", "value"), [("image_id", "7"), ("image_id", 7.0), ("category_id", "90")])
def test_ids_as_text_or_float_are_matched(tmp_path, key, value, caplog):
    data = change(f"annotations.0.{key}", value)
    dataset = CocoDataset(*write(tmp_path, data))
    first = dataset.ground_truth()["annotations"][0]
    assert (first["id"], first["image_id"], first["category_id"]) == (11, 7, 90)
    said = isinstance(value, str)
    assert (f"id 11) has {key} {value!r} for" in caplog.text) == said


def test_an_image_listed_twice_is_joined(tmp_path, caplog):
    data = content()
    data["images"][1]["file_name"] = "a.png"
    data["annotations"][1]["image_id"] = 9
    dataset = CocoDataset(*write(tmp_path, data))
    assert len(dataset) == 1
    assert [a["id"] for a in dataset.ground_truth()["annotations"]] == [11, 12, 13]
    assert dataset[0].target.boxes.tolist() == [[2, 3, 6, 9], [25, 15, 30, 20], [2, 3, 6, 9]]
    assert "1 images are listed more than once, such as a.png (id 7)" in caplog.text
    data["images"][1]["width"] = 31
    with pytest.raises(ValueError, match=r"images 7 and 9 name one file, a\.png, but differ in size"):
        CocoDataset(*write(tmp_path, data))


def test_a_category_that_is_only_a_parent_is_left_out(tmp_path, caplog):
    data = content()
    for category in data["categories"]:
        category["supercategory"] = "animals"
    data["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})
    dataset = CocoDataset(*write(tmp_path, data))
    assert (dataset.classes, dataset.category_ids) == (["ant", "zebra"], [4, 90])
    assert dataset[0].target.labels.tolist() == [1, 0, 0]
    assert "left out ['animals']" in caplog.text
    data["annotations"][0]["category_id"] = 0
    assert CocoDataset(*write(tmp_path, data)).classes == ["animals", "ant", "zebra"]


def test_when_nearly_all_objects_are_crowds_it_is_said_and_a_key_reads_them_as_objects(tmp_path, caplog):
    data = content()
    for annotation in data["annotations"]:
        annotation["iscrowd"] = 1
    files = write(tmp_path, data)
    CocoDataset(*files)
    assert "3 of 3 objects with a mask are marked as crowds" in caplog.text
    assert "crowds=objects" in caplog.text
    caplog.clear()
    assert not CocoDataset(*files, crowds="objects")[0].target.crowd.any()
    assert not caplog.records
    with pytest.raises(ValueError, match="crowds must be regions or objects, not 'none'"):
        CocoDataset(*files, crowds="none")
    for annotation in data["annotations"]:
        del annotation["segmentation"]
    CocoDataset(*write(tmp_path, data))
    assert "3 of 3 objects are marked as crowds" in caplog.text


def test_boxes_that_are_shares_or_corners_are_remarked_on(tmp_path, caplog):
    data = content()
    for annotation in data["annotations"]:
        annotation["bbox"] = [0.1, 0.2, 0.3, 0.4]
        del annotation["segmentation"], annotation["area"]
    CocoDataset(*write(tmp_path, data))
    assert "3 of 3 boxes are smaller than a pixel" in caplog.text
    caplog.clear()
    for annotation in data["annotations"]:
        annotation["bbox"] = [0.5, 0.4, 0.9, 0.95]  # corners, as shares
    CocoDataset(*write(tmp_path, data))
    assert "3 of 3 boxes are smaller than a pixel" in caplog.text
    caplog.clear()
    for annotation in data["annotations"]:
        annotation["bbox"] = [15, 8, 27, 19]
    CocoDataset(*write(tmp_path, data))
    assert "3 of 3 boxes reach out of their image" in caplog.text
    assert "look like corners x1, y1, x2, y2" in caplog.text


@pytest.mark.parametrize(("areas", "masks"), [((1, 1, 1), True), ((600, 600, 600), True), ((1, 600, 0), False)])
def test_areas_that_cannot_be_are_remarked_on_and_a_key_measures_them(tmp_path, areas, masks, caplog):
    data = content()
    for annotation, area in zip(data["annotations"], areas, strict=True):
        annotation["area"] = area
        if not masks:
            del annotation["segmentation"]
    files = write(tmp_path, data)
    truth = CocoDataset(*files).ground_truth()["annotations"]
    assert [a["area"] for a in truth] == list(areas)
    assert "3 of 3 areas cannot be those of the object's mask or box" in caplog.text
    assert "areas=measured" in caplog.text
    caplog.clear()
    measured = CocoDataset(*files, areas="measured").ground_truth()["annotations"]
    assert [a["area"] for a in measured] == ([24, CIRCLE.sum(), 40] if masks else [24, 100, 24])
    assert not caplog.records


def test_polygons_of_fewer_than_three_points_are_left_out(tmp_path, caplog):
    data = content()
    data["annotations"][0]["segmentation"] += [[5, 5], [1, 2, 3, 4], []]
    dataset = CocoDataset(*write(tmp_path, data))
    assert dataset.has_masks
    assert dataset[0].target.masks.window(0).sum() == 24
    assert "left out 3 polygons of fewer than three points" in caplog.text


@pytest.mark.parametrize(
    "shape",
    [
        [[-9, 3, -3, 3, -3, 9, -9, 9]],
        [[31, 3, 35, 3, 35, 9]],
        [[5, 5, 5.2, 5, 5.1, 5.2]],
        [[5, 5, 5, 5, 5, 5, 5, 5]],
        {"size": [20, 30], "counts": [600]},
    ],
)
def test_masks_without_a_pixel_are_left_out(tmp_path, shape, caplog):
    dataset = CocoDataset(*write(tmp_path, change("annotations.0.segmentation", shape)))
    assert "1 masks have no pixel within their image and are left out, such as that of annotations[0]" in caplog.text
    assert ["segmentation" in a for a in dataset.ground_truth()["annotations"]] == [False, True, True]
