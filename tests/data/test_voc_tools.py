"""VOC as other tools write it: the origin of coordinates, folders, encodings, masks."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detector.data.faults import collect
from detector.data.image import ImageReader
from detector.data.voc import AnnotatedVoc, VocDataset
from detector.data.voc_annotations import read_voc
from detector.data.voc_files import VocList, voc_list
from detector.data.voc_masks import colour_map
from tests.conftest import dense
from tests.data.test_voc_dataset import CAT, DOG, entry, make, xml


def flat(folder: Path, annotations: dict[str, str]) -> Path:
    """Write XML files and images into one folder, as Roboflow does."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, text in annotations.items():
        Image.new("RGB", (30, 20), "red").save(folder / f"{stem}.jpg")
        (folder / f"{stem}.xml").write_text(text)
    return folder


def read(path: Path, **keys):
    part = voc_list(path)
    return read_voc([part], part.images, **keys)


def corners(table) -> list[list[float]]:
    return table.corners().tolist()


def test_the_origin_of_coordinates(tmp_path):
    box = entry("dog", (2, 3, 10, 12))
    folder = flat(tmp_path, {"a": xml(box)})
    assert corners(read(folder)) == [[1, 2, 10, 12]]
    assert corners(read(folder, origin=1)) == [[1, 2, 10, 12]]
    assert corners(read(folder, origin=0)) == [[2, 3, 10, 12]]
    assert corners(read(folder, origin="pixels_from_0")) == [[2, 3, 11, 13]]
    fractions = flat(tmp_path / "fractions", {"a": xml(entry("dog", (2.25, 3.5, 10.125, 12.75)))})
    assert corners(read(fractions)) == [[1.25, 2.5, 10.125, 12.75]]
    assert corners(read(fractions, origin=0)) == [[2.25, 3.5, 10.125, 12.75]]
    assert read(fractions, origin=0).boxes.tolist() == [[2.25, 3.5, 7.875, 9.25]]
    with pytest.raises(ValueError, match=r"voc_origin must be 1, .* not 2"):
        read(folder, origin=2)


FROM_0 = [(0, 3, 10, 12), (0, 0, 30, 20), (3, 5, 9, 20)]
FROM_1 = [(1, 3, 10, 12), (1, 1, 30, 20), (3, 1, 30, 20), (1, 2, 3, 4), (1, 5, 6, 20), (4, 4, 30, 9), (9, 1, 12, 20)]
PIXELS_FROM_0 = [(0, y, 29, y + 2) for y in range(6)]


@pytest.mark.parametrize(
    ("boxes", "origin", "said", "likely"),
    [
        (FROM_0, 1, "2 of 3 boxes begin at 0 (0 at 1)", 0),
        (FROM_0, 0, None, None),
        (FROM_1, 1, None, None),
        (FROM_1, 0, "no box begins at 0, but 6 of 7 at 1, and 5 end at the width or height", 1),
        (FROM_1[:4], 0, None, None),  # too few to tell
        ([(0.5, 3, 9, 9)], 1, "1 of 1 boxes begin at 0", 0),
        ([(-3, 3, 9, 9)], 1, None, None),  # out of the image either way
        (
            [(3.0, 3.0, 9.0, 9.5)],
            1,
            "the coordinates of all 1 boxes are written with a decimal point, even whole ones",
            0,
        ),
        ([(3.0, 3.0, 9.0, 9)], 1, None, None),
        ([(3.5, 3.5, 9.25, 9.5)], 1, None, None),
        ([(3.0, 3.0, 9.0, 9.5)], 0, None, None),
        (PIXELS_FROM_0, 1, "6 end a pixel before the width or height of their image, and none", "pixels_from_0"),
        (PIXELS_FROM_0, 0, "6 of 6 boxes begin at 0", "pixels_from_0"),
        (PIXELS_FROM_0, "pixels_from_0", None, None),
    ],
)
def test_what_contradicts_the_origin_is_said_once(tmp_path, caplog, boxes, origin, said, likely):
    folder = flat(tmp_path, {"a": xml(*(entry("dog", box) for box in boxes)), "b": xml()})
    with caplog.at_level(logging.WARNING):
        read(folder, origin=origin)
    found = [r.getMessage() for r in caplog.records]
    assert len(found) == (said is not None)
    assert said is None or said in found[0]
    assert said is None or f"not how voc_origin={origin} counts" in found[0]
    assert said is None or f"dataset.voc_origin={likely} reads" in found[0]


def test_folders_without_lists(tmp_path):
    one = flat(tmp_path / "train", {"b": xml(DOG), "a": xml()})
    (one / "notes.txt").write_text("not an image")
    (one / "a.json").write_text("{}")
    table = read(one)
    assert (list(table.image_ids), list(table.files), table.classes) == (["a", "b"], ["a.jpg", "b.jpg"], ["dog"])
    dataset = AnnotatedVoc(table, one)
    assert dataset[1].target.boxes.tolist() == [[2, 3, 10, 12]]
    assert dataset.stated_in(1) == one / "b.xml"
    assert table.name(0) == f"{one / 'b.xml'}: object 1"
    make(tmp_path, {"c": xml(CAT)}, "whole")  # Annotations and JPEGImages, all of them
    assert voc_list(tmp_path / "whole") == VocList(tmp_path / "whole/Annotations", tmp_path / "whole/JPEGImages")
    assert list(read(tmp_path / "whole").image_ids) == ["c"]
    apart = tmp_path / "photos"
    apart.mkdir()
    for image in one.glob("*.jpg"):
        image.rename(apart / image.name)
    part = voc_list(one, apart)
    table = read_voc([part], apart)
    assert AnnotatedVoc(table, apart, keep_empty=False)[0].id == "b"
    assert list(read_voc([part], tmp_path).files) == ["photos/a.jpg", "photos/b.jpg"]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(FileNotFoundError, match="nothing: the folder holds no XML file"):
        voc_list(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        voc_list(tmp_path / "nowhere")


def test_images_without_an_xml(tmp_path):
    make(tmp_path, {"000005": xml(DOG), "000007": xml()})
    (tmp_path / "VOC2007/Annotations/000007.xml").unlink()
    path = tmp_path / "VOC2007/ImageSets/Main/train.txt"
    with pytest.raises(FileNotFoundError, match=r"000007\.xml: no such .*\(1 of 2 .*dataset\.unannotated=empty"):
        read(path)
    table = read(path, unannotated="empty")
    assert (list(table.files), table.sizes.tolist()) == (["000005.jpg", "000007.jpg"], [[20, 30], [20, 30]])
    dataset = AnnotatedVoc(table, voc_list(path).images)
    assert dataset[1].target.boxes.shape == (0, 4)
    assert len(AnnotatedVoc(table, voc_list(path).images, keep_empty=False)) == 1
    folder = flat(tmp_path / "flat", {"a": xml(DOG)})
    Image.new("RGB", (7, 9)).save(folder / "b.png")
    with pytest.raises(FileNotFoundError, match=r"b\.xml: no such annotation"):
        read(folder)
    assert read(folder, unannotated="empty").sizes.tolist() == [[20, 30], [9, 7]]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (7, 9)).save(folder / "b.tif", exif=exif)
    (folder / "b.png").unlink()
    for turn, size in ((None, [7, 9]), (True, [7, 9]), (False, [9, 7])):
        reader = ImageReader(exif=turn)
        dataset = AnnotatedVoc(read(folder, unannotated="empty", reader=reader), folder, reader=reader)
        assert list(dataset[1].image.shape[1:]) == dataset.annotations.sizes[1].tolist() == size
    with pytest.raises(ValueError, match="unannotated must be error or empty, not 'skip'"):
        read(folder, unannotated="skip")


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ('<?xml version="1.0" encoding="iso-8859-1"?>', "latin-1"),
        ('<?xml version="1.0" encoding="utf-16"?>', "utf-16"),
        ('<?xml version="1.0"?>', "utf-8-sig"),
        ("", "utf-16"),
        ('<?xml version="1.0" encoding="windows-1252"?>\n', "cp1252"),
        ("<?xml version='1.0' encoding='gb2312'?>\n", "gb2312"),
    ],
)
def test_encodings(tmp_path, declared, encoding):
    name = "猫" if encoding == "gb2312" else "Straße"
    folder = flat(tmp_path, {"a": xml(DOG)})
    (folder / "a.xml").write_bytes((declared + xml(entry(name, (3, 4, 10, 12)))).encode(encoding))
    table = read(folder)
    assert (table.classes, corners(table)) == ([name], [[2, 3, 10, 12]])


def test_encodings_that_are_not_those_declared(tmp_path):
    folder = flat(tmp_path, {"a": xml(DOG)})
    for declared in ("gb2312", "utf-8", "no-such-encoding"):
        (folder / "a.xml").write_bytes(f'<?xml version="1.0" encoding="{declared}"?><a>'.encode() + b"\xff\xff</a>")
        with pytest.raises(ValueError, match=r"a\.xml: not XML"):
            read(folder)


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path):
    make(tmp_path, {"000005": xml(DOG)})
    path = tmp_path / "VOC2007/ImageSets/Main/train.txt"
    path.write_bytes(b"\xef\xbb\xbf000005\r\n")
    assert list(read(path).image_ids) == ["000005"]


def test_file_names_with_folders(tmp_path):
    folder = flat(tmp_path, {"a": xml(DOG).replace("x.jpg", r"C:\photos\a.png")})
    assert list(read(folder).files) == ["a.jpg"]
    Image.new("RGB", (30, 20)).save(folder / "a.png")
    assert list(read(folder).files) == ["a.png"]


def test_masks_in_vocs_colours(tmp_path):
    assert colour_map()[[0, 1, 2, 3, 8, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [64, 0, 0],
        [224, 224, 192],
    ]
    make(tmp_path, {"000005": xml(DOG, CAT)})
    indices = np.zeros((20, 30), dtype=np.uint8)
    indices[3:12, 2:10], indices[15:], indices[0] = 1, 2, 255
    path = tmp_path / "VOC2007/SegmentationObject/000005.png"
    for pixels in (colour_map()[indices], np.dstack((colour_map()[indices], np.full((20, 30), 255, np.uint8)))):
        Image.fromarray(pixels).save(path)
        masks = VocDataset(tmp_path, [("2007", "train")], masks=True)[0].target.masks
        assert torch.equal(dense(masks), torch.from_numpy(np.stack((indices == 1, indices == 2))))
    pixels[4, 5] = 1
    Image.fromarray(pixels).save(path)
    with pytest.raises(ValueError, match=r"000005\.png: the colour \(1, 1, 1\) at \(5, 4\) is none of VOC's"):
        VocDataset(tmp_path, [("2007", "train")], masks=True)


def test_images_without_objects_need_no_masks(tmp_path):
    make(tmp_path, {"000005": xml(entry("dog", (1, 1, 30, 20))), "000007": xml()})
    path = tmp_path / "VOC2007/SegmentationObject/000005.png"
    Image.fromarray(np.ones((20, 30), np.uint8)).save(path)
    dataset = VocDataset(tmp_path, [("2007", "train")], masks=True)
    assert [len(dataset[i].target.masks) for i in range(2)] == [1, 0]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"000005\.png: no such mask"):
        VocDataset(tmp_path, [("2007", "train")], masks=True)


def test_numbers_that_follow_another_order_are_told(tmp_path, caplog):
    small = entry("dog", (21, 11, 28, 18))
    names = [f"{i:06}" for i in range(12)]
    make(tmp_path, {name: xml(DOG, small) for name in names})
    first = np.zeros((20, 30), dtype=np.uint8)
    first[3:12, 2:10], first[12:16, 22:26] = 1, 2  # the second leaves out a void border
    swapped = np.array([0, 2, 1], np.uint8)[first]

    def save(which: dict[str, np.ndarray]) -> None:
        for name in names:
            folder = tmp_path / "VOC2007/SegmentationObject"
            Image.fromarray(which.get(name, first)).save(folder / f"{name}.png")

    def open_it() -> VocDataset:
        return VocDataset(tmp_path, [("2007", "train")], masks=True)

    save({})
    with caplog.at_level(logging.WARNING):
        open_it()
        assert not caplog.records
        save({names[3]: swapped})
        open_it()
    assert [r.getMessage() for r in caplog.records] == [
        f"{tmp_path / 'VOC2007/SegmentationObject/000003.png'}: the mask of object 1 lies outside of its box "
        "(2 of 24 masks, in 1 of 12 images); correct the masks or the boxes"
    ]
    save({names[3]: swapped, names[5]: swapped})
    with pytest.raises(ValueError, match=r"000003\.png: .*\(4 of 24 masks.*must follow the order of the objects"):
        open_it()
    assert len(VocDataset(tmp_path, [("2007", "train")])) == 12


def test_all_masks_are_checked_where_faults_are_collected(tmp_path, monkeypatch):
    monkeypatch.setattr("detector.data.voc.WHOLE", 1)
    make(tmp_path, {name: xml(DOG) for name in ("000001", "000002")})
    pixels = np.zeros((20, 30), np.uint8)
    pixels[3:12, 2:10] = 1
    for name, shift in (("000001", 0), ("000002", 18)):
        Image.fromarray(np.roll(pixels, shift, 1)).save(tmp_path / f"VOC2007/SegmentationObject/{name}.png")
    VocDataset(tmp_path, [("2007", "train")], masks=True)
    with collect() as faults:
        VocDataset(tmp_path, [("2007", "train")], masks=True)
    assert [fault.kind for fault in faults] == ["masks outside of their boxes"]
    assert "000002.png: the mask of object 1" in faults[0].where


def test_crowds_are_read_from_a_tag_of_their_own(tmp_path):
    crowd = entry("dog", (3, 4, 10, 12), difficult=1).replace("</object>", "<iscrowd>1</iscrowd></object>")
    table = read(flat(tmp_path, {"a": xml(crowd, CAT)}))
    assert (table.crowd.tolist(), table.difficult.tolist()) == ([True, False], [False, True])
    assert table.extra["truncated"].tolist() == [False, True]
    attribute = "<attributes><attribute><name>is_crowd</name><value>{}</value></attribute></attributes></object>"
    objects = [DOG.replace("</object>", attribute.format(value)) for value in ("True", "False")]  # as of datumaro
    assert read(flat(tmp_path, {"a": xml(*objects)})).crowd.tolist() == [True, False]


def test_a_list_in_another_encoding_is_named(tmp_path):
    make(tmp_path, {"000005": xml(DOG)})
    names = tmp_path / "VOC2007/ImageSets/Main/train.txt"
    names.write_bytes("bäume\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"train\.txt: not text in UTF-8 \(.*\); save it in that encoding"):
        read(names)


def test_objects_are_counted_as_in_the_file(tmp_path):
    flat_dog = entry("dog", (3, 4, 2, 12))
    folder = flat(tmp_path / "a", {"a": xml(flat_dog, DOG, CAT)})
    table = read(folder)
    assert [table.name(i) for i in range(2)] == [f"{folder / 'a.xml'}: object {number}" for number in (2, 3)]
    cats = table.select_objects(table.labels == 0)
    assert cats.name(0) == f"{folder / 'a.xml'}: object 3"


def test_files_without_any_object_are_named(tmp_path):
    """Label Studio (2.1.2) writes nothing of its polygons into VOC's XML."""
    folder = flat(tmp_path, {"a": xml(), "b": xml()})
    with pytest.raises(ValueError, match=rf"^{tmp_path}: none of the 2 XML files has an object; .* write COCO instead"):
        read(folder)
    assert len(read(folder, classes=["dog"])) == 2
