"""Run exported detectors: a file in the runtime of its format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.inference.export.files import METADATA
from detector.inference.export.packages import package
from detector.types import Objects


@dataclass(frozen=True)
class Runner:
    """A file in its runtime."""

    name: str
    """of the runtime, with its version"""
    file: str
    """the file's name"""
    metadata: Mapping[str, str]
    """of the file, see `detector.inference.export.metadata`"""
    run: Callable[[Tensor], Sequence[Tensor]]
    """from an image uint8 [D, H, W] to the outputs"""

    def __call__(self, image: Tensor) -> Objects:
        """Detect the objects of an image, uint8 [D, H, W]; pasted masks are bool [N, H, W]."""
        found = dict(zip(json.loads(self.metadata["outputs"]), self.run(image), strict=True))
        extra = {name: value for name, value in found.items() if name not in ("boxes", "scores", "labels", "masks")}
        return Objects(found["boxes"], found["scores"], found["labels"].long(), found.get("masks"), extra)


def open_file(path: Path, threads: int = 0) -> Runner:
    """Open an exported detector in the runtime of its format.

    Args:
        path: `.onnx`, run by ONNX Runtime; `.pt2`, run by torch; or `.xml`, run by OpenVINO.
        threads: threads of the runtime; 0: its own choice.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the name has another ending, a package is missing, or the file is not of `scripts/export.py`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    openers = {".onnx": _onnx, ".pt2": _program, ".xml": _openvino}
    if path.suffix not in openers:
        raise ValueError(f"{path}: an exported model ends in .onnx, .pt2 or .xml")
    opener = openers[path.suffix]
    try:
        runner = opener(path, threads)
    except ValueError:
        raise
    except Exception as error:  # those of the runtimes have no common base
        raise ValueError(f"{path} cannot be opened: {error}") from error
    if "outputs" not in runner.metadata:
        raise ValueError(f"{path} has no metadata of scripts/export.py: write it with output={path.name}")
    return runner


def _onnx(path: Path, threads: int) -> Runner:
    runtime = package("onnxruntime", f"running {path.name}")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> list[Tensor]:
        return [torch.from_numpy(value) for value in session.run(None, {"image": image.contiguous().numpy()})]

    found = session.get_modelmeta().custom_metadata_map
    return Runner(f"onnxruntime {runtime.__version__}", path.name, found, run)


def _openvino(path: Path, threads: int) -> Runner:
    openvino = package("openvino", f"running {path.name}")
    core = openvino.Core()
    model = core.read_model(str(path))
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(model, "CPU", settings)

    def run(image: Tensor) -> list[Tensor]:
        found = compiled([image.contiguous().numpy()])
        return [torch.from_numpy(found[output].copy()) for output in compiled.outputs]

    known = model.get_rt_info(["aligned_rcnn"]).value if model.has_rt_info(["aligned_rcnn"]) else {}
    texts = {name: str(value) for name, value in known.items()}
    return Runner(f"openvino {openvino.__version__.partition('-')[0]}", path.name, texts, run)


def _program(path: Path, threads: int) -> Runner:
    import ops  # noqa: F401  # which loads the operators that the program calls

    del threads
    files = {METADATA: ""}
    module = torch.export.load(str(path), extra_files=files).module()

    @torch.inference_mode()
    def run(image: Tensor) -> list[Tensor]:
        return list(module(image))

    return Runner(f"torch {torch.__version__.partition('+')[0]}", path.name, json.loads(files[METADATA] or "{}"), run)
