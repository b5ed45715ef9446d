#!/usr/bin/env bash
# pycocotools 2.0.11, hotcoco 1.3.0 and faster-coco-eval 1.8.0: where a row of COCO's results holds a mask and its box, as many programs
# write it, `loadRes` takes the box's area for the detection's size, also in the evaluation of masks (`segm`). A slim false detection
# of 400 pixels in a box of 3600 is then of medium size, and APs, which it would halve, is 100. Without the key `bbox` the size is the mask's.
# Seen, for each of the three: area 3600 and APs 100.0 with the box; area 400 and APs 50.0 without.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pycocotools==2.0.11 hotcoco==1.3.0 faster-coco-eval==1.8.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - > "$folder/seen" 2> "$folder/errors" <<'PY' || { cat "$folder/errors"; exit 1; }
import contextlib
import io
import json

import faster_coco_eval
import hotcoco
import numpy as np
import pycocotools.coco
import pycocotools.cocoeval
from pycocotools import mask


def code(pixels):
    found = mask.encode(np.asfortranarray(pixels, np.uint8))
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


square, slim = np.zeros((2, 200, 200))
square[:20, :20] = 1
slim[range(100, 160), range(100, 160)] = 1  # a diagonal of 60 pixels
for k in range(1, 7):
    slim[range(100, 160 - k), range(100 + k, 160)] = 1
assert slim.sum() == 399
slim[159, 100] = 1  # 400 pixels in a box of 60 x 60
box = [0, 0, 20, 20]
truth = {
    "images": [{"id": 1, "width": 200, "height": 200}],
    "categories": [{"id": 1, "name": "a"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 400, "iscrowd": 0, "segmentation": code(square)}
    ],
}
rows = [
    {"image_id": 1, "category_id": 1, "score": 0.9, "bbox": [100, 100, 60, 60], "segmentation": code(slim)},
    {"image_id": 1, "category_id": 1, "score": 0.8, "bbox": box, "segmentation": code(square)},
]
json.dump(truth, open("truth.json", "w"))
json.dump(rows, open("with.json", "w"))
json.dump([{k: v for k, v in row.items() if k != "bbox"} for row in rows], open("without.json", "w"))
for name, read, measure in (
    ("pycocotools", pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    ("hotcoco", hotcoco.COCO, hotcoco.COCOeval),
    ("faster-coco-eval", faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
):
    for file in ("with", "without"):
        with contextlib.redirect_stdout(io.StringIO()):
            known = read("truth.json")
            found = known.loadRes(f"{file}.json") if hasattr(known, "loadRes") else known.load_res(f"{file}.json")
            evaluation = measure(known, found, "segm")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        anns = found.loadAnns([1]) if hasattr(found, "loadAnns") else found.load_anns([1])
        print(f"{name}, {file} the box: area {anns[0]['area']:.0f}, APs {100 * evaluation.stats[3]:.1f}")
PY
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
pycocotools, with the box: area 3600, APs 100.0
pycocotools, without the box: area 400, APs 50.0
hotcoco, with the box: area 3600, APs 100.0
hotcoco, without the box: area 400, APs 50.0
faster-coco-eval, with the box: area 3600, APs 100.0
faster-coco-eval, without the box: area 400, APs 50.0
SEEN
