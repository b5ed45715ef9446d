"""What is drawn of a dataset and of written detections."""

from typing import Any

import numpy as np
import pytest
import torch

from detector.evaluation.collector import ImageDetections
from detector.evaluation.drawing import drawable, same_objects, samples_of
from detector.run_lengths import encode
from detector.types import Masks, Objects, Sample, Target


class Unordered:
    """Images, and a ground truth of the images 1 to `last` in ascending order."""

    def __init__(self, *ids: int, last: int) -> None:
        self.ids, self.read, self.last = ids, 0, last

    def ground_truth(self) -> dict[str, Any]:
        return {"images": [{"id": i} for i in range(1, self.last + 1)]}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        self.read += 1
        flags = torch.zeros(0, dtype=torch.bool)
        target = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), flags, flags)
        return Sample(torch.zeros(3, 4, 4, dtype=torch.uint8), target, self.ids[index], (4, 4))


def test_samples_are_read_one_by_one_and_searched_once() -> None:
    ordered = Unordered(1, 2, 3, 4, last=4)
    samples = samples_of(ordered, [4, 2])  # type: ignore[arg-type]
    assert next(samples).id == 4
    assert ordered.read == 1
    assert next(samples).id == 2
    assert ordered.read == 2
    shuffled = Unordered(4, 3, 2, 1, last=4)
    assert [sample.id for sample in samples_of(shuffled, [4, 1])] == [4, 1]  # type: ignore[arg-type]
    assert shuffled.read == 1 + 4 + 1 + 1
    with pytest.raises(ValueError, match=r"images \[4, 5\] are in the ground truth, but not in the dataset"):
        list(samples_of(Unordered(1, 2, last=5), [4, 2, 5]))  # type: ignore[arg-type]


def test_only_masks_that_are_drawn_are_decoded() -> None:
    squares = [torch.ones(side, side, dtype=torch.bool) for side in (3, 4, 5)]
    codes = encode(Masks.from_windows(squares, [(1, 2)] * 3, (9, 9)))
    boxes = np.array([[1, 2, side, side] for side in (3, 4, 5)], float)
    detections = ImageDetections(boxes, np.array([0.5, 0.4, 0.9]), np.array([2, 0, 1]), {"mask": codes})
    target = drawable(detections, np.array([0, 2]))
    assert isinstance(target, Target)
    assert target.labels.tolist() == [2, 1]
    assert target.boxes.tolist() == [[1, 2, 4, 5], [1, 2, 6, 7]]
    assert target.masks is not None
    assert target.masks.pixels.numel() == 3 * 3 + 5 * 5
    plain = drawable(detections, np.array([2]), masks=False)
    assert isinstance(plain, Objects)
    assert (plain.boxes.tolist(), plain.scores.tolist()) == ([[1, 2, 6, 7]], pytest.approx([0.9]))


def test_missed_objects_are_known_by_box_and_class() -> None:
    flags = torch.zeros(3, dtype=torch.bool)
    boxes = torch.tensor([[0.0, 0, 80, 50], [10, 10, 20, 20], [10, 10, 20, 20]])
    target = Target(boxes, torch.tensor([0, 1, 2]), flags, flags)
    missed = np.array([[-20.0, -5, 100, 55], [10, 10, 10, 10]])  # the first reaches beyond its image
    assert same_objects(target, (50, 90), missed, np.array([0, 2])).tolist() == [True, False, True]
    assert same_objects(target, (50, 90), missed[:0], np.zeros(0, np.int64)).tolist() == [False] * 3
