#!/usr/bin/env bash
# label-studio-sdk 2.1.2: brush masks exported as COCO (BRUSH_TO_COCO) become one object for each of their parts, holes are
# filled, polygons run through the centres of the edge's pixels, and boxes are a pixel larger than these polygons.
# Seen: one mask of 800 pixels in two parts, the larger with a hole: 2 objects,
#       bbox [40, 5, 10, 10], area 81; bbox [5, 5, 30, 30], area 841; polygon from 5 to 34
# So masks of several parts or with holes are other objects after it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet label-studio-sdk==2.1.2
cd "$folder"
venv/bin/python - <<'PY'
import json
from pathlib import Path

import numpy as np
from label_studio_sdk.converter import Converter, brush

CONFIG = '<View><Image name="image" value="$image"/><BrushLabels name="b" toName="image"><Label value="ring"/></BrushLabels></View>'
mask = np.zeros((40, 60), np.uint8)
mask[5:35, 5:35], mask[10:20, 10:30], mask[5:15, 40:50] = 255, 0, 255
result = {
    "type": "brushlabels", "from_name": "b", "to_name": "image", "original_width": 60, "original_height": 40,
    "value": {"format": "rle", "rle": brush.mask2rle(mask), "brushlabels": ["ring"]},
}
Path("a.png").touch()
task = {"id": 1, "data": {"image": "a.png"}, "annotations": [{"id": 1, "completed_by": 1, "result": [result]}]}
Path("tasks.json").write_text(json.dumps([task]))
Converter(CONFIG, project_dir=".").convert("tasks.json", "out", "BRUSH_TO_COCO", is_dir=False)
found = json.loads(Path("out/result_coco.json").read_text())["annotations"]
print(f"one mask of {int((mask > 0).sum())} pixels in two parts, the larger with a hole: {len(found)} objects,")
print("; ".join(f"bbox {a['bbox']}, area {a['area']}" for a in found), end="; ")
points = np.array(found[1]["segmentation"][0])
print("polygon from", points.min(), "to", points.max())
assert [(a["bbox"], a["area"]) for a in found] == [([40, 5, 10, 10], 81), ([5, 5, 30, 30], 841)]
assert (points.min(), points.max()) == (5, 34)
PY
