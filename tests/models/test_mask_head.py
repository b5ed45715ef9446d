from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detector.models.heads import Positives
from detector.models.mask_head import FCN, MLP, ClassAgnostic, MaskLoss, Sigmoid, Softmax
from detector.types import Batch, Masks
from tests.conftest import compose_config, dense, random_batch, small_model

LABELS = torch.tensor([1, 0])
WANTED = (torch.arange(16).view(1, 4, 4) % torch.tensor([2, 3]).view(2, 1, 1) == 0).float()


def test_sigmoid_reads_one_channel() -> None:
    logits = torch.randn(2, 3, 4, 4)
    chosen = logits[[0, 1], LABELS]
    expected = F.binary_cross_entropy(chosen.sigmoid(), WANTED, reduction="sum")
    torch.testing.assert_close(Sigmoid().loss(logits, LABELS, WANTED), expected)
    torch.testing.assert_close(Sigmoid().probability(logits, LABELS), 1 / (1 + (-chosen).exp()))


def test_softmax_lets_the_classes_and_the_background_compete() -> None:
    logits = torch.randn(2, 3, 4, 4)
    total = 1 + logits.exp().sum(1)
    of_class = logits[[0, 1], LABELS].exp() / total
    torch.testing.assert_close(Softmax().probability(logits, LABELS), of_class)
    expected = -(WANTED * of_class.log() + (1 - WANTED) * (1 / total).log()).sum()
    torch.testing.assert_close(Softmax().loss(logits, LABELS, WANTED), expected)
    raised = logits.clone()
    raised[:, 2] += 5  # another class
    assert (Softmax().probability(raised, LABELS) < Softmax().probability(logits, LABELS)).all()
    assert torch.equal(Sigmoid().probability(raised, LABELS), Sigmoid().probability(logits, LABELS))


def test_class_agnostic_is_one_mask() -> None:
    logits = torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(
        ClassAgnostic().loss(logits, LABELS, WANTED), Sigmoid().loss(logits, torch.zeros_like(LABELS), WANTED)
    )
    assert torch.equal(ClassAgnostic().probability(logits, LABELS), logits[:, 0].sigmoid())


@pytest.mark.parametrize("loss", [Sigmoid(), Softmax(), ClassAgnostic()])
def test_every_loss_has_its_least_where_the_mask_is(loss: MaskLoss) -> None:
    logits = torch.where(WANTED[:, None] > 0, 20.0, -20.0).repeat(1, 3, 1, 1)
    logits[0, [0, 2]] = logits[1, 1:] = -20.0
    if isinstance(loss, ClassAgnostic):
        logits = logits.amax(1, keepdim=True)
    assert float(loss.loss(logits, LABELS, WANTED)) < 1e-6
    assert float(loss.loss(-logits, LABELS, WANTED)) > 100
    torch.testing.assert_close(loss.probability(logits, LABELS), WANTED)


def test_shapes() -> None:
    pooled = torch.randn(5, 8, 14, 14)
    assert FCN(8, 16, 3)(pooled).shape == (5, 3, 28, 28)
    assert FCN(8, 16, 3, depth=0)(torch.randn(5, 8, 7, 7)).shape == (5, 3, 14, 14)
    assert MLP(8, 14, 16, 3)(pooled).shape == (5, 3, 28, 28)
    assert MLP(8, 14, 16, 3, depth=3)(pooled[:0]).shape == (0, 3, 28, 28)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        MLP(8, 14, 16, 3, depth=0)


@pytest.mark.parametrize("head", ["fcn", "mlp"])
@pytest.mark.parametrize("loss", ["sigmoid", "softmax", "class_agnostic"])
def test_every_head_learns_a_mask_by_every_loss(head: str, loss: str) -> None:
    # In the papers' words: `mask_head=mlp mask_loss=softmax`.
    narrow = ["mask_head.width=128"] if head == "mlp" else []
    model = small_model("model=mask_rcnn", f"mask_head={head}", f"mask_loss={loss}", *narrow)
    batch = random_batch(2, size=(64, 96))
    optimizer = torch.optim.Adam(model.heads.further["mask"].parameters(), 1e-3)
    history = []
    for _ in range(30):
        torch.manual_seed(0)
        value = model.loss(batch)["mask"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        history.append(float(value.detach()))
    assert all(p.grad is not None for p in model.heads.further["mask"].parameters())
    assert history[-1] < 0.6 * history[0]
    outputs = compose_config(f"mask_loss={loss}", "num_classes=4").mask_loss.outputs
    assert outputs == (1 if loss == "class_agnostic" else 4)


def with_known(batch: Batch, known: Sequence[bool]) -> Batch:
    """The batch, with the masks of its first image's objects known or not; unknown ones are empty, as they are read."""
    first = batch.targets[0]
    assert first.masks is not None
    kept = dense(first.masks) & torch.tensor(known)[:, None, None]
    masks = replace(Masks.from_dense(kept, first.masks.size), known=torch.tensor(known))
    return replace(batch, targets=[replace(first, masks=masks), *batch.targets[1:]])


def test_objects_without_a_mask_are_left_out_of_the_mask_loss() -> None:
    model = small_model("model=mask_rcnn")
    head = model.heads.further["mask"]
    batch = random_batch(3, 2)
    seen: list[tuple[torch.Size, Positives]] = []
    original = head.loss

    def losses(known: Sequence[bool]) -> dict[str, Tensor]:
        torch.manual_seed(0)
        return model.loss(with_known(batch, known))

    all_known = losses([True] * 3)
    assert all(torch.equal(a, b) for a, b in zip(all_known.values(), losses([True] * 3).values(), strict=True))

    def watched(pooled: Tensor, positives: Positives) -> dict[str, Tensor]:
        seen.append((pooled.shape, positives))
        return original(pooled, positives)

    head.loss = watched  # type: ignore[method-assign]
    some = losses([True, False, True])
    assert all(torch.equal(some[name], all_known[name]) for name in some if name != "mask")
    assert not torch.equal(some["mask"], all_known["mask"])
    shape, positives = seen[-1]
    counts = [len(boxes) for boxes in positives.boxes]
    assert (positives.match[0] == 1).any()
    assert (positives.match[0] != 1).any()

    # The loss is that of the other RoIs alone.
    torch.manual_seed(1)
    pooled = torch.randn(shape, requires_grad=True)
    ours = original(pooled, positives)["mask"]
    (gradient,) = torch.autograd.grad(ours, pooled)
    kept = torch.cat([positives.match[0] != 1, torch.ones(counts[1], dtype=torch.bool)])
    assert not gradient[~kept].any()
    assert gradient[kept].flatten(1).any(1).all()
    whole = [target.masks for target in batch.targets]
    fewer = Positives(
        [positives.boxes[0][kept[: counts[0]]], positives.boxes[1]],
        positives.labels[kept],
        [positives.match[0][kept[: counts[0]]], positives.match[1]],
        [replace(t, masks=m) for t, m in zip(positives.targets, whole, strict=True)],
    )
    torch.testing.assert_close(ours, original(pooled[kept], fewer)["mask"])


def test_a_batch_without_any_mask_has_no_mask_loss() -> None:
    model = small_model("model=mask_rcnn")
    batch = with_known(random_batch(3), [False] * 3)
    losses = model.loss(batch)
    assert float(losses["mask"].detach()) == 0
    losses["mask"].backward()
    assert all(
        parameter.grad is not None and not parameter.grad.any()
        for parameter in model.heads.further["mask"].parameters()
    )
