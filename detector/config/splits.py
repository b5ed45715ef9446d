"""Check that a dataset has its splits, and describe an epoch of its training split."""

from __future__ import annotations

from omegaconf import DictConfig

from detector.data.epochs import arrange, present_classes
from detector.types import DetectionDataset

WAYS = {
    "train": "there would be nothing to train on; leave it out, or choose the images by keys below it",
    "val": "detectors are measured on these images, and their classes are compared; leave it out, or hold out a share "
    "of the training images: dataset=custom dataset.annotations=FILE dataset.val_share=0.2",
    "train_augment": "to change nothing, set the keys below it, such as dataset.train_augment.horizontal_flip=0",
    "val_augment": "to keep the size of the images, give dataset.val_augment.short_sizes=null",
}
"""What to do in place of setting a part of a dataset to null."""


def refuse_nulls(dataset: DictConfig) -> None:
    """Check that no part of a dataset that every script reads is null.

    Raises:
        ValueError: one is; the message says what to do instead.
    """
    for name, way in WAYS.items():
        if name in dataset and dataset.get(name) is None:
            raise ValueError(f"dataset.{name}=null: {way}")


def epoch_summary(config: DictConfig, train: DetectionDataset, with_empty: bool = True) -> str | None:
    """Describe an epoch of training, where it is more than each image once.

    Args:
        config: the node `dataset`.
        train: the training split.
        with_empty: whether its images without objects are trained on.

    Raises:
        ValueError: `repeat_threshold` or `empty_share` is out of range, or no image has an object.
    """
    repeat_threshold, empty_share = config.get("repeat_threshold"), config.get("empty_share")
    if repeat_threshold is None and empty_share is None:
        return None
    present = present_classes(train)
    return arrange(present if with_empty else present[present.any(1)], 0, repeat_threshold, empty_share).summary()
