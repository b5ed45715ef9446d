"""The operators of `ops` in ONNX's give the same in ONNX Runtime and OpenVINO."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ops
from detector.inference.export.files import convert
from detector.inference.export.translations import not_above

pytest.importorskip("onnxscript")

RUNTIMES = pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
HEIGHT, WIDTH = 96, 128
SCALES = [1 / 4, 1 / 8]


def boxes_of_all_kinds(count: int = 24) -> Tensor:
    """Boxes [K, 5] within the image, as a detector clips them: anywhere, small, on cells' edges and middles, empty."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT])
    low, high = corners.amin(1), corners.amax(1)
    small = low + 0.4 + 3.2 * torch.rand(count, 2, generator=generator)
    cells = torch.cat(((low / 8).floor() * 8, (high / 8).ceil() * 8), 1)
    flat = torch.cat((low, low[:, :1], high[:, 1:]), 1)
    whole = torch.tensor([[0.0, 0.0, WIDTH, HEIGHT]])
    boxes = torch.cat((torch.cat((low, high), 1), torch.cat((low, small), 1), cells, cells + 4, flat, whole))
    boxes = boxes.minimum(torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT]))
    return torch.cat((torch.zeros(len(boxes), 1), boxes), 1)


class Pooling(nn.Module):
    def __init__(self, operator: Callable[..., Tensor]) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, fine: Tensor, coarse: Tensor, rois: Tensor, levels: Tensor) -> Tensor:
        return self.operator([fine, coarse], rois, 3, SCALES, levels=levels)


def in_runtime(
    name: str, path: Path, module: nn.Module, inputs: dict[str, Tensor], shapes: list[dict[int, object]]
) -> Callable[..., Tensor]:
    runtime = pytest.importorskip(name)
    program = torch.export.export(module, tuple(inputs.values()), dynamic_shapes=shapes, strict=False)
    convert(program, list(inputs), ["output"]).save(str(path))
    if name == "onnxruntime":
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda *values: torch.from_numpy(
            session.run(None, {key: value.numpy() for key, value in zip(inputs, values, strict=True)})[0]
        )
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = runtime.Core().compile_model(runtime.convert_model(str(path)), "CPU", exact)
    return lambda *values: torch.from_numpy(compiled([value.numpy() for value in values])[0].copy())


ALIGN = ops.multiscale_roi_align
POOLERS = {
    "half pixel": partial(ALIGN, sampling_ratio=2, aligned=True),
    "adaptive": partial(ALIGN, sampling_ratio=-1, aligned=True),
    "legacy": partial(ALIGN, sampling_ratio=2, aligned=False),
    "legacy adaptive": partial(ALIGN, aligned=False),
    "maxima": partial(ALIGN, sampling_ratio=2, aligned=True, mode="max"),
    "warp": partial(ops.multiscale_roi_warp, sampling_ratio=2),
    "maxima of warp": partial(ops.multiscale_roi_warp, sampling_ratio=2, mode="max"),
    "pool": partial(ops.multiscale_roi_pool, quantization="round"),
    "pool floor": partial(ops.multiscale_roi_pool, quantization="floor"),
    "position-sensitive": partial(ops.multiscale_ps_roi_align, sampling_ratio=2),
    "position-sensitive adaptive": ops.multiscale_ps_roi_align,
}


@RUNTIMES
@pytest.mark.parametrize("name", POOLERS)
def test_pooling(tmp_path: Path, name: str, runtime: str) -> None:
    generator = torch.Generator().manual_seed(1)
    fine, coarse = (torch.randn(1, 18, int(HEIGHT * s), int(WIDTH * s), generator=generator) for s in SCALES)
    module, rois = Pooling(POOLERS[name]), boxes_of_all_kinds()
    levels = torch.arange(len(rois)) % 2
    count = torch.export.Dim("rois", min=2, max=1 << 20)
    inputs = {"fine": fine, "coarse": coarse, "rois": rois[:40], "levels": levels[:40]}
    run = in_runtime(runtime, tmp_path / "model.onnx", module, inputs, [{}, {}, {0: count}, {0: count}])
    for k in (len(rois), 1, 0):  # of no RoI, and of one level alone
        found = run(fine, coarse, rois[:k], levels[:k])
        torch.testing.assert_close(found, module(fine, coarse, rois[:k], levels[:k]), rtol=0, atol=2e-5)


class Suppression(nn.Module):
    def __init__(self, topk: int) -> None:
        super().__init__()
        self.topk = topk

    def forward(self, boxes: Tensor, scores: Tensor, idxs: Tensor) -> Tensor:
        return ops.batched_nms(boxes, scores, idxs, 0.5, self.topk)


@RUNTIMES
def test_suppression(tmp_path: Path, runtime: str) -> None:
    generator = torch.Generator().manual_seed(2)
    low = torch.rand(1500, 2, generator=generator) * 40
    boxes = torch.cat((low, low + 5 + 20 * torch.rand(1500, 2, generator=generator)), 1)
    boxes[700:800] = boxes[600:700]  # the same box twice
    scores = torch.rand(1500, generator=generator)
    if runtime == "onnxruntime":  # OpenVINO's order of equal ones is its own
        scores = (scores * 50).round() / 50
    groups = torch.randint(0, 5, (1500,), generator=generator)
    count = torch.export.Dim("boxes", min=2, max=1 << 20)
    module = Suppression(100)
    inputs = {"boxes": boxes[:50], "scores": scores[:50], "idxs": groups[:50]}
    run = in_runtime(runtime, tmp_path / "model.onnx", module, inputs, [{0: count}] * 3)
    for n in (1500, 1001, 1000, 300, 60, 1, 0):
        given = boxes[:n], scores[:n], groups[:n]
        assert torch.equal(run(*given), module(*given)), n


def test_thresholds_are_not_rounded_up() -> None:
    assert not_above(0.5) == 0.5
    for value in (0.7, 0.3, 0.1, 1e-9):
        assert value - 1e-7 < not_above(value) <= value
        assert torch.tensor(not_above(value)).item() == not_above(value)
