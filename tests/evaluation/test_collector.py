"""One collector for all metrics: what it encodes, holds and writes, and metrics that are built from a configuration."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from pycocotools import mask as coco_mask

from detector.config import build
from detector.evaluation import METRICS, CocoMetric, Collector, Metric, VocMetric
from detector.masks import MaskOutput
from detector.types import Objects, Size

SIZE = (60, 80)
IDS = [3, 7]
TRUTH: dict[str, Any] = {
    "images": [{"id": image, "height": SIZE[0], "width": SIZE[1]} for image in (1, 2, 5)],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [10, 10, 20, 20], "area": 400, "point": [20, 20]},
        {"id": 2, "image_id": 1, "category_id": 7, "bbox": [40, 20, 30, 30], "area": 900, "point": [50, 30]},
        {"id": 3, "image_id": 2, "category_id": 7, "bbox": [0, 0, 50, 50], "area": 2500, "point": [25, 25]},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
}
for a in TRUTH["annotations"]:
    x, y, w, h = a["bbox"]
    a["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
FOUND = {
    1: Objects(
        torch.tensor([[10.0, 10, 30, 30], [40, 20, 70, 50]]),
        torch.tensor([0.9, 0.8]),
        torch.tensor([0, 1]),
        torch.ones(2, 28, 28),
    ),
    2: Objects(torch.tensor([[0.0, 0, 50, 50]]), torch.tensor([0.7]), torch.tensor([1]), torch.ones(1, 28, 28)),
    5: Objects(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 28, 28)),
}


class Centre:
    """An output of a head of one's own: a point per object, here the centre of its box."""

    name = "centre"
    key = "point"
    needs = "points"

    def __call__(self, objects: Objects, size: Size) -> list[list[float]]:
        assert size == SIZE
        return ((objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2).tolist()  # type: ignore[no-any-return]


class CountedMasks(MaskOutput):
    """Masks that note how often they are encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def __call__(self, objects: Objects, size: Size) -> list[dict[str, Any]]:
        self.calls.append(len(objects))
        return super().__call__(objects, size)


class Nearby(Metric):
    """A metric of one's own: the share of objects whose class has its highest score within `limit` pixels of them."""

    def __init__(self, collector: Collector, limit: float) -> None:
        super().__init__(collector)
        self.limit = limit

    def results(self) -> dict[str, float]:
        hits, covered = [], []
        for image in self.collector.images:
            found = self.collector.detections(image)
            for annotation in self.collector.annotations(image):
                label = self.collector.category_ids.index(annotation["category_id"])
                own = np.flatnonzero(found.labels == label)
                if not len(own):
                    hits.append(False)
                    continue
                best = int(own[found.scores[own].argmax()])
                distance = np.hypot(*np.subtract(found.shapes["centre"][best], annotation["point"]))
                hits.append(bool(distance <= self.limit))
                masked = float(coco_mask.area(found.shapes["mask"][best]))
                covered.append(masked / (found.boxes[best, 2] * found.boxes[best, 3]))
        height = self.collector.image(self.collector.images[0])["height"]
        return {"centre/hit": float(np.mean(hits)), "centre/covered": float(np.mean(covered)), "centre/height": height}


def filled(*outputs: Any) -> Collector:
    collector = Collector(TRUTH, IDS, outputs=outputs)
    for image, objects in FOUND.items():
        collector.update([image], [objects], [SIZE])
    return collector


def built(collector: Collector, metrics: list[Any]) -> list[Metric]:
    nodes = build.metric_nodes(OmegaConf.create(metrics))
    return build.build_metrics(OmegaConf.create({"dataset": {"metrics": nodes}}).dataset.metrics, collector)


def test_shapes_are_encoded_once_for_any_number_of_metrics(tmp_path: Path) -> None:
    masks = CountedMasks()
    collector = filled(masks)
    results = [metric.results() for metric in built(collector, ["coco", "voc", {"_target_": METRICS["coco"]}])]
    assert results[0] == results[2] == CocoMetric(collector).results()
    assert results[0]["box/AP"] == results[0]["mask/AP"] == pytest.approx(1)
    assert results[1]["voc/mAP"] == pytest.approx(1)
    collector.write(tmp_path)
    assert masks.calls == [2, 1]  # an image without detections has nothing to encode


def test_a_metric_of_ones_own_reads_boxes_masks_and_a_further_output(tmp_path: Path) -> None:
    collector = filled(MaskOutput(), Centre())
    node = {"_target_": f"{__name__}.Nearby", "limit": 5.0}
    coco, own = built(collector, ["coco", node])
    assert isinstance(coco, CocoMetric)
    assert isinstance(own, Nearby)
    assert own.collector is coco.collector is collector
    # the dog of image 1 is 5√2 from its annotated point
    assert own.results() == {"centre/hit": pytest.approx(2 / 3), "centre/covered": 1.0, "centre/height": 60}
    assert built(collector, [node | {"limit": 8.0}])[0].results()["centre/hit"] == 1.0
    assert coco.results()["mask/AP"] == pytest.approx(1)
    collector.write(tmp_path)
    assert sorted(p.name for p in (tmp_path / "predictions").iterdir()) == ["box.json", "centre.json", "mask.json"]
    rows = json.loads((tmp_path / "predictions" / "centre.json").read_text())
    assert rows[1] == {"image_id": 1, "category_id": 7, "point": [55.0, 35.0], "score": float(np.float32(0.8))}
    masks = json.loads((tmp_path / "predictions" / "mask.json").read_text())
    assert [row["segmentation"] for row in masks] == [
        shape for image in collector.images for shape in collector.detections(image).shapes["mask"]
    ]


def test_masks_are_measured_under_the_name_of_the_output_with_their_key() -> None:
    assert {name.split("/")[0] for name in CocoMetric(filled()).results()} == {"box"}
    assert {name.split("/")[0] for name in CocoMetric(filled(Centre())).results()} == {"box"}
    amodal = MaskOutput()
    amodal.name = "amodal"
    results = CocoMetric(filled(amodal)).results()
    assert {name.split("/")[0] for name in results} == {"box", "amodal"}
    assert results["amodal/AP"] == pytest.approx(1)


def test_metrics_by_words_and_by_nodes() -> None:
    collector = filled()
    assert [type(m) for m in built(collector, ["voc", "coco"])] == [VocMetric, CocoMetric]
    known = r"one of aitod, boundary, coco, voc, or \{_target_: "
    with pytest.raises(ValueError, match=rf"unknown metric 'coc'; .*{known}"):
        built(collector, ["coc"])
    with pytest.raises(ValueError, match=rf"unknown metric \{{'limit': 3\}}; .*{known}"):
        built(collector, [{"limit": 3}])
    with pytest.raises(ValueError, match=rf"must be a list, such as \[coco\], not 'coco'; .*{known}"):
        build.metric_nodes("coco")
    with pytest.raises(ValueError, match=r"limit.*dataset\.metrics"):
        built(collector, ["coco", {"_target_": f"{__name__}.Nearby"}])


def test_outputs_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"\['mask'\]"):
        Collector(TRUTH, IDS, outputs=[MaskOutput(), MaskOutput()])
    boxes = Centre()
    boxes.name = "box"
    with pytest.raises(ValueError, match=r"\['box'\]"):
        Collector(TRUTH, IDS, outputs=[boxes])

    class Few(Centre):
        def __call__(self, objects: Objects, size: Size) -> list[list[float]]:
            return super().__call__(objects, size)[1:]

    with pytest.raises(ValueError, match="'centre' gives 1 shapes for 2"):
        filled(Few())
