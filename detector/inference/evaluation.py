"""Detect in a dataset's images window by window, or with test-time augmentation, for their evaluation."""

from __future__ import annotations

from detector.inference.detect import Detect
from detector.inference.tiles import Tiling, detect_tiles, regions_of
from detector.types import Batch, Objects


class DetectOnWhole:
    """Detect the objects of batches of images as they are on disk.

    Args:
        detect: detects in images or windows, which it prepares.
        tiling: windows of the images; None: each as a whole.
        windows: that are computed at once.
    """

    def __init__(self, detect: Detect, tiling: Tiling | None, windows: int = 1) -> None:
        self.detect, self.tiling, self.windows = detect, tiling, windows

    def __call__(self, batch: Batch) -> list[Objects]:
        """Return the detections of each image, best first, in its pixels.

        Args:
            batch: not augmented; padded at most.
        """
        device = batch.images.device
        images = [image[:, :h, :w].cpu() for image, (h, w) in zip(batch.images, batch.sizes, strict=True)]
        if self.tiling is None:
            return self.detect(images, device)
        return [
            detect_tiles(regions_of(image), size, self.tiling, lambda some: self.detect(some, device), self.windows)
            for image, size in zip(images, batch.sizes, strict=True)
        ]
