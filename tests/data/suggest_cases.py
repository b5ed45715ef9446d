"""Generated distributions of objects, and the present settings of a detector, to suggest others for."""

from dataclasses import replace

import numpy as np

from detector.data.page.numbers import Numbers
from detector.data.suggest.anchors import AnchorSet
from detector.data.suggest.settings import Present, Suggestion
from detector.data.suggest.sizes import InputSize

FPN = AnchorSet((4, 8, 16, 32, 64), ((16,), (32,), (64,), (128,), (256,)), (0.5, 1.0, 2.0))
PRESENT = Present(
    size=InputSize(480, 800),
    train_short_sizes=(480,),
    train_longest=800,
    anchors=FPN,
    canonical_size=134,
    canonical_level=4,
    strides=(4, 8, 16, 32, 64),
    roi_strides=(4, 8, 16, 32),
    divisibility=32,
    detections=100,
    rois=256,
    positive_fraction=0.25,
    train_topk=(1000, 500),
    test_topk=(1000, 500),
    size_bins=(32, 96),
    batch_size=4,
    val_batch_size=10,
    crop=None,
)

WITHOUT_RPN = replace(PRESENT, anchors=None)
"""Where anchors do not matter, since to fit them takes long."""


def numbers(
    widths: np.ndarray,
    heights: np.ndarray,
    image: tuple[int, int] = (640, 480),
    per_image: int = 10,
    labels: np.ndarray | None = None,
) -> Numbers:
    """Objects of these sides at random places, in images of one size (width, height)."""
    sides = np.stack((widths, heights), 1).astype(float)
    generator = np.random.default_rng(0)
    corner = generator.random(sides.shape) * (np.array(image) - sides)
    image_of = np.arange(len(sides)) // per_image
    count = int(image_of.max()) + 1 if len(sides) else 1
    found = np.zeros(len(sides), np.int64) if labels is None else labels
    return Numbers(
        widths=np.full(count, float(image[0])),
        heights=np.full(count, float(image[1])),
        per_image=np.bincount(image_of, minlength=count),
        labels=found,
        image_of=image_of,
        boxes=np.concatenate((corner, corner + sides), 1),
        areas=sides.prod(1),
        classes=[str(i) for i in range(int(found.max()) + 1 if len(found) else 1)],
    )


def spread(low: float, high: float, count: int = 400, ratio: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Sides between two limits, evenly in their logarithms; of one ratio of height to width."""
    sides = np.exp(np.linspace(np.log(low), np.log(high), count))
    np.random.default_rng(1).shuffle(sides)
    return sides / ratio**0.5, sides * ratio**0.5


def by_key(found: list[Suggestion]) -> dict[str, Suggestion]:
    return {key: item for item in found for key in item.keys}
