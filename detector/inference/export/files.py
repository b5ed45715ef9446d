"""Write exported detectors: ONNX, torch.export's programs, OpenVINO's intermediate representation."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from detector.inference.export import translations
from detector.inference.export.expressible import check_operators
from detector.inference.export.graph import Graph, trace, with_flat_layers
from detector.inference.export.packages import package

FOLDED = 1 << 30
"""The most elements of a constant that is computed when a file is written."""
METADATA = "metadata.json"
"""The file within a `.pt2` that holds the metadata."""


def write(path: Path, graph: Graph, metadata: Mapping[str, str]) -> None:
    """Write an exported detector in the format that the file's name ends in.

    Args:
        path: `.onnx`, `.pt2` or `.xml`; OpenVINO writes a `.bin` of the same name beside the last.
        graph: the detector.
        metadata: texts by name, stored in the file.

    Raises:
        ValueError: the name has another ending, a package is missing, or a part of the detector has no form in the
            format.
    """
    writer = writer_of(path)
    check_operators(graph.model, onnx=path.suffix != ".pt2")
    writer(path, graph, metadata)


def writer_of(path: Path) -> Callable[[Path, Graph, Mapping[str, str]], None]:
    """Return the function that writes a file's format, once all that it needs is there; errors as of `write`."""
    writers = {".onnx": write_onnx, ".pt2": write_program, ".xml": write_openvino}
    if path.suffix not in writers:
        raise ValueError(
            f"output={path}: the name's ending chooses the format: .onnx, .pt2 (torch.export) or .xml (OpenVINO)"
        )
    if path.suffix != ".pt2":
        for name in ("onnx", "onnxscript", *(["openvino"] if path.suffix == ".xml" else [])):
            package(name, f"output={path.name}")
    return writers[path.suffix]


def write_onnx(path: Path, graph: Graph, metadata: Mapping[str, str]) -> None:
    """Write an ONNX file of opset 18 with the weights inside, or beside it where they are more than 2 GB."""
    with _quiet():
        program = convert(trace(with_flat_layers(graph)), ["image"], graph.names())
    program.model.metadata_props.update(metadata)
    program.model.producer_name, _, program.model.producer_version = metadata["producer"].partition(" ")
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(str(path))


def convert(
    program: torch.export.ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]
) -> torch.onnx.ONNXProgram:
    """Convert a traced graph to ONNX.

    Args:
        program: the graph, in which the operators of `ops` may be.
        inputs, outputs: their names.
    """
    with _quiet():
        converted = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=translations.OPSET,
            custom_translation_table=translations.table(),
            input_names=inputs,
            output_names=outputs,
            verbose=False,
        )
        assert converted is not None
        # Also large constants, such as a permuted weight: runtimes pack and quantise only what is stored as it is used.
        optimizer = package("onnxscript.optimizer", "ONNX")
        optimizer.fold_constants(converted.model, input_size_limit=FOLDED, output_size_limit=FOLDED)
    return converted


def write_program(path: Path, graph: Graph, metadata: Mapping[str, str]) -> None:
    """Write a program of torch.export, which runs where `import ops` has loaded the operators."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _quiet():
        torch.export.save(trace(graph), str(path), extra_files={METADATA: json.dumps(dict(metadata))})


def write_openvino(path: Path, graph: Graph, metadata: Mapping[str, str]) -> None:
    """Write OpenVINO's intermediate representation, converted from the ONNX file by OpenVINO itself, in float32."""
    with TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        write_onnx(source, graph, metadata)
        convert_openvino(source, path)


def convert_openvino(source: Path, path: Path) -> None:
    """Convert an ONNX file, also a quantised one, to OpenVINO's intermediate representation, `path`."""
    openvino, onnx = package("openvino", f"output={path.name}"), package("onnx", f"output={path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    model = openvino.convert_model(str(source))
    for entry in onnx.load(str(source), load_external_data=False).metadata_props:
        model.set_rt_info(entry.value, ["aligned_rcnn", entry.key])
    openvino.save_model(model, str(path), compress_to_fp16=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what torch's exporter says about its own code."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
