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
from detector.inference.export.packages import package
from detector.types import DetectionDataset, Objects, Output

KINDS = ("Conv", "Gemm", "MatMul")
"""Operators that are computed in 8 bits."""


def quantize(source: Path, target: Path, images: Iterable[Tensor]) -> None:
    """Quantise the convolutions and matrix products of an ONNX file: weights by output channel, activations by tensor.

    The ranges of activations are those on the given images (static quantisation by ONNX Runtime, QDQ format). Resizing,
    boxes and masks' grids stay in float32.

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
    kept = [node.name for node in model.graph.node if node.op_type in KINDS and not _has_weight(model, node)]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # which ONNX Runtime's quantisation writes to
    try:
        quantization.quantize_static(
            str(source),
            str(target),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(KINDS),
            nodes_to_exclude=kept,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    finally:
        logging.getLogger().setLevel(level)
    written = onnx.load(str(target))
    del written.metadata_props[:]
    onnx.helper.set_model_props(written, metadata)
    onnx.save(written, str(target))


def _has_weight(model: Any, node: Any) -> bool:
    """Return whether the second input of a node is a constant of the file."""
    return node.input[1] in {initializer.name for initializer in model.graph.initializer}


def calibration_images(dataset: DetectionDataset, count: int) -> Iterator[Tensor]:
    """Return evenly spaced images of a dataset, at most `count`, uint8 [D, H, W].

    Raises:
        ValueError: an image is deeper than 8 bits.
    """
    step = max(len(dataset) // count, 1)
    for index in islice(range(0, len(dataset), step), count):
        sample = dataset[index]
        if sample.image.dtype != torch.uint8:
            raise ValueError(f"image {sample.id} is deeper than 8 bits, and exported models take uint8")
        yield sample.image


def measure(
    detect: Callable[[Tensor], Objects], resolved: Resolved, outputs: Iterable[Output], split: str = "val"
) -> dict[str, float]:
    """Measure detections on a split of a dataset by its metrics.

    Args:
        detect: from an image uint8 [D, H, W] to its detections.
        resolved: the final configuration, with the split.
        outputs: of the detector's further heads.
        split: its name.
    """
    config, dataset = resolved.config, resolved.datasets[split]
    collector = build_collector(outputs, dataset, config.dataset.size_bins, config.dataset.detections)
    metrics = build_metrics(config.dataset.metrics, collector)
    for index in range(len(dataset)):
        sample = dataset[index]
        collector.update([sample.id], [detect(sample.image)], [sample.original_size])
    return {name: value for metric in metrics for name, value in metric.results().items()}
