"""COCO files: the values that are read, and the real sample."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from detector.data.coco import CocoDataset
from tests.conftest import dense
from tests.data.coco_cases import CIRCLE, change, content, write

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"


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


def test_boxes_only_files_have_no_masks(tmp_path, caplog):
    data = content()
    for annotation in data["annotations"]:
        del annotation["segmentation"], annotation["area"], annotation["iscrowd"]
    dataset = CocoDataset(*write(tmp_path, data))
    assert not dataset.has_masks
    assert dataset[0].target.masks is None
    assert all("area" not in a and a["iscrowd"] == 0 for a in dataset.ground_truth()["annotations"])


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


def test_names_with_back_slashes_are_found(tmp_path):
    data = content()
    data["images"][0]["file_name"] = "left\\a.png"
    files = write(tmp_path, data)
    (tmp_path / "left").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "left" / "a.png")
    assert CocoDataset(*files)[0].id == 7


@pytest.mark.parametrize(("value", "crowd"), [("0", False), ("1", True), (True, True), (1.0, True), (None, False)])
def test_crowd_flags_as_tools_write_them(tmp_path, value, crowd):
    dataset = CocoDataset(*write(tmp_path, change("annotations.0.iscrowd", value)))
    assert dataset[0].target.crowd.tolist() == [crowd, False, True]


@pytest.mark.parametrize("flag", [{"difficult": 1}, {"attributes": {"difficult": True}}, {"ignore": 1}])
def test_difficult_objects_are_ignored_at_evaluation(tmp_path, flag):
    data = content()
    data["annotations"][0] |= flag
    dataset = CocoDataset(*write(tmp_path, data))
    assert dataset[0].target.difficult.tolist() == [True, False, False]
    assert [a.get("ignore", 0) for a in dataset.ground_truth()["annotations"]] == [1, 0, 0]


def test_objects_keep_their_order_whatever_the_order_of_the_file(tmp_path):
    data = content()
    data["annotations"][1]["image_id"] = 9
    dataset = CocoDataset(*write(tmp_path, dict(reversed(data.items()))))  # annotations before images
    assert [a["id"] for a in dataset.ground_truth()["annotations"]] == [11, 13, 12]
    assert [len(dataset[i].target) for i in range(2)] == [2, 1]
