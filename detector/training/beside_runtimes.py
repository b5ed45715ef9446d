"""Time inference beside exported files in ONNX Runtime and OpenVINO, in float32 and in 8 bits, on the CPU.

Weights are random, norms have the statistics of an image, and the classifier is scaled so that some hundred boxes pass
the threshold of the scores: so proposals and detections are about as many as a trained detector's. All have the same
number of threads and take turns.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from detector.config import build
from detector.config.compose import compose_config
from detector.config.resolve import with_classes
from detector.inference.detector import Detector
from detector.inference.export.files import convert_openvino, write
from detector.inference.export.graph import build_graph
from detector.inference.export.metadata import describe
from detector.inference.export.packages import package
from detector.inference.export.quantization import quantize
from detector.inference.export.runners import open_file
from detector.models.rcnn import RCNN
from detector.types import Batch, Objects, Size
from ops.benchmark import describe as describe_machine
from ops.benchmark import measure

CLASSES = [str(i) for i in range(80)]
SPREAD = 2.5
"""Standard deviation of the classifier's logits."""


@dataclass(frozen=True)
class Case:
    """A model and its images."""

    name: str
    overrides: tuple[str, ...]
    size: Size
    """of the images, before they are resized"""


CASES = (
    Case("the default run's model, 192 x 192", (), (192, 192)),
    Case(
        "ResNet-50-FPN, 600 x 1000 resized to 800 x 1333",
        ("experiment=torchvision_fasterrcnn_resnet50_fpn", "norm=batch", "~norm.eps"),
        (600, 1000),
    ),
)


def draw(size: Size, number: int) -> Tensor:
    """Draw coarse noise, uint8 [3, H, W]; `number` is the seed."""
    generator = torch.Generator().manual_seed(number)
    noise = torch.randint(0, 256, (1, 3, size[0] // 8, size[1] // 8), generator=generator).float()
    return nn.functional.interpolate(noise, size, mode="bilinear").byte()[0]


def lively(model: RCNN, image: Tensor) -> RCNN:
    """Give a model of random weights an image's statistics in its norms, and a classifier that finds objects."""
    size = (image.shape[1], image.shape[2])
    batch = Batch(image[None], [size], [size], [0], [])
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.inference_mode():
        model.train().features(batch)
        for name, weight in model.named_parameters():
            if name.endswith("classify.weight"):
                weight.normal_(0, SPREAD / weight.shape[1] ** 0.5)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def prepare(case: Case, folder: Path, threads: int, openvino: bool) -> dict[str, Callable[[], Objects]]:
    """Write a model's files; returns the functions that detect, by name."""
    torch.manual_seed(0)
    config = with_classes(compose_config([*case.overrides, "trainer.precision=32-true"]), CLASSES)
    image = draw(case.size, 0)
    detector = Detector.around(lively(build.build_model(config), image), config)
    graph = build_graph(detector)
    plain, quantized = folder / "model.onnx", folder / "model.int8.onnx"
    write(plain, graph, describe(detector, graph))
    quantize(plain, quantized, [draw(case.size, number) for number in (1, 2)])
    files = [plain, quantized]
    for source in (plain, quantized) if openvino else ():
        files.append(source.with_suffix(".xml"))
        convert_openvino(source, files[-1])
    calls: dict[str, Callable[[], Objects]] = {"torch, float32": lambda: detector([image])[0]}
    for path in files:
        runner = open_file(path, threads)
        calls[f"{runner.name}, {'8 bits' if 'int8' in path.name else 'float32'}"] = partial(runner, image)
    return calls


def run(threads: int | None, rounds: int) -> None:
    """Print a table for each case, without OpenVINO where that is not installed.

    Args:
        threads: of torch and of the runtimes; None: torch's number.
        rounds: timed calls of each.

    Raises:
        ValueError: another package is missing.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        package(name, "this benchmark")
    openvino = importlib.util.find_spec("openvino") is not None
    if not openvino:
        print("Without OpenVINO, which is not installed: pip install openvino\n")
    count = threads or torch.get_num_threads()
    torch.set_num_threads(count)
    cpu = torch.device("cpu")
    print(f"{describe_machine(cpu)}; threads: {count}\n")
    for case in CASES:
        with TemporaryDirectory() as folder:
            calls = prepare(case, Path(folder), count, openvino)
            timings = measure(dict(calls), cpu, rounds)
            found = {name: len(call()) for name, call in calls.items()}
        print(f"| {case.name} | ms | times as fast as torch | detections |\n|---|---|---|---|")
        first = next(iter(timings.values())).median
        for name, timing in timings.items():
            print(f"| {name} | {timing} | {first / timing.median:.2f} | {found[name]} |")
        print()
