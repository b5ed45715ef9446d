#!/usr/bin/env bash
# apache-tvm 0.27.0.post1, relax's ONNX frontend: RoiAlign with `half_pixel` moves boxes by half a pixel of the image, where ONNX
# moves them by half a cell of the map: it subtracts 0.5 before it multiplies by `spatial_scale`, not after.
# Seen (cells of 4 px that hold the x of their centres, two samples a bin; a box from x = 10 to 42, four bins of 8 px, whose
# averages are their centres, 14, 22, 30 and 38, and 2 px more, half a cell, without the move):
#   output_half_pixel  [16.0, 24.0, 32.0, 40.0]     as defined
#   half_pixel         [15.5, 23.5, 31.5, 39.5]     1.5 px too far right
# So the RoIAlign of Mask R-CNN, compiled by TVM, reads almost half a cell beside where it was trained to.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet apache-tvm==0.27.0.post1 onnx==1.23.2
venv/bin/python - > seen <<'PY'
import numpy as np
import tvm
from onnx import TensorProto, helper
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

CELL, HEIGHT, WIDTH, BINS = 4, 8, 16, 4
given = {
    "x": np.tile(CELL * (np.arange(WIDTH) + 0.5), (1, 1, HEIGHT, 1)).astype(np.float32),
    "rois": np.array([[10, 8, 42, 24]], dtype=np.float32),
    "index": np.zeros(1, dtype=np.int64),
}


def model(mode):
    size = {"output_height": 1, "output_width": BINS, "spatial_scale": 1 / CELL, "sampling_ratio": 2}
    types = {"x": TensorProto.FLOAT, "rois": TensorProto.FLOAT, "index": TensorProto.INT64}
    inputs = [helper.make_tensor_value_info(name, types[name], given[name].shape) for name in given]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 1, BINS])
    node = helper.make_node("RoiAlign", list(given), ["y"], coordinate_transformation_mode=mode, **size)
    graph = helper.make_graph([node], "g", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=9)


def pool(mode):
    legal = relax.transform.LegalizeOps()(from_onnx(model(mode)))
    machine = relax.VirtualMachine(tvm.compile(legal, target="llvm"), tvm.cpu())
    found = machine["main"](*(tvm.runtime.tensor(value) for value in given.values()))
    return (found if hasattr(found, "numpy") else found[0]).numpy().ravel().round(2).tolist()


for mode in ("output_half_pixel", "half_pixel"):
    print(f"{mode:17}  {pool(mode)}")
PY
cat seen
diff seen - <<'SEEN'
output_half_pixel  [16.0, 24.0, 32.0, 40.0]
half_pixel         [15.5, 23.5, 31.5, 39.5]
SEEN
