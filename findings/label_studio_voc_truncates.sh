#!/usr/bin/env bash
# label-studio-sdk 2.1.2: the converter to Pascal VOC cuts x, y, width and height of a box to whole pixels, each by itself,
# after dividing the percentages by 100. A box whose edges are whole pixels loses one where the product is just below it.
# Seen: drawn 0 0 10 10, written 0 0 9 10; drawn 5 20 25 38, written 4 20 23 38   (of an image of 60 x 40 pixels)
# So edges of its XML files are up to two pixels out, and no reader can know which; its COCO export keeps all digits.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet label-studio-sdk==2.1.2
cd "$folder"
venv/bin/python - <<'PY'
import json
import re
from pathlib import Path

from label_studio_sdk.converter import Converter

CONFIG = '<View><Image name="image" value="$image"/><RectangleLabels name="r" toName="image"><Label value="pear"/></RectangleLabels></View>'
boxes = [(0, 0, 10, 10), (5, 20, 25, 38)]
results = [
    {
        "type": "rectanglelabels", "from_name": "r", "to_name": "image", "original_width": 60, "original_height": 40,
        "value": {"x": x1 / 60 * 100, "y": y1 / 40 * 100, "width": (x2 - x1) / 60 * 100, "height": (y2 - y1) / 40 * 100,
                  "rotation": 0, "rectanglelabels": ["pear"]},
    }
    for x1, y1, x2, y2 in boxes
]
Path("a.png").touch()
task = {"id": 1, "data": {"image": "a.png"}, "annotations": [{"id": 1, "completed_by": 1, "result": results}]}
Path("tasks.json").write_text(json.dumps([task]))
Converter(CONFIG, project_dir=".").convert("tasks.json", "out", "VOC", is_dir=False)
numbers = re.findall(r"<[xy]m(?:in|ax)>(\d+)<", Path("out/Annotations/a.xml").read_text())
written = [tuple(map(int, numbers[i : i + 4])) for i in (0, 4)]
print("; ".join(f"drawn {' '.join(map(str, a))}, written {' '.join(map(str, b))}" for a, b in zip(boxes, written)))
assert written == [(0, 0, 9, 10), (4, 20, 23, 38)]
PY
