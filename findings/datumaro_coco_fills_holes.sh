#!/usr/bin/env bash
# datumaro 1.13.12: a mask with a hole, exported as coco_instances with the default segmentation_mode, becomes one polygon
# through the centres of its edge's pixels: the hole is filled, and the outline half a pixel smaller all round. `area` is
# that of the polygon as pycocotools fills it.
# Seen: a mask of 650 pixels -> [[10.0, 5.0, 10.0, 29.0, 39.0, 29.0, 39.0, 5.0, 10.0, 5.0]], area 696.0, bbox [10.0, 5.0, 30.0, 25.0]
# So masks want segmentation_mode="mask", which keeps them, but sets iscrowd=1 on every object.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datumaro==1.13.12
cd "$folder"
venv/bin/python - 2> /dev/null <<'PY'
import json
from pathlib import Path

import datumaro
import numpy as np
from datumaro.components.annotation import Mask
from datumaro.components.media import Image

mask = np.zeros((40, 60), np.uint8)
mask[5:30, 10:40], mask[10:20, 20:30] = 1, 0
image = Image.from_numpy(data=np.zeros((40, 60, 3), np.uint8))
annotation = Mask(mask, label=0, attributes={"is_crowd": False})
item = datumaro.DatasetItem(id="a", subset="train", media=image, annotations=[annotation])


def export(**options):
    datumaro.Dataset.from_iterable([item], categories=["ring"]).export(str(options), "coco_instances", **options)
    return json.loads(Path(str(options), "annotations/instances_train.json").read_text())["annotations"][0]


found = export()
print("a mask of", mask.sum(), "pixels ->", found["segmentation"], end=", ")
print(f"area {found['area']}, bbox {found['bbox']}")
assert found["segmentation"] == [[10.0, 5.0, 10.0, 29.0, 39.0, 29.0, 39.0, 5.0, 10.0, 5.0]]
assert (found["area"], found["bbox"], found["iscrowd"]) == (696.0, [10.0, 5.0, 30.0, 25.0], 0)
whole = export(segmentation_mode="mask")
assert isinstance(whole["segmentation"], dict)
assert (whole["area"], whole["iscrowd"]) == (650, 1)
PY
