"""Heads beside the box head, made here: trained on the positive RoIs, run on the detections."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import ops
from detector.models.c4 import C4Heads, StageTrunk
from detector.models.cascade import CascadeHeads
from detector.models.heads import FurtherHead, Positives
from detector.models.pooler import Pooler
from detector.models.rcnn import RCNN
from detector.models.roi_heads import StandardHeads
from detector.types import Batch, Objects, Output, Size
from tests.conftest import compose_config, confident, random_batch, small_model

pytestmark = pytest.mark.usefixtures("thin")
NARROW = {
    "resnet18_c4": ["backbone.box_size=4", "dataset.rois=16"],
    "resnet18_small_fpn": ["dataset.rois=32", "dataset.rpn.test.post_nms_topk=40"],
}
KINDS = [
    ("faster_rcnn", "resnet18_small_fpn", StandardHeads),
    ("cascade_rcnn", "resnet18_small_fpn", CascadeHeads),
    ("faster_rcnn", "resnet18_c4", C4Heads),
]


class AgeOutput:
    name, key, needs = "age", "age", "age"

    def __call__(self, objects: Objects, size: Size) -> list[Any]:
        del size
        return [float(age) for age in objects.extra["age"]]


class AgeHead(FurtherHead):
    """Regress a number of each object, which is its class's in `Target.extra`."""

    needs: ClassVar[tuple[str, ...]] = ("age",)

    def __init__(self, channels: int, pooler: Pooler | None = None, output: Output | None = None) -> None:
        super().__init__(pooler, output)
        self.regress = nn.Linear(channels, 1)
        self.seen: list[Positives] = []

    def _age(self, pooled: Tensor) -> Tensor:
        return self.regress(pooled.mean((2, 3)))[:, 0]

    def loss(self, pooled: Tensor, positives: Positives) -> dict[str, Tensor]:
        self.seen.append(positives)
        age = torch.cat([t.extra["age"][m] for t, m in zip(positives.targets, positives.match, strict=True)])
        return {"age": (self._age(pooled) - age).square().sum() / max(len(age), 1)}

    def forward(self, pooled: Tensor, objects: Sequence[Objects]) -> list[Objects]:
        ages = torch.split(self._age(pooled), [len(o) for o in objects])
        return [replace(o, extra=o.extra | {"age": a}) for o, a in zip(objects, ages, strict=True)]


def detector(model: str, backbone: str, *overrides: str) -> RCNN:
    """A small detector; C4's widths are those of its thin ResNet."""
    widths = ["backbone.channels=64", "backbone.width=128"] if backbone == "resnet18_c4" else []
    return small_model(f"model={model}", f"backbone={backbone}", *widths, *NARROW[backbone], *overrides)


def model_with(model: str, backbone: str, **heads: FurtherHead) -> RCNN:
    built = detector(model, backbone)
    built.heads.further.update(heads)
    return built


def batch_with_ages(*counts: int) -> Batch:
    batch = random_batch(*counts)
    batch.targets = [replace(t, extra={"age": 1.0 + t.labels.float()}) for t in batch.targets]
    return batch


@pytest.mark.parametrize("own_pooler", [True, False], ids=["own pooler", "the box head's"])
@pytest.mark.parametrize(("name", "backbone", "kind"), KINDS, ids=[kind.__name__ for *_, kind in KINDS])
def test_a_further_head_trains_and_predicts(name: str, backbone: str, kind: type, own_pooler: bool) -> None:
    stride, channels = (16, 64) if kind is C4Heads else (8, 32)
    pooler = None
    if own_pooler:
        of = None if kind is C4Heads else [4, 8, 16, 32, 64]
        pooler = Pooler(ops.multiscale_roi_align, ops.assign_levels, 3, [stride], of)
    elif kind is C4Heads:
        channels = 128  # after the stage
    head = AgeHead(channels, pooler, AgeOutput())
    model = model_with(name, backbone, age=head)
    assert type(model.heads) is kind
    assert model.heads.outputs == [head.output]
    batch = batch_with_ages(3, 2)
    optimizer = torch.optim.Adam(head.parameters(), 1 / channels)
    history = []
    for _ in range(8):
        torch.manual_seed(0)
        losses = model.loss(batch)
        optimizer.zero_grad()
        losses["age"].backward()
        optimizer.step()
        history.append(float(losses["age"].detach()))
    assert {"box", "class"} <= {key.rstrip("123") for key in losses}
    assert history[-1] < 0.85 * history[0]
    for positives in head.seen:
        assert len(positives.labels) == sum(len(boxes) for boxes in positives.boxes) >= 5
        found = [t.labels[m] for t, m in zip(positives.targets, positives.match, strict=True)]
        assert torch.equal(torch.cat(found), positives.labels)
    with torch.inference_mode():
        found = confident(model)(batch)
    for objects, size in zip(found, batch.original_sizes, strict=True):
        assert len(objects) > 0
        assert objects.extra["age"].shape == (len(objects),)
        assert head.output is not None
        assert len(head.output(objects, size)) == len(objects)


def test_c4_runs_its_stage_once_on_each_roi_in_training() -> None:
    model = detector("mask_rcnn", "resnet18_c4")
    trunk = model.heads.box_head.trunk
    assert isinstance(trunk, StageTrunk)
    rois: list[int] = []
    trunk.stage.register_forward_pre_hook(lambda _, given: rois.append(len(given[0])))
    losses = model.loss(random_batch(3, 2))
    assert "mask" in losses
    assert rois == [2 * 16]
    assert sum(float(loss.detach()) > 0 for loss in losses.values()) == 5


def test_c4_runs_its_stage_once_on_all_detections() -> None:
    model = confident(model_with("faster_rcnn", "resnet18_c4", one=AgeHead(128), other=AgeHead(128)))
    rois: list[int] = []
    trunk = model.heads.box_head.trunk
    assert isinstance(trunk, StageTrunk)
    trunk.stage.register_forward_pre_hook(lambda _, given: rois.append(len(given[0])))
    with torch.inference_mode():
        found = model(random_batch(3, 2))
    assert len(rois) == 2  # for the box head, and for all further heads together
    assert rois[1] == sum(len(objects) for objects in found) > 0


@pytest.mark.parametrize(("name", "backbone", "kind"), KINDS, ids=[kind.__name__ for *_, kind in KINDS])
def test_further_heads_may_see_a_part_of_the_detections_at_a_time(name: str, backbone: str, kind: type) -> None:
    channels = 128 if kind is C4Heads else 32
    model = confident(model_with(name, backbone, age=AgeHead(channels)))
    results = []
    for size in (None, 7, 1):
        model.heads.detections_at_once = size
        with torch.inference_mode():
            results.append(model(random_batch(3, 2)))
    for whole, *others in zip(*results, strict=True):
        assert len(whole) > 7
        for objects in others:
            assert torch.equal(objects.boxes, whole.boxes)
            torch.testing.assert_close(objects.extra["age"], whole.extra["age"], rtol=1e-5, atol=1e-5)


def test_heads_run_in_their_order_and_share_no_names_of_losses() -> None:
    first, second = AgeHead(32), AgeHead(32)
    model = model_with("faster_rcnn", "resnet18_small_fpn", a=first, b=second)
    assert model.heads.outputs == []
    with pytest.raises(ValueError, match=r"further\.b: other heads have losses called age"):
        model.loss(batch_with_ages(2))


def test_what_a_head_is_trained_on_must_be_there() -> None:
    model = model_with("faster_rcnn", "resnet18_small_fpn", age=AgeHead(32))
    with pytest.raises(ValueError, match=r"further\.age \(AgeHead\) is trained on age, which this dataset"):
        model.loss(random_batch(2))


def test_c4_heads_need_a_stage() -> None:
    with pytest.raises(ValueError, match=r"must be a detector\.models\.c4\.StageTrunk, got TwoMLP"):
        small_model("backbone.heads=detector.models.c4.C4Heads")


def test_rfcn_has_no_further_heads() -> None:
    assert small_model("model=rfcn").heads.outputs == []
    mask = small_model("model=mask_rcnn").heads.outputs
    assert [(output.name, output.key, output.needs) for output in mask] == [("mask", "segmentation", "masks")]


def test_what_further_heads_add_is_moved_and_selected_with_the_rest() -> None:
    target = batch_with_ages(3).targets[0]
    assert target.select(torch.tensor([2, 0])).extra["age"].tolist() == target.extra["age"][[2, 0]].tolist()
    moved = target.to("meta")
    assert moved.extra["age"].device.type == moved.boxes.device.type == "meta"
    assert target.get("age") is target.extra["age"]
    assert target.get("masks") is target.masks
    assert target.get("keypoints") is None
    one = Objects(torch.zeros(1, 4), torch.zeros(1), torch.zeros(1), extra={"age": torch.ones(1)})
    assert one.to("meta").extra["age"].device.type == "meta"


def test_the_settings_name_their_heads() -> None:
    config = compose_config("model=mask_rcnn", "backbone=resnet18_c4")
    assert config.model.heads["_target_"] == "detector.models.c4.C4Heads"
    assert config.model.heads.further.mask.pooler is None
