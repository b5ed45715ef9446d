"""Wrap a dataset to change its samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detector.types import DetectionDataset, Sample


class Wrapped:
    """Delegate to a dataset; subclasses change its samples, or the order of its classes.

    Args:
        dataset: the dataset.
    """

    def __init__(self, dataset: DetectionDataset) -> None:
        self.dataset = dataset
        self.classes: Sequence[str] = dataset.classes
        self.category_ids: Sequence[int] = dataset.category_ids

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        # What else the dataset has for further heads, such as `has_keypoints`.
        if name.startswith("has_"):
            return getattr(self.dataset, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def has_masks(self) -> bool:
        """Whether samples carry masks."""
        return self.dataset.has_masks

    def ground_truth(self) -> dict[str, Any]:
        """Return the dataset's ground truth."""
        return self.dataset.ground_truth()
