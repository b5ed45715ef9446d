"""Images whose objects are told by their colours, to mix."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from detector.data.augment import Augment
from detector.data.epochs import Place
from detector.data.stream import Augmented
from detector.types import Masks, Sample, Target
from tests.conftest import dense


class Coloured:
    """Images of several sizes with ellipses, each of a colour of its own, which is also its label plus one."""

    classes = tuple(f"object {i}" for i in range(60))
    category_ids = tuple(range(60))

    def __init__(self, masked: bool = True, crowd: bool = False, channels: int = 3) -> None:
        self.masked, self.crowd, self.channels = masked, crowd, channels
        self.has_masks = masked

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        size = (int(rng.integers(60, 100)), int(rng.integers(60, 100)))
        y, x = np.mgrid[: size[0], : size[1]] + 0.5
        image = np.zeros(size, np.uint8)
        for k in range(5):
            height, width = rng.uniform(12, 40, 2)
            cy, cx = (rng.uniform(n / 2, s - n / 2) for n, s in zip((height, width), size, strict=True))
            image[((y - cy) / height * 2) ** 2 + ((x - cx) / width * 2) ** 2 <= 1] = index * 5 + k + 1
        labels = np.unique(image)[1:]
        shapes = [torch.from_numpy(image == label) for label in labels]
        boxes = torch.stack([bounds(shape) for shape in shapes]).float()
        crowd = torch.zeros(len(labels), dtype=torch.bool)
        crowd[0] = self.crowd
        masks = Masks.from_dense(shapes, size) if self.masked else None
        target = Target(
            boxes, torch.from_numpy(labels.astype(np.int64)) - 1, crowd, torch.from_numpy(labels % 2 == 0), masks
        )
        return Sample(torch.from_numpy(image).expand(self.channels, *size).contiguous(), target, index, size)

    def ground_truth(self) -> dict[str, Any]:
        samples = [self[i] for i in range(len(self))]
        annotations = [
            {"image_id": s.id, "category_id": int(c), "iscrowd": int(o)}
            for s in samples
            for c, o in zip(s.target.labels, s.target.crowd, strict=True)
        ]
        return {"images": [{"id": s.id} for s in samples], "annotations": annotations, "categories": []}


def bounds(mask: Tensor) -> Tensor:
    rows, columns = torch.nonzero(mask.any(1))[:, 0], torch.nonzero(mask.any(0))[:, 0]
    return torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


FLIPS = Augment(horizontal_flip=0.5, vertical_flip=0.5, quarter_turns=True)
FIXED = Augment(horizontal_flip=0.5, fixed_size=(70, 80))


def mixed(mixing: list[Any], augment: Augment = FLIPS, epochs: int = 2, **options: Any) -> list[Sample]:
    dataset = Coloured(**options)
    for mix in mixing:
        mix.prepare(dataset)
    pool = Augmented(dataset, augment, 7, mixing)
    return [pool[Place(e, i)] for e in range(epochs) for i in range(len(dataset))]


def check(sample: Sample, least: float) -> None:
    """Boxes, masks and labels are those of the colours in the image; what has no label is little."""
    target = sample.target
    assert target.masks is not None
    assert target.masks.size == sample.size
    for box, label, mask, hard in zip(target.boxes, target.labels, dense(target.masks), target.difficult, strict=True):
        shown = sample.image[0] == label + 1
        assert bool(mask.any())
        assert bool(shown[mask].all())
        assert (box - bounds(mask)).abs().max() <= 1
        assert bool(hard) is bool((label + 1) % 2 == 0)
    covered = dense(target.masks).sum(0)
    assert int(covered.max()) <= 1  # nothing lies over anything
    objects = (sample.image[0] > 0) & (sample.image[0] < 100)
    assert int((objects & (covered == 0)).sum()) <= least * objects.sum()
