"""R-FCN: what is pooled and voted on, which RoIs learn, and which poolers will do."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import ops
from detector.boxes import encode, iou
from detector.config import build
from detector.config.resolve import with_classes
from detector.matching import BalancedSampler, Matcher
from detector.models.losses import smooth_l1
from detector.models.pooler import Pooler, with_batch_index
from detector.models.rfcn import PositionSensitiveMaps, RFCNHeads
from detector.models.selection import Select
from detector.types import Target
from ops import reference
from tests.conftest import CLASSES as NAMES
from tests.conftest import compose_config, random_batch, random_target, small_model

CLASSES = 2
SIZE = 3
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def make(
    operator: Callable[..., Tensor],
    strides: tuple[int, ...] = (4,),
    cls_agnostic_bbox_reg: bool = True,
    sampled: int = 16,
    hard_examples: int | None = None,
) -> RFCNHeads:
    maps = PositionSensitiveMaps(6, CLASSES, SIZE, width=8, cls_agnostic_bbox_reg=cls_agnostic_bbox_reg)
    for value in maps.parameters():
        nn.init.normal_(value)
    pooler = Pooler(operator, partial(ops.assign_levels, canonical_size=24, canonical_level=3), SIZE, strides)
    select = Select(score_thresh=0.0, nms_thresh=1.0)
    sampler = BalancedSampler(sampled, 0.25)
    return RFCNHeads(
        maps, pooler, select, Matcher(0.5, 0.5), sampler, smooth_l1, WEIGHTS, hard_examples, proposal_append_gt=True
    )


def target(size: tuple[int, int], count: int, seed: int = 0) -> Target:
    found = random_target(size, count, torch.Generator().manual_seed(seed))
    found.labels %= CLASSES
    return found


@pytest.mark.parametrize("cls_agnostic_bbox_reg", [True, False])
def test_each_bin_is_the_mean_of_its_cells_in_its_own_map_and_the_bins_vote(cls_agnostic_bbox_reg: bool) -> None:
    heads = make(ops.multiscale_ps_roi_pool, cls_agnostic_bbox_reg=cls_agnostic_bbox_reg)
    feature = torch.randn(2, 6, 12, 16)
    maps = heads.maps(feature)
    # Of whole cells: a bin is 2 x 2 of them in the first, 2 wide and 1 high in the second, 1 x 3 in the third.
    boxes = [torch.tensor([[12.0, 0.0, 36.0, 24.0]]), torch.tensor([[0.0, 8.0, 24.0, 20.0], [4.0, 4.0, 16.0, 40.0]])]
    corners = [(0, 3, 0, 2, 2), (1, 0, 2, 2, 1), (1, 1, 1, 1, 3)]  # image, left, top, width and height of a bin, cells
    votes = torch.zeros(3, maps.shape[1] // SIZE**2)
    for roi, (image, left, top, width, height) in enumerate(corners):
        for output in range(votes.shape[1]):
            for row in range(SIZE):
                for column in range(SIZE):
                    x, y = left + column * width, top + row * height
                    own = maps[image, (output * SIZE + row) * SIZE + column]
                    votes[roi, output] += own[y : y + height, x : x + width].mean() / SIZE**2
    predicted = heads._predict([feature], boxes)
    torch.testing.assert_close(predicted.logits, votes[:, : CLASSES + 1])
    regressors = 1 if cls_agnostic_bbox_reg else CLASSES
    torch.testing.assert_close(predicted.deltas, votes[:, CLASSES + 1 :].reshape(3, regressors, 4))


@pytest.mark.parametrize(
    ("operator", "plain"),
    [
        (partial(ops.multiscale_ps_roi_align, sampling_ratio=2), partial(reference.ps_roi_align, sampling_ratio=2)),
        (ops.multiscale_ps_roi_pool, reference.ps_roi_pool),
        (
            partial(ops.multiscale_ps_roi_pool, quantization="rfcn"),
            partial(reference.ps_roi_pool, quantization="rfcn"),
        ),
    ],
)
def test_on_a_pyramid_each_roi_is_of_its_level_and_the_convolutions_are_shared(
    operator: Callable[..., Tensor], plain: Callable[..., Tensor]
) -> None:
    strides = (4, 8)
    heads = make(operator, strides)
    features = [torch.randn(2, 6, 64 // stride, 96 // stride) for stride in (*strides, 16)]  # the last is not pooled
    boxes = [target((64, 96), 8, seed).boxes for seed in (1, 2)]
    rois = with_batch_index(boxes)
    levels = heads.pooler.assign(rois, heads.pooler.scales)
    assert set(levels.tolist()) == {0, 1}
    predicted = heads._predict(features, boxes)
    for level, stride in enumerate(strides):
        own = levels == level
        pooled = plain(heads.maps(features[level]), rois[own], (SIZE, SIZE), 1 / stride)
        votes = pooled.mean((2, 3))
        torch.testing.assert_close(predicted.logits[own], votes[:, : CLASSES + 1], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(predicted.deltas[own, 0], votes[:, CLASSES + 1 :], rtol=1e-4, atol=1e-4)


def roi_losses(heads: RFCNHeads, feature: Tensor, boxes: Tensor, truth: Target) -> Tensor:
    """Of each RoI of one image, one by one."""
    predicted = heads._predict([feature], [boxes])
    losses = []
    for i, box in enumerate(boxes):
        label, loss = CLASSES, torch.zeros(())
        if len(truth):
            overlap = iou(truth.boxes, box[None])[:, 0]
            if overlap.max() >= 0.5:
                best = int(overlap.argmax())
                label = int(truth.labels[best])
                loss = (predicted.deltas[i, 0] - encode(truth.boxes[best], box, WEIGHTS)).abs().sum()
        losses.append(loss - predicted.logits[i].log_softmax(0)[label])
    return torch.stack(losses)


def test_the_hardest_of_all_proposals_learn() -> None:
    heads = make(partial(ops.multiscale_ps_roi_align, sampling_ratio=2), sampled=1, hard_examples=5)
    feature = torch.randn(2, 6, 16, 24)
    targets = [target((64, 96), 3), target((64, 96), 0)]
    near = targets[0].boxes + torch.tensor([2.0, 1.0, -1.0, 3.0])
    proposals = [torch.cat((near, target((64, 96), 20, 3).boxes)), target((64, 96), 12, 4).boxes]
    losses = heads.loss([feature], proposals, [(64, 96)] * 2, targets)
    chosen = []
    for i, truth in enumerate(targets):
        every = roi_losses(heads, feature[i : i + 1], torch.cat((proposals[i], truth.boxes)), truth)
        chosen.append(every.topk(5).values)
    torch.testing.assert_close(losses["class"] + losses["box"], torch.cat(chosen).mean())
    more = make(partial(ops.multiscale_ps_roi_align, sampling_ratio=2), hard_examples=1000)
    more.load_state_dict(heads.state_dict())
    losses = more.loss([feature[:1]], proposals[:1], [(64, 96)], targets[:1])
    every = roi_losses(heads, feature[:1], torch.cat((proposals[0], targets[0].boxes)), targets[0])
    torch.testing.assert_close(losses["class"] + losses["box"], every.mean())


@pytest.mark.parametrize("hard_examples", [None, 4])
@pytest.mark.parametrize("operator", [ops.multiscale_ps_roi_align, ops.multiscale_ps_roi_pool])
def test_one_level_with_and_without_objects(operator: Callable[..., Tensor], hard_examples: int | None) -> None:
    heads = make(operator, (16,), hard_examples=hard_examples)
    features = [torch.randn(2, 6, 4, 6)]
    sizes = [(64, 96)] * 2
    proposals = [target((64, 96), 9, seed).boxes for seed in (1, 2)]
    nothing = torch.zeros(0, 4)
    for count, given in ((3, proposals), (0, proposals), (0, [nothing, nothing])):
        heads.zero_grad()
        losses = heads.loss(features, given, sizes, [target((64, 96), count), target((64, 96), 0)])
        assert set(losses) == {"class", "box"}
        total = torch.stack(list(losses.values())).sum()
        assert total.isfinite()
        assert bool(total > 0) == any(len(boxes) for boxes in given)
        total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())
    with torch.inference_mode():
        first, second = heads.eval()(features, [proposals[0], nothing], sizes)
    assert len(first) == 9 * CLASSES
    assert first.boxes.shape == (len(first), 4)
    assert (first.boxes >= 0).all()
    assert (first.boxes <= torch.tensor([96.0, 64.0, 96.0, 64.0])).all()
    assert len(second) == 0


def test_the_operator_follows_from_the_pooler() -> None:
    align, pool = "ops.multiscale_ps_roi_align", "ops.multiscale_ps_roi_pool"
    for choice, expected, ratio in (("roialign", align, 2), ("roialign_adaptive", align, 0), ("roipool", pool, None)):
        operator = compose_config("model=rfcn", f"pooler={choice}").model.heads.pooler.operator
        assert operator["_target_"] == expected
        assert operator.get("sampling_ratio") == ratio
        assert "quantization" not in operator
    heads = small_model("model=rfcn", "pooler=roipool", "pooler.quantization=rfcn").heads
    assert heads.pooler.operator.keywords == {"quantization": "rfcn"}


@pytest.mark.parametrize(
    "choices",
    [
        ["pooler=roialign", "pooler.aligned=false"],
        ["pooler=roialign", "pooler.mode=max"],
        ["pooler=roipool", "pooler.quantization=floor"],
    ],
)
def test_words_that_the_operator_does_not_know_are_refused(choices: list[str]) -> None:
    with pytest.raises(ValueError, match=r"roipool with their default mode, aligned and quantization.*'model\.heads'"):
        small_model("model=rfcn", *choices)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="7 bins a side, and the pooler pools 5"):
        small_model("model=rfcn", "model.heads.pooler.output_size=5")
    with pytest.raises(ValueError, match="null for none, got 0"):
        small_model("model=rfcn", "model.heads.hard_examples=0")
    with pytest.raises(ValueError, match=r"at least 1.*size=0"):
        small_model("model=rfcn", "model.heads.maps.size=0")
    with pytest.raises(ValueError, match="use a backbone with FPN, C5 or DC5"):
        build.build_model(with_classes(compose_config("model=rfcn", "backbone=resnet18_c4"), NAMES))


@pytest.mark.parametrize("backbone", ["resnet18_dc5", "vgg16"])
def test_backbones_of_one_level(backbone: str) -> None:
    config = compose_config("model=rfcn", f"backbone={backbone}", "model.heads.maps.width=32")
    model = build.build_model(with_classes(config, NAMES))
    batch = random_batch(2, 0)
    assert torch.stack(list(model.loss(batch).values())).isfinite().all()
    with torch.inference_mode():
        assert all(len(found) > 0 for found in model.eval()(batch))


def test_hard_examples_are_one_word() -> None:
    model = small_model("model=rfcn", "model.heads.hard_examples=128", "model.heads.maps.width=32")
    assert torch.stack(list(model.loss(random_batch(2, 0)).values())).isfinite().all()
    assert model.heads.hard_examples == 128
