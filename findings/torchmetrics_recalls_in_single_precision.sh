#!/usr/bin/env bash
# torchmetrics 1.9.0 with torch 2.15.0 and pycocotools 2.0.11: `MeanAveragePrecision` takes its 101 recalls from a tensor in single
# precision. 0.6 is there 0.60000002, which a recall of three of five objects does not reach; so AP is 60/101 where pycocotools,
# with its own recalls, has 61/101 on the same boxes. Recalls given in double precision make both equal.
# Seen: three of five objects found: pycocotools 61/101, torchmetrics 60/101, with rec_thresholds of numpy 61/101
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torchmetrics==1.9.0 torch==2.15.0 torchvision==0.29.2 pycocotools==2.0.11
"$folder/venv/bin/python" - > "$folder/seen" <<'PY'
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchmetrics.detection import MeanAveragePrecision

OBJECTS, FOUND = 5, 3
boxes = [[20.0 * place, 0.0, 10.0, 10.0] for place in range(OBJECTS)]  # x, y, width, height
scores = [0.9, 0.8, 0.7]


def of_pycocotools() -> float:
    truth = COCO()
    objects = [
        {"id": place + 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 100.0, "iscrowd": 0}
        for place, box in enumerate(boxes)
    ]
    truth.dataset = {"images": [{"id": 1}], "annotations": objects, "categories": [{"id": 1}]}
    with redirect_stdout(StringIO()):
        truth.createIndex()
        found = [
            {"image_id": 1, "category_id": 1, "bbox": box, "score": score}
            for box, score in zip(boxes, scores, strict=False)
        ]
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def of_torchmetrics(recalls: list[float] | None) -> float:
    metric = MeanAveragePrecision(box_format="xywh", rec_thresholds=recalls)
    found = {"boxes": torch.tensor(boxes[:FOUND]), "scores": torch.tensor(scores), "labels": torch.ones(FOUND).int()}
    metric.update([found], [{"boxes": torch.tensor(boxes), "labels": torch.ones(OBJECTS).int()}])
    return float(metric.compute()["map"])


values = of_pycocotools(), of_torchmetrics(None), of_torchmetrics(np.linspace(0, 1, 101).tolist())
names = "pycocotools", "torchmetrics", "with rec_thresholds of numpy"
shown = ", ".join(f"{name} {101 * value:.0f}/101" for name, value in zip(names, values, strict=True))
print(f"three of five objects found: {shown}")
PY
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
three of five objects found: pycocotools 61/101, torchmetrics 60/101, with rec_thresholds of numpy 61/101
SEEN
