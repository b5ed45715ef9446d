"""Detect objects in images as in the validation of a training, and with test-time augmentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from detector.boxes import batched_nms
from detector.data.collate import collate
from detector.data.json_values import is_number
from detector.types import Objects, Sample, Target


@dataclass(frozen=True)
class TestTimeAugmentation:
    """Test-time augmentation: detect in flipped and scaled copies of an image, and join the detections by NMS.

    Attributes:
        flip: also in each copy mirrored from left to right.
        scales: factors of the size that images have for the network.
        nms_thresh: NMS, by class, drops detections whose IoU with one of higher score exceeds this, 0..1.

    Raises:
        ValueError: a value is out of range.
    """

    __test__ = False  # not a test of pytest

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    nms_thresh: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.flip, bool):
            raise ValueError(f"test_time_augmentation.flip must be true or false, not {self.flip!r}")
        if not self.scales or any(not is_number(scale) or not 0.1 <= scale <= 10 for scale in self.scales):
            raise ValueError(
                "test_time_augmentation.scales must be factors from 0.1 to 10, such as [0.8,1,1.25], not "
                f"{list(self.scales)}"
            )
        if not is_number(self.nms_thresh) or not 0 <= self.nms_thresh <= 1:
            raise ValueError(f"test_time_augmentation.nms_thresh must lie in 0..1, not {self.nms_thresh!r}")

    @classmethod
    def parse(cls, given: Any) -> TestTimeAugmentation | None:
        """Read the key `test_time_augmentation`: null, or `{flip: true, scales: [0.8, 1, 1.25]}`.

        Raises:
            ValueError: it is neither, or a value is out of range.
        """
        if isinstance(given, DictConfig):
            given = OmegaConf.to_container(given)
        if given is None or isinstance(given, cls):
            return given
        if not isinstance(given, Mapping) or not set(given) <= {"flip", "scales", "nms_thresh"}:
            raise ValueError(
                f"test_time_augmentation must have the keys flip, scales and nms_thresh, as in "
                f"'{{flip: true, scales: [0.8, 1, 1.25]}}', not {given!r}"
            )
        scales = given.get("scales", (1.0,))
        if isinstance(scales, str) or not isinstance(scales, Sequence):
            raise ValueError(f"test_time_augmentation.scales must be a list, such as [0.8,1,1.25], not {scales!r}")
        return cls(given.get("flip", False), tuple(scales), given.get("nms_thresh", 0.5))

    @property
    def variants(self) -> list[tuple[float, bool]]:
        """The factor of each copy, and whether it is flipped."""
        return [(float(scale), flip) for scale in self.scales for flip in ((False, True) if self.flip else (False,))]


class Detect:
    """Detect objects in images of any sizes with a model.

    Args:
        model: detects the objects of a batch.
        augment: prepares a sample as for validation.
        size_divisibility: batches are padded to a multiple of it.
        test_time: test-time augmentation; None: each image once, as it is.
        topk: the most objects of an image where detections are joined.
        context: makes the context in which the model computes, such as autocast.
    """

    def __init__(
        self,
        model: nn.Module,
        augment: Callable[[Sample, int], Sample],
        size_divisibility: int,
        test_time: TestTimeAugmentation | None = None,
        topk: int = 100,
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.model, self.augment, self.size_divisibility = model, augment, size_divisibility
        self.test_time, self.topk, self.context = test_time, topk, context

    def __call__(self, images: Sequence[Tensor], device: torch.device) -> list[Objects]:
        """Return the detections of each image [D, H, W], best first, in its pixels.

        Raises:
            ValueError: images are to be flipped, and a head predicts what cannot be flipped back.
        """
        if not images:
            return []
        samples = [self.augment(_unlabelled(image, i), 0) for i, image in enumerate(images)]
        if self.test_time is None:
            return self._detect(samples, device)
        found = [self._variant(samples, *variant, device) for variant in self.test_time.variants]
        return [self._joined([one[i] for one in found]) for i in range(len(samples))]

    def _detect(self, samples: Sequence[Sample], device: torch.device) -> list[Objects]:
        with self.context():
            found: list[Objects] = self.model(collate(samples, self.size_divisibility).to(device))
        return found

    def _variant(self, samples: Sequence[Sample], scale: float, flip: bool, device: torch.device) -> list[Objects]:
        """Detect in scaled and flipped copies of images; returns the objects in pixels of the images."""
        changed = [replace(sample, image=_resized(sample.image, scale)) for sample in samples]
        if flip:
            changed = [replace(sample, image=sample.image.flip(2)) for sample in changed]
        found = self._detect(changed, device)
        return [_flipped(o, s.original_size[1]) for o, s in zip(found, samples, strict=True)] if flip else found

    def _joined(self, parts: Sequence[Objects]) -> Objects:
        assert self.test_time is not None
        objects = Objects.join(parts)
        kept = batched_nms(objects.boxes, objects.scores, objects.labels, self.test_time.nms_thresh, self.topk)
        return objects.select(kept)


def _resized(image: Tensor, scale: float) -> Tensor:
    """Resize an image [D, H, W] by a factor."""
    if scale == 1:
        return image
    size = [max(1, round(side * scale)) for side in image.shape[1:]]
    pixels = F.interpolate(image[None].float(), size=size, mode="bilinear", antialias=scale < 1)[0]
    return pixels if image.is_floating_point() else pixels.round().clamp(0, 255).to(image.dtype)


def _flipped(objects: Objects, width: int) -> Objects:
    """Flip objects from left to right in an image of a width."""
    if objects.extra:
        names = ", ".join(sorted(objects.extra))
        raise ValueError(f"test_time_augmentation.flip: predictions of {names} cannot be flipped back; leave it out")
    x1, y1, x2, y2 = objects.boxes.unbind(1)
    masks = None if objects.masks is None else objects.masks.flip(2)
    return replace(objects, boxes=torch.stack((width - x2, y1, width - x1, y2), 1), masks=masks)


def _unlabelled(image: Tensor, name: int) -> Sample:
    flags = torch.zeros(0, dtype=torch.bool)
    target = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), flags, flags)
    return Sample(image, target, name, (image.shape[1], image.shape[2]))
