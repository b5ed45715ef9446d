"""Export a detector and compare the file with it (`scripts/export.py`)."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor

from detector.config.resolve import resolve
from detector.data import scene
from detector.inference.detector import Detector
from detector.inference.export.files import write, writer_of
from detector.inference.export.graph import GRIDS, build_graph
from detector.inference.export.metadata import describe
from detector.inference.export.parity import BOX_LIMIT, MASK_LIMIT, SCORE_LIMIT, compare, table
from detector.inference.export.quantization import calibration_images, measure, quantize
from detector.inference.export.runners import Runner, open_file
from detector.inference.inputs import image_files
from detector.masks import MaskOutput, paste
from detector.types import Objects
from detector.weights.conversion import abbreviate

SCENES = ((192, 192), (160, 240), (251, 187), (97, 301), (333, 500), (480, 640))
"""Heights and widths of the scenes that are drawn where no images are given."""
ROUNDS = 5
"""How often each image is timed."""


def export(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
    """Export a detector, run the file in its runtime beside the detector, and print the differences.

    Args:
        config: composed from `configs/export.yaml`.
        overrides: from the command line.
        folder: not used; see `detector.config.cli.Work`.
        console: where tables are printed.

    Raises:
        ValueError, OSError: the input or the checkpoint is invalid, a part has no form in the format, a package is
            missing, or the file's detections differ from the detector's.
    """
    del folder
    _check(config)
    path = Path(config.output if config.check is None else config.check)
    if config.check is None:
        writer_of(path)
    chosen = None if config.images is None else image_files(Path(config.images), key="images")[: config.count]
    resolved = resolve(config, overrides, ("train", "val") if config.int8 else ("val",) if config.ap else ())
    detector = Detector.of(resolved, "cpu", str(config.checkpoint))
    if config.check is None:
        graph = build_graph(detector, config.masks)
        write(path, graph, describe(detector, graph))
        _announce(path, console)
    runner = open_file(path, config.threads)
    images = list(drawn(detector.reader.channels) if chosen is None else read(detector, chosen))
    check_parity(detector, runner, iter(images), console)
    detectors: dict[str, Callable[[Tensor], Objects]] = {"torch": lambda image: detector([image])[0]}
    detectors[f"{runner.name}, {runner.file}"] = runner
    if config.int8:
        target = path.with_suffix(".int8.onnx")
        quantize(path, target, calibration_images(resolved.datasets["train"], config.calibration))
        _announce(target, console)
        quantized = open_file(target, config.threads)
        detectors[f"{quantized.name}, {quantized.file}"] = quantized
    if config.int8 or config.ap:
        outputs = detector.model.heads.outputs
        measured = {name: measure(detect, resolved, outputs) for name, detect in detectors.items()}
        console.print(ap_table(measured))
    if config.speed:
        torch.set_num_threads(config.threads or torch.get_num_threads())
        console.print(speed_table(detectors, [image for _, image in images]))


def _check(config: DictConfig) -> None:
    for name, least in (("count", 1), ("calibration", 1), ("threads", 0)):
        value = config[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    for name in ("ap", "int8", "speed"):
        if not isinstance(config[name], bool):
            raise ValueError(f"{name} must be true or false, not {config[name]!r}")
    if config.precision != "32-true":
        raise ValueError(f"precision={config.precision}: files are written and compared in 32-true")
    if config.int8 and (config.check is not None or Path(config.output).suffix != ".onnx" or config.masks != GRIDS):
        raise ValueError("int8=true quantises an ONNX file that is written: give output=NAME.onnx and masks=grids")


def _announce(path: Path, console: Console) -> None:
    """Print the names and sizes of the files that were written."""
    beside = {".xml": path.with_suffix(".bin"), ".onnx": path.with_name(f"{path.name}.data")}.get(path.suffix)
    files = [path, *([beside] if beside is not None and beside.is_file() else [])]
    sizes = ", ".join(f"{file} ({file.stat().st_size / 1e6:.1f} MB)" for file in files)
    console.print(f"Written: {sizes}", markup=False, soft_wrap=True)


def ap_table(measured: Mapping[str, Mapping[str, float]]) -> Table:
    """Make the table of AP by what detects."""
    shown = Table(title="AP on the dataset's val part", title_justify="left", box=SIMPLE_HEAD)
    shown.add_column("")
    for name in measured:
        shown.add_column(name, justify="right")
    for key in next(iter(measured.values())):
        if key.count("/") == 1:  # without those of single classes
            shown.add_row(key, *(f"{results[key]:.4f}" for results in measured.values()))
    return shown


def speed_table(detectors: Mapping[str, Callable[[Tensor], object]], images: Sequence[Tensor]) -> Table:
    """Time detectors on images, one after another in turn, and make the table of the medians.

    Args:
        detectors: from an image uint8 [D, H, W] to anything, by name; the first is what others are compared with.
        images: each is run once to warm up, then `ROUNDS` times.
    """
    seconds: dict[str, list[float]] = {name: [] for name in detectors}
    for turn in range(ROUNDS + 1):
        for image in images:
            for name, detect in detectors.items():
                began = time.perf_counter()
                detect(image)
                if turn:
                    seconds[name].append(time.perf_counter() - began)
    shown = Table(title=f"Time an image, median of {ROUNDS * len(images)}", title_justify="left", box=SIMPLE_HEAD)
    for title in ("run by", "ms", "times as fast as torch"):
        shown.add_column(title, justify="left" if title == "run by" else "right")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    first = next(iter(medians.values()))
    for name, median in medians.items():
        shown.add_row(name, f"{1000 * median:.1f}", f"{first / median:.2f}")
    return shown


def check_parity(detector: Detector, runner: Runner, images: Iterator[tuple[str, Tensor]], console: Console) -> None:
    """Compare an exported file with its detector on images, and print a table.

    Args:
        detector: the detector.
        runner: the file in its runtime.
        images: names and pixels, uint8 [D, H, W].
        console: where the table is printed.

    Raises:
        ValueError: the file is of other classes, or their detections differ.
    """
    classes = json.loads(runner.metadata["classes"])
    if classes != list(detector.classes):
        raise ValueError(
            f"{runner.file} has {len(classes)} classes ({abbreviate(classes)}) and the checkpoint "
            f"{len(detector.classes)} ({abbreviate(detector.classes)}): give the checkpoint that the file was made from"
        )
    select = getattr(detector.model.heads, "select", None)
    outputs = [output for output in detector.model.heads.outputs if isinstance(output, MaskOutput)]
    pasting = outputs[0].paste if outputs else paste
    differences = []
    for name, image in images:
        lowest, most = getattr(select, "score_thresh", 0.0), getattr(select, "topk_per_image", 0)
        size = (image.shape[1], image.shape[2])
        differences.append(compare(detector([image])[0], runner(image), size, name, lowest, most, pasting))
    console.print(table(differences, f"{runner.name} beside torch"))
    if failed := [difference.image for difference in differences if not difference.equal]:
        raise ValueError(
            f"the file's detections differ from the detector's in {len(failed)} of {len(differences)} images, such as "
            f"{failed[0]}: by more than {BOX_LIMIT} px, {SCORE_LIMIT} in scores or {MASK_LIMIT:.1%} of mask pixels"
        )


def read(detector: Detector, paths: Sequence[Path]) -> Iterator[tuple[str, Tensor]]:
    """Read images as the detector does: their names and pixels, uint8 [D, H, W].

    Raises:
        ValueError, OSError: an image cannot be read, or is deeper than 8 bits.
    """
    for path in paths:
        image = detector.reader.read(path)
        if image.dtype != torch.uint8:
            raise ValueError(f"{path} is deeper than 8 bits, and exported models take uint8: leave it out")
        yield path.name, image


def drawn(channels: int) -> Iterator[tuple[str, Tensor]]:
    """Draw scenes of shapes: their names and pixels, uint8 [channels, H, W]."""
    for number, (height, width) in enumerate(SCENES, 1):
        pixels = torch.from_numpy(_scene(np.random.default_rng(number), max(height, width)))[:height, :width]
        image = pixels.permute(2, 0, 1)[torch.arange(channels) % 3]
        yield f"scene {number}", image.contiguous()


def _scene(generator: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Draw a square scene with twelve shapes, uint8 [side, side, 3]."""
    areas = [(side**2 / 900, side**2 / 20)] * 12
    while True:
        shapes = scene.arrange(generator, areas, side)
        visible = None if shapes is None else scene.visible_shapes(shapes, side)
        if visible is not None:
            return scene.paint(generator, visible, side)
