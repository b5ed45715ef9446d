"""VOC and YOLO files as the packages really write them, of one image of 60 x 40 pixels with two objects.

Written by supervision 0.31.2, datumaro 1.13.12, globox 2.9.0, labelformat 0.1.17 and pylabel 0.1.55 from one COCO JSON.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.data.voc_annotations import read_voc
from detector.data.voc_files import voc_list
from detector.data.yolo import read_yolo

OBJECTS = {"pear": [0, 0, 10, 10], "apple": [20, 5, 50, 30]}

SUPERVISION = """<?xml version="1.0" ?>
<annotation>
  <folder>VOC</folder>
  <filename>im1.png</filename>
  <source>
    <database>roboflow.ai</database>
  </source>
  <size>
    <width>60</width>
    <height>40</height>
    <depth>3</depth>
  </size>
  <segmented>0</segmented>
  <object>
    <name>pear</name>
    <bndbox>
      <xmin>1</xmin>
      <ymin>1</ymin>
      <xmax>10</xmax>
      <ymax>10</ymax>
    </bndbox>
  </object>
  <object>
    <name>apple</name>
    <bndbox>
      <xmin>21</xmin>
      <ymin>6</ymin>
      <xmax>50</xmax>
      <ymax>30</ymax>
    </bndbox>
  </object>
</annotation>
"""

_DATUMARO_OBJECT = """  <object>
    <name>{}</name>
    <truncated>0</truncated>
    <occluded>0</occluded>
    <difficult>0</difficult>
    <bndbox>
      <xmin>{}</xmin>
      <ymin>{}</ymin>
      <xmax>{}</xmax>
      <ymax>{}</ymax>
    </bndbox>
    <attributes>
      <attribute>
        <name>is_crowd</name>
        <value>False</value>
      </attribute>
    </attributes>
  </object>
"""
DATUMARO = f"""<annotation>
  <folder></folder>
  <filename>im1.png</filename>
  <source>
    <database>Unknown</database>
    <annotation>Unknown</annotation>
    <image>Unknown</image>
  </source>
  <size>
    <width>60</width>
    <height>40</height>
    <depth>3</depth>
  </size>
  <segmented>0</segmented>
{_DATUMARO_OBJECT.format("apple", 20.0, 5.0, 50.0, 30.0)}{_DATUMARO_OBJECT.format("pear", 0.0, 0.0, 10.0, 10.0)}\
</annotation>
"""

GLOBOX = (
    "<annotation><filename>im1.png</filename><size><width>60</width><height>40</height></size>"
    "<object><name>pear</name><bndbox><xmin>0.0</xmin><ymin>0.0</ymin><xmax>10.0</xmax><ymax>10.0</ymax></bndbox></object>"
    "<object><name>apple</name><bndbox><xmin>20.0</xmin><ymin>5.0</ymin><xmax>50.0</xmax><ymax>30.0</ymax></bndbox>"
    "</object></annotation>"
)

_FLAGS = "<pose>Unspecified</pose><truncated>0</truncated><occluded>0</occluded><difficult>0</difficult>"
LABELFORMAT = GLOBOX.replace("</name>", f"</name>{_FLAGS}").replace(
    "</height></size>", "</height><depth>3</depth></size><segmented>0</segmented>"
)

PYLABEL = """<?xml version="1.0" ?>
<annotation>
	<filename>im1.png</filename>
	<size>
		<width>60</width>
		<height>40</height>
		<depth/>
	</size>
	<object>
		<name>pear</name>
		<pose/>
		<truncated/>
		<difficult/>
		<bndbox>
			<xmin>0</xmin>
			<xmax>10</xmax>
			<ymin>0</ymin>
			<ymax>10</ymax>
		</bndbox>
	</object>
	<object>
		<name>apple</name>
		<pose/>
		<truncated/>
		<difficult/>
		<bndbox>
			<xmin>20</xmin>
			<xmax>50</xmax>
			<ymin>5</ymin>
			<ymax>30</ymax>
		</bndbox>
	</object>
</annotation>
"""


@pytest.mark.parametrize(
    ("text", "origin"),
    [(SUPERVISION, 1), (DATUMARO, 0), (GLOBOX, 0), (LABELFORMAT, 0), (PYLABEL, 0)],
    ids=["supervision", "datumaro", "globox", "labelformat", "pylabel"],
)
def test_voc(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, origin: int) -> None:
    Image.new("RGB", (60, 40)).save(tmp_path / "im1.png")
    (tmp_path / "im1.xml").write_text(text)
    part = voc_list(tmp_path)
    table = read_voc([part], tmp_path, origin=origin)
    found = {table.classes[label]: box for label, box in zip(table.labels, table.corners().tolist(), strict=True)}
    assert found == OBJECTS
    assert not table.crowd.any()
    assert not caplog.records
    if origin == 0:
        read_voc([part], tmp_path)
        assert "dataset.voc_origin=0 reads them right" in caplog.text


BOXES = ("1 0.083333 0.125000 0.166667 0.250000", "0 0.583333 0.437500 0.500000 0.625000")


@pytest.mark.parametrize(
    ("yaml", "rows"),
    [
        ("train: train.txt\nval: val.txt\nnames:\n  0: apple\n  1: pear\n", BOXES),
        (
            "names:\n  3: apple\n  7: pear\nnc: 2\npath: .\ntrain: images\n",
            ("7 0.08333333333333333 0.125 0.16666666666666666 0.25", "3 0.5833333333333334 0.4375 0.5 0.625"),
        ),
        (
            "names:\n  3: apple\n  7: pear\nnc: 2\npath: .\ntrain: images\n",
            (
                "7 0.0 0.0 0.16666666666666666 0.0 0.16666666666666666 0.25 0.0 0.25 0.0 0.0",
                "3 0.3333333333333333 0.125 0.8333333333333334 0.125 0.8333333333333334 0.75 0.3333333333333333 0.75 "
                "0.3333333333333333 0.125",
            ),
        ),
        (
            "nc: 2\nnames: [apple, pear]\n",
            ("1 0.08333 0.12500 0.16667 0.25000", "0 0.58333 0.43750 0.50000 0.62500"),
        ),
    ],
    ids=["datumaro", "labelformat", "labelformat-polygons", "supervision"],
)
def test_yolo(tmp_path: Path, yaml: str, rows: tuple[str, ...]) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "images/im1.png")
    (tmp_path / "labels/im1.txt").write_text("\n".join(rows))
    (tmp_path / "data.yaml").write_text(yaml)
    (tmp_path / "train.txt").write_text("./images/im1.png\n")
    table = read_yolo(tmp_path / "data.yaml", images=None if "train" in yaml else tmp_path / "images")
    assert [table.classes[label] for label in table.labels] == list(OBJECTS)
    np.testing.assert_allclose(table.corners(), list(OBJECTS.values()), atol=1e-3)
    assert (table.segmentations is not None) == (len(rows[0].split()) > 5)


def test_cocos_ids_as_class_numbers_are_refused(tmp_path: Path) -> None:
    test_yolo(tmp_path, "nc: 2\nnames: [apple, pear]\n", BOXES)
    (tmp_path / "labels/im1.txt").write_text(
        "7 0.0833 0.1250 0.1667 0.2500\n3 0.5833 0.4375 0.5000 0.6250\n"
    )  # pylabel
    with pytest.raises(
        ValueError, match=r"labels/im1\.txt:1: class number 7, but .*nc=2, numbers 0\.\.1 for \['apple'"
    ):
        read_yolo(tmp_path / "data.yaml", images=tmp_path / "images")
