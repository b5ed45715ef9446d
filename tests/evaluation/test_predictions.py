import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detector.evaluation import CocoMetric, Collector
from detector.evaluation.predictions import detections_of, read_predictions
from detector.evaluation.records import Kind
from detector.masks import MaskOutput
from detector.types import Objects

IDS = [2, 5, 9]
SIZE = (96, 112)
IMAGES = list(range(1, 9))
SQUARE = [20.0, 20, 60, 20, 60, 60, 20, 60]
TRUTH: dict[str, Any] = {
    "images": [{"id": image, "height": SIZE[0], "width": SIZE[1]} for image in IMAGES],
    "annotations": [
        {"id": i, "image_id": i, "category_id": c, "bbox": [20, 20, 40, 40], "area": 1600, "segmentation": [SQUARE]}
        for i, c in zip(IMAGES[:6], IDS * 2, strict=True)
    ],
    "categories": [{"id": c, "name": f"class {c}"} for c in IDS],
}


@pytest.mark.parametrize("masks", [False, True])
def test_what_a_collector_writes_is_read_back(tmp_path: Path, masks: bool) -> None:
    rng = np.random.default_rng(6)
    collector = Collector(TRUTH, IDS, outputs=[MaskOutput()] if masks else [])
    for image in IMAGES:
        n = int(rng.integers(0, 9))
        corner = torch.tensor(rng.uniform(14, 26, (n, 2)))
        found = Objects(
            torch.cat((corner, corner + torch.tensor(rng.uniform(32, 48, (n, 2)))), 1).float(),
            torch.tensor(rng.random(n)).float(),
            torch.tensor(rng.integers(0, 3, n)),
            torch.tensor(rng.random((n, 14, 14))).float().pow(0.1) if masks else None,
        )
        collector.update([image], [found], [SIZE])
    collector.write(tmp_path)
    kinds: tuple[Kind, ...] = ("box", "mask") if masks else ("box",)
    for kind in kinds:
        again = Collector(TRUTH, IDS, outputs=[MaskOutput()] if kind == "mask" else [])
        again.merge([detections_of(kind, read_predictions(tmp_path / f"predictions/{kind}.json"), IMAGES, IDS)])
        own = {name: value for name, value in CocoMetric(collector).results().items() if name.startswith(kind)}
        assert {name: CocoMetric(again).results()[name] for name in own} == own
        assert 0 < own[f"{kind}/AP"] < 1
        (tmp_path / kind).mkdir()
        again.write(tmp_path / kind)
        name = f"predictions/{kind}.json"
        assert (tmp_path / kind / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 77}, "image 77"),
        ({"category_id": 3}, r"category 3; there are \[2, 5, 9\]"),
        ({"score": math.nan}, "image 1 hold NaN"),
    ],
)
def test_predictions_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    row = {"image_id": 1, "category_id": 2, "bbox": [5.0, 5, 10, 10], "score": 0.5}
    with pytest.raises(ValueError, match=message):
        detections_of("box", [{**row, **change}], IMAGES, IDS)
    with pytest.raises(ValueError, match="no segmentation"):
        detections_of("mask", [row], IMAGES, IDS)


def test_files_that_hold_no_predictions(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no predictions at .*missing"):
        read_predictions(tmp_path / "missing.json")
    (tmp_path / "cut.json").write_text('[{"image_id"')
    with pytest.raises(ValueError, match=r"cut\.json is no JSON"):
        read_predictions(tmp_path / "cut.json")
    (tmp_path / "other.json").write_text(json.dumps({"box": []}))
    with pytest.raises(ValueError, match=r"other\.json must hold a list"):
        read_predictions(tmp_path / "other.json")
