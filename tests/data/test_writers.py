"""Datasets written in other formats and read again: boxes, masks, classes, flags."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pycocotools.coco import COCO

from detector.data.annotations import AnnotatedDataset, Annotations
from detector.data.coco import CocoDataset, read_coco
from detector.data.image import ImageReader
from detector.data.voc import AnnotatedVoc
from detector.data.voc_annotations import read_voc
from detector.data.voc_files import voc_list
from detector.data.voc_writer import decimal, write_voc
from detector.data.writers import Split, file_names, write_coco
from detector.data.yolo import read_yolo
from detector.data.yolo_writer import write_yolo
from detector.run_lengths import decode, encode, from_segmentation
from detector.types import Masks
from tests.conftest import dense

SIZE = (40, 60)


def ellipse(centre: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    return ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 < 1


RING = ellipse((45, 20), (13, 18)) & ~ellipse((45, 20), (6, 7))
PARTS = [[1.5, 2.25, 11.0, 2.5, 10.25, 12.75, 3.0, 9.5], [2.0, 20.0, 9.3, 21.1, 8.0, 33.3]]


def coco_set(folder: Path, masks: bool = True) -> Path:
    """Write images in two folders, one name in both, with boxes of two decimals, a crowd, a difficult object."""
    (code,) = encode(Masks.from_dense([torch.from_numpy(RING)], SIZE))
    annotations = [
        {"image_id": 7, "category_id": 3, "bbox": [1.5, 2.25, 9.5, 31.05], "segmentation": PARTS, "area": 90.5},
        {"image_id": 7, "category_id": 9, "bbox": [32, 2, 26, 36], "segmentation": code, "area": int(RING.sum())},
        {"image_id": 9, "category_id": 9, "bbox": [0, 0, 20.37, 40],
         "segmentation": [[0, 0, 20.37, 0, 20.37, 40, 0, 40]]},
        {"image_id": 9, "category_id": 3, "bbox": [32.0, 2.0, 26.0, 36.0], "segmentation": code, "iscrowd": 1},
        {"image_id": 9, "category_id": 3, "bbox": [21.11, 5.55, 8.88, 7.77], "difficult": 1,
         "segmentation": [[21.11, 5.55, 29.99, 5.55, 29.99, 13.32, 21.11, 13.32]]},
    ]  # fmt: skip
    for number, annotation in enumerate(annotations, 1):
        annotation |= {"id": number, "iscrowd": annotation.get("iscrowd", 0)}
        if not masks:
            del annotation["segmentation"]
    names = {7: "one/a.png", 9: "two/a.png", 11: "two/empty.png"}
    images = [{"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]} for i, name in names.items()]
    categories = [{"id": 3, "name": "apple"}, {"id": 9, "name": "pear & plum"}]
    for i, name in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE[::-1], (i, 0, 0)).save(folder / name)
    path = folder / "all.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def mask_of(table: Annotations, index: int) -> np.ndarray:
    assert table.segmentations is not None
    return dense(decode([from_segmentation(table.segmentations.get(index, SIZE), SIZE)], SIZE))[0].numpy()


def same(one: Annotations, other: Annotations, pixels: bool = True) -> None:
    """Check that objects have the same image, class, box, flags and mask."""
    assert len(one) == len(other)
    assert one.starts.tolist() == other.starts.tolist()
    assert [one.classes[i] for i in one.labels] == [other.classes[i] for i in other.labels]
    np.testing.assert_allclose(one.corners(), other.corners(), atol=0.001)
    assert one.crowd.tolist() == other.crowd.tolist()
    assert one.difficult.tolist() == other.difficult.tolist()
    assert one.sizes.tolist() == other.sizes.tolist()
    assert (one.segmentations is None) == (other.segmentations is None)
    if pixels and one.segmentations is not None:
        for i in range(len(one.ids)):
            np.testing.assert_array_equal(mask_of(one, i), mask_of(other, i))


def read_voc_back(folder: Path, masks: bool = True) -> tuple[AnnotatedVoc, Annotations]:
    part = voc_list(folder / "ImageSets" / "Main" / "train.txt")
    dataset = AnnotatedVoc(read_voc([part], part.images), part.images, masks=masks)
    return dataset, dataset.complete()


@pytest.mark.parametrize("masks", [True, False])
def test_from_coco_to_voc_and_back(tmp_path, caplog, masks):
    original = read_coco(coco_set(tmp_path / "in", masks))
    with caplog.at_level(logging.WARNING):
        said = write_voc([Split("train", original, tmp_path / "in")], tmp_path / "voc")
        dataset, voc = read_voc_back(tmp_path / "voc", masks)
    assert not caplog.records
    assert said == ["VOC has no crowds: 1 are written as difficult objects, with a tag iscrowd beside"]
    same(original, voc)
    assert list(voc.files) == ["one_a.png", "two_a.png", "two_empty.png"]
    assert dataset[1].image[0, 0, 0] == 9
    assert write_coco([Split("train", voc, dataset.images)], tmp_path / "coco") == []
    again = read_coco(tmp_path / "coco/annotations/instances_train.json")
    same(original, again)
    assert list(again.image_ids) == [1, 2, 3]
    assert (
        CocoDataset(tmp_path / "coco/train", tmp_path / "coco/annotations/instances_train.json")[0].image[0, 0, 0] == 7
    )
    assert len(write_voc([Split("train", again, tmp_path / "coco/train")], tmp_path / "voc2")) == 1
    same(voc, read_voc_back(tmp_path / "voc2", masks)[1])


def test_voc_as_other_readers_see_it(tmp_path):
    original = read_coco(coco_set(tmp_path / "in"))
    write_voc([Split("train", original, tmp_path / "in")], tmp_path / "voc")
    root = ElementTree.parse(tmp_path / "voc/Annotations/two_a.xml").getroot()
    assert [root.findtext(t) for t in ("filename", "size/width", "size/height", "size/depth")] == [
        "two_a.png",
        "60",
        "40",
        "3",
    ]
    found = [[o.findtext(t) for t in ("name", "difficult", "truncated", "pose")] for o in root.iter("object")]
    assert found == [
        ["pear & plum", "0", "0", "Unspecified"],
        ["apple", "1", "0", "Unspecified"],
        ["apple", "1", "0", "Unspecified"],
    ]
    boxes = [[float(o.findtext(f"bndbox/{t}")) for t in ("xmin", "ymin", "xmax", "ymax")] for o in root.iter("object")]
    assert boxes == [[1, 1, 20.37, 40], [33, 3, 58, 38], [22.11, 6.55, 29.99, 13.32]]
    with Image.open(tmp_path / "voc/SegmentationObject/one_a.png") as image:
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((34, 20)) == (0, 128, 0)  # VOC's colour of 2
        assert sorted(set(np.array(image).reshape(-1).tolist())) == [0, 1, 2]
    for kind in ("Main", "Segmentation"):
        assert (tmp_path / f"voc/ImageSets/{kind}/train.txt").read_text() == "one_a\ntwo_a\ntwo_empty\n"


def test_what_vocs_masks_cannot_hold(tmp_path):
    original = read_coco(coco_set(tmp_path / "in"))
    whole = [[0, 0, 60, 0, 60, 40, 0, 40]]
    document = original.to_coco()
    document["annotations"][1] |= {"segmentation": whole, "bbox": [0, 0, 60, 40], "area": 2400}
    for number in range(300):
        x, y = number % 60, number // 60
        square = [[x, y, x + 1, y, x + 1, y + 1, x, y + 1]]
        annotation = {
            "id": 100 + number,
            "image_id": 11,
            "category_id": 3,
            "bbox": [x, y, 1, 1],
            "segmentation": square,
        }
        document["annotations"].append(annotation)
    del document["annotations"][0]["segmentation"]
    (tmp_path / "in/all.json").write_text(json.dumps(document))
    original = read_coco(tmp_path / "in/all.json")
    del document["annotations"][2]
    said = write_voc([Split("train", original, tmp_path / "in")], tmp_path / "voc", "link")
    assert (
        said[1:]
        == [
            "VOC's masks do not overlap: 0 lose the pixels that a smaller mask covers",
            "1 objects have no mask, among others that have; theirs are empty",
            "the masks of 1 images with more than 254 objects are PNGs of 16 bits, which few tools read",
        ][1:]
    )
    _, voc = read_voc_back(tmp_path / "voc")
    assert voc.segmentations.get(0, voc.size(0)) is None
    for i in range(5, 305):
        np.testing.assert_array_equal(mask_of(voc, i), mask_of(original, i))


def test_the_smaller_of_two_masks_lies_above(tmp_path):
    original = read_coco(coco_set(tmp_path / "in"))
    document = original.to_coco()
    document["annotations"][0] |= {"segmentation": [[30, 0, 60, 0, 60, 40, 30, 40]], "bbox": [30, 0, 30, 40]}
    (tmp_path / "in/all.json").write_text(json.dumps(document))
    original = read_coco(tmp_path / "in/all.json")
    said = write_voc([Split("train", original, tmp_path / "in")], tmp_path / "voc", "none")
    assert "VOC's masks do not overlap: 1 lose the pixels that a smaller mask covers" in said
    assert not (tmp_path / "voc/JPEGImages").exists()
    write_voc([Split("train", original, tmp_path / "in")], tmp_path / "voc2")
    _, voc = read_voc_back(tmp_path / "voc2")
    np.testing.assert_array_equal(mask_of(voc, 1), RING)
    np.testing.assert_array_equal(mask_of(voc, 0), mask_of(original, 0) & ~RING)


def test_from_coco_to_yolo_and_back(tmp_path):
    original = read_coco(coco_set(tmp_path / "in"))
    said = write_yolo([Split("train", original, tmp_path / "in")], tmp_path / "yolo")
    assert said == [
        "YOLO has no crowds: 1 are left out, and their regions become background",
        "YOLO has no difficult objects: 1 are written as objects like others",
    ]
    settings = yaml.safe_load((tmp_path / "yolo/data.yaml").read_text())
    assert settings == {"train": "images/train", "nc": 2, "names": {0: "apple", 1: "pear & plum"}}
    yolo = read_yolo(tmp_path / "yolo/data.yaml")
    kept = original.select_objects(~original.crowd)
    same(replace(kept, difficult=np.zeros(4, bool)), yolo)
    write_coco([Split("train", yolo, tmp_path / "yolo")], tmp_path / "coco", "link")
    again = read_coco(tmp_path / "coco/annotations/instances_train.json")
    same(yolo, again)
    assert (tmp_path / "coco/train/one_a.png").is_symlink()
    assert CocoDataset(tmp_path / "coco/train", tmp_path / "coco/annotations/instances_train.json")[0].size == SIZE
    write_voc([Split("train", yolo, tmp_path / "yolo")], tmp_path / "voc")
    same(yolo, read_voc_back(tmp_path / "voc")[1])


def test_boxes_alone_in_yolo(tmp_path):
    original = read_coco(coco_set(tmp_path / "in", masks=False))
    write_yolo([Split("train", original, tmp_path / "in")], tmp_path / "yolo")
    lines = (tmp_path / "yolo/labels/train/one_a.txt").read_text().splitlines()
    assert lines[1] == "1 0.75 0.5 0.43333333333 0.9"
    assert (tmp_path / "yolo/labels/train/two_empty.txt").read_text() == ""
    same(
        replace(original.select_objects(~original.crowd), difficult=np.zeros(4, bool)),
        read_yolo(tmp_path / "yolo/data.yaml"),
    )


def test_objects_without_a_mask_and_boxes_beside_their_masks_in_yolo(tmp_path):
    document = read_coco(coco_set(tmp_path / "in")).to_coco()
    del document["annotations"][0]["segmentation"]
    document["annotations"][1]["bbox"] = [31, 2, 27, 36]
    (tmp_path / "in/all.json").write_text(json.dumps(document))
    original = read_coco(tmp_path / "in/all.json")
    said = write_yolo([Split("train", original, tmp_path / "in")], tmp_path / "yolo")
    assert said[2:] == [
        "1 objects have no mask, among others that have; their boxes are written as polygons",
        "YOLO's boxes are those of the polygons: 1 differ from the ones given by more than 0.01 px, 1.00 px at most",
    ]
    yolo = read_yolo(tmp_path / "yolo/data.yaml")
    np.testing.assert_allclose(yolo.corners()[:2], [[1.5, 2.25, 11, 33.3], [32, 2, 58, 38]], atol=1e-6)


def test_coco_as_pycocotools_reads_it(tmp_path):
    original = read_coco(coco_set(tmp_path / "in"))
    write_coco([Split(name, original, tmp_path / "in") for name in ("train", "val")], tmp_path / "coco")
    for name in ("train", "val"):
        coco = COCO(tmp_path / f"coco/annotations/instances_{name}.json")
        assert [i["file_name"] for i in coco.loadImgs([7, 9, 11])] == [
            f"{name}_{n}.png" for n in ("one_a", "two_a", "two_empty")
        ]
        assert (tmp_path / "coco" / name / f"{name}_two_a.png").is_file()
        annotations = coco.loadAnns(coco.getAnnIds())
        assert [a["area"] for a in annotations] == [
            90.5,
            RING.sum(),
            pytest.approx(814.8),
            RING.sum(),
            pytest.approx(68.9976),
        ]
        assert [a["iscrowd"] for a in annotations] == [0, 0, 0, 1, 0]
        np.testing.assert_array_equal(coco.annToMask(annotations[1]), RING)


def test_names_stay_as_they_are_where_they_differ(tmp_path):
    table = read_coco(coco_set(tmp_path / "in"))
    one = table.select(np.array([0]))
    assert file_names([Split("train", one, tmp_path)]) == {"train": ["a.png"]}
    others = table.select(np.array([1, 2]))
    assert file_names([Split("train", others, tmp_path), Split("val", one, tmp_path)]) == {
        "train": ["two_a.png", "two_empty.png"],
        "val": ["one_a.png"],
    }
    both = {"train": ["train_one_a.png"], "val": ["val_one_a.png"]}
    assert file_names([Split("train", one, tmp_path), Split("val", one, tmp_path)]) == both


def test_nothing_is_overwritten(tmp_path):
    original = read_coco(coco_set(tmp_path / "in"))
    folder = tmp_path / "out"
    folder.mkdir()
    split = Split("train", original, tmp_path / "in")
    write_coco([split], folder)  # an empty folder is new
    for write in (write_coco, write_voc, write_yolo):
        with pytest.raises(FileExistsError, match="out: there are files already, and nothing is overwritten"):
            write([split], folder)
    with pytest.raises(FileNotFoundError):
        write_yolo([replace(split, images=tmp_path / "nowhere")], tmp_path / "yolo")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]
    assert folder.stat().st_mode & 0o777 == (tmp_path / "in").stat().st_mode & 0o777


def test_splits_of_different_classes_are_refused_in_yolo(tmp_path):
    table = read_coco(coco_set(tmp_path / "in"))
    other = replace(table, classes=["apple", "plum"])
    with pytest.raises(ValueError, match=r"val has the classes \['apple', 'plum'\]"):
        write_yolo([Split("train", table, tmp_path), Split("val", other, tmp_path)], tmp_path / "yolo")


def test_classes_without_objects_are_named(tmp_path):
    table = read_coco(coco_set(tmp_path / "in"))
    said = write_voc([Split("train", table.select_objects(table.labels == 0), tmp_path / "in")], tmp_path / "voc")
    assert said[-1] == "VOC has no list of classes: ['pear & plum'] have no objects and are left out"


def test_truncated_objects_are_told(tmp_path):
    table = read_coco(coco_set(tmp_path / "in"))
    table = replace(table, extra={"truncated": np.array([1, 0, 0, 0, 1], bool)})
    write_voc([Split("train", table, tmp_path / "in")], tmp_path / "voc")
    _, voc = read_voc_back(tmp_path / "voc")
    assert voc.extra["truncated"].tolist() == [True, False, False, False, True]
    said = write_coco([Split("train", voc, tmp_path / "voc/JPEGImages")], tmp_path / "coco")
    assert said == []
    written = json.loads((tmp_path / "coco" / "annotations" / "instances_train.json").read_text())
    assert [a["truncated"] for a in written["annotations"]] == [1, 0, 0, 0, 1]
    told = write_yolo([Split("train", table, tmp_path / "in")], tmp_path / "yolo", "none")
    assert "YOLO has no flag for truncated objects: 2 are written without" in told


def test_coco_keeps_what_no_reader_knows(tmp_path):
    path = coco_set(tmp_path / "set")
    content = json.loads(path.read_text())
    content |= {"info": {"year": 2026}, "licenses": [{"id": 4, "name": "CC0"}]}
    content["images"][1]["license"] = 4
    content["annotations"][2] |= {"attributes": {"stained": True}, "score": 0.5}
    content["annotations"].reverse()
    path.write_text(json.dumps(content))
    write_coco([Split("train", read_coco(path), path.parent)], tmp_path / "again", "none")
    written = json.loads((tmp_path / "again" / "annotations" / "instances_train.json").read_text())
    assert written["info"] == {"year": 2026}
    assert written["licenses"] == [{"id": 4, "name": "CC0"}]
    assert [image.get("license") for image in written["images"]] == [None, 4, None]
    marked = {a["id"]: a["attributes"] for a in written["annotations"] if "attributes" in a}
    assert marked == {3: {"stained": True}}
    assert [a["score"] for a in written["annotations"] if "score" in a] == [0.5]


def test_decimals():
    assert [decimal(v, 4) for v in (1, 10, 0, 1.50001, 20.37, 100.99996)] == ["1", "10", "0", "1.5", "20.37", "101"]


def photograph(folder: Path, name: str, orientation: int) -> Annotations:
    """Write an image of 30 x 20 stored pixels and its orientation, with an object drawn on the stored pixels."""
    folder.mkdir(exist_ok=True)
    exif = Image.Exif()
    exif[0x010F] = "maker"
    exif[0x0112] = orientation
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(values).save(folder / name, exif=exif)
    document = {
        "images": [{"id": 1, "file_name": name, "width": 30, "height": 20}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [3, 4, 6, 2], "area": 12, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "apple"}],
    }
    (folder / "all.json").write_text(json.dumps(document))
    return read_coco(folder / "all.json")


@pytest.mark.parametrize(
    ("orientation", "exif"), [(5, None), (6, None), (7, False), (8, False), (3, False), (2, False)]
)
def test_photographs_annotated_as_they_are_stored_in_yolo(tmp_path, orientation, exif):
    table = photograph(tmp_path / "in", "a.jpg", orientation)
    said = write_yolo([Split("train", table, tmp_path / "in", ImageReader(exif=exif))], tmp_path / "yolo")
    assert said == [
        "YOLO's readers turn images as EXIF says: 1, whose boxes are drawn on the stored pixels, are copied without "
        "their orientation"
    ]
    yolo = AnnotatedDataset(read_yolo(tmp_path / "yolo/data.yaml"), tmp_path / "yolo")
    np.testing.assert_allclose(yolo.annotations.corners(), [[3, 4, 9, 6]], atol=1e-6)
    with Image.open(tmp_path / "in/a.jpg") as original, Image.open(tmp_path / "yolo/images/train/a.jpg") as copy:
        assert (original.getexif()[0x0112], copy.getexif()[0x0112], copy.getexif()[0x010F]) == (orientation, 1, "maker")
        np.testing.assert_array_equal(np.asarray(original), np.asarray(copy))
    np.testing.assert_array_equal(
        yolo[0].image, AnnotatedDataset(table, tmp_path / "in", reader=ImageReader(exif=False))[0].image
    )
    (said,) = write_yolo([Split("train", table, tmp_path / "in", ImageReader(exif=exif))], tmp_path / "none", "none")
    assert "1 have their boxes drawn on the stored pixels; remove the orientation from them, or write them" in said
    with pytest.raises(ValueError, match=rf"a\.jpg: .* orientation {orientation}, as 1 of train\. images=copy"):
        write_yolo([Split("train", table, tmp_path / "in", ImageReader(exif=exif))], tmp_path / "link", "link")
    assert not (tmp_path / "link").exists()


def test_photographs_whose_orientation_stays_in_yolo(tmp_path):
    table = photograph(tmp_path / "in", "a.png", 6)
    with pytest.raises(
        ValueError, match=r"in/a\.png: .* orientation 6, as 1 of train\. Write the file without it, or to=coco"
    ):
        write_yolo([Split("train", table, tmp_path / "in")], tmp_path / "yolo")
    upside_down = photograph(tmp_path / "in", "a.jpg", 3)  # read upright: the size does not tell, and exif is not false
    assert write_yolo([Split("train", upside_down, tmp_path / "in")], tmp_path / "yolo") == []
    with Image.open(tmp_path / "yolo/images/train/a.jpg") as copy:
        assert copy.getexif()[0x0112] == 3
