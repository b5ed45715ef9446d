"""The detector as a whole: what must hold for every batch."""

from dataclasses import replace

import pytest
import torch

from detector.boxes import iou
from detector.matching import Rois, sample_rois
from detector.models.heads import Positives
from detector.models.pooler import with_batch_index
from detector.models.rcnn import Normalize
from detector.models.roi_heads import in_parts
from detector.types import Batch, Masks, Objects, Target
from detector.weights.checkpoints import load_checkpoint
from tests.conftest import CLASSES, compose_config, confident, learn, random_batch, small_model


@pytest.fixture(autouse=True)
def _thin_but_where_an_image_is_learnt_by_heart(request: pytest.FixtureRequest) -> None:
    if "slow" not in request.keywords:
        request.getfixturevalue("thin")


STAGES = {f"{name}{number}" for name in ("class", "box") for number in (1, 2, 3)}
LOSSES = {  # of the second stage
    "faster_rcnn": {"class", "box"},
    "mask_rcnn": {"class", "box", "mask"},
    "rfcn": {"class", "box"},
    "cascade_rcnn": STAGES,
    "cascade_mask_rcnn": {*STAGES, "mask"},
}
MODELS = list(LOSSES)


def select(batch: Batch, *images: int) -> Batch:
    return Batch(
        batch.images[list(images)],
        [batch.sizes[i] for i in images],
        [batch.original_sizes[i] for i in images],
        [batch.ids[i] for i in images],
        [batch.targets[i] for i in images],
    )


def assert_same(a: Objects, b: Objects) -> None:
    assert torch.equal(a.labels, b.labels)
    for name in ("boxes", "scores", "masks"):
        x, y = getattr(a, name), getattr(b, name)
        if x is not None:
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


def test_padding_is_zero_after_normalising() -> None:
    images = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
    normal = Normalize([10.0, 20.0, 30.0], [1.0, 2.0, 4.0])(images, [(20, 64), (32, 50)])
    assert not normal[0, :, 20:].any()
    assert not normal[1, :, :, 50:].any()
    assert torch.equal(normal[0, 2, :20], (images[0, 2, :20].float() - 30) / 4)
    assert normal.is_contiguous(memory_format=torch.channels_last)


def test_with_batch_index() -> None:
    rois = with_batch_index([torch.ones(2, 4), torch.zeros(0, 4), torch.full((1, 4), 3.0)])
    assert rois.tolist() == [[0, 1, 1, 1, 1], [0, 1, 1, 1, 1], [2, 3, 3, 3, 3]]


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_learns_also_from_an_image_without_objects(name: str) -> None:
    model = small_model(f"model={name}")
    for batch in (random_batch(3, 0), random_batch(0, 0)):
        model.zero_grad()
        losses = model.loss(batch)
        assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
        sum(losses.values(), torch.zeros(())).backward()
        without = [n for n, p in model.named_parameters() if p.grad is None]
        assert not without
    assert set(losses) == {"rpn_objectness", "rpn_box"} | LOSSES[name]


@pytest.mark.parametrize("name", MODELS)
def test_batched_equals_single_and_order_does_not_matter(name: str) -> None:
    model = confident(small_model(f"model={name}"))
    batch = random_batch(3, 4, 2)
    with torch.inference_mode():
        together = model(batch)
        permuted = model(select(batch, 2, 0, 1))
        single = [model(select(batch, i))[0] for i in range(3)]
    assert all(len(found) > 5 for found in together)
    for i in range(3):
        assert_same(together[i], single[i])
        assert_same(together[i], permuted[[1, 2, 0][i]])


@pytest.mark.parametrize("name", MODELS)
def test_detections_are_as_promised(name: str) -> None:
    model = confident(small_model(f"model={name}"))
    for found in model(random_batch(3, 2)):
        assert found.boxes.shape == (len(found), 4)
        assert len(found) <= 50
        assert (found.scores[:-1] >= found.scores[1:]).all()
        assert ((found.scores > 0.05) & (found.scores <= 1)).all()
        assert ((found.labels >= 0) & (found.labels < len(CLASSES))).all()
        assert (found.boxes[:, 0::2] >= 0).all()
        assert (found.boxes[:, 0::2] <= 160).all()
        assert (found.boxes[:, 1::2] <= 128).all()
        if "mask" in LOSSES[name]:
            assert found.masks is not None
            assert found.masks.shape == (len(found), 28, 28)
            assert ((found.masks >= 0) & (found.masks <= 1)).all()


@pytest.mark.parametrize("name", MODELS)
def test_finding_nothing_gives_empty_tensors(name: str) -> None:
    model = small_model(f"model={name}", "model.heads.select.score_thresh=0.999").eval()
    for found in model(random_batch(1, 1)):
        assert found.boxes.shape == (0, 4)
        assert found.scores.shape == found.labels.shape == (0,)
        if "mask" in LOSSES[name]:
            assert found.masks is not None
            assert found.masks.shape == (0, 28, 28)


@pytest.mark.parametrize("name", MODELS)
def test_no_proposals_teach_nothing_and_find_nothing(name: str) -> None:
    model = small_model(f"model={name}")
    batch = random_batch(0, 0)
    features, none = model.features(batch), [torch.zeros(0, 4)] * 2
    losses = model.heads.loss(features, none, batch.sizes, batch.targets)
    assert set(losses) == LOSSES[name]
    assert all(float(loss.detach()) == 0 for loss in losses.values())
    with torch.inference_mode():
        assert [len(found) for found in model.eval().heads(features, none, batch.sizes)] == [0, 0]


def test_detections_are_in_the_original_image() -> None:
    model = confident(small_model())
    batch = random_batch(2)
    doubled = replace(batch, original_sizes=[(256, 480)])
    with torch.inference_mode():
        a, b = model(batch)[0], model(doubled)[0]
    torch.testing.assert_close(a.boxes * torch.tensor([3.0, 2.0, 3.0, 2.0]), b.boxes)


def test_the_mask_is_read_from_the_channel_of_the_class() -> None:
    model = confident(small_model("model=mask_rcnn"))
    head = model.heads.further["mask"]
    constant = torch.nn.Module()
    constant.forward = lambda x: torch.arange(4.0).view(1, 4, 1, 1).expand(len(x), 4, 28, 28)  # type: ignore[method-assign]
    head.predictor = constant
    for value in model.heads.box_head.classify.parameters():
        torch.nn.init.zeros_(value)  # every class is as likely
    found = model(random_batch(3))[0]
    assert len(found.labels.unique()) > 1
    assert found.masks is not None
    torch.testing.assert_close(found.masks[:, 0, 0], found.labels.float().sigmoid())


def test_the_mask_loss_looks_at_the_true_class_only() -> None:
    head = small_model("model=mask_rcnn").heads.further["mask"]
    logits = torch.randn(1, 4, 28, 28, requires_grad=True)
    constant = torch.nn.Module()
    constant.forward = lambda _: logits  # type: ignore[method-assign]
    head.predictor = constant
    flags, box = torch.zeros(1, dtype=torch.bool), torch.tensor([[10.0, 10.0, 50.0, 60.0]])
    target = Target(
        box, torch.tensor([2]), flags, flags, Masks.from_dense(torch.ones(1, 128, 160, dtype=torch.bool), (128, 160))
    )
    positives = Positives([box], torch.tensor([2]), [torch.tensor([0])], [target])
    loss = head.loss(torch.zeros(1, 32, 14, 14), positives)["mask"]
    loss.backward()
    torch.testing.assert_close(loss, torch.nn.functional.softplus(-logits[0, 2]).mean())
    assert logits.grad is not None
    assert logits.grad[0, [0, 1, 3]].count_nonzero() == 0


def test_masks_are_cut_to_the_roi_by_sub_pixels() -> None:
    head = small_model("model=mask_rcnn").heads.further["mask"]
    dense = torch.zeros(1, 40, 40, dtype=torch.bool)
    dense[0, 10:20, 10:30] = True
    mask = Masks.from_dense(dense, (40, 40))
    whole = head.target(mask, torch.tensor([0]), torch.tensor([[10.0, 10.0, 30.0, 20.0]]), 28)
    assert whole.all()
    half = head.target(mask, torch.tensor([0]), torch.tensor([[0.0, 10.0, 20.0, 20.0]]), 28)
    assert half[0, :, 14:].all()
    assert not half[0, :, :14].any()


def test_a_dataset_without_masks_cannot_train_a_mask_head() -> None:
    batch = random_batch(2)
    batch.targets = [replace(t, masks=None) for t in batch.targets]
    with pytest.raises(ValueError, match="without masks"):
        small_model("model=mask_rcnn").loss(batch)


def sample(proposals: torch.Tensor, target: Target) -> Rois:
    heads = small_model().heads
    return sample_rois([proposals], [target], heads.matcher, heads.sampler, len(CLASSES), heads.proposal_append_gt)[0]


def test_crowds_are_not_learnt() -> None:
    batch = random_batch(2)
    batch.targets[0] = replace(batch.targets[0], crowd=torch.tensor([True, True]))
    labels = sample(torch.tensor([[0.0, 0.0, 5.0, 5.0]]), batch.targets[0]).labels
    assert (labels == len(CLASSES)).all()


def test_true_boxes_are_among_the_rois() -> None:
    target: Target = random_batch(3).targets[0]
    rois = sample(torch.zeros(0, 4), target)
    assert torch.equal(rois.boxes, target.boxes[rois.index])
    assert torch.equal(rois.boxes, rois.gt_boxes)
    assert torch.equal(rois.labels, target.labels[rois.index])
    assert sorted(rois.index.tolist()) == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices",
    # The later stages of a cascade count a pixel two and three times as much in smooth L1.
    [["model=faster_rcnn"], ["model=mask_rcnn"], ["model=rfcn"], ["model=cascade_mask_rcnn", "box_loss=giou"]],
    ids=lambda choices: choices[0],
)
def test_the_loss_falls_to_near_nothing_on_one_image(choices: list[str]) -> None:
    model = small_model(*choices, "backbone.channels=64")
    batch = random_batch(4, size=(96, 128))
    history = learn(model, batch, rate=1e-3, steps=150)
    assert max(history[-10:]) < 0.1 * history[0]
    with torch.inference_mode():
        found = model.eval()(batch)[0]
    target = batch.targets[0]
    sure = found.scores > 0.5
    best = iou(target.boxes, found.boxes[sure]).max(1)
    assert (best.values > 0.8).all()
    assert torch.equal(found.labels[sure][best.indices], target.labels)


def test_the_same_seed_gives_the_same_losses() -> None:
    batch = random_batch(3, 1)
    first, second = (small_model(seed=3) for _ in range(2))
    losses = []
    for model in (first, second):
        torch.manual_seed(11)
        losses.append(torch.stack(list(model.loss(batch).values())))
    assert torch.equal(*losses)


def test_a_checkpoint_of_another_model_is_refused() -> None:
    content = {"state_dict": {f"model.{k}": v for k, v in small_model().state_dict().items()}}
    with pytest.raises(ValueError, match="another model"):
        load_checkpoint(small_model("model=mask_rcnn"), content, "x.ckpt")
    with pytest.raises(ValueError, match="another shape"):
        load_checkpoint(small_model("backbone.channels=64"), content, "x.ckpt")
    assert compose_config().model["_target_"] == "detector.models.rcnn.RCNN"


def test_the_box_head_may_see_a_part_of_the_rois_at_a_time() -> None:
    boxes = [torch.full((n, 4), float(n)) + torch.arange(n)[:, None] for n in (3, 0, 5)]
    parts = list(in_parts(boxes, 2))
    assert [[len(b) for b in part] for part in parts] == [[2, 0, 0], [1, 0, 1], [0, 0, 2], [0, 0, 2]]
    assert torch.equal(torch.cat([b for part in parts for b in part]), torch.cat(boxes))
    assert [[len(b) for b in part] for part in in_parts(boxes, None)] == [[3, 0, 5]]
    assert [[len(b) for b in part] for part in in_parts([boxes[1]] * 2, 7)] == [[0, 0]]
    model = confident(small_model("model=cascade_mask_rcnn"))
    batch = random_batch(3, 1)
    results = []
    for size in (None, 7):
        model.heads.rois_at_once = size
        with torch.inference_mode():
            results.append(model(batch))
    assert len(results[0][0]) > 5
    for a, b in zip(*results, strict=True):
        assert_same(a, b)
    for key in ("rois_at_once", "detections_at_once"):
        with pytest.raises(ValueError, match=f"{key} must be at least 1, or null for all, got 0"):
            small_model(f"model.heads.{key}=0")


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize("loss", ["sigmoid", "softmax", "class_agnostic"])
def test_the_mask_head_may_see_a_part_of_the_detections_at_a_time(loss: str, size: int) -> None:
    model = confident(small_model("model=mask_rcnn", f"mask_loss={loss}"))
    head = model.heads.further["mask"]
    seen: list[int] = []
    head.predictor.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    batch = random_batch(3, 1, 2)
    results = []
    for part in (None, size):
        model.heads.detections_at_once = part
        with torch.inference_mode():
            results.append(model(batch))
    total = seen[0]
    assert total == sum(len(objects) for objects in results[0]) > size
    assert seen[1:] == [size] * (total // size) + [total % size] * (total % size > 0)
    for a, b in zip(*results, strict=True):
        for name in ("boxes", "scores", "labels"):
            assert torch.equal(getattr(a, name), getattr(b, name))
        # Not bit-equal: the order of a convolution's sums may depend on the number of RoIs.
        torch.testing.assert_close(a.masks, b.masks, rtol=1e-6, atol=1e-6)
