#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93: cv2.warpAffine with INTER_NEAREST takes other source pixels for an image of two channels
# than for the same image with one, three or four: the nearest pixel is rounded in another way. With 4.12.0.88 all agree.
# Seen (64 x 64 px of noise, turned by 17 degrees and scaled by 1.1; pixels that differ from the one-channel result):
#   4.12.0 uint8 {2: 0, 3: 0, 4: 0}
#   5.0.0 uint8 {2: 5, 3: 0, 4: 0}      (float32 and uint16 alike)
# So two maps that are to be moved like a mask (coordinates, a flow field, a pair of masks) must go through it one by one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > warp.py <<'PY'
import cv2
import numpy as np

mask = (np.random.default_rng(0).random((64, 64)) < 0.5).astype(np.uint8)
matrix = np.round(cv2.getRotationMatrix2D((31.5, 31.5), 17, 1.1), 6)


def turn(image):
    return cv2.warpAffine(image, matrix, (64, 64), flags=cv2.INTER_NEAREST)


for dtype in (np.uint8, np.uint16, np.float32):
    one = turn(mask.astype(dtype))
    differ = {n: int((turn(np.dstack([mask] * n).astype(dtype))[..., 0] != one).sum()) for n in (2, 3, 4)}
    print(cv2.__version__, np.dtype(dtype).name, differ)
PY
for version in 4.12.0.88 5.0.0.93; do
    python3 -m venv "venv-$version"
    "venv-$version/bin/pip" install --quiet "opencv-python-headless==$version" "numpy<2.3"
    "venv-$version/bin/python" warp.py | tee -a seen
done
test "$(grep -c '^4.12.0 .* {2: 0, 3: 0, 4: 0}$' seen)" = 3
test "$(grep -cE '^5.0.0 .* \{2: [1-9][0-9]*, 3: 0, 4: 0\}$' seen)" = 3
