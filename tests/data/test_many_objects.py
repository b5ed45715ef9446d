"""Annotations of many objects: packed in blocks, and shared with the processes that read them."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from detector.data import packed, segmentations
from detector.data.coco import read_coco
from detector.data.json_values import Values
from detector.training import beside_pycocotools

ROLLUP = Path("/proc/self/smaps_rollup")


def own_memory() -> int:
    """Bytes of this process that it shares with no other."""
    fields = dict(line.split(":", 1) for line in ROLLUP.read_text().splitlines()[1:])
    return int(fields["Private_Dirty"].split()[0]) * 1024


@pytest.mark.parametrize("block", [1, 7, 1 << 16])
def test_every_value_is_that_of_the_file(tmp_path, monkeypatch, block):
    monkeypatch.setattr(packed, "BLOCK", block)
    monkeypatch.setattr(segmentations, "BLOCK", block)
    path = tmp_path / "many.json"
    beside_pycocotools.write(path, 95)
    content = json.loads(path.read_text())
    content["annotations"][3]["segmentation"] = {"size": [480, 640], "counts": [100, 50, 480 * 640 - 150]}
    content["annotations"][5]["segmentation"] = []
    content["annotations"][6]["segmentation"] *= 3
    del content["annotations"][8]["segmentation"]
    path.write_text(json.dumps(content))
    table, truth = read_coco(path), COCO(path)
    assert len(table) == 10
    assert sorted(table.ids.tolist()) == list(range(1, 96))
    shapes = table.segmentations
    areas = shapes.areas(table.sizes[table.images()].astype(np.int64), table.name)
    for image in range(len(table)):
        entries = truth.imgToAnns[table.image_ids[image]]
        assert [int(i) for i in table.ids[table.starts[image] : table.starts[image + 1]]] == [a["id"] for a in entries]
        for index, entry in zip(table.objects(image), entries, strict=True):
            assert table.boxes[index].tolist() == entry["bbox"]
            assert table.areas[index] == entry["area"]
            assert table.category_ids[table.labels[index]] == entry["category_id"]
            shape = shapes.get(index, table.size(image))
            if entry["id"] in (6, 9):
                assert shape is None
                assert math.isnan(areas[index])
            elif entry["id"] == 4:
                assert areas[index] == 50
                assert shape["size"] == [480, 640]
            else:
                assert shape == entry["segmentation"]
                assert areas[index] == pytest.approx(entry["area"] * len(shape), rel=0.02, abs=0.5)


@pytest.mark.skipif(not ROLLUP.is_file(), reason="Linux tells what processes share")
def test_processes_that_read_all_objects_share_them(tmp_path):
    path = tmp_path / "many.json"
    beside_pycocotools.write(path, 20_000)

    def growth(side: str) -> int:
        """Bytes that a forked process takes for itself by reading all objects twice."""
        read = beside_pycocotools.SIDES[side](path)
        begin, end = os.pipe()
        child = os.fork()
        if child == 0:
            before = own_memory()
            read()
            read()
            os.write(end, str(own_memory() - before).encode())
            os._exit(0)
        os.waitpid(child, 0)
        return int(os.read(begin, 100))

    ours, lists = growth("ours"), growth("pycocotools")
    assert lists > 10 << 20  # else this measures nothing
    assert ours < 4 << 20


def test_ints_take_eight_bytes_until_there_are_others():
    values = Values()
    values.extend([3, -(2**63)])
    values.extend([2**63 - 1])
    assert values.ints().tolist() == [3, -(2**63), 2**63 - 1]
    assert values.ints().dtype == np.int64
    for other in (2**63, True, 1.0, "1", None):
        mixed = Values()
        mixed.extend([5])
        mixed.extend([other, 7])
        mixed.extend([8])
        assert mixed.ints() is None
        assert list(mixed) == [5, other, 7, 8]
        assert type(mixed[1]) is type(other)
