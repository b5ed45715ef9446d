import io

import numpy as np
import pytest
from rich.console import Console

from detector.evaluation import Collector, render
from detector.evaluation.collector import ImageDetections
from detector.evaluation.table import foot


def text(metrics: dict[str, float], bins: tuple[float, float] = (32, 96), width: int = 80, note: str = "") -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(render(metrics, bins, note))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_boxes_masks_sizes_and_classes() -> None:
    metrics = {"box/AP": 0.41234, "box/AP50": 1.0, "box/AR100": 0.5, "mask/AP": 0.3, "mask/APs": 0.0}
    metrics |= {"box/AP/cat": 0.111, "mask/AP/cat": 0.222, "box/AP/[b]dog[/b]": 0.333, "time/train": 3.0}
    shown = text(metrics, (16, 48))
    lines = [line.replace("│", " ").split() for line in shown.splitlines()]
    assert ["box", "41.2", "100.0", "-", "-", "-", "-", "50.0"] in lines
    assert ["mask", "30.0", "-", "-", "0.0", "-", "-", "-"] in lines
    assert ["cat", "11.1", "22.2", "[b]dog[/b]", "33.3", "-"] in lines
    assert "small up to 16², medium 16² to 48², large from 48²" in shown
    assert "time" not in shown
    assert "VOC" not in shown


def test_more_detections_have_rows_of_their_own() -> None:
    metrics = {"box/AP": 0.505, "box/AR100": 0.5, "box/AP@300": 0.9, "box/APs@300": 0.7, "box/AR@300": 0.8}
    shown = text(metrics, note="100 of 200 objects")
    lines = [line.replace("│", " ").split() for line in shown.splitlines()]
    assert ["box", "50.5", "-", "-", "-", "-", "-", "50.0"] in lines
    assert ["box,", "best", "300", "90.0", "-", "-", "70.0", "-", "-", "80.0"] in lines
    assert "AR100" not in shown
    assert "100 of 200 objects" in shown


def test_voc_alone() -> None:
    shown = text({"voc/mAP": 0.701, "voc/mAP_area": 0.723, "voc/AP/cat": 0.5})
    assert "mAP 70.1 (2007, 11 points), 72.3 (area under the curve)" in shown
    assert "AR100" not in shown


def test_metrics_of_ones_own_and_further_outputs_are_shown() -> None:
    shown = text({"own/[b]hit": 12.3456789, "own/hit/cat": 0.5, "env/torch": 1.0, "time/train": 3.0})
    lines = [line.replace("│", " ").split() for line in shown.splitlines()]
    assert ["own/[b]hit", "12.35"] in lines
    assert not any(word in shown for word in ("cat", "env", "time", "nothing to measure"))
    shown = text({"box/AP": 0.5, "keypoints/AP": 0.4, "keypoints/AP50": 0.6})
    lines = [line.replace("│", " ").split() for line in shown.splitlines()]
    assert ["keypoints", "40.0", "60.0", "-", "-", "-", "-", "-"] in lines
    assert "Other" not in shown


@pytest.mark.parametrize("classes", [1, 3, 4, 80])
def test_every_class_is_shown_once_and_fits(classes: int) -> None:
    shown = text({"box/AP": 0.5} | {f"box/AP/class{i:02d}": i / 100 for i in range(classes)})
    assert all(shown.count(f"class{i:02d}") == 1 for i in range(classes))
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert "…" not in shown


def test_nothing_to_measure_says_so() -> None:
    assert "nothing to measure" in text({"time/train": 1.0})


def test_what_pycocotools_reads_otherwise_is_said() -> None:
    objects = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "id": number} for number in (1, 2, 3)]
    truth = {"images": [{"id": 1, "height": 9, "width": 9}], "categories": [{"id": 1, "name": "a"}]}
    for change, words in (
        ({}, ""),
        ({"ignore": 1}, "1 objects are ignored, such as VOC's difficult ones: pycocotools would count them."),
        ({"ignore": 1, "iscrowd": 1}, ""),
        ({"id": 0}, "The object with the id 0 counts like others: pycocotools cannot find it."),
    ):
        collector = Collector(truth | {"annotations": [objects[0] | change, *objects[1:]]}, [1])
        collector.merge([{1: ImageDetections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))}])
        assert foot(collector) == words


def test_ai_tods_sizes_have_a_line_of_their_own() -> None:
    metrics = {"box/AP": 0.5, "aitod/AP": 0.25, "aitod/APvt": 0.125, "aitod/AP50": 1.0, "aitod/ARvt": 0.3}
    shown = text(metrics, width=200)
    assert "As AI-TOD measures, beyond 100 detections of an image: AP 25.0, AP50 100.0, AP75 -, very tiny" in shown
    assert "very tiny (up to 8²) 12.5, tiny (to 16²) -" in shown
    assert "aitod" not in shown
