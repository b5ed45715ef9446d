#!/usr/bin/env bash
# onnx 1.23.2, ReferenceEvaluator: RoiAlign of opset 10 is computed with the half-pixel shift of opset 16's default, "half_pixel",
# though opset 10 has no shift: it is opset 16's "output_half_pixel". ONNX Runtime 1.32.0 has no shift there either.
# Seen (cells of 4 px that hold the x of their centres, two samples a bin; a box from x = 10 to 42, four bins of 8 px: their
# centres are 14, 22, 30 and 38; without the shift all is read half a cell, 2 px, further right):
#   opset 10                    ONNX Runtime [16.0, 24.0, 32.0, 40.0], ReferenceEvaluator [14.0, 22.0, 30.0, 38.0]
#   opset 16 output_half_pixel  ONNX Runtime [16.0, 24.0, 32.0, 40.0], ReferenceEvaluator [16.0, 24.0, 32.0, 40.0]
#   opset 16 half_pixel         ONNX Runtime [14.0, 22.0, 30.0, 38.0], ReferenceEvaluator [14.0, 22.0, 30.0, 38.0]
# So an export of opset 10 compared with the evaluator seems to be half a cell off in a runtime that computes it as defined.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet onnx==1.23.2 onnxruntime==1.32.0
venv/bin/python - > seen <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

CELL, HEIGHT, WIDTH, BINS = 4, 8, 16, 4
centres = CELL * (np.arange(WIDTH) + 0.5)
given = {
    "x": np.tile(centres, (1, 1, HEIGHT, 1)).astype(np.float32),
    "rois": np.array([[10, 8, 42, 24]], dtype=np.float32),
    "index": np.zeros(1, dtype=np.int64),
}


def model(opset, mode):
    size = {"output_height": 1, "output_width": BINS, "spatial_scale": 1 / CELL, "sampling_ratio": 2}
    size |= {"coordinate_transformation_mode": mode} if mode else {}
    types = {"x": TensorProto.FLOAT, "rois": TensorProto.FLOAT, "index": TensorProto.INT64}
    inputs = [helper.make_tensor_value_info(name, types[name], given[name].shape) for name in given]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 1, BINS])
    graph = helper.make_graph([helper.make_node("RoiAlign", list(given), ["y"], **size)], "g", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def shown(found):
    return [round(value, 2) for value in found[0].ravel().astype(float).tolist()]


for opset, mode in ((10, ""), (16, "output_half_pixel"), (16, "half_pixel")):
    made = model(opset, mode)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    runtime, evaluator = session.run(None, given), ReferenceEvaluator(made).run(None, given)
    name = f"opset {opset} {mode}".strip()
    print(f"{name:27} ONNX Runtime {shown(runtime)}, ReferenceEvaluator {shown(evaluator)}")
PY
cat seen
diff seen - <<'SEEN'
opset 10                    ONNX Runtime [16.0, 24.0, 32.0, 40.0], ReferenceEvaluator [14.0, 22.0, 30.0, 38.0]
opset 16 output_half_pixel  ONNX Runtime [16.0, 24.0, 32.0, 40.0], ReferenceEvaluator [16.0, 24.0, 32.0, 40.0]
opset 16 half_pixel         ONNX Runtime [14.0, 22.0, 30.0, 38.0], ReferenceEvaluator [14.0, 22.0, 30.0, 38.0]
SEEN
