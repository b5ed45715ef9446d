"""VOC's folders and XML files as tools really write them, of one image with two objects."""

import logging
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from detector.data.arrange import with_classes_of
from detector.data.check.splits import class_faults
from detector.data.custom import custom
from tests.data.layout_cases import OBJECTS, ROWS, found, write

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


def test_a_folder_of_another_format_is_told(tmp_path: Path) -> None:
    write(tmp_path, {"obj.data": "", "notes.txt": ""})
    with pytest.raises(FileNotFoundError, match=r"holds no XML file, but obj\.data: dataset\.annotations=.*obj\.data"):
        custom(tmp_path)
