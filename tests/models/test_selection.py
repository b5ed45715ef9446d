import pytest
import torch
from torch import Tensor

from detector.models.selection import Select
from detector.types import Objects

BOXES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [50.0, 50.0, 60.0, 60.0]])


def detections(select: Select, boxes: Tensor, scores: Tensor) -> Objects:
    """Those of one image that cuts nothing, among boxes [R, C, 4], or [R, 1, 4] for all classes."""
    regress = lambda roi, label: boxes[roi, label.clamp(max=boxes.shape[1] - 1)]  # noqa: E731
    return select(scores, regress, [len(scores)], [(1000, 1000)])[0]


def test_nms_is_of_a_class() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.7], [0.2, 0.01]])
    found = detections(Select(score_thresh=0.05, nms_thresh=0.5), BOXES[:, None], scores)
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.2])
    assert found.labels.tolist() == [0, 1, 0]
    assert torch.equal(found.boxes, BOXES)


def test_each_class_has_its_box_where_there_is_one_for_each() -> None:
    boxes = torch.stack((BOXES, BOXES + 100), 1)
    found = detections(Select(score_thresh=0.5), boxes, torch.tensor([[0.0, 0.9], [0.0, 0.0], [0.8, 0.0]]))
    assert found.boxes.tolist() == [[100, 100, 110, 110], [50, 50, 60, 60]]


def test_no_more_than_wanted_and_none_too_small_or_not_finite() -> None:
    scores = torch.tensor([[0.9], [0.8], [0.7]])
    assert len(detections(Select(nms_thresh=1.0, topk_per_image=2), BOXES[:, None], scores)) == 2
    boxes = BOXES.clone()
    boxes[0, 2] = 0.005  # narrower than a hundredth of a pixel
    boxes[1, 0] = float("nan")
    assert detections(Select(min_size=0.01), boxes[:, None], scores).scores.tolist() == pytest.approx([0.7])
    assert detections(Select(), boxes[:, None], scores).scores.tolist() == pytest.approx([0.9, 0.7])


def test_numbers_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"score_thresh=1\.5"):
        Select(score_thresh=1.5)
    with pytest.raises(ValueError, match="topk_per_image=0"):
        Select(topk_per_image=0)


def test_the_detections_of_a_batch_are_cut_to_their_images() -> None:
    scores = torch.tensor([[0.9], [0.8], [0.7]])
    asked: list[int] = []

    def regress(roi: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        asked.extend(roi.tolist())
        assert label.tolist() == [0] * len(roi)
        return BOXES[roi]

    select = Select(score_thresh=0.75, nms_thresh=1.0)
    assert [len(o) for o in select(scores, regress, [2, 0, 1], [(8, 8), (9, 9), (55, 100)])] == [2, 0, 0]
    assert asked == [0, 1]
    first, second, third = Select(nms_thresh=1.0)(scores, regress, [2, 0, 1], [(8, 8), (9, 9), (55, 100)])
    assert first.boxes.tolist() == [[0, 0, 8, 8], [1, 0, 8, 8]]
    assert len(second) == 0
    assert third.boxes.tolist() == [[50, 50, 60, 55]]
