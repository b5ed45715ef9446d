"""Fit a configuration to the channels of the images."""

from __future__ import annotations

import logging

from omegaconf import DictConfig, OmegaConf

from detector.models.rcnn import fit_to_channels

log = logging.getLogger(__name__)


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
        OmegaConf.update(config, key, fit_to_channels(values, channels))
        log.info("%s: RGB's %s, %s for %d", key, values, "averaged" if channels == 1 else "repeated", channels)
