"""Refuse batch norms that are given a single value per channel, before torch does so in its own words."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detector.data.stream import Augmentation
from detector.models.sync_norm import SyncBatchNorm
from detector.types import DetectionDataset

SYNCHRONISED = (SyncBatchNorm, nn.SyncBatchNorm)
"""Batch norms with the statistics of all processes."""

LARGEST = 256
"""Images with a longer side than this have several cells at any stride."""


class SingleValueError(ValueError):
    """A batch norm is given a single value per channel, which has no variance."""


def watch_batch_norms(model: nn.Module) -> None:
    """Let the batch norms of a model raise a `SingleValueError`, which says what to do, where torch would fail."""
    for name, part in model.named_modules():
        if isinstance(part, _BatchNorm):
            part.register_forward_pre_hook(partial(_refuse_single_value, name))


def shares_statistics(model: nn.Module) -> bool:
    """Return whether all batch norms of a model have the statistics of all processes."""
    return all(isinstance(part, SYNCHRONISED) for part in model.modules() if isinstance(part, _BatchNorm))


def check_smallest_image(
    backbone: nn.Module, train: DetectionDataset, augment: Augmentation, images: int, stride: int
) -> None:
    """Check, before training, that the batch norms of a backbone are never given a single value per channel.

    Args:
        backbone: after `watch_batch_norms`.
        train: the training set.
        augment: its augmentation; where it has no `least_size`, only the batch norms themselves can tell, in training.
        images: of a batch, in one process, or in all whose statistics are shared.
        stride: the padded height and width are multiples of it.

    Raises:
        ValueError: the smallest image alone is a single cell of a feature; the message names it.
    """
    least_size = getattr(augment, "least_size", None)
    if images > 1 or least_size is None or not any(isinstance(part, _BatchNorm) for part in backbone.modules()):
        return
    records = train.ground_truth()["images"]
    sizes = [least_size((record["height"], record["width"])) for record in records]
    place = min(range(len(sizes)), key=lambda i: max(sizes[i]))
    if max(sizes[place]) > LARGEST:
        return
    height, width = (-(-side // stride) * stride for side in sizes[place])
    probe = copy.deepcopy(backbone).train()  # a copy, since its batch norms gather statistics
    try:
        with torch.no_grad():
            probe(torch.zeros(1, train[0].image.shape[0], height, width))
    except SingleValueError as error:
        record = records[place]
        raise ValueError(
            f"dataset.train: image {record['id']!r} ({record.get('file_name', record['id'])}) can be as small as "
            f"{width} x {height} pixels after augmentation and padding, and with it {error}"
        ) from error


def _refuse_single_value(name: str, norm: _BatchNorm, inputs: tuple[Any, ...]) -> None:
    values = inputs[0].numel() // inputs[0].shape[1]
    together = isinstance(norm, SYNCHRONISED) and dist.is_available() and dist.is_initialized()
    if norm.training and values == 1 and not (together and dist.get_world_size() > 1):
        raise SingleValueError(
            f"the batch norm {name} is given a single value per channel, which has no variance: one image a batch, of "
            "one cell. Give schedule.batch_size=2, or 2 for each process; or norm=group, or norm=frozen with trained "
            "weights; or larger images, dataset.train_augment.short_sizes=[...]"
        )
