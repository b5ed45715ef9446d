"""Give the classes of a dataset the labels that they have elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from detector.data.wrapped import Wrapped
from detector.types import DetectionDataset, Sample


class Relabelled(Wrapped):
    """Label the objects of a dataset by classes in another order; its category ids stay those of their names.

    Args:
        dataset: the images.
        classes: the names of its classes, by the new labels. Where a dataset gathers its own from the objects
            (`gathers_classes`), there may be more; these have new ids.

    Raises:
        ValueError: the names are not the dataset's.
    """

    def __init__(self, dataset: DetectionDataset, classes: Sequence[str]) -> None:
        known = list(dataset.classes)
        absent = [name for name in classes if name not in known and getattr(dataset, "gathers_classes", False)]
        if sorted(classes) != sorted([*known, *absent]):
            raise ValueError(f"the classes must be {sorted(dataset.classes)} in any order, not {list(classes)}")
        super().__init__(dataset)
        self.classes: Sequence[str] = list(classes)
        free = itertools.count(max(dataset.category_ids, default=0) + 1)
        ids = dict(zip(known, dataset.category_ids, strict=True)) | {name: next(free) for name in absent}
        self._absent = [{"id": ids[name], "name": name} for name in absent]
        self.category_ids: Sequence[int] = [ids[name] for name in self.classes]
        self._label = torch.tensor([self.classes.index(name) for name in dataset.classes])

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        labels = sample.target.labels
        labels = torch.where(labels < 0, labels, self._label[labels])
        return replace(sample, target=replace(sample.target, labels=labels))

    def ground_truth(self) -> dict[str, Any]:
        """Return the dataset's ground truth, with the categories that it has no object of."""
        truth = super().ground_truth()
        return {**truth, "categories": [*truth["categories"], *self._absent]} if self._absent else truth
