"""A RoI operator, a backbone, a dataset, an augmentation, a head with its output, a metric and a logger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.nn import functional as F

import ops
from detector.evaluation import Metric
from detector.models.backbone import Body
from detector.models.heads import FurtherHead, Positives
from detector.models.pooler import Pooler
from detector.types import Objects, Sample, Size, Target


def centre_pool(
    features: Sequence[Tensor], rois: Tensor, output_size: int, scales: Sequence[float], levels: Tensor | None = None
) -> Tensor:
    """Pool each RoI's inner half with one sample a bin."""
    centre, half = (rois[:, 1:3] + rois[:, 3:]) / 2, (rois[:, 3:] - rois[:, 1:3]) / 4
    inner = torch.cat((rois[:, :1], centre - half, centre + half), 1)
    return ops.multiscale_roi_align(list(features), inner, output_size, list(scales), 1, True, levels=levels)


class Strided(Body):
    """Four convolutions, each of twice the stride of the one before."""

    def __init__(self, width: int = 8) -> None:
        super().__init__([width] * 4, [4, 8, 16, 32])
        self.stem = nn.Conv2d(3, width, 4, stride=4)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 2, stride=2) for _ in range(3))

    def forward(self, image: Tensor) -> list[Tensor]:
        """From [B, 3, H, W] features at strides 4 to 32."""
        features = [F.relu(self.stem(image))]
        for layer in self.layers:
            features.append(F.relu(layer(features[-1])))
        return features


class Dots:
    """Discs on a dark ground, drawn from a seed; each has a radius."""

    classes: Sequence[str] = ("dot",)
    category_ids: Sequence[int] = (7,)
    has_masks = False
    has_radius = True

    def __init__(self, count: int, side: int = 96, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.side = side
        self.dots = [
            [(*generator.uniform(20, side - 20, 2), generator.uniform(6, 14)) for _ in range(3)] for _ in range(count)
        ]

    def __len__(self) -> int:
        return len(self.dots)

    def __getitem__(self, index: int) -> Sample:
        y, x = np.mgrid[: self.side, : self.side] + 0.5
        image = np.full((self.side, self.side), 20, np.uint8)
        for cx, cy, radius in self.dots[index]:
            image[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = 220
        dots = torch.tensor(self.dots[index], dtype=torch.float32)
        boxes = torch.cat((dots[:, :2] - dots[:, 2:], dots[:, :2] + dots[:, 2:]), 1)
        flags = torch.zeros(len(dots), dtype=torch.bool)
        target = Target(
            boxes, torch.zeros(len(dots), dtype=torch.int64), flags, flags.clone(), extra={"radius": dots[:, 2]}
        )
        pixels = torch.from_numpy(np.stack([image] * 3))
        return Sample(pixels, target, index, (self.side, self.side))

    def ground_truth(self) -> dict[str, Any]:
        """In COCO's format, each annotation with its radius."""
        images = [{"id": i, "height": self.side, "width": self.side} for i in range(len(self))]
        rows = [(i, *dot) for i, dots in enumerate(self.dots) for dot in dots]
        annotations = [
            {
                "id": n + 1,
                "image_id": i,
                "category_id": 7,
                "bbox": [float(x - r), float(y - r), float(2 * r), float(2 * r)],
                "area": float(4 * r * r),
                "iscrowd": 0,
                "radius": float(r),
            }
            for n, (i, x, y, r) in enumerate(rows)
        ]
        return {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "dot"}]}


class Darken:
    """Multiply the brightness by a random factor; can fail at a call, as a vanished file would."""

    def __init__(self, least: float, fails_at: int | None = None) -> None:
        self.least, self.fails_at, self.calls = least, fails_at, 0

    def __call__(self, sample: Sample, seed: int) -> Sample:
        """A function of the sample and the seed alone."""
        self.calls += 1
        if self.calls == self.fails_at:
            raise ValueError(f"call {self.calls} fails")
        factor = np.random.default_rng(seed).uniform(self.least, 1)
        sample.image = (sample.image * factor).to(torch.uint8)
        return sample


class RadiusOutput:
    """A number for each detection."""

    name = "radius"
    key = "radius"
    needs: str | None = "radius"

    def __call__(self, objects: Objects, size: Size) -> list[Any]:
        """The radii."""
        return [float(radius) for radius in objects.extra["radius"]]


class RadiusHead(FurtherHead):
    """Regress the radius of each RoI's disc, as a share of the RoI's width."""

    needs: ClassVar[tuple[str, ...]] = ("radius",)

    def __init__(self, pooler: Pooler, channels: int) -> None:
        super().__init__(pooler, RadiusOutput())
        self.regress = nn.Linear(channels, 1)

    def loss(self, pooled: Tensor, positives: Positives) -> dict[str, Tensor]:
        """L1 on the share."""
        radius = torch.cat([t.extra["radius"][m] for t, m in zip(positives.targets, positives.match, strict=True)])
        boxes = torch.cat(list(positives.boxes))
        wanted = radius / (boxes[:, 2] - boxes[:, 0]).clamp(min=1)
        return {"radius": (self._share(pooled) - wanted).abs().sum() / max(len(wanted), 1)}

    def _share(self, pooled: Tensor) -> Tensor:
        return self.regress(pooled.mean((2, 3)))[:, 0].sigmoid()

    def forward(self, pooled: Tensor, objects: Sequence[Objects]) -> list[Objects]:
        """The detections with `extra["radius"]`."""
        shares = torch.split(self._share(pooled), [len(o) for o in objects])
        for found, share in zip(objects, shares, strict=True):
            found.extra["radius"] = share * (found.boxes[:, 2] - found.boxes[:, 0])
        return list(objects)


class RadiusError(Metric):
    """The mean distance between a detection's radius and the nearest true one of its image."""

    def results(self) -> dict[str, float]:
        """`radius/error`, in pixels over the image's side."""
        errors = []
        for image in self.collector.images:
            radii = [a["radius"] for a in self.collector.annotations(image)]
            side = self.collector.image(image)["width"]
            for radius in self.collector.detections(image).shapes.get("radius", []):
                errors.append(min(abs(radius - other) for other in radii) / side)
        return {"radius/error": float(np.mean(errors)) if errors else 1.0}


class Lines(Logger):
    """Append what is logged to a text file."""

    def __init__(self, save_dir: str, name: str = "lines.txt") -> None:
        super().__init__()
        self.path = Path(save_dir) / name

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def version(self) -> str:
        """None."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """One line a call."""
        with self.path.open("a") as file:
            file.write(f"{step} {sorted(metrics)}\n")
