"""Runs on one dataset, their objects sorted by how far RoIPool would misplace them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from detector import build, checkpoints
from detector.ablation.measure import TrueObjects, objects
from detector.alignment import errors
from detector.alignment.costs import Part, by_error
from detector.alignment.regions import Reading
from detector.evaluation import predictions


def configuration(folder: Path) -> DictConfig:
    """A run's `config.yaml`.

    Raises:
        ValueError: it is not there, or is not that of a training, or names what no training does.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ValueError(f"{folder} is no run's folder: it has no config.yaml; give what train.py has written")
    config = OmegaConf.load(path)
    keys = ("dataset.val", "dataset.canonical_size", "data_dir", "pooler.assign", "backbone.roi_strides")
    missing = [key for key in keys if OmegaConf.select(config, key) is None]
    if not isinstance(config, DictConfig) or missing:
        raise ValueError(f"{path} is not the configuration of a training; it lacks {', '.join(missing)}")
    parts = {"dataset": OmegaConf.to_container(config.dataset), "pooler": OmegaConf.to_container(config.pooler)}
    checkpoints.check_targets(_movable(parts, f"{config.data_dir}/"), str(path))
    return config


def _movable(value: Any, data_dir: str) -> Any:
    """The configuration as a checkpoint has it: paths below `data_dir` begin with "${data_dir}"."""
    if isinstance(value, dict):
        return {key: _movable(part, data_dir) for key, part in value.items()}
    if isinstance(value, list):
        return [_movable(part, data_dir) for part in value]
    return "${data_dir}/" + value.removeprefix(data_dir) if str(value).startswith(data_dir) else value


def compare(
    folders: Sequence[str | Path],
    dataset: DictConfig | None,
    reading: Reading,
    bins: int,
    parts: int = 10,
    threshold: float = 0.75,
) -> tuple[list[Part], dict[str, str]]:
    """Sort the true objects by their error and measure each run on each part.

    The level of each object, and so its error, follows from the first run's backbone and pooler.

    Args:
        folders: of the runs: `config.yaml` and `predictions/box.json`.
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
    if isinstance(folders, str) or not isinstance(folders, Sequence):
        raise ValueError(f"runs must be a list of folders, runs=[RUN_A,RUN_B], not {folders!r}")
    paths = [Path(folder) for folder in folders]
    if len(paths) < 2 or len(set(paths)) < len(paths):
        raise ValueError(f"runs must be at least two different folders, not {[str(path) for path in paths]}")
    configs = [configuration(path) for path in paths]
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
    shares = values / true.sides
    ious = {name: matched.ious for name, matched in found.items()}
    last = [path.name for path in paths]
    labels = {str(path): path.name if last.count(path.name) == 1 else str(path) for path in paths}
    return by_error(shares, known.images, ious, parts, threshold), labels


def _with_sizes(known: TrueObjects, truth: dict[str, Any]) -> errors.Objects:
    """The same objects with the sizes of their images."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    own = np.array([sizes[image] for image in known.images], dtype=np.int64).reshape(-1, 2)
    return errors.Objects(known.boxes, known.areas, own)
