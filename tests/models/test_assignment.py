"""Assignment by NWD and by receptive fields, beside rules written out box by box in Python."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from detector.config import build
from detector.config.resolve import with_classes
from detector.models.nwd import NWDMatcher
from detector.models.rfla import RFLAMatcher, effective_receptive_fields, shrink
from detector.types import Target
from tests.conftest import CLASSES, ROOT, compose_config, random_batch

ASSIGNMENTS = sorted(path.stem for path in (ROOT / "configs" / "assignment").glob("*.yaml"))


def case(seed: int) -> tuple[Tensor, Target]:
    """Draw boxes [N, 4] and objects of 2 to 30 px, float64, some of them crowd regions; no two distances are equal."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> Tensor:
        side = 2 * (2.7 * torch.rand(count, 2, generator=generator, dtype=torch.float64)).exp()
        corner = 30 * torch.rand(count, 2, generator=generator, dtype=torch.float64)
        return torch.cat((corner, corner + side), 1)

    objects, boxes = draw(seed % 12), draw(5 + 7 * (seed % 19))
    crowd = torch.rand(len(objects), generator=generator) < (0.0, 0.0, 0.3)[seed % 3]
    return boxes, Target(objects, torch.zeros(len(objects), dtype=torch.int64), crowd, ~crowd & False)


def one_object(box: list[float]) -> Target:
    """Return the ground truth of an image with one object."""
    flag = torch.zeros(1, dtype=torch.bool)
    return Target(torch.tensor([box]), torch.zeros(1, dtype=torch.int64), flag, flag)


def centre(box: list[float]) -> tuple[float, float, float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]


def nwd(box: list[float], other: list[float], constant: float) -> float:
    """Compute the NWD by the paper's equations 6 and 7: the distance of the vectors (cx, cy, w / 2, h / 2)."""
    a, b = ([x, y, w / 2, h / 2] for x, y, w, h in (centre(box), centre(other)))
    return math.exp(-math.dist(a, b) / constant)


def rfd(box: list[float], other: list[float]) -> float:
    """Compute the receptive field distance of a box from an object: divergences along the two axes add up."""
    (x, y, w, h), (ox, oy, ow, oh) = centre(box), centre(other)
    divergence = 0.0
    for mean, side, other_mean, other_side in ((x, w, ox, ow), (y, h, oy, oh)):
        own, of_object = (side / 2) ** 2, (other_side / 2) ** 2
        divergence += (own / of_object + (mean - other_mean) ** 2 / of_object - 1 + math.log(of_object / own)) / 2
    return 1 / (1 + divergence)


def covered(box: list[float], target: Target) -> float:
    """Return the largest share of a box within a crowd region."""
    shares = [0.0]
    for other in target.boxes[target.crowd].tolist():
        width, height = (min(box[i + 2], other[i + 2]) - max(box[i], other[i]) for i in (0, 1))
        shares.append(max(width, 0) * max(height, 0) / ((box[2] - box[0]) * (box[3] - box[1])))
    return max(shares)


def labels(matches: Any) -> list[Any]:
    """Return for each box the object it is positive for, "negative" or "ignored"."""
    assert not (matches.positive & matches.negative).any()
    rows = zip(matches.index.tolist(), matches.positive.tolist(), matches.negative.tolist(), strict=True)
    return [index if positive else "negative" if negative else "ignored" for index, positive, negative in rows]


@pytest.mark.parametrize("low_quality", [False, True])
def test_nwd_equals_its_rule_box_by_box(low_quality: bool) -> None:
    kinds: dict[Any, int] = {"negative": 0, "ignored": 0, "positive": 0, "low": 0}
    for seed in range(200):
        boxes, target = case(seed)
        real = [i for i in range(len(target)) if not target.crowd[i]]
        table = [[nwd(box, target.boxes[i].tolist(), 9.0) for i in real] for box in boxes.tolist()]
        expected: list[Any] = []
        for n, box in enumerate(boxes.tolist()):
            best = max(table[n], default=0.0)
            own = real[table[n].index(best)] if real else 0
            nearest = any(table[n][g] == max(row[g] for row in table) for g in range(len(real)))
            if best >= 0.7 or (low_quality and nearest and best >= 0.3):
                expected.append(own)
                kinds["positive"] += 1
                kinds["low"] += best < 0.7
            else:
                negative = best < 0.3 and covered(box, target) < 0.5
                expected.append("negative" if negative else "ignored")
                kinds[expected[-1]] += 1
        assert labels(NWDMatcher(9.0, 0.7, 0.3, low_quality)(boxes, target)) == expected, seed
    assert min(kinds["negative"], kinds["ignored"], kinds["positive"]) > 200
    assert (kinds["low"] > 50) is low_quality


def test_rfla_equals_its_rule_box_by_box() -> None:
    kinds: dict[Any, int] = {"negative": 0, "ignored": 0, "first": 0, "second": 0, "several": 0}
    for seed in range(200):
        boxes, target = case(seed)
        topk = (1 + seed % 3, 1)
        rounds = []
        for some in (boxes.tolist(), shrink(boxes, 0.5).tolist()):
            rows = {
                i: [rfd(box, o) for box in some] for i, o in enumerate(target.boxes.tolist()) if not target.crowd[i]
            }
            rounds.append(rows)
        expected: list[Any] = []
        for n, box in enumerate(boxes.tolist()):
            chosen: Any = None
            for name, rows, k in zip(("first", "second"), rounds, topk, strict=True):
                near = {i: row[n] for i, row in rows.items() if row[n] >= sorted(row)[-min(k, len(row))]}
                if near and chosen is None:
                    chosen = max(near, key=lambda i: near[i])
                    kinds[name] += 1
                    kinds["several"] += len(near) > 1
            if chosen is None:
                far = max((row[n] for row in rounds[1].values()), default=0.0) < 0.6
                chosen = "negative" if far and covered(box, target) < 0.5 else "ignored"
                kinds[chosen] += 1
            expected.append(chosen)
        matcher = RFLAMatcher(topk, decay=0.5, ignore_threshold=0.6)
        assert labels(matcher(boxes, target)) == expected, seed
    assert min(kinds.values()) > 50, kinds


def test_the_receptive_field_distance_is_that_of_normal_distributions() -> None:
    boxes, target = case(11)

    def normal(box: list[float]) -> torch.distributions.MultivariateNormal:
        x, y, w, h = torch.tensor(centre(box), dtype=torch.float64)
        return torch.distributions.MultivariateNormal(torch.stack((x, y)), torch.diag(torch.stack((w, h)) ** 2 / 4))

    for box in boxes.tolist()[:5]:
        for other in target.boxes.tolist():
            divergence = float(torch.distributions.kl_divergence(normal(box), normal(other)))
            assert rfd(box, other) == pytest.approx(1 / (1 + divergence))


def test_nwd_takes_what_does_not_overlap() -> None:
    """An object of 4 px between the anchors of a grid has IoU 0 with all, and the NWD of its distance."""
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [8.0, 0.0, 12.0, 4.0], [40.0, 0.0, 44.0, 4.0]])
    target = one_object([4.0, 0.0, 8.0, 4.0])
    assert labels(NWDMatcher(12.8, 0.7, 0.3)(boxes, target)) == [0, 0, "negative"]  # exp(-4 / 12.8) = 0.73
    assert labels(NWDMatcher(10.0, 0.7, 0.3)(boxes, target)) == ["ignored", "ignored", "negative"]
    assert labels(NWDMatcher(10.0, 0.7, 0.3, True)(boxes, target)) == [0, 0, "negative"]
    assert labels(NWDMatcher(3.0, 0.7, 0.3, True)(boxes, target)) == ["negative", "negative", "negative"]


def test_every_object_gets_receptive_fields() -> None:
    """An object of 2 px in anchors of 16 has an IoU of 1/64 at most; the ranking does not ask how near they are."""
    boxes = torch.tensor([[float(x), 0.0, x + 16.0, 16.0] for x in range(0, 64, 8)])
    found = labels(RFLAMatcher()(boxes, one_object([27.0, 7.0, 29.0, 9.0])))
    assert found == ["negative", 0, 0, 0, 0, "negative", "negative", "negative"]  # the third and fourth are as near


@pytest.mark.parametrize("matcher", [NWDMatcher(12.8, 0.7, 0.3), RFLAMatcher()], ids=["nwd", "rfla"])
def test_without_objects_all_is_background(matcher: Any) -> None:
    boxes, target = case(0)
    assert labels(matcher(boxes, target)) == ["negative"] * len(boxes)
    boxes, target = case(2)
    target.crowd[:] = True
    found = matcher(boxes, target)
    assert not found.positive.any()
    assert found.index.tolist() == [0] * len(boxes)


def test_receptive_fields_of_a_resnet50_are_the_authors() -> None:
    strides = [4, 8, 16, 32, 64]
    assert effective_receptive_fields("resnet50", 4, strides, 1.0) == [35, 91, 267, 427, 555]
    assert effective_receptive_fields("resnet101", 4, strides) == [17.5, 45.5, 405.5, 485.5, 549.5]
    # Two 3x3 convolutions in each block: 11 + 2 * 4, then 1 * 4 + 1 * 8, then 1 * 8 + 1 * 16, twice each.
    assert effective_receptive_fields("resnet10", 3, strides, 1.0) == [27, 51, 99, 99 + 64, 99 + 64 + 128]


@pytest.mark.parametrize(
    ("build_one", "message"),
    [
        (lambda: NWDMatcher(12.8, 0.3, 0.7), r"0 < low_threshold <= high_threshold <= 1.*low_threshold=0\.7"),
        (lambda: NWDMatcher(0.0, 0.7, 0.3), "constant is the size of the objects in pixels, above 0, got 0"),
        (lambda: RFLAMatcher((3,)), r"topk must be two whole numbers of boxes, from 1 to 16, got \[3\]"),
        (lambda: RFLAMatcher((3, 0)), r"from 1 to 16, got \[3, 0\]"),
        (lambda: RFLAMatcher((3, 17)), r"from 1 to 16, got \[3, 17\]"),
        (lambda: RFLAMatcher((1.5, 1)), r"two whole numbers of boxes, from 1 to 16, got \[1\.5, 1\]"),
        (lambda: RFLAMatcher(decay=1.5), r"at most 1, got decay=1\.5"),
        (lambda: effective_receptive_fields(None, None, [4, 8]), "use assignment=rfla_anchors"),
        (lambda: effective_receptive_fields("resnet50", 4, [16]), "use assignment=rfla_anchors"),
        (lambda: effective_receptive_fields("resnet50", 4, [4, 8], 0.0), r"fraction must be above 0, got 0\.0"),
    ],
)
def test_bad_numbers(build_one: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_one()


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("assignment", ASSIGNMENTS)
@pytest.mark.parametrize("model", ["faster_rcnn", "mask_rcnn", "cascade_rcnn", "rfcn"])
def test_losses_have_gradients(model: str, assignment: str) -> None:
    small = ["backbone.channels=16", "backbone.width=16", "dataset.rois=16"]
    config = with_classes(compose_config(f"model={model}", f"assignment={assignment}", *small), CLASSES)
    detector = build.build_model(config)
    losses = detector.loss(random_batch(2, size=(64, 96)))
    total = torch.stack(list(losses.values())).sum()
    assert total.isfinite()
    total.backward()
    for name in ("proposer.head.objectness.weight", "proposer.head.deltas.weight"):
        gradient = detector.get_parameter(name).grad
        assert gradient is not None
        assert gradient.abs().sum() > 0, name


@pytest.mark.usefixtures("thin")
def test_heads_take_any_assignment() -> None:
    """Proposals can be ranked, too, as anchors are."""
    heads = "assignment.heads={_target_: detector.models.rfla.RFLAMatcher, topk: [4, 1]}"
    small = ["backbone.channels=16", "backbone.width=16", "dataset.rois=16", "~assignment.heads", f"+{heads}"]
    detector = build.build_model(with_classes(compose_config(*small), CLASSES))
    assert isinstance(detector.heads.matcher, RFLAMatcher)
    losses = detector.loss(random_batch(2, size=(64, 96)))
    assert torch.stack(list(losses.values())).isfinite().all()
