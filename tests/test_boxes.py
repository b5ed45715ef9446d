import math

import pytest
import torch
import torchvision

from detector import boxes


def test_area_and_clip() -> None:
    box = torch.tensor([[-5.0, 2.0, 30.0, 12.5], [1.0, 1.0, 1.0, 4.0]])
    assert boxes.area(box).tolist() == [35 * 10.5, 0.0]
    assert boxes.clip(box, (10, 20)).tolist() == [[0, 2, 20, 10], [1, 1, 1, 4]]


def test_iou_by_hand() -> None:
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0], [3.0, 3.0, 3.0, 3.0]])
    b = torch.tensor([[1.0, 1.0, 3.0, 3.0], [0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0], [3.0, 3.0, 3.0, 3.0]])
    torch.testing.assert_close(boxes.iou(a, b), torch.tensor([[1 / 7, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))


def test_decode_inverts_encode() -> None:
    generator = torch.Generator().manual_seed(3)
    corner = torch.rand(2, 50, 2, generator=generator, dtype=torch.float64) * 100
    side = 1 + torch.rand(2, 50, 2, generator=generator, dtype=torch.float64) * 60
    truth, reference = torch.cat((corner, corner + side), -1)
    for weights in ((1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)):
        deltas = boxes.encode(truth, reference, weights)
        torch.testing.assert_close(boxes.decode(deltas, reference, weights), truth)


def test_encode_by_hand_and_decode_is_capped() -> None:
    reference = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    truth = torch.tensor([[5.0, 0.0, 25.0, 20.0]])
    deltas = boxes.encode(truth, reference, (1.0, 2.0, 3.0, 4.0))
    torch.testing.assert_close(deltas, torch.tensor([[1.0, 0.0, 3 * math.log(2), 0.0]]))
    wide = boxes.decode(torch.tensor([[0.0, 0.0, 99.0, 0.0]]), reference, (1.0, 1.0, 1.0, 1.0))
    assert float(wide[0, 2] - wide[0, 0]) == pytest.approx(10 * 1000 / 16)


@pytest.mark.parametrize("count", [1000, 1001, 3000])
def test_nms_equals_torchvision_also_in_the_order_of_equal_scores(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    corner = 400 * torch.rand(count, 2, generator=generator)
    found = torch.cat((corner, corner + 30), 1)
    scores = torch.randint(20, (count,), generator=generator) / 20
    levels = torch.randint(5, (count,), generator=generator)
    expected = torchvision.ops.batched_nms(found, scores, levels, 0.5)
    assert len(expected) > 500
    for topk in (7, 200, count):
        assert boxes.batched_nms(found, scores, levels, 0.5, topk).tolist() == expected[:topk].tolist()
