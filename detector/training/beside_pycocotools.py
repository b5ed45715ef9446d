"""Load the annotations of many objects beside pycocotools: time, and memory with two worker processes.

Each side reads a generated JSON in a process of its own, and then forks workers, as a loader does, each of which reads
all objects once: what a few epochs come to. Memory is what all these processes take together, each page counted once,
beyond what there was before.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch

from detector.data.coco import read_coco
from detector.training.against import peak_memory, restart_peak

OBJECTS = 10
"""Objects of an image."""
SIZE = (480, 640)
CLASSES = 10
BLOCK = 10_000
"""Objects that are written at a time."""
WORKERS = 2
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Loading:
    """What one side takes, in MiB but for the time."""

    seconds: float
    """of the CPU"""
    peak: float
    """most memory while loading"""
    loaded: float
    """memory afterwards"""
    forked: float
    """memory with the workers, before they read"""
    read: float
    """memory with the workers, after each has read all objects"""


def write(path: Path, objects: int) -> None:
    """Write a JSON of objects with polygons of 6 to 14 points, ten for each image of 480 x 640 px, in random order."""
    draw = np.random.default_rng(0)
    height, width = SIZE
    images = math.ceil(objects / OBJECTS)
    content = {
        "images": [{"id": i, "file_name": f"{i:06d}.jpg", "width": width, "height": height} for i in range(images)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)],
    }
    with path.open("w") as file:
        file.write(json.dumps(content)[:-1] + ', "annotations": [')
        for begin in range(0, objects, BLOCK):
            count = min(BLOCK, objects - begin)
            points = int(draw.integers(6, 15))
            sides = draw.uniform(4, 60, (count, 2))
            corners = draw.uniform(0, np.array([width, height]) - 60, (count, 2))
            angles = 2 * np.pi * np.arange(points) / points
            circle = np.stack((np.cos(angles), np.sin(angles)), 1) / 2 + 0.5
            polygons = (corners[:, None] + sides[:, None] * circle).round(2).reshape(count, -1)
            share = points / 8 * math.sin(2 * math.pi / points)  # of the box
            columns = (
                draw.integers(images, size=count).tolist(),
                draw.integers(1, CLASSES + 1, count).tolist(),
                np.concatenate((corners, sides), 1).round(2).tolist(),
                (share * sides.prod(1)).round(2).tolist(),
                polygons.tolist(),
            )
            block = [
                {
                    "id": begin + i + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": box,
                    "area": area,
                    "iscrowd": 0,
                    "segmentation": [polygon],
                }
                for i, (image, category, box, area, polygon) in enumerate(zip(*columns, strict=True))
            ]
            file.write((", " if begin else "") + json.dumps(block)[1:-1])
        file.write("]}")


def ours(path: Path) -> Callable[[], object]:
    """Load a JSON as this project does; return a function that reads all objects."""
    table = read_coco(path)
    assert table.segmentations is not None
    shapes = table.segmentations

    def read() -> None:
        for image in range(len(table)):
            own, size = table.objects(image), table.size(image)
            assert table.files[image]
            table.boxes[own.start : own.stop].sum()
            for index in own:
                shapes.get(index, size)

    return read


def pycocotools(path: Path) -> Callable[[], object]:
    """Load a JSON with pycocotools; return a function that reads all objects."""
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))

    def read() -> None:
        for image in coco.getImgIds():
            assert coco.loadImgs(image)[0]["file_name"]
            for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image)):
                sum(annotation["bbox"])
                for polygon in annotation["segmentation"]:
                    sum(polygon)

    return read


SIDES = {"ours": ours, "pycocotools": pycocotools}


def measure(side: str, path: Path) -> Loading:
    """Measure one side in this process."""
    gc.collect()
    before, resident = _memory([os.getpid()]), restart_peak(CPU)
    began = time.process_time()
    read = SIDES[side](path)
    seconds = time.process_time() - began
    peak = peak_memory(CPU) - resident
    gc.collect()
    loaded = _memory([os.getpid()]) - before
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(WORKERS + 1)
    workers = [context.Process(target=_work, args=(read, barrier)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    processes = [os.getpid(), *(int(worker.pid or 0) for worker in workers)]
    barrier.wait()
    forked = _memory(processes) - before
    barrier.wait()  # they read
    barrier.wait()
    after = _memory(processes) - before
    barrier.wait()
    for worker in workers:
        worker.join()
    return Loading(seconds, *(size / 2**20 for size in (peak, loaded, forked, after)))


def _work(read: Callable[[], object], barrier: Barrier) -> None:
    barrier.wait()
    barrier.wait()
    read()
    barrier.wait()
    barrier.wait()


def _memory(processes: list[int]) -> int:
    """Return the bytes that processes take together: what they share is counted once, files are not."""
    texts = [Path(f"/proc/{process}/smaps_rollup").read_text() for process in processes]
    lines = [line.split() for text in texts for line in text.splitlines()]
    return sum(int(line[1]) * 1024 for line in lines if line[0] == "Pss_Anon:")


def run(objects: int, rounds: int, write_line: Callable[[str], None] = print) -> None:
    """Print a Markdown table of both sides, medians over processes that take turns.

    Args:
        objects: in the JSON.
        rounds: processes of each side.
        write_line: called with each line.

    Raises:
        ValueError: this system is not Linux, which alone says what processes share.
    """
    if not Path("/proc/self/smaps_rollup").is_file():
        raise ValueError("the memory that processes share is known on Linux only (/proc/self/smaps_rollup)")
    found: dict[str, list[Loading]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory(prefix="aligned-rcnn-") as folder:
        path = Path(folder) / "annotations.json"
        write(path, objects)
        mib = path.stat().st_size / 2**20
        write_line(f"{objects} objects in {math.ceil(objects / OBJECTS)} images, a JSON of {mib:.0f} MiB\n")
        for _ in range(rounds):
            for side, loadings in found.items():
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                    loadings.append(pool.submit(measure, side, path).result())
    medians = {
        side: [statistics.median(getattr(o, f.name) for o in some) for f in fields(Loading)]
        for side, some in found.items()
    }
    write_line("| | " + " | ".join(medians) + " | times ours |")
    write_line("|---" * (len(medians) + 2) + "|")
    labels = (
        "loading, s of CPU",
        "peak memory while loading, MiB",
        "memory when loaded, MiB",
        f"with {WORKERS} workers, MiB",
        "after each has read all, MiB",
    )
    for label, *numbers in zip(labels, *medians.values(), strict=True):
        shown = " | ".join(f"{number:.3g}" if number < 100 else f"{number:.0f}" for number in numbers)
        write_line(f"| {label} | {shown} | {numbers[-1] / numbers[0]:.2g} |")
