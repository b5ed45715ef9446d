"""What is computed in 8 bits: convolutions, what is between them, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch

from detector.inference.export.quantization import quantised_nodes, quantize

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def model() -> object:
    """A residual block, a doubled and pooled map, and a linear layer whose output is added to something."""
    generator = np.random.default_rng(0)

    def constant(name: str, *shape: int) -> object:
        return onnx.numpy_helper.from_array(generator.normal(0, 0.3, shape).astype(np.float32), name)

    weights = [constant(name, 4, 4, 3, 3) for name in ("w1", "w2", "w3")]
    weights += [constant("linear", 5, 256), constant("offset", 5), constant("square", 5, 5)]
    weights += [onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice")]
    weights += [onnx.numpy_helper.from_array(np.array([0], np.int64), "first")]
    nodes = [
        ("Cast", "image", "pixels", {"to": 1}),
        ("Relu", "pixels", "positive", {}),  # of the image
        ("Unsqueeze", "positive first", "batch", {}),
        ("Conv", "batch w1", "a", {"pads": [1] * 4}),
        ("Relu", "a", "b", {}),
        ("Conv", "b w2", "c", {"pads": [1] * 4}),
        ("Add", "b c", "d", {}),
        ("Relu", "d", "e", {}),
        ("Resize", "e  twice", "f", {"mode": "nearest"}),
        ("MaxPool", "f", "g", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", "g w3", "h", {"pads": [1] * 4}),
        ("Flatten", "h", "i", {}),
        ("Gemm", "i linear", "logits", {"transB": 1}),
        ("Relu", "logits", "hidden", {}),
        ("Add", "hidden offset", "moved", {}),
        ("MatMul", "moved square", "j", {}),
        ("MatMul", "j both", "k", {}),  # of what is no constant
        ("Transpose", "j", "both", {}),
    ]
    nodes[-2], nodes[-1] = nodes[-1], nodes[-2]
    made = [onnx.helper.make_node(kind, given.split(" "), [out], name=out, **more) for kind, given, out, more in nodes]
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, [4, 8, 8])
    found = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("logits", "k")]
    graph = onnx.helper.make_graph(made, "graph", [image], found, weights)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)


def test_convolutions_and_what_is_between_them_are_quantised() -> None:
    assert quantised_nodes(model()) == {*"abcdefgh", "logits", "j"}


def test_a_quantised_file_keeps_maps_in_8_bits_and_logits_in_float(tmp_path: Path) -> None:
    source, target = tmp_path / "model.onnx", tmp_path / "model.int8.onnx"
    onnx.save(model(), source)
    images = [torch.randint(0, 256, (4, 8, 8), generator=torch.Generator().manual_seed(i)).byte() for i in range(3)]
    quantize(source, target, images)
    written = onnx.load(target)
    maker = {name: node.op_type for node in written.graph.node for name in node.output}
    read = {name: node.op_type for node in written.graph.node for name in node.input}
    rectified = [node for node in written.graph.node if node.op_type == "Relu"]
    assert [node.output[0] for node in rectified] == ["positive", "hidden"]  # others are limits of the 8 bits
    for node in written.graph.node:
        if node.op_type in ("Conv", "Resize", "MaxPool"):
            assert maker[node.input[0]] == "DequantizeLinear"
            assert read[node.output[0]] == "QuantizeLinear"
    assert "QuantizeLinear" not in (read[node.output[0]] for node in written.graph.node if node.op_type == "Gemm")
    outputs = []
    for path in (source, target):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        outputs.append(session.run(["logits"], {"image": images[0].numpy()})[0])
    assert np.abs(outputs[0] - outputs[1]).max() < 0.03 * np.abs(outputs[0]).max()
    assert not np.array_equal(*outputs)
