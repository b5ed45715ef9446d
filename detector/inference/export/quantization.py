"""Quantise an ONNX file to 8 bits, and measure what that costs in AP."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.config.build import build_collector, build_metrics
from detector.config.resolve import Resolved
from detector.inference.export.graph import PASTED
from detector.inference.export.packages import package
from detector.inference.export.runners import Runner
from detector.masks import MaskOutput
from detector.types import DetectionDataset, Masks, Objects, Output, Sample, Size

KINDS = ("Conv", "Gemm", "MatMul")
"""Operators that are computed in 8 bits, where their weights are constants."""
BETWEEN = ("Relu", "Add", "MaxPool", "Resize")
"""Operators that are computed in 8 bits where what they read is, so that maps between convolutions stay in 8 bits."""
FLOAT_OUTPUTS = ("Gemm", "MatMul")
"""Operators that return float32: class logits and deltas keep their precision."""


def quantize(source: Path, target: Path, images: Iterable[Tensor]) -> None:
    """Quantise the convolutions and matrix products of an ONNX file: weights by output channel, activations by tensor.

    Activations stay in 8 bits from one convolution to the next, also through sums and rectifiers. Their ranges are
    those on the given images (static quantisation by ONNX Runtime, QDQ format). Resizing of images, class logits, boxes
    and masks' grids stay in float32.

    Args:
        source: written by `detector.inference.export.files`.
        target: the new file.
        images: uint8 [D, H, W].

    Raises:
        ValueError: ONNX Runtime or a package that it needs is not installed, or there are no images.
    """
    quantization = package("onnxruntime.quantization", "int8=true")
    onnx = package("onnx", "int8=true")
    feeds = ({"image": image.contiguous().numpy()} for image in images)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def get_next(self) -> dict[str, Any] | None:
            return next(feeds, None)

    model = onnx.load(str(source))
    chosen = quantised_nodes(model)
    kinds = (*KINDS, *BETWEEN)
    kept = [node.name for node in model.graph.node if node.op_type in kinds and node.name not in chosen]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # which ONNX Runtime's quantisation writes to
    try:
        quantization.quantize_static(
            str(source),
            str(target),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(kinds),
            nodes_to_exclude=kept,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": list(FLOAT_OUTPUTS)},
        )
    finally:
        logging.getLogger().setLevel(level)
    written = onnx.load(str(target))
    del written.metadata_props[:]
    onnx.helper.set_model_props(written, metadata)
    onnx.save(written, str(target))


def quantised_nodes(model: Any) -> set[str]:
    """Return the names of the nodes of an ONNX model that are computed in 8 bits."""
    constants = {initializer.name for initializer in model.graph.initializer}
    names: set[str] = set()
    values: set[str] = set()  # that convolutions, and what is between them, return
    for node in model.graph.node:  # in the order of computation
        read = node.input[:2] if node.op_type == "Add" else node.input[:1]
        if (node.op_type in KINDS and node.input[1] in constants) or (
            node.op_type in BETWEEN and values.issuperset(read)
        ):
            names.add(node.name)
            values.update(() if node.op_type in FLOAT_OUTPUTS else node.output)
    return names


def calibration_images(dataset: DetectionDataset, count: int) -> Iterator[Tensor]:
    """Return evenly spaced images of a dataset, at most `count`, uint8 [D, H, W].

    Raises:
        ValueError: an image is deeper than 8 bits.
    """
    step = max(len(dataset) // count, 1)
    for index in islice(range(0, len(dataset), step), count):
        yield _image(dataset[index])


def _image(sample: Sample) -> Tensor:
    if sample.image.dtype != torch.uint8:
        raise ValueError(f"image {sample.id} is deeper than 8 bits, and exported models take uint8")
    return sample.image


def measure(
    detect: Callable[[Tensor], Objects], resolved: Resolved, outputs: Iterable[Output], split: str = "val"
) -> dict[str, float]:
    """Measure detections on a split of a dataset by its metrics.

    Args:
        detect: from an image uint8 [D, H, W] to its detections.
        resolved: the final configuration, with the split.
        outputs: of the detector's further heads.
        split: its name.

    Raises:
        ValueError: an image is deeper than 8 bits.
    """
    config, dataset = resolved.config, resolved.datasets[split]
    collector = build_collector(
        outputs_of(detect, outputs), dataset, config.dataset.size_bins, config.dataset.detections
    )
    metrics = build_metrics(config.dataset.metrics, collector)
    for index in range(len(dataset)):
        sample = dataset[index]
        collector.update([sample.id], [detect(_image(sample))], [sample.original_size])
    return {name: value for metric in metrics for name, value in metric.results().items()}


def outputs_of(detect: Callable[[Tensor], Objects], outputs: Iterable[Output]) -> list[Output]:
    """Return the outputs that encode what is detected: masks that a file gives pasted are encoded as they are."""
    if not isinstance(detect, Runner) or detect.metadata.get("masks") != PASTED:
        return list(outputs)
    return [MaskOutput(_as_given) if isinstance(output, MaskOutput) else output for output in outputs]


def _as_given(masks: Tensor, boxes: Tensor, size: Size) -> Masks:
    del boxes
    return Masks.from_dense(masks, size)
