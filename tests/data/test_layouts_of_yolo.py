"""YOLO's folders and lists as tools really write them, of one image with two objects."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.data.custom import custom
from tests.data.layout_cases import OBJECTS, ROWS, found, write

YOLO: dict[str, tuple[dict[str, str], str]] = {
    "datumaro": (
        {
            "obj.data": "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
            "obj.names": "apple\npear\n",
            "train.txt": "data/obj_train_data/sub/a.png\n",
            "obj_train_data/sub/a.png": "",
            "obj_train_data/sub/a.txt": ROWS,
        },
        "obj.data",
    ),
    "darknet": (
        {
            "data/obj.data": "# of Darknet\nclasses=2\ntrain=data/train.txt\nnames=data/obj.names\n",
            "data/obj.names": "apple\npear\n",
            "data/train.txt": "data/images/a.png\n",
            "data/images/a.png": "",
            "data/labels/a.txt": ROWS,
        },
        "data/obj.data",
    ),
    "label-studio": (
        {
            "classes.txt": "pear\napple\npear\napple\n",  # a line for each label of each tag
            "notes.json": json.dumps(
                {"categories": [{"id": 1, "name": "pear"}, {"id": 0, "name": "apple"}] * 2, "info": {"year": 2026}}
            ),
            "images/a.png": "",
            "labels/a.txt": ROWS,
        },
        "classes.txt",
    ),
    "labelimg": ({"classes.txt": "apple\npear\n", "a.png": "", "a.txt": ROWS}, "classes.txt"),
    "fiftyone-4": (
        {"obj.names": "apple\npear", "images.txt": "data/a.png", "data/a.png": "", "data/a.txt": ROWS},
        "obj.names",
    ),
    "fiftyone-5": (
        {
            "dataset.yaml": "names:\n  0: apple\n  1: pear\npath: /elsewhere\ntrain: ./images/train/\n",
            "images/train/sub/a.png": "",
            "labels/train/sub/a.txt": ROWS,
        },
        "dataset.yaml",
    ),
    "panlabel": (
        {"data.yaml": "names:\n  0: 'apple'\n  1: 'pear'\n", "images/sub/a.png": "", "labels/sub/a.txt": ROWS},
        "data.yaml",
    ),
    "ultralytics": (  # COCO's ids less one
        {
            "data.yaml": "names: {2: apple, 6: pear}\ntrain: images/train\n",
            "images/train/a.png": "",
            "labels/train/a.txt": "6 0.0833333 0.125 0.166667 0.25\n2 0.583333 0.4375 0.5 0.625\n",
        },
        "data.yaml",
    ),
    "roboflow": (
        {
            "data.yaml": "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\n"
            "names: ['apple', 'pear']\n\nroboflow:\n  version: 1\n",
            "train/images/a_png.rf.0123abcd.png": "",
            "train/labels/a_png.rf.0123abcd.txt": ROWS,
        },
        "data.yaml",
    ),
}


@pytest.mark.parametrize("tool", YOLO)
def test_yolo(tmp_path: Path, tool: str, caplog: pytest.LogCaptureFixture) -> None:
    files, given = YOLO[tool]
    write(tmp_path, files)
    dataset = custom(tmp_path / given)
    boxes = found(dataset)
    assert sorted(boxes) == sorted(OBJECTS)
    for name, box in OBJECTS.items():
        np.testing.assert_allclose(boxes[name], box, atol=0.01)
    assert sorted(dataset.classes) == ["apple", "pear"]
    assert not caplog.records


@pytest.mark.parametrize("images", ["photos/a.png", "photos/deep/a.png"])
def test_images_that_lie_elsewhere(tmp_path: Path, images: str, caplog: pytest.LogCaptureFixture) -> None:
    """As Label Studio exports labels alone, and panlabel, which copies no images."""
    write(tmp_path, {"classes.txt": "apple\npear\n", "labels/a.txt": ROWS, "labels/b.txt": ROWS, images: ""})
    with pytest.raises(ValueError, match=r"dataset\.annotations=.*classes\.txt: say which share"):
        custom(whole=tmp_path / "classes.txt", part="train")
    with caplog.at_level(logging.WARNING):
        dataset = custom(tmp_path / "classes.txt", tmp_path / "photos")
    assert "1 text files of labels belong to no image, such as" in caplog.text
    assert sorted(found(dataset)) == ["apple", "pear"]
    (tmp_path / images).unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no image, and .*classes\.txt names none; .*dataset\.images="):
        custom(tmp_path / "classes.txt")


def darknet(folder: str, names: str, rows: str) -> dict[str, str]:
    """Make CVAT's files, whose paths begin with `data`, in a folder of any name."""
    files = {
        "obj.data": "train = data/train.txt\nnames = data/obj.names\n",
        "obj.names": names,
        "train.txt": "data/obj_train_data/1.png\n",
        "obj_train_data/1.png": "",
        "obj_train_data/1.txt": rows,
    }
    return {f"{folder}/{name}": text for name, text in files.items()}


def test_an_obj_data_beside_a_folder_data(tmp_path: Path) -> None:
    """It reads its own list, names and images, not those of the other."""
    write(tmp_path, darknet("data", "cat\n", "0 0.5 0.5 0.2 0.2\n") | darknet("export", "apple\npear\n", ROWS))
    for folder in ("export", "data"):
        dataset = custom(tmp_path / folder / "obj.data")
        assert dataset.file(0) == tmp_path / folder / "obj_train_data/1.png"
        assert dataset.stated_in(0) == tmp_path / folder / "obj_train_data/1.txt"
        assert dataset.classes == (["apple", "pear"] if folder == "export" else ["cat"])
    (tmp_path / "export/obj_train_data/1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no such image, but .*export/train\.txt lists it"):
        custom(tmp_path / "export/obj.data")


def test_darknet_runs_in_the_folder_above(tmp_path: Path) -> None:
    images = {"pictures/1.png": "", "pictures/1.txt": ROWS}
    of_data = {"data/obj.data": "train = data/train.txt\nnames = data/obj.names\n", "data/obj.names": "apple\npear\n"}
    write(tmp_path, images | of_data | {"data/train.txt": "pictures/1.png\n"})
    write(tmp_path, {"cfg/obj.data": of_data["data/obj.data"]})
    for folder in ("data", "cfg"):
        dataset = custom(tmp_path / folder / "obj.data")
        assert (dataset.file(0), sorted(found(dataset))) == (tmp_path / "pictures/1.png", ["apple", "pear"])


@pytest.mark.parametrize("labels", ["obj_train_data/1.txt", "images/1.txt", "labels/1.txt"])
def test_an_obj_data_below_a_folder_images(tmp_path: Path, labels: str) -> None:
    image = "obj_train_data/1.png" if "obj" in labels else "images/1.png"
    files = {"obj.data": "train = train.txt\nnames = obj.names\n", "obj.names": "apple\npear\n", "train.txt": image}
    write(tmp_path / "images/set", files | {image: "", labels: ROWS})
    dataset = custom(tmp_path / "images/set/obj.data")
    assert dataset.stated_in(0) == tmp_path / "images/set" / labels
    assert sorted(found(dataset)) == ["apple", "pear"]


def test_labels_in_two_places(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {"classes.txt": "apple\npear\n", "1.png": "", "2.png": "", "3.png": ""}
    write(tmp_path, files | {"labels/1.txt": ROWS, "2.txt": ROWS, "3.txt": ROWS})
    with caplog.at_level(logging.WARNING):
        dataset = custom(tmp_path / "classes.txt")
    assert [len(dataset[i].target.boxes) for i in range(3)] == [0, 2, 2]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{tmp_path}/labels/1.txt is not used")
    assert f"1 images such as {tmp_path}/1.png are read as without objects" in said


def test_images_that_share_a_text_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, {"classes.txt": "apple\npear\n", "images/1.png": "", "labels/1.txt": ROWS})
    custom(tmp_path / "classes.txt")
    assert not caplog.records
    Image.new("RGB", (60, 40)).save(tmp_path / "images/1.jpg")
    with caplog.at_level(logging.WARNING):
        custom(tmp_path / "classes.txt")
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{tmp_path}/labels/1.txt holds the labels of several images")
    assert f"{tmp_path}/images/1.jpg, {tmp_path}/images/1.png" in said


@pytest.mark.parametrize(
    ("files", "given", "message"),
    [
        (
            {"data.yml": "names: [apple, pear]\nnc: 2\ntrain: train\nval: ''\n", "train/a.txt": "7 0.1 0.1 0.1 0.1\n"},
            "data.yml",  # sahi: COCO's ids
            r"train/a\.txt:1: class number 7, but .*data\.yml has nc=2, numbers 0\.\.1 for \['apple', 'pear'\]",
        ),
        (
            {"classes.txt": "apple\npear\n", "notes.json": '{"categories": [{"id": 1, "name": "plum"}]}'},
            "classes.txt",
            r"notes\.json and .*classes\.txt must name the same classes.*\(1, 'plum'\).*'pear'",
        ),
        ({"classes.txt": "apple\n", "notes.json": "{}"}, "classes.txt", r"notes\.json: not Label Studio's"),
        ({"classes.txt": "apple\npear\napple\n"}, "classes.txt", r"classes\.txt: the names .* repeat"),
        ({"obj.data": "train data/train.txt\n"}, "obj.data", r"obj\.data: its line 1 is not `key = value`"),
        ({"obj.data": "names = obj.names\n"}, "obj.data", r"obj\.names: no such file of class names, but .*obj\.data"),
        ({"obj.data": "train = train.txt\n"}, "obj.data", r"obj\.data: `names` must be a list of class names"),
        (
            {"obj.data": "classes = 3\ntrain = train.txt\nnames = obj.names\n", "obj.names": "apple\n"},
            "obj.data",
            r"obj\.data: nc is 3, but there are 1 names: \['apple'\]",
        ),
    ],
)
def test_malformed(tmp_path: Path, files: dict[str, str], given: str, message: str) -> None:
    write(tmp_path, files | {"train/a.png": ""})
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        custom(tmp_path / given)
