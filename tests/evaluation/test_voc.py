import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detector.evaluation import Collector, VocMetric, voc
from detector.evaluation.voc import area_under, eleven_points
from detector.types import Objects

Box = list[float]
"""xmin, ymin, xmax, ymax as in VOC's XML: whole pixels from 1, both ends included."""


def kit(truths: dict[str, list[tuple[Box, bool]]], detections: list[tuple[str, float, Box]], area: bool) -> float:
    """One class, line by line as VOCevaldet.m, in its own coordinates. `truths`: by image, (box, difficult)."""
    taken = {image: [False] * len(found) for image, found in truths.items()}
    positives = sum(not difficult for found in truths.values() for _, difficult in found)
    tp, fp = np.zeros(len(detections)), np.zeros(len(detections))
    for d, (image, _, bb) in enumerate(sorted(detections, key=lambda detection: -detection[1])):
        best, chosen = -np.inf, -1
        for j, (gt, _) in enumerate(truths[image]):
            width = min(bb[2], gt[2]) - max(bb[0], gt[0]) + 1
            height = min(bb[3], gt[3]) - max(bb[1], gt[1]) + 1
            if width > 0 and height > 0:
                union = (
                    (bb[2] - bb[0] + 1) * (bb[3] - bb[1] + 1)
                    + (gt[2] - gt[0] + 1) * (gt[3] - gt[1] + 1)
                    - width * height
                )
                overlap = width * height / union
                if overlap > best:
                    best, chosen = overlap, j
        if best >= 0.5:
            if not truths[image][chosen][1]:
                if not taken[image][chosen]:
                    tp[d] = 1
                    taken[image][chosen] = True
                else:
                    fp[d] = 1
        else:
            fp[d] = 1
    tp, fp = np.cumsum(tp), np.cumsum(fp)
    recall = tp / positives
    precision = np.divide(tp, fp + tp, out=np.zeros_like(tp), where=fp + tp > 0)
    if not area:
        ap = 0.0
        for t in np.arange(0, 1.1, 0.1):
            p = precision[recall >= t]
            ap += (p.max() if len(p) else 0) / 11
        return ap
    mrec = np.concatenate(([0.0], recall, [1.0]))
    mpre = np.concatenate(([0.0], precision, [0.0]))
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    changes = np.flatnonzero(mrec[1:] != mrec[:-1]) + 1
    return float(np.sum((mrec[changes] - mrec[changes - 1]) * mpre[changes]))


def annotation(number: int, image: str, box: Box, difficult: bool, category: int = 1) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1],
        "ignore": int(difficult),
    }


def collector(truths: dict[str, list[tuple[Box, bool]]]) -> Collector:
    annotations = [
        annotation(i, image, box, difficult)
        for i, (image, box, difficult) in enumerate((m, b, d) for m, found in truths.items() for b, d in found)
    ]
    images = [{"id": image, "height": 500, "width": 500} for image in truths]
    categories = [{"id": 1, "name": "aeroplane"}, {"id": 2, "name": "bicycle"}]
    return Collector({"images": images, "annotations": annotations, "categories": categories}, [1, 2])


def measure(truths: dict[str, list[tuple[Box, bool]]], found: list[tuple[str, float, Box]]) -> dict[str, float]:
    collected = collector(truths)
    for image in truths:
        own = [(score, box) for name, score, box in found if name == image]
        boxes = torch.tensor([[b[0] - 1, b[1] - 1, b[2], b[3]] for _, b in own], dtype=torch.float32).reshape(-1, 4)
        scores = torch.tensor([score for score, _ in own], dtype=torch.float32)
        collected.update([image], [Objects(boxes, scores, torch.zeros(len(own), dtype=torch.int64))], [(500, 500)])
    return VocMetric(collected).results()


def test_hand_worked() -> None:
    truths: dict[str, list[tuple[Box, bool]]] = {
        "a": [([1, 1, 10, 10], False), ([101, 101, 110, 110], True)],
        "b": [([1, 1, 10, 10], False)],
        "c": [],
    }
    found: list[tuple[str, float, Box]] = [
        ("a", 0.9, [1, 1, 10, 10]),  # right
        ("a", 0.8, [1, 1, 10, 9]),  # the same object again: false
        ("a", 0.7, [101, 101, 110, 110]),  # difficult: neither
        ("a", 0.6, [101, 101, 110, 110]),  # difficult again: neither
        ("c", 0.5, [1, 1, 10, 10]),  # false
        ("b", 0.4, [1, 1, 10, 10]),  # right
    ]
    # precision 1 at recall 1/2, then 2/4 at recall 1
    results = measure(truths, found)
    assert results["voc/mAP"] == results["voc/AP/aeroplane"] == pytest.approx((6 * 1 + 5 * 0.5) / 11)
    assert results["voc/mAP_area"] == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    assert set(results) == {"voc/mAP", "voc/mAP_area", "voc/AP/aeroplane"}  # there is no bicycle


def test_overlap_counts_whole_pixels() -> None:
    truths: dict[str, list[tuple[Box, bool]]] = {"a": [([1, 1, 10, 10], False)]}
    # 5 of the 10 columns: an IoU of exactly 0.5 is a hit; x2 - x1 without + 1 would give 4/9
    assert measure(truths, [("a", 0.9, [1, 1, 5, 10])])["voc/mAP"] == pytest.approx(1)
    assert measure(truths, [("a", 0.9, [1, 1, 4, 10])])["voc/mAP"] == 0.0
    # 6 of 14 columns are below a half, 7 of 13 above
    assert measure(truths, [("a", 0.9, [5, 1, 14, 10])])["voc/mAP"] == 0.0
    assert measure(truths, [("a", 0.9, [4, 1, 13, 10])])["voc/mAP"] == pytest.approx(1)


def test_detection_belongs_to_the_object_it_overlaps_most() -> None:
    truths: dict[str, list[tuple[Box, bool]]] = {"a": [([1, 1, 10, 10], False), ([1, 1, 10, 14], False)]}
    # both detections lie best on the first object, though the second would also do
    found: list[tuple[str, float, Box]] = [("a", 0.9, [1, 1, 10, 10]), ("a", 0.8, [1, 1, 10, 11])]
    assert measure(truths, found)["voc/mAP_area"] == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(8))
def test_equal_to_the_kit_line_by_line(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voc, "PAIRS", 10 if seed % 2 else voc.PAIRS)
    generator = np.random.default_rng(seed)
    truths: dict[str, list[tuple[Box, bool]]] = {}
    found: list[tuple[str, float, Box]] = []
    for i in range(25):
        corners = generator.integers(1, 300, (int(generator.integers(0, 4)), 2))
        boxes = [[*c, *(c + generator.integers(0, 90, 2))] for c in corners]
        truths[f"{i:06d}"] = [([float(v) for v in b], bool(generator.random() < 0.3)) for b in boxes]
        for b in boxes:
            for _ in range(int(generator.integers(0, 4))):
                x1, y1, x2, y2 = np.asarray(b) + generator.normal(0, 9, 4).round()
                box = [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]
                found.append((f"{i:06d}", float(np.float32(generator.random())), [float(v) for v in box]))
    results = measure(truths, found)
    assert results["voc/mAP"] == pytest.approx(kit(truths, found, area=False), abs=1e-12)
    assert results["voc/mAP_area"] == pytest.approx(kit(truths, found, area=True), abs=1e-12)
    assert 0.1 < results["voc/mAP"] < 1


def test_nothing_found_and_nothing_to_find() -> None:
    truths: dict[str, list[tuple[Box, bool]]] = {"a": [([1, 1, 10, 10], False)]}
    assert measure(truths, []) == {"voc/mAP": 0.0, "voc/mAP_area": 0.0, "voc/AP/aeroplane": 0.0}
    assert measure({"a": [([1, 1, 10, 10], True)]}, [("a", 0.9, [1, 1, 10, 10])]) == {}
    assert measure({"a": []}, [("a", 0.9, [1, 1, 10, 10])]) == {}


def test_curves_by_hand() -> None:
    recall, precision = np.array([0.25, 0.25, 0.5]), np.array([1.0, 0.5, 2 / 3])
    assert eleven_points(recall, precision) == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)
    assert area_under(recall, precision) == pytest.approx(0.25 + 0.25 * 2 / 3)
    assert eleven_points(np.array([]), np.array([])) == area_under(np.array([]), np.array([])) == 0.0


def test_written_predictions_are_cocos(tmp_path: Path) -> None:
    collected = collector({"000005": [([3, 4, 12, 13], False)]})
    detections = Objects(torch.tensor([[2.0, 3, 12, 13]]), torch.tensor([0.1]), torch.tensor([0]))
    collected.update(["000005"], [detections], [(500, 500)])
    collected.write(tmp_path)
    rows = json.loads((tmp_path / "predictions/box.json").read_text())
    score = float(np.float32(0.1))
    assert rows == [{"image_id": "000005", "category_id": 1, "bbox": [2.0, 3.0, 10.0, 10.0], "score": score}]
    assert [path.name for path in (tmp_path / "predictions").iterdir()] == ["box.json"]
