import pytest
import torch

from detector import boxes as box_ops
from detector.models.box_head import Prediction, box_head_loss
from detector.models.losses import BoxLoss, giou, smooth_l1

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
REFERENCES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 25.0, 15.0]])
TRUTH = torch.tensor([[1.0, 0.0, 11.0, 10.0], [5.0, 5.0, 15.0, 15.0]])


def test_smooth_l1_by_hand() -> None:
    none = torch.zeros(2, 4)
    # The first is moved by a tenth of its width (1 after the weight), the second halved in width and so moved, too.
    wanted = [1.0, 0.0, 0.0, 0.0, -2.5, 0.0, 5 * -0.6931472, 0.0]
    assert box_ops.encode(TRUTH, REFERENCES, WEIGHTS).flatten().tolist() == pytest.approx(wanted)
    assert smooth_l1(none, REFERENCES, TRUTH, WEIGHTS).tolist() == pytest.approx([1, 2.5 + 3.465736])
    beta = 2.0
    expected = [0.5 * 1 / beta, (2.5 - 0.5 * beta) + (3.465736 - 0.5 * beta)]
    assert smooth_l1(none, REFERENCES, TRUTH, WEIGHTS, beta=beta).tolist() == pytest.approx(expected)


def test_giou_by_hand() -> None:
    # Overlap 90 of 110, no empty space in the hull; and 100 of 200.
    assert giou(torch.zeros(2, 4), REFERENCES, TRUTH, WEIGHTS).tolist() == pytest.approx([1 - 90 / 110, 1 - 0.5])
    apart = torch.tensor([[20.0, 0.0, 30.0, 10.0]])  # the hull is 300, of which 100 are empty
    assert float(giou(torch.zeros(1, 4), REFERENCES[:1], apart, WEIGHTS)) == pytest.approx(1 + 1 / 3)


@pytest.mark.parametrize("loss", [smooth_l1, giou])
def test_the_right_deltas_cost_nothing_and_gradients_lead_there(loss: BoxLoss) -> None:
    right = box_ops.encode(TRUTH, REFERENCES, WEIGHTS)
    assert loss(right, REFERENCES, TRUTH, WEIGHTS).tolist() == pytest.approx([0, 0], abs=1e-5)
    deltas = torch.zeros(2, 4, requires_grad=True)
    before = loss(deltas, REFERENCES, TRUTH, WEIGHTS).sum()
    before.backward()
    assert deltas.grad is not None
    after = loss(deltas.detach() - 0.01 * deltas.grad, REFERENCES, TRUTH, WEIGHTS).sum()
    assert float(after) < float(before.detach())


@pytest.mark.parametrize("loss", [smooth_l1, giou])
@pytest.mark.parametrize("regressors", [1, 3])
def test_only_rois_of_a_class_learn_a_box_and_ignored_ones_nothing(loss: BoxLoss, regressors: int) -> None:
    labels = torch.tensor([2, 3, 0, -100])  # the background is 3
    boxes = REFERENCES.repeat(2, 1)
    truth = TRUTH.repeat(2, 1)
    logits = torch.randn(4, 4, requires_grad=True)
    deltas = torch.randn(4, regressors, 4, requires_grad=True)
    losses = box_head_loss(Prediction(logits, deltas), boxes, labels, truth, loss, WEIGHTS)
    losses["class"].backward()
    losses["box"].backward()
    assert float(losses["class"].detach()) == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits[:3], labels[:3]).detach())
    )
    chosen = torch.stack([deltas[0, -1], deltas[2, 0]]).detach()
    expected = loss(chosen, boxes[[0, 2]], truth[[0, 2]], WEIGHTS).sum() / 3
    assert float(losses["box"].detach()) == pytest.approx(float(expected))
    assert logits.grad is not None
    assert not logits.grad[3].any()
    assert deltas.grad is not None
    learnt = deltas.grad.abs().sum(2) > 0
    assert learnt.nonzero().tolist() == ([[0, 0], [2, 0]] if regressors == 1 else [[0, 2], [2, 0]])
