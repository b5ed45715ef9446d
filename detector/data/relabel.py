"""Give the classes of a dataset the labels that they have elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from detector.data.wrapped import Wrapped
from detector.types import DetectionDataset, Sample


class Relabelled(Wrapped):
    """Label the objects of a dataset by classes in another order; its category ids stay those of their names.

    Args:
        dataset: the images.
        classes: the names of its classes, by the new labels.

    Raises:
        ValueError: the names are not the dataset's.
    """

    def __init__(self, dataset: DetectionDataset, classes: Sequence[str]) -> None:
        if sorted(classes) != sorted(dataset.classes):
            raise ValueError(f"the classes must be {sorted(dataset.classes)} in any order, not {list(classes)}")
        super().__init__(dataset)
        self.classes = list(classes)
        ids = dict(zip(dataset.classes, dataset.category_ids, strict=True))
        self.category_ids = [ids[name] for name in self.classes]
        self._label = torch.tensor([self.classes.index(name) for name in dataset.classes])

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        labels = sample.target.labels
        labels = torch.where(labels < 0, labels, self._label[labels])
        return replace(sample, target=replace(sample.target, labels=labels))
