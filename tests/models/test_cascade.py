"""The cascade: which boxes each stage sees, what they are to learn, and what comes of them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detector.config import build
from detector.config.resolve import with_classes
from detector.matching import IGNORED, BalancedSampler, Matcher
from detector.models.box_head import BoxHead
from detector.models.cascade import CascadeHeads, CascadeStage
from detector.models.losses import smooth_l1
from detector.models.pooler import Pooler
from detector.models.roi_heads import StandardHeads
from detector.models.selection import Select
from detector.types import Target
from tests.conftest import CLASSES as NAMES
from tests.conftest import compose_config, confident, random_batch, small_model

CLASSES = 2
SIZE = (40, 60)
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def box_head(shift: float = 0.0, scores: tuple[float, ...] = (0.0, 0.0, 0.0)) -> BoxHead:
    """Moves every box to the right by `shift` of its width, and gives every RoI these scores."""
    head = BoxHead(nn.Flatten(), 4, CLASSES, smooth_l1, WEIGHTS, cls_agnostic_bbox_reg=True)
    with torch.no_grad():
        for layer, bias in ((head.regress, (shift * WEIGHTS[0], 0.0, 0.0, 0.0)), (head.classify, scores)):
            layer.weight.zero_()
            layer.bias.copy_(torch.tensor(bias))
    return head


def pooler(**kwargs: Any) -> Pooler:
    """Gives every RoI the mean of the only map, as its only cell."""

    def pool(features: list[Tensor], rois: Tensor, *_: Any, **__: Any) -> Tensor:
        return features[0].mean((2, 3))[rois[:, 0].long(), :, None, None]

    return Pooler(pool, lambda rois, _: torch.zeros(len(rois), dtype=torch.int64), 1, (4,), **kwargs)


def cascade(*box_heads: BoxHead) -> CascadeHeads:
    first, *later = box_heads
    return CascadeHeads(
        pooler(),
        first,
        Select(score_thresh=0.0, nms_thresh=1.0),
        Matcher(0.5, 0.5),
        BalancedSampler(16, 1.0),
        [CascadeStage(Matcher(0.6 + 0.1 * i, 0.6 + 0.1 * i), head) for i, head in enumerate(later)],
        proposal_append_gt=False,
    )


def truth(*boxes: list[float], crowd: tuple[bool, ...] = ()) -> Target:
    flags = torch.tensor([*crowd, *[False] * (len(boxes) - len(crowd))], dtype=torch.bool)
    return Target(torch.tensor(boxes).reshape(-1, 4), torch.ones(len(boxes), dtype=torch.int64), flags, ~flags & False)


Seen = list[tuple[Tensor, Tensor, Tensor]]


def watch(heads: CascadeHeads, monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """Boxes, labels and true boxes that each stage is given to learn, by call."""
    stages: list[Seen] = []
    for head in (heads.box_head, *(stage.box_head for stage in heads.later)):
        seen: Seen = []

        def loss(predicted: Any, *given: Tensor, own: Any = head.loss, seen: Seen = seen) -> dict[str, Tensor]:
            seen.append(given)  # type: ignore[arg-type]
            return own(predicted, *given)  # type: ignore[no-any-return]

        monkeypatch.setattr(head, "loss", loss)
        stages.append(seen)
    return stages


FEATURES = [torch.randn(1, 4, 10, 15)]


def test_each_stage_learns_from_the_boxes_of_the_one_before_at_a_higher_iou(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = cascade(box_head(0.1), box_head(0.1), box_head(0.1))
    stages = watch(heads, monkeypatch)
    proposals = [torch.tensor([[10.0, 10.0, 30.0, 30.0], [10.0, 10.0, 30.0, 22.0], [39.0, 0.0, 59.0, 8.0]])]
    losses = heads.loss(FEATURES, proposals, [SIZE], [truth([10.0, 10.0, 30.0, 30.0])])
    assert set(losses) == {"class1", "box1", "class2", "box2", "class3", "box3"}
    # The IoUs with the object are 1 and 0.6 at first, 0.82 and 0.51 after one step of a tenth, 0.67 after two.
    # The last box reaches the edge, where it is cut, and its next step is of its new width.
    expected = [
        {(10, 10, 30, 30): 1, (10, 10, 30, 22): 1, (39, 0, 59, 8): CLASSES},
        {(12, 10, 32, 30): 1, (12, 10, 32, 22): CLASSES, (41, 0, 60, 8): CLASSES},
        {(14, 10, 34, 30): CLASSES, (14, 10, 34, 22): CLASSES, (42.9, 0, 60, 8): CLASSES},
    ]
    for [(boxes, labels, wanted)], known in zip(stages, expected, strict=True):
        corners = [tuple(round(v, 3) for v in box) for box in boxes.tolist()]
        found = dict(zip(corners, labels.tolist(), strict=True))
        assert found == known
        assert not boxes.requires_grad
        assert wanted[labels == 1].tolist() == [[10, 10, 30, 30]] * int((labels == 1).sum())


def test_boxes_that_leave_the_image_and_those_that_learn_nothing_do_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = cascade(box_head(1.0), box_head(), box_head())
    stages = watch(heads, monkeypatch)
    proposals = [torch.tensor([[0.0, 0.0, 10.0, 10.0], [45.0, 0.0, 60.0, 10.0], [20.0, 20.0, 30.0, 30.0]])]
    heads.loss(FEATURES, proposals, [SIZE], [truth([18.0, 18.0, 35.0, 35.0], crowd=(True,))])
    assert sorted(stages[0][0][1].tolist()) == [IGNORED, CLASSES, CLASSES]
    for [(boxes, labels, _)] in stages[1:]:
        assert boxes.tolist() == [[10, 0, 20, 10]]
        assert labels.tolist() == [CLASSES]
    empty = [torch.tensor([[45.0, 0.0, 60.0, 10.0]])]
    losses = heads.loss(FEATURES, empty, [SIZE], [truth()])
    assert torch.stack(list(losses.values())).isfinite().all()
    assert float(losses["class2"].detach()) == float(losses["class3"].detach()) == 0
    found = heads(FEATURES, empty, [SIZE])[0]  # every proposal is asked about, so that the stages' scores fit together
    assert found.boxes.tolist() == [[60, 0, 60, 10]] * CLASSES


def test_detections_are_the_last_boxes_with_the_mean_probability() -> None:
    scores = [(2.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 1.0, 3.0)]
    heads = cascade(*(box_head(shift, given) for shift, given in zip((0.1, 0.2, 0.5), scores, strict=True)))
    found = heads(FEATURES, [torch.tensor([[10.0, 10.0, 30.0, 30.0]])], [SIZE])[0]
    mean = torch.tensor(scores).softmax(1).mean(0)[:CLASSES]
    assert float(mean[0]) > float(mean[1])
    assert found.labels.tolist() == [0, 1]
    torch.testing.assert_close(found.scores, mean)
    torch.testing.assert_close(found.boxes, torch.tensor([[26.0, 10.0, 46.0, 30.0]] * 2))


def test_the_stages_share_what_they_send_to_the_features() -> None:
    proposals, targets = [torch.tensor([[10.0, 10.0, 30.0, 28.0]])], [truth([10.0, 10.0, 30.0, 30.0])]
    first = BoxHead(nn.Flatten(), 4, CLASSES, smooth_l1, WEIGHTS, cls_agnostic_bbox_reg=True)
    nn.init.normal_(first.regress.weight)
    heads = cascade(first, box_head(), box_head())  # the later ones have no weights, and send nothing
    alone = StandardHeads(
        heads.box_pooler, first, heads.select, heads.matcher, heads.sampler, proposal_append_gt=heads.proposal_append_gt
    )
    gradients = []
    for second_stage in (heads, alone):
        features = FEATURES[0].clone().requires_grad_()
        first.zero_grad()
        losses = second_stage.loss([features], proposals, [SIZE], targets)
        sum(losses.values(), torch.zeros(())).backward()
        assert features.grad is not None
        assert first.regress.weight.grad is not None
        gradients.append((features.grad, first.regress.weight.grad.clone()))
    (shared, own), (whole, same) = gradients
    assert whole.abs().max() > 0
    torch.testing.assert_close(3 * shared, whole)
    assert torch.equal(own, same)


def test_masks_are_learnt_on_the_first_rois_and_asked_for_the_last_boxes() -> None:
    model = small_model("model=cascade_mask_rcnn")
    calls: dict[str, list[list[Tensor]]] = {"box": [], "mask": []}
    for name, part in (("box", model.heads.box_pooler), ("mask", model.heads.mask_pooler)):
        part.register_forward_pre_hook(lambda _, given, name=name: calls[name].append(list(given[1])))
    batch = random_batch(3, 2)
    model.loss(batch)
    assert len(calls["box"]) == 3
    assert not torch.equal(calls["box"][0][0], calls["box"][1][0])
    for sampled, learnt, target in zip(calls["box"][0], calls["mask"][0], batch.targets, strict=True):
        assert len(learnt) >= len(target)
        assert all((sampled == box).all(1).any() for box in learnt)
    calls["mask"].clear()
    with torch.inference_mode():
        found = confident(model)(batch)
    for asked, objects in zip(calls["mask"][0], found, strict=True):
        assert len(objects) > 0
        assert torch.equal(asked, objects.boxes)


def test_the_settings_are_detectron2s_and_the_heads_are_three() -> None:
    model = small_model("model=cascade_rcnn")
    heads = [model.heads.box_head, *(stage.box_head for stage in model.heads.later)]
    assert [head.bbox_reg_weights for head in heads] == [(10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15)]
    matchers = [model.heads.matcher, *(stage.matcher for stage in model.heads.later)]
    assert [(matcher.positive, matcher.negative) for matcher in matchers] == [(0.5, 0.5), (0.6, 0.6), (0.7, 0.7)]
    assert all(head.regressors == 1 for head in heads)
    assert len({id(p) for head in heads for p in head.parameters()}) == 3 * len(list(heads[0].parameters()))


def test_what_does_not_fit_is_refused() -> None:
    config = compose_config("model=cascade_rcnn", "backbone=resnet18_c4")
    with pytest.raises(ValueError, match=r"use a backbone with FPN.*'model\.heads'"):
        build.build_model(with_classes(config, NAMES))
    with pytest.raises(ValueError, match="stage 1 of 3 must be cls_agnostic_bbox_reg"):
        small_model("model=cascade_rcnn", "model.heads.box_head.cls_agnostic_bbox_reg=false")
    config = compose_config("model=cascade_rcnn", "model.heads.later.1.box_head.cls_agnostic_bbox_reg=false")
    assert config.model.heads.later[1].box_head.cls_agnostic_bbox_reg is False
    small_model("model=cascade_rcnn", "model.heads.later.1.box_head.cls_agnostic_bbox_reg=false")  # nothing follows
