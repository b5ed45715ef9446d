"""COCO files: values, hostile input, the real sample."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from detector.data.coco import CocoDataset
from tests.conftest import dense

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
CIRCLE = (np.hypot(*(np.mgrid[:20, :30] + 0.5 - np.array([10, 12])[:, None, None])) < 6).astype(np.uint8)


def packed(mask: np.ndarray) -> dict[str, Any]:
    code = rle.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": code["counts"].decode()}


def content() -> dict[str, Any]:
    box = {"iscrowd": 0, "area": 24.0, "bbox": [2, 3, 4, 6], "segmentation": [[2, 3, 6, 3, 6, 9, 2, 9]]}
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 30, "height": 20},
            {"id": 9, "file_name": "b.png", "width": 30, "height": 20},
        ],
        "categories": [{"id": 90, "name": "zebra"}, {"id": 4, "name": "ant"}],
        "annotations": [
            {**box, "id": 11, "image_id": 7, "category_id": 90},
            {**box, "id": 12, "image_id": 7, "category_id": 4, "bbox": [25, 15, 10, 10],
             "area": 112.0, "segmentation": packed(CIRCLE)},
            {**box, "id": 13, "image_id": 7, "category_id": 4, "iscrowd": 1, "area": 40.0,
             "segmentation": {"size": [20, 30], "counts": [100, 40, 460]}},
        ],
    }  # fmt: skip


def write(folder: Path, data: object) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(folder / name)
    path = folder / "set.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return folder, path


def test_labels_boxes_flags_and_masks(tmp_path):
    dataset = CocoDataset(*write(tmp_path, content()))
    assert (dataset.classes, dataset.category_ids) == (["ant", "zebra"], [4, 90])
    assert len(dataset) == 2
    assert dataset.has_masks
    sample = dataset[0]
    assert (sample.id, sample.original_size, sample.size) == (7, (20, 30), (20, 30))
    assert sample.target.boxes.tolist() == [[2, 3, 6, 9], [25, 15, 30, 20], [2, 3, 6, 9]]
    assert sample.target.labels.tolist() == [1, 0, 0]
    assert sample.target.crowd.tolist() == [False, False, True]
    square = torch.zeros(20, 30, dtype=torch.bool)
    square[3:9, 2:6] = True
    runs = torch.zeros(600, dtype=torch.bool)
    runs[100:140] = True
    assert torch.equal(sample.target.masks.dense(0), square)
    assert torch.equal(sample.target.masks.dense(1), torch.from_numpy(CIRCLE).bool())
    assert torch.equal(sample.target.masks.dense(2), runs.reshape(30, 20).T)
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), np.array(image))


def test_images_without_objects(tmp_path):
    data = content()
    folder, path = write(tmp_path, data)
    empty = CocoDataset(folder, path)[1]
    assert empty.target.boxes.shape == (0, 4)
    assert (len(empty.target.masks), empty.target.masks.size) == (0, (20, 30))
    assert len(CocoDataset(folder, path, keep_empty=False)) == 1
    data["annotations"] = data["annotations"][2:]
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"set\.json.*object to train on"):
        CocoDataset(folder, path, keep_empty=False)


def test_ground_truth_keeps_the_files_ids(tmp_path):
    data = content()
    truth = CocoDataset(*write(tmp_path, data)).ground_truth()
    assert truth["images"] == data["images"]
    data["annotations"][2]["segmentation"] = rle.frPyObjects({"size": [20, 30], "counts": [100, 40, 460]}, 20, 30)
    data["annotations"][2]["segmentation"]["counts"] = data["annotations"][2]["segmentation"]["counts"].decode()
    assert truth["annotations"] == data["annotations"]
    assert sorted(c["id"] for c in truth["categories"]) == [4, 90]


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


def test_boxes_only_files_have_no_masks(tmp_path, caplog):
    data = content()
    for annotation in data["annotations"]:
        del annotation["segmentation"], annotation["area"], annotation["iscrowd"]
    dataset = CocoDataset(*write(tmp_path, data))
    assert not dataset.has_masks
    assert dataset[0].target.masks is None
    assert all("area" not in a and a["iscrowd"] == 0 for a in dataset.ground_truth()["annotations"])


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


def change(path: str, value: object) -> dict[str, Any]:
    """`content` with the entry at `path` set to `value`, or removed where that is ...; the numbers index lists."""
    data = content()
    *way, last = (int(p) if p.isdigit() else p for p in path.split("."))
    node: Any = data
    for step in way:
        node = node[step]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("no json", "not JSON"),
        ("[1, 2]", "no list `images`"),
        ({"images": [], "annotations": []}, "no list `categories`"),
        (change("categories", []), "category ids"),
        (change("categories.0.id", 4), "repeat"),
        (change("categories.0.name", 3), "category needs"),
        (change("images.0.id", ...), r"images\[0\] needs an `id`"),
        (change("images.1.id", 7), "taken"),
        (change("images.0.width", 0), "`width` must be a positive int"),
        (change("annotations.0", 5), r"annotations\[0\] is int"),
        (change("annotations.1.image_id", 8), r"id 12\) belongs to image_id 8"),
        (change("annotations.1.image_id", [7]), r"belongs to image_id \[7\]"),
        (change("annotations.1.category_id", 5), "category_id 5"),
        (change("annotations.1.bbox", ...), "`bbox` must be four numbers"),
        (change("annotations.1.bbox", [1, 2, 3]), "`bbox` must be four numbers"),
        (change("annotations.1.bbox", [1, 2, 3, "4"]), "`bbox` must be four numbers"),
        (change("annotations.1.bbox", [1, 2, 3, float("nan")]), "`bbox` must be four numbers"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, data, message):
    with pytest.raises(ValueError, match=rf"(?s)set\.json.*{message}"):
        CocoDataset(*write(tmp_path, data))


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3]],
        [[1, 2, 3, 4, 5, float("inf")]],
        ["polygon"],
        "polygon",
        {"counts": "abc"},
        {"size": [30, 20], "counts": [600]},
        {"size": 600, "counts": [600]},
        {"size": [20, 30], "counts": None},
        {"size": [20, 30], "counts": "\u00ff"},
        {"size": [20, 30], "counts": [10, 20]},
        {"size": [20, 30], "counts": [-1, 601]},
    ],
)
def test_a_malformed_mask_is_named(segmentation, tmp_path):
    data = content()
    data["annotations"][1]["segmentation"] = segmentation
    number = data["annotations"][1]["id"]
    with pytest.raises(ValueError, match=rf"set\.json: annotation(s\[1\] \(id {number}\)| {number}): "):
        CocoDataset(*write(tmp_path, data))[0]


def test_missing_paths_say_what_is_expected(tmp_path):
    folder, path = write(tmp_path, content())
    with pytest.raises(FileNotFoundError, match=r"(?s)nowhere: no such folder.*layout.*data_dir"):
        CocoDataset(tmp_path / "nowhere", path)
    with pytest.raises(FileNotFoundError, match=r"(?s)none\.json: no such annotation file.*layout.*data_dir"):
        CocoDataset(folder, tmp_path / "none.json")
    near = folder.with_name(folder.name[:-1])
    with pytest.raises(
        FileNotFoundError, match=rf"did you mean {re.escape(str(folder))}\?\); .*dataset\.images=FOLDER"
    ):
        CocoDataset(near, path)
    (folder / "plate").mkdir()
    (folder / "b.png").rename(folder / "plate" / "b.png")
    with pytest.raises(
        FileNotFoundError, match=r"b\.png: no such image \(1 of 2 images.*; it is in .*plate\); .*dataset\.images="
    ):
        CocoDataset(folder, path)


def test_unreadable_and_unequal_images_are_named_at_once_and_when_read(tmp_path):
    folder, path = write(tmp_path, content())
    dataset = CocoDataset(folder, path)
    whole = (tmp_path / "a.png").read_bytes()
    for broken in (b"", b"no image", whole[: len(whole) // 2]):
        (tmp_path / "a.png").write_bytes(broken)
        for read in (lambda: CocoDataset(folder, path), lambda: dataset[0]):
            with pytest.raises(ValueError, match=r"a\.png: unreadable image"):
                read()
    Image.new("RGB", (20, 30)).save(tmp_path / "a.png")
    for read in (lambda: CocoDataset(folder, path), lambda: dataset[0]):
        with pytest.raises(ValueError, match=r"a\.png: the image is 20x30 .*says 30x20"):
            read()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_every_kind_of_image_becomes_rgb(tmp_path, mode):
    dataset = CocoDataset(*write(tmp_path, content()))
    Image.new(mode, (30, 20)).save(tmp_path / "a.png")
    assert dataset[0].image.shape == (3, 20, 30)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the sample data are not beside the repository")
def test_the_coco_sample(capfd):
    root = SHARED / "coco"
    dataset = CocoDataset(root / "val2017", root / "annotations/instances_val2017.json")
    assert len(dataset) == 124
    assert len(dataset.classes) == 80
    assert dataset.category_ids[-1] == 90
    truth = dataset.ground_truth()
    assert sum(a["iscrowd"] for a in truth["annotations"]) == 13
    crowded = next(a["image_id"] for a in truth["annotations"] if a["iscrowd"])
    sample = dataset[[r["id"] for r in truth["images"]].index(crowded)]
    assert sample.target.crowd.sum() == 1
    areas = [a["area"] for a in truth["annotations"] if a["image_id"] == crowded]
    assert dense(sample.target.masks).sum((1, 2)).tolist() == pytest.approx(areas, rel=0.15, abs=25)
    train = CocoDataset(root / "train2017", root / "annotations/instances_train2017.json", keep_empty=False)
    assert len(train) == 204
    assert capfd.readouterr().out == ""


def test_only_the_first_images(tmp_path):
    files = write(tmp_path, content())
    whole, few = CocoDataset(*files), CocoDataset(*files, limit=1)
    assert len(whole) > len(few) == 1
    assert few[0].id == whole[0].id
    assert {a["image_id"] for a in few.ground_truth()["annotations"]} == {few[0].id}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("area", "12", "area must be a number, not '12'"),
        ("area", float("nan"), "area must be a number"),
        ("segmentation", [[1, 2, 3]], "at least three points"),
        ("segmentation", {"counts": [1, 2], "size": [3, 3]}, "its mask has size"),
        ("segmentation", 7, "neither polygons nor run lengths"),
    ],
)
def test_annotations_are_checked_before_they_are_needed(tmp_path, key, value, words):
    data = content()
    data["annotations"][1][key] = value
    with pytest.raises(ValueError, match=words) as error:
        CocoDataset(*write(tmp_path, data))
    assert "set.json" in str(error.value)


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


def test_ids_as_another_text_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'007', which is not among the 2 images of the file, whose ids are numbers"):
        CocoDataset(*write(tmp_path, change("annotations.0.image_id", "007")))


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


def test_names_with_back_slashes_are_found(tmp_path):
    data = content()
    data["images"][0]["file_name"] = "left\\a.png"
    files = write(tmp_path, data)
    (tmp_path / "left").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "left" / "a.png")
    assert CocoDataset(*files)[0].id == 7


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


@pytest.mark.parametrize(("value", "crowd"), [("0", False), ("1", True), (True, True), (1.0, True), (None, False)])
def test_crowd_flags_as_tools_write_them(tmp_path, value, crowd):
    dataset = CocoDataset(*write(tmp_path, change("annotations.0.iscrowd", value)))
    assert dataset[0].target.crowd.tolist() == [crowd, False, True]


@pytest.mark.parametrize("value", ["no", 2, [0], 0.5])
def test_a_flag_that_is_neither_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match=r"annotations\[0\] \(id 11\): `iscrowd` must be 0 or 1, not"):
        CocoDataset(*write(tmp_path, change("annotations.0.iscrowd", value)))


@pytest.mark.parametrize("flag", [{"difficult": 1}, {"attributes": {"difficult": True}}, {"ignore": 1}])
def test_difficult_objects_are_ignored_at_evaluation(tmp_path, flag):
    data = content()
    data["annotations"][0] |= flag
    dataset = CocoDataset(*write(tmp_path, data))
    assert dataset[0].target.difficult.tolist() == [True, False, False]
    assert [a.get("ignore", 0) for a in dataset.ground_truth()["annotations"]] == [1, 0, 0]


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


def test_a_negative_area_is_refused_unless_areas_are_measured(tmp_path):
    files = write(tmp_path, change("annotations.1.area", -112.0))
    with pytest.raises(ValueError, match=r"annotation 12 has the area -112 .*areas=measured"):
        CocoDataset(*files)
    areas = [a["area"] for a in CocoDataset(*files, areas="measured").ground_truth()["annotations"]]
    assert areas == [24, CIRCLE.sum(), 40]


def test_polygons_of_fewer_than_three_points_are_left_out(tmp_path, caplog):
    data = content()
    data["annotations"][0]["segmentation"] += [[5, 5], [1, 2, 3, 4], []]
    dataset = CocoDataset(*write(tmp_path, data))
    assert dataset.has_masks
    assert dataset[0].target.masks.window(0).sum() == 24
    assert "left out 3 polygons of fewer than three points" in caplog.text


def test_polygons_of_pairs_are_refused(tmp_path):
    data = change("annotations.0.segmentation", [[[5, 5], [9, 5], [9, 9], [5, 9]]])
    with pytest.raises(ValueError, match=r"id 11\): a polygon must be x, y, x, y, .* not \[\[5, 5\], \[9, 5\]"):
        CocoDataset(*write(tmp_path, data))


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


def test_a_polygon_far_outside_is_refused(tmp_path):
    data = change("annotations.0.segmentation", [[2, 3, 6, 3, 6, 300]])
    with pytest.raises(ValueError, match=r"annotations\[0\] \(id 11\): a polygon reaches .* far outside of its image"):
        CocoDataset(*write(tmp_path, data))


def test_objects_keep_their_order_whatever_the_order_of_the_file(tmp_path):
    data = content()
    data["annotations"][1]["image_id"] = 9
    dataset = CocoDataset(*write(tmp_path, dict(reversed(data.items()))))  # annotations before images
    assert [a["id"] for a in dataset.ground_truth()["annotations"]] == [11, 13, 12]
    assert [len(dataset[i].target) for i in range(2)] == [2, 1]
