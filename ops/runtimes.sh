#!/usr/bin/env bash
# How other runtimes compute RoIAlign and RoIPool, on the seven kinds of boxes of `ops/boxes.py`, beside the operators of
# `ops`: the table of ops/RUNTIMES.md, where what is seen is described. Run it in an environment of this project; each runtime
# gets one of its own. "max" is the largest difference of an output, the share that of outputs that differ by more than 1e-4.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$root"
python3 -m ops.build > /dev/null
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m ops.boxes write .

cat > common.py <<'PY'
from pathlib import Path

import numpy as np

features, boxes = np.load("map.npy"), np.load("boxes.npy")
edges, images = boxes[:, 1:].copy(), boxes[:, 0]


def keep(runtime, case, pool):
    try:
        np.save(f"{runtime}__{case}.npy", np.asarray(pool(), dtype=np.float32))
    except Exception as error:
        Path(f"{runtime}__{case}.txt").write_text(next(iter(str(error).splitlines()), type(error).__name__))
PY

cat > models.py <<'PY'
from onnx import TensorProto, helper, save

SIZE = {"output_height": 7, "output_width": 7, "spatial_scale": 0.25, "mode": "avg"}
HALF, CORNER = ({"coordinate_transformation_mode": mode} for mode in ("half_pixel", "output_half_pixel"))
MODELS = {
    "align_half_2": ("RoiAlign", 18, SIZE | HALF | {"sampling_ratio": 2}),
    "align_2": ("RoiAlign", 18, SIZE | CORNER | {"sampling_ratio": 2}),
    "align_2_opset10": ("RoiAlign", 10, SIZE | {"sampling_ratio": 2}),
    "align_half_0": ("RoiAlign", 18, SIZE | HALF | {"sampling_ratio": 0}),
    "align_half_0_unset": ("RoiAlign", 18, SIZE | HALF),
    "align_0": ("RoiAlign", 18, SIZE | CORNER | {"sampling_ratio": 0}),
    "align_half_2_max": ("RoiAlign", 18, SIZE | HALF | {"sampling_ratio": 2, "mode": "max"}),
    "align_half_2_opset22": ("RoiAlign", 22, SIZE | HALF | {"sampling_ratio": 2}),
    "pool": ("MaxRoiPool", 18, {"pooled_shape": [7, 7], "spatial_scale": 0.25}),
    "pool_opset22": ("MaxRoiPool", 22, {"pooled_shape": [7, 7], "spatial_scale": 0.25}),
}
FLOAT = TensorProto.FLOAT
for name, (operator, opset, attributes) in MODELS.items():
    align = operator == "RoiAlign"
    values = [("x", FLOAT, [1, 98, 24, 32]), ("rois", FLOAT, [448, 4 if align else 5])]
    values += [("index", TensorProto.INT64, [448])] if align else []
    node = helper.make_node(operator, [value[0] for value in values], ["y"], **attributes)
    output = helper.make_tensor_value_info("y", FLOAT, [448, 98, 7, 7])
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info(*value) for value in values], [output])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), f"{name}.onnx")
PY

cat > onnxruntime.run.py <<'PY'
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import openvino.opset13 as nodes
from common import boxes, edges, features, images, keep
from onnx.reference import ReferenceEvaluator

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def feeds(name):
    if name.startswith("pool"):
        return {"x": features, "rois": boxes}
    return {"x": features, "rois": edges, "index": images.astype(np.int64)}


def in_onnxruntime(name):
    session = onnxruntime.InferenceSession(f"{name}.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, feeds(name))[0]


def compiled(model, *values):
    model = openvino.Core().compile_model(model, "CPU", EXACT)
    return model([values[0][i.any_name] for i in model.inputs] if isinstance(values[0], dict) else list(values))[0]


def own(make, width):
    x, rois = nodes.parameter([1, 98, 24, 32], np.float32), nodes.parameter([448, width], np.float32)
    return compiled(openvino.Model([make(x, rois)], [x, rois]), features, boxes)


version = f"OpenVINO {openvino.__version__.partition('-')[0]}"
for path in sorted(Path().glob("*.onnx")):
    name = path.stem
    keep(f"ONNX Runtime {onnxruntime.__version__}", name, lambda: in_onnxruntime(name))
    keep(version, name, lambda: compiled(openvino.Core().read_model(f"{name}.onnx"), feeds(name)))
    keep(f"onnx {onnx.__version__}", name, lambda: ReferenceEvaluator(f"{name}.onnx").run(None, feeds(name))[0])
keep(version, "pool_own", lambda: own(lambda x, rois: nodes.roi_pooling(x, rois, [7, 7], 0.25, "max"), 5))
keep(version, "ps_pool_rfcn", lambda: own(lambda x, rois: nodes.psroi_pooling(x, rois, 2, 7, 0.25, 7, 7, "average"), 5))
PY

cat > paddle.run.py <<'PY'
import numpy as np
import paddle
from common import boxes, edges, features, keep
from paddle.vision import ops

x, rois, count = (paddle.to_tensor(value) for value in (features, edges, np.array([len(boxes)], dtype=np.int32)))
version = f"Paddle {paddle.__version__}"
for samples in (2, -1):
    for aligned in (True, False):
        case = f"align{'_half' if aligned else ''}_{max(samples, 0)}"
        keep(version, case, lambda: ops.roi_align(x, rois, count, 7, 0.25, samples, aligned).numpy())
keep(version, "pool", lambda: ops.roi_pool(x, rois, count, 7, 0.25).numpy())
keep(version, "ps_pool_rfcn", lambda: ops.psroi_pool(x, rois, count, 7, 0.25).numpy())
PY

cat > tensorflow.run.py <<'PY'
import numpy as np
import tensorflow as tf
from common import edges, features, keep

version, (height, width) = f"TensorFlow {tf.__version__}", features.shape[2:]
x1, y1, x2, y2 = (edges * 0.25).T
maps, image = features.transpose(0, 2, 3, 1), np.zeros(len(edges), np.int32)


def crop(left, top, right, bottom, side):
    places = np.stack((top / (height - 1), left / (width - 1), bottom / (height - 1), right / (width - 1)), 1)
    return tf.image.crop_and_resize(maps, places, image, (side, side))


def align():
    """RoIAlign as tensorpack composes it: crops at the samples, then averages of 2 x 2."""
    w, h = (x2 - x1) / 14, (y2 - y1) / 14
    left, top = x1 + w / 2 - 0.5, y1 + h / 2 - 0.5
    return tf.nn.avg_pool2d(crop(left, top, left + 13 * w, top + 13 * h, 14), 2, 2, "VALID")


for case, pooled in (("crop_and_resize", lambda: crop(x1, y1, x2, y2, 7)), ("align_half_2", align)):
    keep(version, case, lambda: tf.transpose(pooled(), (0, 3, 1, 2)).numpy())
PY

cat > ncnn.run.py <<'PY'
import ncnn
import numpy as np
from common import edges, features, keep


def run(layer, parameters):
    lines = ["7767517", "3 3", "Input x 0 1 x", "Input r 0 1 r", f"{layer} pool 2 1 x r out {parameters}"]
    with open("net.param", "w") as file:
        file.write("\n".join(lines) + "\n")
    open("net.bin", "wb").close()
    net = ncnn.Net()
    net.opt.use_fp16_storage = net.opt.use_fp16_packed = net.opt.use_fp16_arithmetic = False
    assert net.load_param("net.param") == 0
    net.load_model("net.bin")
    found = []
    for box in edges:
        extractor = net.create_extractor()
        extractor.input("x", ncnn.Mat(np.ascontiguousarray(features[0])))
        extractor.input("r", ncnn.Mat(np.ascontiguousarray(box)))
        found.append(np.array(extractor.extract("out")[1]).copy())
    return np.stack(found)


for form in (0, 1):
    for samples in (2, 0):
        for aligned in (0, 1):
            case = f"align{'_half' if aligned else ''}_{samples}"
            given = f"0=7 1=7 2=0.25 3={samples} 4={aligned} 5={form}"
            keep(f"ncnn {ncnn.__version__}, version={form}", case, lambda: run("ROIAlign", given))
keep(f"ncnn {ncnn.__version__}", "pool", lambda: run("ROIPooling", "0=7 1=7 2=0.25"))
keep(f"ncnn {ncnn.__version__}", "ps_pool_rfcn", lambda: run("PSROIPooling", "0=7 1=7 2=0.25 3=2"))
PY

cat > MNN.run.py <<'PY'
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import MNN.expr as expr
import MNN.nn as nn
import numpy as np
from common import boxes, edges, features, images, keep


def run(case):
    convert = [str(Path(sys.executable).with_name("mnnconvert")), "-f", "ONNX", "--modelFile", f"{case}.onnx"]
    subprocess.run([*convert, "--MNNModel", f"{case}.mnn", "--bizCode", "x"], capture_output=True, check=False)
    values = [features, boxes] if case == "pool" else [features, edges, images.astype(np.int32)]
    net = nn.load_module_from_file(f"{case}.mnn", ["x", "rois", "index"][: len(values)], ["y"])
    types = [expr.float, expr.float, expr.int]
    given = [expr.const(v, list(v.shape), expr.NCHW, t) for v, t in zip(values, types, strict=False)]
    return np.array(expr.convert(net.forward(given)[0], expr.NCHW).read()).reshape(448, 98, 7, 7)


for case in ("align_half_2", "align_2", "align_half_0", "align_0", "align_half_2_max", "pool"):
    keep(f"MNN {importlib.metadata.version('MNN')}", case, lambda: run(case))
PY

cat > opencv.run.py <<'PY'
import cv2
import numpy as np
from common import boxes, edges, features, images, keep


def run(case):
    net = cv2.dnn.readNetFromONNX(f"{case}.onnx")
    net.setInput(features, "x")
    net.setInput(boxes if case == "pool" else edges, "rois")
    if case != "pool":
        net.setInput(images.astype(np.int64), "index")
    return net.forward()


for case in ("align_half_2", "align_2", "align_half_0", "align_0", "align_half_2_max", "pool"):
    keep(f"OpenCV {cv2.__version__}", case, lambda: run(case))
PY

cat > tvm.run.py <<'PY'
import numpy as np
import onnx
import tvm
from common import boxes, edges, features, images, keep
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx


def run(case):
    model = relax.transform.LegalizeOps()(from_onnx(onnx.load(f"{case}.onnx")))
    machine = relax.VirtualMachine(tvm.compile(model, target="llvm"), tvm.cpu())
    values = [features, boxes] if case == "pool" else [features, edges, images.astype(np.int64)]
    found = machine["main"](*(tvm.runtime.tensor(np.ascontiguousarray(value)) for value in values))
    return (found if hasattr(found, "numpy") else found[0]).numpy()


for case in ("align_half_2", "align_2", "align_half_0", "align_0", "align_half_2_max", "pool"):
    keep(f"TVM {tvm.__version__}", case, lambda: run(case))
PY

cat > mindspore.run.py <<'PY'
import mindspore
from common import boxes, features, keep
from mindspore.ops.operations import ROIAlign

mindspore.set_device("CPU")
x, rois = mindspore.Tensor(features), mindspore.Tensor(boxes)
for end in (0, 1):
    for samples in (2, 0):
        name = f"MindSpore {mindspore.__version__}, roi_end_mode={end}"
        keep(name, f"align_{samples}", lambda: ROIAlign(7, 7, 0.25, samples, end)(x, rois).asnumpy())
PY

runtime() {  # its name, and the packages
    if ! { python3 -m venv "$1.venv" && "$1.venv/bin/pip" install --quiet --no-compile "${@:2}" && run "$1"; } 2> "$1.log"; then
        failed+=("$1: $(tail -1 "$1.log")")
    fi
    rm -rf "$1.venv" cache
}
run() {  # in a home and with a PATH of its own: MNN's converter installs a package by the `pip` that it finds there.
    local bin="$folder/$1.venv/bin"
    if [ "$1" = onnxruntime ]; then "$bin/python" models.py || return; fi
    env -u PYTHONPATH HOME="$folder" PATH="$bin:$PATH" "$bin/python" "$1.run.py" > /dev/null
}
failed=()
export TMPDIR="$folder" PIP_CACHE_DIR="$folder/cache" PIP_DISABLE_PIP_VERSION_CHECK=1
runtime onnxruntime onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1
runtime paddle paddlepaddle==3.3.1
runtime tensorflow tensorflow-cpu==2.21.0
runtime ncnn ncnn==1.0.20261020 numpy
runtime MNN MNN==3.6.1 numpy
runtime opencv opencv-python-headless==5.0.0.93
runtime tvm apache-tvm==0.27.0.post1 onnx
runtime mindspore mindspore==2.10.0

python3 - <<'PY'
from pathlib import Path

import numpy as np
import torch

from ops.boxes import KINDS, compare

print(f"| runtime | case | {' | '.join(KINDS)} |\n|{'---|' * (2 + len(KINDS))}")
for path in sorted(Path().glob("*__*")):
    runtime, case = path.stem.split("__") if path.suffix == ".txt" else path.name.removesuffix(".npy").split("__")
    if path.suffix == ".txt":
        print(f"| {runtime} | {case} | fails: {path.read_text()[:100]} |")
        continue
    arguments = {}
    if case.startswith("align"):
        operator, samples = "roi_align", next(int(part) for part in case.split("_") if part.isdigit())
        arguments = {"sampling_ratio": samples, "aligned": "half" in case, "mode": "max" if "max" in case else "avg"}
    elif case.startswith("pool"):
        operator = "roi_pool"
    else:
        operator, arguments = ("ps_roi_pool", {"quantization": "rfcn"}) if case == "ps_pool_rfcn" else (case, {})
    found = compare(torch.from_numpy(np.load(path)), operator, **arguments).values()
    cells = ["=" if share == 0 else f"{share:.0%}, max {largest:.1f}" for largest, share in found]
    print(f"| {runtime} | {case} | {' | '.join(cells)} |")
PY

if [ ${#failed[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
