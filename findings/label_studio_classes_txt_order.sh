#!/usr/bin/env bash
# label-studio-sdk 2.1.2: where labels have numbers of their own (`<Label category="1"/>`), the YOLO export writes these as
# class numbers, but classes.txt lists the labels in the order of the configuration, once for each tag that has them.
# Seen: classes.txt: pear apple pear apple | a.txt: 1 0.5 0.5 0.5 0.5 | notes.json: pear=1 apple=0 pear=1 apple=0
# So the second line of classes.txt, apple, is not class 1, which is a pear: only notes.json tells the numbers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet label-studio-sdk==2.1.2
cd "$folder"
venv/bin/python - <<'PY'
import json
from pathlib import Path

from label_studio_sdk.converter import Converter

LABELS = '<Label value="pear" category="1"/><Label value="apple" category="0"/>'
CONFIG = (
    f'<View><Image name="image" value="$image"/><RectangleLabels name="r" toName="image">{LABELS}</RectangleLabels>'
    f'<PolygonLabels name="p" toName="image">{LABELS}</PolygonLabels></View>'
)
result = {
    "type": "rectanglelabels", "from_name": "r", "to_name": "image", "original_width": 60, "original_height": 40,
    "value": {"x": 25, "y": 25, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["pear"]},
}
Path("a.png").touch()
task = {"id": 1, "data": {"image": "a.png"}, "annotations": [{"id": 1, "completed_by": 1, "result": [result]}]}
Path("tasks.json").write_text(json.dumps([task]))
Converter(CONFIG, project_dir=".").convert("tasks.json", "out", "YOLO", is_dir=False)
lines, rows = (Path("out", name).read_text().split("\n") for name in ("classes.txt", "labels/a.txt"))
notes = [(c["name"], c["id"]) for c in json.loads(Path("out/notes.json").read_text())["categories"]]
print("classes.txt:", *lines[:-1], "| a.txt:", rows[0], "| notes.json:", *(f"{n}={i}" for n, i in notes))
assert lines == ["pear", "apple", "pear", "apple", ""]
assert rows[0] == "1 0.5 0.5 0.5 0.5"
assert notes == [("pear", 1), ("apple", 0)] * 2
PY
