"""Proposals that do not change with the detector: given ones, and those of a frozen RPN."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from detector.models.proposals import FrozenProposals, GivenProposals
from detector.models.rcnn import RCNN
from detector.training.optim import parameter_groups
from detector.types import Batch
from tests.conftest import confident, random_batch, small_model


def given_batch(*proposals: torch.Tensor, size: tuple[int, int] = (128, 160)) -> Batch:
    return replace(random_batch(*[1] * len(proposals), size=size), proposals=list(proposals))


def test_given_proposals_are_cut_to_the_image_and_limited_in_their_order() -> None:
    boxes = torch.tensor(
        [[10.0, 20, 30, 40], [-5, -5, 9, 9], [150, 100, 170, 140], [200, 10, 220, 20], [1, 1, 1, 5], [3, 3, 8, 8]]
    )
    cut = torch.tensor([[10.0, 20, 30, 40], [0, 0, 9, 9], [150, 100, 160, 128], [3, 3, 8, 8]])
    batch = given_batch(boxes, boxes[:1])
    proposer = GivenProposals(train=2, test=100)
    first, second = proposer([], batch)
    assert torch.equal(first, cut)
    assert torch.equal(second, boxes[:1])
    losses, kept = proposer.loss([], batch)
    assert losses == {}
    assert torch.equal(kept[0], cut[:2])
    assert torch.equal(GivenProposals(2, 100, min_size=9)([], batch)[0], cut[[0, 2]])


def test_a_batch_without_proposals_is_refused_with_the_way_out() -> None:
    model = small_model("model=fast_rcnn")
    for call in (model, model.loss):
        with pytest.raises(
            ValueError, match=r"no RPN: it needs proposals=FILE or proposals=RUN/checkpoints/last\.ckpt"
        ):
            call(random_batch(1))


@pytest.mark.parametrize("numbers", [(0, 1, 0.0), (1, 0, 0.0), (1, 1, -1.0)])
def test_numbers_out_of_range_are_refused(numbers: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="at least"):
        GivenProposals(*numbers)
    with pytest.raises(ValueError, match="size_divisibility"):
        frozen(small_model(), divisibility=0)


@pytest.mark.parametrize("name", ["fast_rcnn", "fast_mask_rcnn"])
def test_every_parameter_learns_also_without_objects_or_proposals(name: str) -> None:
    model = small_model(f"model={name}")
    nothing = replace(random_batch(0, 0), proposals=[torch.zeros(0, 4), torch.zeros(0, 4)])
    for batch in (random_batch(3, 0, proposals=30), nothing):
        model.zero_grad()
        losses = model.loss(batch)
        assert set(losses) == {"class", "box"} | ({"mask"} if name == "fast_mask_rcnn" else set())
        assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
        torch.stack(list(losses.values())).sum().backward()
        assert not [n for n, p in model.named_parameters() if p.grad is None]
    assert [len(found) for found in model.eval()(nothing)] == [0, 0]


@pytest.mark.parametrize("name", ["fast_rcnn", "fast_mask_rcnn"])
def test_batched_equals_single(name: str) -> None:
    model = confident(small_model(f"model={name}"))
    batch = random_batch(3, 2, proposals=30)
    assert batch.proposals is not None
    with torch.inference_mode():
        together = model(batch)
        for i, found in enumerate(together):
            one = Batch(
                batch.images[i : i + 1], batch.sizes[:1], batch.sizes[:1], [i], [batch.targets[i]], [batch.proposals[i]]
            )
            single = model(one)[0]
            assert len(found) > 5
            assert torch.equal(found.labels, single.labels)
            torch.testing.assert_close(found.boxes, single.boxes, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found.scores, single.scores, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("name", ["rfcn", "cascade_mask_rcnn"])
def test_other_heads_take_them_too(name: str) -> None:
    model = small_model(f"model={name}", "model/proposer=given")
    batch = random_batch(3, 1, proposals=30)
    losses = model.loss(batch)
    assert not [loss for loss in losses if loss.startswith("rpn")]
    torch.stack(list(losses.values())).sum().backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]
    assert all(len(found) > 5 for found in confident(model)(batch))


def frozen(source: RCNN, divisibility: int = 32) -> FrozenProposals:
    """A copy of the source's first stage."""
    return FrozenProposals(*copy.deepcopy((source.normalize, source.backbone, source.proposer)), divisibility)


def with_frozen(source: RCNN, *overrides: str) -> RCNN:
    model = small_model("model=fast_rcnn", *overrides, seed=1)
    model.proposer = frozen(source)
    return model


def test_the_frozen_rpn_proposes_what_its_detector_does() -> None:
    source = confident(small_model())
    batch = random_batch(3, 2)
    part = frozen(source)
    with torch.inference_mode():
        features = source.features(batch)
        expected = source.proposer(features, batch)
        limit = source.proposer.train_limits.post_nms_topk
        scored = part.scored(batch, source.proposer.test_limits)
    assert [len(e) for e in expected] == [source.proposer.test_limits.post_nms_topk] * 2
    for kept, own, (boxes, scores) in zip(expected, part([], batch), scored, strict=True):
        assert torch.equal(kept, own)
        assert torch.equal(kept, boxes)
        assert (scores[:-1] >= scores[1:]).all()
        assert ((scores >= 0) & (scores <= 1)).all()
    losses, more = part.loss([], batch)
    assert losses == {}
    for few, many in zip(expected, more, strict=True):
        assert len(few) < len(many) <= limit
        assert torch.equal(few, many[: len(few)])


def test_the_frozen_rpn_does_not_see_how_others_pad() -> None:
    part = frozen(confident(small_model()))
    batch = random_batch(2, 1, size=(90, 120))
    own = part([], batch)
    for height, width in ((96, 128), (128, 128), (200, 300)):
        padded = replace(batch, images=F.pad(batch.images, (0, width - 120, 0, height - 90)))
        for a, b in zip(own, part([], padded), strict=True):
            assert torch.equal(a, b)


@pytest.mark.usefixtures("thin")
def test_two_poolers_see_the_same_proposals() -> None:
    source = confident(small_model())
    batch = random_batch(3, 2)
    models = [with_frozen(source, f"pooler={name}") for name in ("roipool", "roialign")]
    seen: list[list[torch.Tensor]] = []
    for model in models:
        for _ in range(2):  # also after the rest has changed
            losses, proposals = model.proposer.loss(model.features(batch), batch)
            assert not losses
            seen.append(proposals)
            with torch.no_grad():
                for value in model.backbone.parameters():
                    value.add_(0.1)
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))
    assert not torch.equal(models[0].loss(batch)["class"], models[1].loss(batch)["class"])


def test_nothing_of_the_frozen_rpn_changes_in_training() -> None:
    model = with_frozen(small_model("backbone=resnet18_small_fpn")).train()  # whose RoIs are pooled from all levels
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=1e-2, weight_decay=0.5)
    optimised = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert not optimised & {id(p) for p in model.proposer.parameters()}
    assert optimised == {id(p) for part in (model.backbone, model.heads) for p in part.parameters()}
    for _ in range(3):
        torch.stack(list(model.loss(random_batch(2, 2)).values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        model.train()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not [name for name in changed if name.startswith("proposer.")]
    assert any(name.endswith("running_mean") for name in changed)
    assert {n for n, _ in model.named_parameters() if not n.startswith("proposer.")} - changed == set()
    assert model.training
    assert not any(module.training for module in model.proposer.modules())
    assert not any(p.requires_grad or p.grad is not None for p in model.proposer.parameters())


@pytest.mark.usefixtures("thin")
def test_given_and_frozen_proposals_of_the_same_rpn_give_the_same_detections() -> None:
    model = confident(with_frozen(confident(small_model())))
    batch = random_batch(3, 2)
    with torch.inference_mode():
        expected = model(batch)
        proposals = model.proposer([], batch)
        model.proposer = GivenProposals(1000, 1000)
        found = model(replace(batch, proposals=proposals))
    for a, b in zip(expected, found, strict=True):
        assert len(a) > 5
        assert torch.equal(a.boxes, b.boxes)
        assert torch.equal(a.scores, b.scores)
