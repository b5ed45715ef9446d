"""VOC folders and custom paths: values, hostile input, the real samples."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detector.boxes import iou
from detector.data.custom import custom
from detector.data.voc import CLASSES, AnnotatedVoc, VocDataset
from tests.conftest import dense

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the sample data are not beside the repository")


def entry(name: str, box: tuple[object, ...], difficult: object = 0, truncated: object = 0) -> str:
    corners = "".join(f"<{t}>{v}</{t}>" for t, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    flags = f"<difficult>{difficult}</difficult><truncated>{truncated}</truncated>"
    return f"<object><name>{name}</name>{flags}<bndbox>{corners}</bndbox></object>"


def xml(*objects: str, size: str = "<size><width>30</width><height>20</height></size>") -> str:
    return f"<annotation><filename>x.jpg</filename>{size}{''.join(objects)}</annotation>"


DOG, CAT = entry("dog", (3, 4, 10, 12)), entry("cat", (1, 1, 30, 20), difficult=1, truncated=1)


def make(root: Path, annotations: dict[str, str], folder: str = "VOC2007", split: str = "train") -> Path:
    base = root / folder
    for part in ("JPEGImages", "Annotations", "ImageSets/Main", "ImageSets/Segmentation", "SegmentationObject"):
        (base / part).mkdir(parents=True, exist_ok=True)
    for stem, text in annotations.items():
        Image.new("RGB", (30, 20), "red").save(base / "JPEGImages" / f"{stem}.jpg")
        (base / "Annotations" / f"{stem}.xml").write_text(text)
    for kind in ("Main", "Segmentation"):
        (base / "ImageSets" / kind / f"{split}.txt").write_text("\n".join(annotations) + "\n")
    return root


def test_boxes_flags_labels_and_ids(tmp_path):
    dataset = VocDataset(make(tmp_path, {"000005": xml(DOG, CAT), "000007": xml()}), [("2007", "train")])
    assert dataset.classes == list(CLASSES)
    assert dataset.category_ids == list(range(1, 21))
    assert (len(dataset), dataset.has_masks) == (2, False)
    sample = dataset[0]
    assert (sample.id, sample.original_size) == ("000005", (20, 30))
    assert sample.target.boxes.tolist() == [[2, 3, 10, 12], [0, 0, 30, 20]]
    assert sample.target.labels.tolist() == [CLASSES.index("dog"), CLASSES.index("cat")]
    assert sample.target.difficult.tolist() == [False, True]
    assert sample.target.crowd.tolist() == [False, False]
    assert sample.target.masks is None
    assert dataset[1].target.boxes.shape == (0, 4)
    assert len(VocDataset(tmp_path, [("2007", "train")], keep_empty=False)) == 1


def test_ground_truth_in_cocos_format(tmp_path):
    truth = VocDataset(make(tmp_path, {"000005": xml(DOG, CAT)}), [("2007", "train")]).ground_truth()
    assert truth["images"] == [{"id": "000005", "file_name": "000005.jpg", "height": 20, "width": 30}]
    dog, cat = truth["annotations"]
    assert dog["bbox"] == [2, 3, 8, 9]
    assert dog["area"] == 72
    assert (dog["category_id"], dog["ignore"], dog["difficult"], dog["truncated"]) == (12, 0, 0, 0)
    assert (cat["category_id"], cat["ignore"], cat["difficult"], cat["truncated"]) == (8, 1, 1, 1)
    assert truth["categories"][11] == {"id": 12, "name": "dog"}
    json.dumps(truth)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Unspecified", False),
        ("unspecified", False),
        ("", False),
        (" ", False),
        ("False", False),
        ("true", True),
        ("0.0", False),
        ("0.06", True),
        ("1", True),
    ],
)
def test_flags_as_tools_write_them(tmp_path, text, expected):
    dataset = VocDataset(make(tmp_path, {"a": xml(entry("dog", (1, 1, 2, 2), text, text))}), [("2007", "train")])
    assert dataset[0].target.difficult.tolist() == [expected]
    (annotation,) = dataset.ground_truth()["annotations"]
    assert (annotation["difficult"], annotation["truncated"]) == (expected, expected)


def test_names_with_spaces_and_lists_of_one_class(tmp_path):
    names = ["img", "img (2)", "a  b", "photo 1", "photo", "x y -1"]
    boxes = {name: (1, 1, 2 + i, 3 + i) for i, name in enumerate(names)}
    make(tmp_path, {name: xml(entry("dog", box)) for name, box in boxes.items()})
    path = tmp_path / "VOC2007" / "ImageSets" / "Main" / "train.txt"
    ends = {name: list(map(float, (0, 0, box[2], box[3]))) for name, box in boxes.items()}

    def read(text: str) -> list[str]:
        path.write_text(text)
        dataset = VocDataset(tmp_path, [("2007", "train")])
        samples = [dataset[i] for i in range(len(dataset))]
        assert [s.target.boxes.tolist()[0] for s in samples] == [ends[s.id] for s in samples]
        return [s.id for s in samples]

    assert read("\n".join(names) + "\n\n") == names
    Image.new("RGB", (30, 20)).save(tmp_path / "VOC2007" / "JPEGImages" / "img -1.jpg")
    with pytest.raises(FileNotFoundError, match=r"img -1\.xml: no such"):
        read("img -1\n")  # a picture without an XML, and not `img`
    assert read("img  1\nimg (2) -1\n a  b\t0 \nphoto 1\nphoto 0\n") == ["img", "img (2)", "a  b", "photo 1", "photo"]
    for line, name in (("img 2", "img 2"), ("other (2)", r"other \(2\)"), ("nothing -1", "nothing")):
        path.write_text(f"{line}\n")
        with pytest.raises(FileNotFoundError, match=rf"{name}\.xml: no such annotation"):
            VocDataset(tmp_path, [("2007", "train")])


def test_several_sets_are_one_dataset(tmp_path):
    make(tmp_path, {"000005": xml(DOG)})
    make(tmp_path, {"2008_000001": xml(CAT)}, "VOC2012", "trainval")
    dataset = VocDataset(tmp_path, [("2007", "train"), (2012, "trainval")])
    assert [dataset[i].id for i in range(2)] == ["000005", "2008_000001"]
    with pytest.raises(ValueError, match="000005 is listed twice"):
        VocDataset(tmp_path, [("2007", "train"), ("VOC2007", "train")])


def test_masks_follow_the_order_of_the_xml(tmp_path):
    outside = entry("dog", (40, 4, 50, 12))
    make(tmp_path, {"000005": xml(DOG, outside, CAT)})
    indices = np.zeros((20, 30), dtype=np.uint8)
    indices[3:12, 2:10], indices[15:, :], indices[0] = 1, 3, 255
    path = tmp_path / "VOC2007/SegmentationObject/000005.png"
    Image.fromarray(indices).convert("P").save(path)
    dataset = VocDataset(tmp_path, [("2007", "train")], masks=True)
    assert dataset.has_masks
    assert torch.equal(dense(dataset[0].target.masks), torch.from_numpy(np.stack((indices == 1, indices == 3))))
    assert [a["area"] for a in dataset.ground_truth()["annotations"]] == [72, 150]
    indices[indices == 1] = 0  # the first object has no pixel, the last object number is in no file
    Image.fromarray(indices).convert("P").save(path)
    masks = VocDataset(tmp_path, [("2007", "train")], masks=True)[0].target.masks
    assert masks.windows.tolist() == [[0, 0, 0, 0], [0, 15, 30, 20]]
    indices[indices == 3] = 0
    Image.fromarray(indices).convert("P").save(path)
    assert not VocDataset(tmp_path, [("2007", "train")], masks=True)[0].target.masks.windows.any()
    Image.fromarray(indices[:10]).save(path)
    with pytest.raises(ValueError, match=r"000005\.png: the mask's shape"):
        dataset[0]
    path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"000005\.png: unreadable mask"):
        dataset[0]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"000005\.png: no such mask"):
        dataset[0]


def test_boxes_are_cut_at_the_edge_or_skipped(tmp_path, caplog):
    over = entry("dog", (-4, 15, 12, 40))
    bad = [entry("dog", box) for box in ((5, 5, 4, 9), (5, 9, 9, 3), (31, 1, 40, 9), (1, 30, 9, 40))]
    with caplog.at_level(logging.WARNING):
        dataset = VocDataset(make(tmp_path, {"000005": xml(over, *bad)}), [("2007", "train")])
    assert dataset[0].target.boxes.tolist() == [[0, 14, 12, 20]]
    assert "skipped 4 of 5 boxes: 2 outside the image, 2 without area" in caplog.text
    # xmin = xmax is one column of pixels, not nothing.
    one = VocDataset(make(tmp_path, {"000005": xml(entry("dog", (5, 5, 5, 9)))}), [("2007", "train")])
    assert one[0].target.boxes.tolist() == [[4, 4, 5, 9]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", "not XML"),
        ("", "not XML"),
        (xml(DOG, size=""), "size/height"),
        (xml(DOG, size="<size><width>0</width><height>20</height></size>"), "must be positive"),
        (xml(DOG, size="<size><width>wide</width><height>20</height></size>"), "'wide'"),
        (xml(DOG, size="<size><width>3.5</width><height>20</height></size>"), "'3.5'"),
        (xml("<object><name>dog</name></object>"), "bndbox/xmin"),
        (xml("<object><bndbox/></object>"), "has no <name>"),
        (xml(entry("unicorn", (1, 1, 2, 2))), "unknown class 'unicorn'"),
        (xml(entry("dog", (1, 1, "two", 2))), "'two'"),
        (xml(entry("dog", (1, 1, "inf", 2))), "'inf'"),
        (xml(entry("dog", (1, 1, 2, 2), difficult="maybe")), "'maybe' .*in <difficult>"),
        (xml(entry("dog", (1, 1, 2, 2), truncated="nan")), "'nan' .*in <truncated>"),
    ],
)
def test_a_malformed_annotation_is_named(tmp_path, text, message):
    make(tmp_path, {"000005": text})
    with pytest.raises(ValueError, match=rf"000005\.xml: .*{message}"):
        VocDataset(tmp_path, [("2007", "train")])


def test_missing_parts_are_named(tmp_path):
    make(tmp_path, {"000005": xml(DOG)})
    with pytest.raises(FileNotFoundError, match=r"VOC2012: no such folder.*layout.*data_dir"):
        VocDataset(tmp_path, [("2012", "train")])
    with pytest.raises(FileNotFoundError, match=r"test\.txt: no such list of images; there are \['train'\]"):
        VocDataset(tmp_path, [("2007", "test")])
    with pytest.raises(ValueError, match="sets must be pairs"):
        VocDataset(tmp_path, ["2007"])
    base = tmp_path / "VOC2007"
    (base / "JPEGImages/000005.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"000005\.jpg: no such image, but .*000005\.xml"):
        VocDataset(tmp_path, [("2007", "train")])
    (base / "Annotations/000005.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"000005\.xml: no such annotation"):
        VocDataset(tmp_path, [("2007", "train")])
    (base / "ImageSets/Main/train.txt").write_text("\n")
    with pytest.raises(ValueError, match="hold no image"):
        VocDataset(tmp_path, [("2007", "train")])


def test_unreadable_and_unequal_images_are_named_at_once_and_when_read(tmp_path):
    dataset = VocDataset(make(tmp_path, {"000005": xml(DOG)}), [("2007", "train")])
    path = tmp_path / "VOC2007/JPEGImages/000005.jpg"
    Image.new("RGB", (31, 20)).save(path)
    reads = (lambda: VocDataset(tmp_path, [("2007", "train")]), lambda: dataset[0])
    for read in reads:
        with pytest.raises(ValueError, match=r"000005\.jpg: the image is 31x20 .*000005\.xml says 30x20"):
            read()
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    for part in (path.read_bytes()[:-200], b"no image"):
        path.write_bytes(part)
        for read in reads:
            with pytest.raises(ValueError, match=r"000005\.jpg: unreadable image"):
                read()


def test_custom_opens_either_format_by_path(tmp_path):
    make(tmp_path, {"one": xml(entry("yak", (1, 1, 9, 9))), "two": xml(entry("bee", (1, 1, 9, 9)))}, "farm")
    (tmp_path / "farm/ImageSets/Main/train.txt").write_text("one\n")
    voc = custom(tmp_path / "farm/ImageSets/Main/train.txt")
    assert isinstance(voc, AnnotatedVoc)
    assert voc.classes == ["bee", "yak"]  # of the folder, so that every split has the same
    assert voc[0].target.labels.tolist() == [1]
    assert custom(tmp_path / "farm/ImageSets/Main/train.txt", classes=["yak"]).classes == ["yak"]
    image = {"id": 1, "file_name": "one.jpg", "width": 30, "height": 20}
    record = {"id": 1, "image_id": 1, "category_id": 5, "bbox": [1, 1, 4, 4]}
    document = {"images": [image], "annotations": [record], "categories": [{"id": 5, "name": "yak"}]}
    path = tmp_path / "farm/JPEGImages/farm.json"
    path.write_text(json.dumps(document))
    assert (custom(path).classes, custom(path).category_ids, custom(path)[0].id) == (["yak"], [5], 1)
    assert custom(path, tmp_path / "farm/JPEGImages")[0].size == (20, 30)
    (tmp_path / "farm.csv").touch()
    with pytest.raises(ValueError, match=r"farm\.csv: annotations must be"):
        custom(tmp_path / "farm.csv")


@shared
def test_the_voc_sample():
    root = SHARED / "VOCdevkit"
    assert [len(VocDataset(root, [("2007", split)])) for split in ("train", "val")] == [238, 130]
    dataset = VocDataset(root, [("2007", "trainval")], masks=True)
    assert len(dataset) == 31
    for sample in (dataset[i] for i in range(3)):
        for box, mask in zip(sample.target.boxes, dense(sample.target.masks), strict=True):
            rows, columns = torch.nonzero(mask.any(1))[:, 0], torch.nonzero(mask.any(0))[:, 0]
            tight = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            assert iou(box[None], tight[None]) > 0.7  # the masks leave out a void border
    truth = VocDataset(root, [("2007", "val")]).ground_truth()
    assert sum(a["ignore"] for a in truth["annotations"]) == 112


@shared
def test_the_custom_samples():
    cells = custom(SHARED / "bccd/VOCdevkit/BCCD/ImageSets/Main/test.txt")
    assert (len(cells), cells.classes) == (72, ["Platelets", "RBC", "WBC"])
    nuclei = custom(SHARED / "nuclei/instances_val.json", SHARED / "nuclei/images")
    assert (len(nuclei), nuclei.classes, nuclei.has_masks) == (107, ["nucleus"], True)
    sample = nuclei[0]
    assert torch.all(dense(sample.target.masks).flatten(1).any(1))
