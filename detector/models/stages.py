"""The shape of the two stages; each has several implementations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from detector.types import Batch, Objects, Size, Target


class Proposer(nn.Module, ABC):
    """The first stage: from features to regions that may hold an object, learnt or given."""

    @abstractmethod
    def forward(self, features: Sequence[Tensor], batch: Batch) -> list[Tensor]:
        """The proposals of each image, [R, 4], in pixels of the network's image."""

    @abstractmethod
    def loss(self, features: Sequence[Tensor], batch: Batch) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The stage's losses by name, scalars, and the proposals from which the second stage learns."""


class Heads(nn.Module, ABC):
    """The second stage: from features and regions to objects."""

    @abstractmethod
    def forward(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> list[Objects]:
        """The detections of each image, best first, in pixels of the network's image.

        Args:
            features: by level [B, D, H, W].
            proposals: by image [R, 4].
            sizes: of the images before padding.
        """

    @abstractmethod
    def loss(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """The stage's losses by name, scalars; `targets` are the true objects by image."""
