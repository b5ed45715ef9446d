"""The layouts of folders and JSONs as tools really write them, of one image of 60 x 40 pixels with two objects.

Written by FiftyOne 1.22.1, label-studio-sdk 2.1.2, panlabel 0.7.0, sahi 0.12.8, labelme2coco 0.2.6, ultralytics 8.4.190
and datumaro 1.13.12, which also writes what CVAT exports; Roboflow's after its published exports.
"""

import json
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from detector.data.annotations import AnnotatedDataset
from detector.data.arrange import with_classes_of
from detector.data.check.splits import class_faults
from detector.data.custom import custom

OBJECTS = {"pear": [0.0, 0, 10, 10], "apple": [20.0, 5, 50, 30]}
ROWS = "1 0.083333 0.125000 0.166667 0.250000\n0 0.583333 0.437500 0.500000 0.625000\n"  # pear, apple


def write(root: Path, files: dict[str, str]) -> None:
    """Write files by their paths; images are of 60 x 40 pixels and need no content."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.new("RGB", (60, 40)).save(path)
        else:
            path.write_text(text)


def found(dataset: AnnotatedDataset) -> dict[str, list[float]]:
    table = dataset.annotations
    pairs = zip(table.labels, table.corners().round(3).tolist(), strict=True)
    return {table.classes[label]: box for label, box in pairs}


_FIFTYONE = """<annotation>
    <folder></folder>
    <filename>{path}</filename>
    <path>/somewhere/data/{path}</path>
    <source>
        <database></database>
    </source>
    <size>
        <width>60</width>
        <height>40</height>
        <depth>3</depth>
    </size>
    <segmented></segmented>
{objects}</annotation>"""

_LABEL_STUDIO = """<?xml version="1.0" encoding="utf-8"?>
<annotation>
<folder>images</folder>
<filename>{path}</filename>
<source>
<database>MyDatabase</database>
<annotation>COCO2017</annotation>
<image>flickr</image>
<flickrid>NULL</flickrid>
<annotator>1</annotator>
</source>
<owner>
<flickrid>NULL</flickrid>
<name>Label Studio</name>
</owner>
<size>
<width>60</width>
<height>40</height>
<depth>3</depth>
</size>
<segmented>0</segmented>
{objects}</annotation>
"""

_PANLABEL = """<?xml version="1.0" encoding="utf-8"?>
<annotation>
  <folder>JPEGImages</folder>
  <filename>{path}</filename>
  <size>
    <width>60</width>
    <height>40</height>
  </size>
{objects}</annotation>
"""


def xml(form: str, path: str, flags: str = "") -> str:
    boxes = {name: zip(("xmin", "ymin", "xmax", "ymax"), map(int, box), strict=True) for name, box in OBJECTS.items()}
    objects = "".join(
        f"<object><name>{name}</name>{flags}<bndbox>{''.join(f'<{k}>{v}</{k}>' for k, v in box)}</bndbox></object>\n"
        for name, box in boxes.items()
    )
    return form.format(path=path, objects=objects)


@pytest.mark.parametrize(
    ("text", "where", "image", "given"),
    [
        (xml(_FIFTYONE, "sub/a.png", "<difficult>0</difficult>"), "labels/sub/a.xml", "data/sub/a.png", "."),
        (xml(_FIFTYONE, "sub/a.png", "<iscrowd>0</iscrowd>"), "labels/sub/a.xml", "data/sub/a.png", "labels"),
        (xml(_LABEL_STUDIO, "a.png", "<pose>Unspecified</pose>"), "Annotations/a.xml", "images/a.png", "."),
        (xml(_PANLABEL, "sub/a.png"), "Annotations/sub/a.xml", "JPEGImages/sub/a.png", "."),
        (xml(_PANLABEL, "a.png"), "Annotations/a.xml", "JPEGImages/a.png", "Annotations"),
        (xml(_PANLABEL, "a.png"), "train/a.xml", "train/a.png", "train"),  # Roboflow
    ],
    ids=["fiftyone", "fiftyone-labels", "label-studio", "panlabel", "annotations", "roboflow"],
)
def test_voc(tmp_path: Path, text: str, where: str, image: str, given: str) -> None:
    write(tmp_path, {where: text, image: "", "Annotations/.hidden/a.xml": "no XML", "README.txt": ""})
    dataset = custom(tmp_path / given, voc_origin=0)
    assert found(dataset) == OBJECTS
    assert list(dataset.annotations.image_ids) == ["sub/a" if "sub" in where else "a"]
    assert dataset.file(0) == tmp_path / image


def described(name: str) -> dict[str, str]:
    """Make an image beside its XML file, without suffix."""
    return {f"{name}.xml": xml(_PANLABEL, f"{Path(name).name}.png"), f"{name}.png": ""}


IN_FOLDERS = {"Annotations/1.xml": xml(_PANLABEL, "1.png"), "JPEGImages/1.png": ""}


@pytest.mark.parametrize(
    ("files", "given", "image"),
    [
        (described("1") | described("val/2"), ".", "1.png"),
        (described("1") | {"masks/1.png": ""}, ".", "1.png"),
        (described("train/1") | {"masks/1.png": ""}, ".", "train/1.png"),
        (IN_FOLDERS | {"JPEGImages/thumbs/1.png": ""}, ".", "JPEGImages/1.png"),
        (IN_FOLDERS | {"Annotations/thumbs/1.png": ""}, "Annotations", "JPEGImages/1.png"),
        (IN_FOLDERS | {"Annotations/backup/1.xml": "no XML"}, ".", "JPEGImages/1.png"),
        (described("Annotations/1") | {"data/b.bin": "", "images/b.bin": ""}, ".", "Annotations/1.png"),
        (described("Annotations/1") | {"data/b.png": ""}, ".", "Annotations/1.png"),
        (described("Annotations/1") | {"data/b.png": ""}, "Annotations", "Annotations/1.png"),
        ({"Annotations/1.xml": xml(_PANLABEL, "1.png"), "images/b.bin": "", "data/1.png": ""}, ".", "data/1.png"),
        (described("1") | {"labels/1.xml": "no XML"}, ".", "1.png"),
        (described("1") | {"labels/1.txt": ROWS, "ImageSets/Main/a.txt": "1\n"}, "ImageSets/Main/a.txt", "1.png"),
        (
            {"labels/1.xml": xml(_PANLABEL, "1.png"), "data/1.png": "", "ImageSets/Main/a.txt": "1\n"},
            "ImageSets/Main/a.txt",
            "data/1.png",
        ),
    ],
)
@pytest.mark.parametrize("unannotated", ["error", "empty"])
def test_other_folders_beside_or_below_those_of_voc(
    tmp_path: Path, files: dict[str, str], given: str, image: str, unannotated: Literal["error", "empty"]
) -> None:
    write(tmp_path, files)
    dataset = custom(tmp_path / given, voc_origin=0, unannotated=unannotated)
    assert [dataset.file(i) for i in range(len(dataset))] == [tmp_path / image]
    assert found(dataset) == OBJECTS


def test_xml_files_below_others_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, described("1"))
    custom(tmp_path, voc_origin=0)
    assert not caplog.records
    write(tmp_path, described("val/2") | described("val/3") | {".hidden/1.xml": ""})
    with caplog.at_level(logging.WARNING):
        custom(tmp_path, voc_origin=0)
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"{tmp_path} holds XML files itself, so 2 in folders below it are not read, such as" in said
    assert len(custom([tmp_path, tmp_path / "val"], voc_origin=0)) == 3


def test_masks_in_sub_folders(tmp_path: Path) -> None:
    """datumaro, and with it CVAT."""
    write(
        tmp_path,
        {
            "Annotations/sub/a.xml": xml(_PANLABEL, "sub/a.png", "<occluded>0</occluded>"),
            "JPEGImages/sub/a.png": "",
            "ImageSets/Segmentation/default.txt": "sub/a\n",
        },
    )
    numbers = np.zeros((40, 60), np.uint8)
    numbers[0:10, 0:10], numbers[5:30, 20:50] = 1, 2
    path = tmp_path / "SegmentationObject/sub/a.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(numbers).save(path)
    dataset = custom(tmp_path / "ImageSets/Segmentation/default.txt", voc_origin=0)
    masks = dataset[0].target.masks
    assert masks is not None
    assert [int(masks.dense(i).sum()) for i in range(2)] == [100, 750]
    assert found(dataset) == OBJECTS


def test_a_class_that_only_train_has(tmp_path: Path) -> None:
    """A folder of XML files has no list of classes."""
    write(tmp_path, {f"{part}/a.{end}": xml(_PANLABEL, "a.png") for part in ("train", "val") for end in ("png", "xml")})
    (tmp_path / "val/a.xml").write_text(xml(_PANLABEL, "a.png").replace("apple", "pear"))
    train, val = (custom(tmp_path / part, voc_origin=0, part=part) for part in ("train", "val"))
    assert (train.classes, val.classes) == (["apple", "pear"], ["pear"])
    assert (train.gathers_classes, custom(tmp_path / "val", classes=["pear"]).gathers_classes) == (True, False)
    tables = {"train": train.annotations, "val": val.annotations}
    kinds = [fault.kind for fault in class_faults(tables)]
    assert kinds.count("classes without an object in val") == 1
    assert "splits with different classes" not in kinds
    kinds = [fault.kind for fault in class_faults({"train": val.annotations, "val": train.annotations})]
    assert kinds.count("splits with different classes") == 1  # nothing could learn it
    whole = with_classes_of(val.annotations, train.classes)
    assert (whole.classes, whole.labels.tolist(), whole.category_ids) == (["apple", "pear"], [1, 1], [2, 1])


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


def test_a_folder_of_another_format_is_told(tmp_path: Path) -> None:
    write(tmp_path, {"obj.data": "", "notes.txt": ""})
    with pytest.raises(FileNotFoundError, match=r"holds no XML file, but obj\.data: dataset\.annotations=.*obj\.data"):
        custom(tmp_path)


def coco(**keys: Any) -> dict[str, Any]:
    """Make a JSON of both objects, with further keys of each, and what `keys` replaces."""
    boxes = [[0.0, 0.0, 10.0, 10.0], [20.0, 5.0, 30.0, 25.0]]
    each = keys.pop("each", {})
    ids, of = keys.pop("ids", [1, 2]), keys.pop("of", [2, 1])
    annotations = [
        {"image_id": 0, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": 0} | each
        for c, box in zip(of, boxes, strict=True)
    ]
    annotations = [a | {"id": i} for a, i in zip(annotations, ids, strict=True)]
    names = [{"id": 1, "name": "apple", "supercategory": None}, {"id": 2, "name": "pear", "supercategory": None}]
    images = [{"id": 0, "file_name": "a.png", "width": 60, "height": 40}]
    return {"images": images, "categories": names, "annotations": annotations} | keys


def _named(*names: str, first: int = 0, **keys: Any) -> list[dict[str, Any]]:
    return [{"id": i, "name": name} | keys for i, name in enumerate(names, first)]


COCO = {
    "roboflow": coco(
        info={"year": "2026", "version": "1"},
        licenses=[{"id": 1, "url": "", "name": "CC BY 4.0"}],
        categories=[*_named("fruit", supercategory="none"), *_named("apple", "pear", first=1, supercategory="fruit")],
        ids=[0, 1],
        each={"segmentation": []},
    ),
    "roboflow-one-name": coco(
        categories=[*_named("pear", supercategory="none"), *_named("apple", "pear", first=1, supercategory="pear")],
        ids=[0, 1],
    ),
    "label-studio": coco(
        categories=_named("apple", "pear"), ids=[0, 1], of=[1, 0], each={"segmentation": [], "ignore": 0}
    ),
    "cvat": coco(
        licenses=[{"name": "", "id": 0, "url": ""}],
        each={"segmentation": [], "attributes": {"occluded": True, "rotation": 0.0}},
    ),
    "fiftyone": coco(each={"difficult": 0}),
    "sahi": coco(categories=_named("apple", "pear", first=1, supercategory="apple")),
    "labelme2coco": coco(categories=_named("pear", "apple"), of=[0, 1]),
}


@pytest.mark.parametrize("tool", COCO)
def test_coco(tmp_path: Path, tool: str) -> None:
    write(tmp_path, {"_annotations.coco.json": json.dumps(COCO[tool]), "a.png": ""})
    dataset = custom(tmp_path / "_annotations.coco.json")
    assert found(dataset) == OBJECTS
    assert sorted(dataset.classes) == ["apple", "pear"]
    assert not dataset.annotations.crowd.any()
    assert not dataset.annotations.difficult.any()


def test_file_names_with_the_folders_of_another_place(tmp_path: Path) -> None:
    """As labelme2coco writes them, relative to where it ran."""
    images = [{"id": 0, "file_name": "runs/src/a.png", "width": 60, "height": 40}]
    write(tmp_path, {"runs/dataset.json": json.dumps(coco(images=images)), "runs/src/a.png": ""})
    with pytest.raises(FileNotFoundError, match=r"missing; a\.png is there, without the folders of its file_name\); "):
        custom(tmp_path / "runs/dataset.json", tmp_path / "runs/src")
    assert found(custom(tmp_path / "runs/dataset.json", tmp_path)) == OBJECTS
