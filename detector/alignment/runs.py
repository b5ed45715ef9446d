"""Compare runs on one dataset by the quantisation error that RoIPool makes on each object."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

from detector.alignment import errors
from detector.alignment.costs import Part, measure_by_error
from detector.alignment.regions import Reading
from detector.config import build
from detector.config.given import given_dataset
from detector.evaluation.bootstrap import Floats
from detector.evaluation.coco import UNBOUNDED
from detector.evaluation.collector import ImageId
from detector.evaluation.measure import Estimate, match_objects, precision_by
from detector.evaluation.predictions import read_predictions
from detector.training import folder as folders

log = logging.getLogger(__name__)


def compare_runs(
    runs: Sequence[str | Path],
    dataset: DictConfig | None,
    reading: Reading,
    bins: int,
    parts: int = 10,
    threshold: float = 0.75,
    overrides: Sequence[str] = (),
) -> tuple[list[Part], dict[str, str]]:
    """Sort the ground-truth objects by their error into parts and measure each run on each part.

    The level of each object, and so its error, follows from the backbone and pooler of the first run.

    Args:
        runs: folders of runs, with `config.yaml` and `predictions/box.json`.
        dataset: a configuration with `dataset` and the keys that it refers to; None: that of the first run. The size of
            its images is the first run's, as of `detector.config.given.given_dataset`.
        reading: how the operator whose error is measured divides an axis of a RoI.
        bins: bins along each side of its output.
        parts: number of parts.
        threshold: an object counts as found at an IoU >= this.
        overrides: from the command line, of which `dataset` is composed.

    Returns:
        The parts, and a label for each run: the parts of its path that differ from the others'.

    Raises:
        ValueError: there are fewer than two runs, a folder holds no run, or predictions do not fit the dataset.
    """
    if isinstance(runs, str) or not isinstance(runs, Sequence):
        raise ValueError(f"runs must be a list of folders, runs=[RUN_A,RUN_B], not {runs!r}")
    paths = [Path(run) for run in runs]
    if len(paths) < 2 or len(set(paths)) < len(paths):
        raise ValueError(f"runs must be at least two different folders, not {[str(path) for path in paths]}")
    configs = [folders.read_config(path) for path in paths]
    first = configs[0]
    folders.check_keys(first, ("pooler.assign", "backbone.roi_strides"), paths[0] / "config.yaml")
    source = first
    if dataset is not None:
        moved = OmegaConf.merge(first, {"data_dir": dataset.data_dir})
        assert isinstance(moved, DictConfig)
        node, lines = given_dataset(moved, dataset, overrides)
        source = OmegaConf.create({"dataset": node})
        for line in lines:
            log.info(line)
    if len({config.dataset.name for config in (source, *configs)}) > 1:
        names = {str(path): config.dataset.name for path, config in zip(paths, configs, strict=True)}
        raise ValueError(
            f"runs must be on one dataset; they are on {names}, and the dataset to measure on is {source.dataset.name}"
        )
    truth = build.open_split(source.dataset.val, "val").ground_truth()
    rows = {str(path): read_predictions(path / "predictions" / "box.json") for path in paths}
    found = {name: match_objects(truth, own) for name, own in rows.items()}
    known = next(iter(found.values()))
    augment = source.dataset.val_augment
    resize = errors.make_resize(augment.get("short_sizes"), augment.get("max_size"))
    strides = list(first.backbone.roi_strides)
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    assign = build.instantiate(first.pooler.assign)

    def share(own: Sequence[ImageId], boxes: Floats) -> Floats:
        """Compute the error of each box as a share of its side; infinite for boxes without an area."""
        given = errors.GroundTruthBoxes(
            boxes, np.zeros(len(boxes)), np.array([sizes[i] for i in own], np.int64).reshape(-1, 2)
        )
        result = np.full(len(boxes), np.inf)
        whole = given.sides > 0
        part = errors.GroundTruthBoxes(boxes[whole], given.areas[whole], given.sizes[whole])
        level = errors.assign_to_strides(part, strides, assign, resize)
        off = errors.quantisation_errors(reading, part, np.array(strides, dtype=np.float64)[level], bins, resize)
        result[whole] = off / part.sides
        return result

    shares = share(known.images, known.boxes)
    whole = np.isfinite(shares)  # some annotations' boxes have no area
    ious = {name: matched.ious[whole] for name, matched in found.items()}
    images = [image for image, keep in zip(known.images, whole, strict=True) if keep]
    found_parts = measure_by_error(shares[whole], images, ious, parts, threshold)
    edges = [0.0, *(part.low for part in found_parts[1:]), UNBOUNDED]
    precise = {name: precision_by(truth, own, share, edges) for name, own in rows.items()}
    nothing = Estimate(math.nan, None, None)
    with_ap = [
        replace(part, ap={name: values[i] or nothing for name, values in precise.items()})
        for i, part in enumerate(found_parts)
    ]
    return with_ap, dict(zip(map(str, paths), folders.short_names(paths), strict=True))
