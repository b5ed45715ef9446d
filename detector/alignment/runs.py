"""Runs on one dataset, their objects sorted by how far RoIPool would misplace them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from detector import build, folders
from detector.ablation.measure import TrueObjects, objects
from detector.alignment import errors
from detector.alignment.costs import Part, by_error
from detector.alignment.regions import Reading
from detector.evaluation import predictions


def compare(
    runs: Sequence[str | Path],
    dataset: DictConfig | None,
    reading: Reading,
    bins: int,
    parts: int = 10,
    threshold: float = 0.75,
) -> tuple[list[Part], dict[str, str]]:
    """Sort the true objects by their error and measure each run on each part.

    The level of each object, and so its error, follows from the first run's backbone and pooler.

    Args:
        runs: their folders: `config.yaml` and `predictions/box.json`.
        dataset: the configuration's part with the dataset (`dataset` and what it refers to); None for the first run's.
        reading: the operator whose error it is.
        bins: along each side of its output.
        parts: into which the objects are sorted.
        threshold: the IoU from which on an object counts as found.

    Returns:
        The parts, and for each run what to call it: the name of its folder, or the path where names are equal.

    Raises:
        ValueError: fewer than two runs; a folder is no run's; its predictions do not fit the dataset.
    """
    if isinstance(runs, str) or not isinstance(runs, Sequence):
        raise ValueError(f"runs must be a list of folders, runs=[RUN_A,RUN_B], not {runs!r}")
    paths = [Path(run) for run in runs]
    if len(paths) < 2 or len(set(paths)) < len(paths):
        raise ValueError(f"runs must be at least two different folders, not {[str(path) for path in paths]}")
    configs = [folders.configuration(path) for path in paths]
    first = configs[0]
    source = first if dataset is None else dataset
    if len({config.dataset.name for config in (source, *configs)}) > 1:
        names = {str(path): config.dataset.name for path, config in zip(paths, configs, strict=True)}
        raise ValueError(
            f"runs must be on one dataset, but they are on {names}, and {source.dataset.name} is asked for"
        )
    truth = build.build_dataset(source, "val").ground_truth()
    found = {str(path): objects(truth, predictions.read(path / "predictions" / "box.json")) for path in paths}
    known = next(iter(found.values()))
    augment = source.dataset.val_augment
    resize = errors.resizing(augment.get("short_sizes"), augment.get("max_size"))
    strides = list(first.backbone.roi_strides)
    true = _with_sizes(known, truth)
    level = errors.levels(true, strides, build.instantiate(first.pooler.assign), resize)
    values = errors.quantisation_errors(reading, true, np.array(strides, dtype=np.float64)[level], bins, resize)
    whole = true.sides > 0  # an annotation may have no width
    shares = values[whole] / true.sides[whole]
    ious = {name: matched.ious[whole] for name, matched in found.items()}
    images = [image for image, keep in zip(known.images, whole, strict=True) if keep]
    last = [path.name for path in paths]
    labels = {str(path): path.name if last.count(path.name) == 1 else str(path) for path in paths}
    return by_error(shares, images, ious, parts, threshold), labels


def _with_sizes(known: TrueObjects, truth: dict[str, Any]) -> errors.Objects:
    """The same objects with the sizes of their images."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    own = np.array([sizes[image] for image in known.images], dtype=np.int64).reshape(-1, 2)
    return errors.Objects(known.boxes, known.areas, own)
