#!/usr/bin/env bash
# pycocotools 2.0.11 with numpy 2.4.6: `pycocotools.mask.area` takes a list of masks, but no more than 255 of them: with 256 it
# raises an OverflowError, whatever their sizes are. It puts the number of masks into an array of uint8 first, which numpy 1 cut
# in silence. `toBbox` and `iou`, which take the same list, have no such limit.
# Seen: 255 masks: areas of 255, boxes of 255; 256 masks: OverflowError: Python integer 256 out of bounds for uint8, boxes of 256
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pycocotools==2.0.11 numpy==2.4.6
"$folder/venv/bin/python" - > "$folder/seen" <<'PY'
import numpy as np
from pycocotools import mask

one = mask.encode(np.asfortranarray(np.ones((3, 3), np.uint8)))
for count in (255, 256):
    masks = [one] * count
    try:
        areas = f"areas of {len(mask.area(masks))}"
    except OverflowError as error:
        areas = f"OverflowError: {error}"
    print(f"{count} masks: {areas}, boxes of {len(mask.toBbox(masks))}")
PY
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
255 masks: areas of 255, boxes of 255
256 masks: OverflowError: Python integer 256 out of bounds for uint8, boxes of 256
SEEN
