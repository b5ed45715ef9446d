"""Fit a configuration to the channels of the images, and read images as in training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detector.config.overrides import key_of

log = logging.getLogger(__name__)

TRAINED_KEYS = ("channels", "range")
"""Keys of a dataset that belong to the trained detector: what its numbers mean."""


def fit_normalization(config: DictConfig) -> None:
    """Give `model.normalize` a mean and a deviation for each channel of the images, in place.

    The three of RGB are averaged for one channel, and repeated for others, as the stem's filters are.

    Raises:
        ValueError: they are neither of RGB nor of the dataset's channels.
    """
    channels = OmegaConf.select(config, "dataset.channels")
    for name in ("mean", "std"):
        key = f"model.normalize.{name}"
        node = OmegaConf.select(config, key)
        if channels is None or node is None or len(node) == channels:
            continue
        values = list(node)
        if len(values) != 3:
            raise ValueError(
                f"{key} has {len(values)} numbers, and dataset.channels is {channels}; give as many, or RGB's three"
            )
        fitted = [sum(values) / 3] if channels == 1 else [values[d % 3] for d in range(channels)]
        OmegaConf.update(config, key, fitted)
        log.info("%s: RGB's %s, %s for %d", key, values, "averaged" if channels == 1 else "repeated", channels)


def read_as_trained(given: DictConfig, trained: DictConfig, overrides: Sequence[str]) -> None:
    """Let another dataset's images be read as those of the training, in place: with its channels and range.

    Args:
        given: the other dataset; a `dataset.range` that the user gives counts, since its files may have another depth.
        trained: the dataset of the training.
        overrides: from the command line.

    Raises:
        ValueError: the user gives other channels.
    """
    own = {key_of(o) for o in overrides}
    for name in TRAINED_KEYS:
        value: Any = trained.get(name, {"channels": 3, "range": None}[name])
        if name not in given or given[name] == value:
            continue
        if f"dataset.{name}" not in own:
            given[name] = value
        elif name == "channels":
            raise ValueError(f"dataset.channels={given.channels}: the detector was trained on {value}; leave it out")
