#!/usr/bin/env bash
# openvino 2026.4.1: an ONNX RoiAlign without `sampling_ratio` is read as one sample a bin. ONNX defines its default as 0, which
# is adaptive: as many samples as a bin covers cells. With sampling_ratio=0 written out, OpenVINO is adaptive too.
# Seen (a map whose rows hold 4 0 0 4 8 0 0 8, two bins of four cells: the averages of their cells are 2 and 4; a single sample
# in the middle of each bin lies between two zeros):
#   not written        ONNX Runtime [2.0, 4.0], OpenVINO [0.0, 0.0]
#   sampling_ratio=0   ONNX Runtime [2.0, 4.0], OpenVINO [2.0, 4.0]
# So an export to ONNX that is to run in OpenVINO must write the attribute, even where it has its default.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1
venv/bin/python - > seen <<'PY'
import numpy as np
import onnxruntime
import openvino
from onnx import TensorProto, helper

given = {
    "x": np.tile([4, 0, 0, 4, 8, 0, 0, 8], (1, 1, 4, 1)).astype(np.float32),
    "rois": np.array([[0, 0, 8, 4]], dtype=np.float32),
    "index": np.zeros(1, dtype=np.int64),
}


def model(samples):
    size = {"output_height": 1, "output_width": 2, "coordinate_transformation_mode": "half_pixel"} | samples
    types = {"x": TensorProto.FLOAT, "rois": TensorProto.FLOAT, "index": TensorProto.INT64}
    inputs = [helper.make_tensor_value_info(name, types[name], given[name].shape) for name in given]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 1, 2])
    graph = helper.make_graph([helper.make_node("RoiAlign", list(given), ["y"], **size)], "g", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=9).SerializeToString()


def in_openvino(made):
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(made), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled([given[value.any_name] for value in compiled.inputs])[0]


for name, samples in (("not written", {}), ("sampling_ratio=0", {"sampling_ratio": 0})):
    made = model(samples)
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    pair = [found.ravel().round(2).tolist() for found in (session.run(None, given)[0], in_openvino(made))]
    print(f"{name:18} ONNX Runtime {pair[0]}, OpenVINO {pair[1]}")
PY
cat seen
diff seen - <<'SEEN'
not written        ONNX Runtime [2.0, 4.0], OpenVINO [0.0, 0.0]
sampling_ratio=0   ONNX Runtime [2.0, 4.0], OpenVINO [2.0, 4.0]
SEEN
