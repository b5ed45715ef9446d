#!/usr/bin/env bash
# ncnn 1.0.20261020: ROIAlign with aligned=1 needs version=1 (parameter 5) too. With the default, version=0, a bin that begins left
# of the map is begun at its edge, so that its samples lie further right than they should; at the upper edge the same.
# Seen (cells of 4 px that hold the x of their centres, two samples a bin; a box from x = 0 to 32, four bins of 8 px; the samples
# of the first lie at x = 2 and 6, so that every bin's average is its centre):
#   version=0  [6.0, 12.0, 20.0, 28.0]
#   version=1  [4.0, 12.0, 20.0, 28.0]
# So a detector whose export leaves the parameter out pools objects at the left and upper edge of an image differently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet ncnn==1.0.20261020 numpy
venv/bin/python - > seen <<'PY'
from pathlib import Path

import ncnn
import numpy as np

CELL, HEIGHT, WIDTH, BINS = 4, 8, 16, 4
features = np.tile(CELL * (np.arange(WIDTH) + 0.5), (1, HEIGHT, 1)).astype(np.float32)
box = np.array([0, 8, 32, 24], dtype=np.float32)


def pool(version):
    layer = f"ROIAlign pool 2 1 x r out 0={BINS} 1={BINS} 2={1 / CELL} 3=2 4=1 {version}"
    Path("net.param").write_text("\n".join(["7767517", "3 3", "Input x 0 1 x", "Input r 0 1 r", layer, ""]))
    Path("net.bin").touch()
    net = ncnn.Net()
    net.opt.use_fp16_storage = net.opt.use_fp16_packed = net.opt.use_fp16_arithmetic = False
    assert net.load_param("net.param") == 0
    net.load_model("net.bin")
    extractor = net.create_extractor()
    extractor.input("x", ncnn.Mat(features))
    extractor.input("r", ncnn.Mat(box))
    return np.array(extractor.extract("out")[1])[0, 0].round(2).tolist()


unset, *both = pool(""), pool("5=0"), pool("5=1")
assert unset == both[0], unset
for version, found in enumerate(both):
    print(f"version={version}  {found}")
PY
cat seen
diff seen - <<'SEEN'
version=0  [6.0, 12.0, 20.0, 28.0]
version=1  [4.0, 12.0, 20.0, 28.0]
SEEN
