#!/usr/bin/env bash
# sahi 0.12.8: a COCO JSON that is read and written again (Coco.from_coco_dict_or_path, .json; labelme2coco writes by it)
# keeps fractions of boxes, but cuts those of polygons and areas, and takes the flag iscrowd from crowds.
# Seen: polygon 20.75 5.75 49.75 5.75 49.75 29.75 -> 20 5 49 5 49 29; area 348.0 -> 348; iscrowd 1 -> 0
#       bbox [20.75, 5.75, 29.0, 24.0] -> [20.75, 5.75, 29.0, 24.0]
# So masks move by half a pixel to the left and to the top, in the mean, and no longer fit their boxes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet sahi==0.12.8
cd "$folder"
venv/bin/python - 2> /dev/null <<'PY'
from sahi.utils.coco import Coco

polygon, box = [20.75, 5.75, 49.75, 5.75, 49.75, 29.75], [20.75, 5.75, 29.0, 24.0]
annotation = {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [polygon], "bbox": box, "area": 348.0, "iscrowd": 1}
images = [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}]
document = {"images": images, "annotations": [annotation], "categories": [{"id": 3, "name": "pear", "supercategory": ""}]}
written = Coco.from_coco_dict_or_path(document).json["annotations"][0]
after = written["segmentation"][0]
print("polygon", *polygon, "->", *after, end="; ")
print("area", annotation["area"], "->", written["area"], end="; ")
print("iscrowd", annotation["iscrowd"], "->", written["iscrowd"])
print("bbox", box, "->", written["bbox"])
assert after == [20, 5, 49, 5, 49, 29]
assert (written["bbox"], written["area"], written["iscrowd"]) == (box, 348, 0)
PY
