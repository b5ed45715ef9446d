"""Loading weights: predictors follow the class names, or stay random for other classes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detector import weights
from detector.config import build
from detector.config.resolve import with_classes
from detector.evaluation import Collector
from detector.evaluation.coco import CocoMetric
from detector.models.rcnn import RCNN
from detector.types import Batch, Objects
from detector.weights import PretrainedWeights
from detector.weights.checkpoints import FORMAT, portable_config
from detector.weights.loading import PRIOR
from tests.conftest import CLASSES, compose_config, confident, small_model

PREDICTORS = ["heads.box_head.classify", "heads.box_head.regress", "heads.further.mask.predictor.10"]


def model_of(classes: Sequence[str], *overrides: str, seed: int = 0) -> RCNN:
    config = compose_config("model=mask_rcnn", "backbone.channels=32", "backbone.width=64", *overrides)
    torch.manual_seed(seed)
    return build.build_model(with_classes(config, classes))


def pretrained_of(model: RCNN, classes: list[str] | None, conventions: Sequence[str] = ()) -> PretrainedWeights:
    state = {k: v.clone() for k, v in model.state_dict().items()}
    for name in PREDICTORS:  # biases are zero at first, and would all look alike
        if f"{name}.bias" in state:
            state[f"{name}.bias"] = torch.arange(float(len(state[f"{name}.bias"])))
    return PretrainedWeights(state, list(conventions), classes, "file.pth")


def differences(model: RCNN, state: dict[str, Tensor]) -> list[str]:
    """List the layers whose tensors differ from `state`."""
    own = model.state_dict()
    assert own.keys() == state.keys()
    return sorted({k.rpartition(".")[0] for k in own if own[k].shape != state[k].shape or not own[k].equal(state[k])})


@pytest.mark.parametrize("names", [None, CLASSES, ["a", "N/A", "b", "N/A"]])
def test_same_classes_load_every_tensor(names: list[str] | None) -> None:
    pretrained = pretrained_of(model_of(CLASSES, seed=1), names)
    model = model_of(CLASSES, seed=2)
    assert differences(model, pretrained.state)
    report = weights.load_weights(model, pretrained, names or CLASSES)
    assert differences(model, pretrained.state) == []
    assert str(report) == f"weights: {len(pretrained.state)} tensors from file.pth"


@pytest.mark.parametrize("head", [[], ["mask_head=mlp"], ["mask_loss=softmax"]], ids=str)
def test_predictor_rows_are_reordered_by_class_name(head: list[str]) -> None:
    theirs = ["N/A", "star", "circle", "N/A", "ring", "square"]
    pretrained = pretrained_of(model_of(theirs, *head, seed=1), theirs)
    model = model_of(CLASSES, *head, seed=2)
    report = weights.load_weights(model, pretrained, CLASSES)
    assert report.reinitialized == []
    own = model.state_dict()
    rows = [theirs.index(name) for name in CLASSES]
    for leaf in ("weight", "bias"):
        given = pretrained.state[f"heads.box_head.classify.{leaf}"]
        assert own[f"heads.box_head.classify.{leaf}"].equal(torch.stack([given[i] for i in [*rows, 6]]))
        given = pretrained.state[f"heads.box_head.regress.{leaf}"]
        assert own[f"heads.box_head.regress.{leaf}"].equal(torch.cat([given[4 * i : 4 * i + 4] for i in rows]))
    last = "heads.further.mask.predictor." + ("4" if "mask_head=mlp" in head else "10")
    given, cells = pretrained.state[f"{last}.weight"], 784 if "mask_head=mlp" in head else 1
    assert own[f"{last}.weight"].equal(torch.cat([given[cells * i : cells * i + cells] for i in rows]))
    changed = differences(model, own | {k: v for k, v in pretrained.state.items() if v.shape == own[k].shape})
    assert set(changed) <= {*PREDICTORS, last}


@pytest.mark.parametrize(
    ("theirs", "ours", "reason"),
    [
        (list("abcde"), ["x", "y", "z"], "3 classes instead of 5"),
        (None, ["x", "y", "z"], "3 classes instead of 5"),
        (["a", "N/A", "c", "N/A", "e"], list("xyz"), r"other classes (x, y, z instead of a, c, e)"),
        (list("abcde"), ["x"], "1 classes instead of 5"),
    ],
)
def test_predictors_of_other_classes_stay_random(theirs: list[str] | None, ours: list[str], reason: str) -> None:
    pretrained = pretrained_of(model_of([str(i) for i in range(5)], seed=1), theirs)
    model = model_of(ours, seed=2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report = weights.load_weights(model, pretrained, ours)
    assert report.reinitialized == PREDICTORS
    assert str(report) == (
        f"weights: {len(pretrained.state) - 6} tensors from file.pth; randomly initialized for {reason}: "
        + ", ".join(PREDICTORS)
    )
    assert differences(model, pretrained.state) == PREDICTORS
    assert all(model.state_dict()[f"{name}.weight"].equal(before[f"{name}.weight"]) for name in PREDICTORS)


@pytest.mark.parametrize(
    ("theirs", "ours", "rows", "line"),
    [
        (["a", "N/A", "c", "N/A", "e"], list("ecb"), [4, 2, None], "; rows kept of e, c; new rows of b"),
        (["a", "b", "c", "N/A", "N/A"], list("ba"), [1, 0], "; rows kept of b, a"),
        (list("abcde"), ["d"], [3], "; rows kept of d"),
        (["a"], list("cab"), [None, 0, None], "; rows kept of a; new rows of c, b"),
    ],
)
def test_rows_of_shared_names_are_kept(theirs: list[str], ours: list[str], rows: list[int | None], line: str) -> None:
    pretrained = pretrained_of(model_of([str(i) for i in range(len(theirs))], seed=1), theirs)
    model = model_of(ours, seed=2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report = weights.load_weights(model, pretrained, ours)
    assert report.reinitialized == []
    assert str(report) == f"weights: {len(pretrained.state)} tensors from file.pth{line}"
    own = model.state_dict()
    for layer, each in (*zip(PREDICTORS, (1, 4, 1), strict=True),):
        for leaf in ("weight", "bias"):
            given, made, first = (s[f"{layer}.{leaf}"] for s in (pretrained.state, own, before))
            for label, row in enumerate(rows):
                part = made[label * each : (label + 1) * each]
                if row is not None:
                    assert part.equal(given[row * each : (row + 1) * each])
                elif layer == PREDICTORS[0]:
                    fewer = 0.0 if leaf == "weight" else math.log(rows.count(None) / PRIOR)
                    assert part.equal(given[-1:] - fewer)
                else:
                    assert part.equal(first[label * each : (label + 1) * each])
            if layer == PREDICTORS[0]:
                assert made[-1].equal(given[-1])
    assert set(differences(model, own | {k: v for k, v in pretrained.state.items() if v.shape == own[k].shape})) <= {
        *PREDICTORS
    }


def average_precisions(found: Sequence[Objects], classes: Sequence[str], annotations: Any) -> dict[str, float]:
    """The AP of each class; its category id is its place in `KNOWN`."""
    ids = [KNOWN.index(name) for name in classes]
    images = [{"id": i, "height": 64, "width": 96} for i in range(len(found))]
    categories = [{"id": number, "name": name} for number, name in zip(ids, classes, strict=True)]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    collector = Collector(truth, ids, (8, 20))
    collector.update([0, 1], list(found), [(64, 96)] * 2)
    return {k.rpartition("/")[2]: v for k, v in CocoMetric(collector).results().items() if k.startswith("box/AP/")}


KNOWN = [*CLASSES, "new", "newer"]


@pytest.mark.parametrize("kind", ["model=mask_rcnn", "model=cascade_mask_rcnn", "model=rfcn"])
def test_shared_classes_have_the_ap_that_they_had(kind: str) -> None:
    former = confident(model_of(CLASSES, kind, seed=1))
    ours = [CLASSES[2], "new", CLASSES[0], CLASSES[3], "newer", CLASSES[1]]
    model = model_of(ours, kind, seed=2)
    state = {k: v.clone() for k, v in former.state_dict().items()}
    weights.load_weights(model, PretrainedWeights(state, [], list(CLASSES), "file.pth"), ours)
    images = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    batch = Batch(images, [(64, 96)] * 2, [(64, 96)] * 2, [0, 1], [])
    with torch.inference_mode():
        before, after = former(batch), model.eval()(batch)
    annotations = []
    for image, found in enumerate(before):
        labels = [torch.tensor([KNOWN.index(names[i]) for i in objects.labels.tolist()]).float()
                  for objects, names in ((found, CLASSES), (after[image], ours))]  # fmt: skip
        keys = [torch.cat((objects.boxes, 1000 * own[:, None]), 1) for objects, own in
                zip((found, after[image]), labels, strict=True)]  # fmt: skip
        now = torch.cdist(*keys).argmin(1)  # nearly equal scores may change their order
        assert sorted(now.tolist()) == list(range(len(keys[1])))
        assert labels[1][now].equal(labels[0])
        torch.testing.assert_close(after[image].boxes[now], found.boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(after[image].scores[now], found.scores, rtol=2 * PRIOR, atol=0)
        for (x1, y1, x2, y2), label in zip(found.boxes[1::2].tolist(), found.labels[1::2].tolist(), strict=True):
            box, number = [x1, y1, x2 - x1, y2 - y1], len(annotations) + 1
            annotation = {"id": number, "image_id": image, "category_id": label, "bbox": box, "iscrowd": 0}
            annotations.append(annotation | {"area": box[2] * box[3]})
    wanted = average_precisions(before, CLASSES, annotations)
    assert 0 < max(wanted.values()) < 1
    measured = average_precisions(after, ours, annotations)
    assert {name: measured[name] for name in wanted} == wanted


@pytest.mark.parametrize("mask", ["fcn", "mlp"])
def test_class_agnostic_layers_are_loaded_for_other_classes(mask: str) -> None:
    options = ["model.heads.box_head.cls_agnostic_bbox_reg=true", "mask_loss=class_agnostic", f"mask_head={mask}"]
    pretrained = pretrained_of(model_of(list("abcde"), *options, seed=1), list("abcde"))
    model = model_of(["x", "y"], *options, seed=2)
    assert weights.load_weights(model, pretrained, ["x", "y"]).reinitialized == PREDICTORS[:1]
    assert differences(model, pretrained.state) == PREDICTORS[:1]
    model = model_of(["b", "a", "d", "c", "e"], *options, seed=2)
    assert weights.load_weights(model, pretrained, ["b", "a", "d", "c", "e"]).reinitialized == []
    assert differences(model, pretrained.state) == PREDICTORS[:1]  # in another order


def test_predictors_of_another_kind_are_allowed_for_other_classes_only() -> None:
    pretrained = pretrained_of(model_of(list("abc"), seed=1), list("abc"))
    model = model_of(["x", "y"], "model.heads.box_head.cls_agnostic_bbox_reg=true", "mask_loss=class_agnostic", seed=2)
    assert weights.load_weights(model, pretrained, ["x", "y"]).reinitialized == PREDICTORS
    model = model_of(list("abc"), "mask_loss=class_agnostic", seed=2)
    with pytest.raises(ValueError, match=r"predictor\.10\.bias is \[3\] and the model's \[1\]"):
        weights.load_weights(model, pretrained, list("abc"))


def test_num_batches_tracked_may_be_missing_or_left_over() -> None:
    counted = model_of(CLASSES, seed=1)
    uncounted = pretrained_of(counted, None)
    for key in [k for k in uncounted.state if k.endswith("num_batches_tracked")]:
        del uncounted.state[key]
    model = model_of(CLASSES, seed=2)
    assert weights.load_weights(model, uncounted, CLASSES).loaded == len(uncounted.state) < len(model.state_dict())
    assert differences(model, pretrained_of(counted, None).state | uncounted.state) == []
    frozen = model_of(CLASSES, "norm=frozen", "backbone.fpn_norm=null", seed=2)
    pretrained = pretrained_of(model_of(CLASSES, "backbone.fpn_norm=null", seed=1), None)
    assert weights.load_weights(frozen, pretrained, CLASSES).loaded == len(frozen.state_dict()) < len(pretrained.state)


def test_mismatched_tensors_are_named_with_the_way_out() -> None:
    conventions = ["experiment=detectron2_fpn", "model=mask_rcnn"]
    pretrained = pretrained_of(model_of(CLASSES), CLASSES, conventions)
    with pytest.raises(
        ValueError, match=r"12 left over \(heads\.further\.mask.*they need experiment=detectron2_fpn model="
    ):
        weights.load_weights(small_model("model=faster_rcnn"), pretrained, CLASSES)
    fewer = pretrained_of(model_of(CLASSES), CLASSES)
    for key in [k for k in fewer.state if k.startswith("heads.further.mask.predictor.") and "10" not in k]:
        del fewer.state[key]
    with pytest.raises(
        ValueError, match=r"10 tensors missing \(heads\.further\.mask.*train with the configuration of the run"
    ):
        weights.load_weights(model_of(CLASSES), fewer, CLASSES)
    with pytest.raises(
        ValueError, match=r"6 of another shape .*classify\.weight is \[5, 64\] and the model's \[5, 48\]"
    ):
        weights.load_weights(model_of(CLASSES, "backbone.width=48"), pretrained, CLASSES)


@pytest.mark.parametrize("classes", [CLASSES, ["a", "b"]], ids=["the same classes", "other classes"])
def test_a_further_head_that_the_weights_lack_stays_random(classes: list[str]) -> None:
    pretrained = pretrained_of(small_model("model=faster_rcnn"), CLASSES)
    model = model_of(classes, seed=2)
    before = {k: v.clone() for k, v in model.state_dict().items() if k.startswith("heads.further.mask.")}
    report = weights.load_weights(model, pretrained, classes)
    assert report.added == ["heads.further.mask"]
    assert str(report).endswith("; randomly initialized, since the weights have no such head: heads.further.mask")
    assert not any("further" in name for name in report.reinitialized)
    state = model.state_dict()
    assert len(before) == 12
    assert all(state[key].equal(value) for key, value in before.items())
    lateral = next(key for key in state if key.startswith("backbone.lateral."))
    assert state[lateral].equal(pretrained.state[lateral])
    assert bool(report.reinitialized) is (classes != CLASSES)


def test_checkpoints_of_this_project_are_read_and_loaded(tmp_path: Path) -> None:
    config = with_classes(compose_config("backbone.channels=32", "backbone.width=64"), CLASSES)
    torch.manual_seed(3)
    trained = build.build_model(config)
    content = {
        "state_dict": {f"model.{k}": v for k, v in trained.state_dict().items()},
        "aligned_rcnn": {"format": FORMAT, "config": portable_config(config)},
    }
    for name in ("last.ckpt", "renamed.pth"):
        torch.save(content, tmp_path / name)
        pretrained = weights.read_weights(str(tmp_path / name))
        assert (pretrained.classes, pretrained.conventions) == (CLASSES, [])
        model = small_model(seed=4)
        assert weights.load_weights(model, pretrained, CLASSES).reinitialized == []
        assert differences(model, trained.state_dict()) == []


def test_damaged_and_hostile_torch_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"model": torch.nn.Linear(2, 2)}, path)
    with pytest.raises(ValueError, match=r"x\.pth.*cannot be read as data"):
        weights.read_weights(str(path))
    torch.save({"model": {"a": torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"x\.pth.*cannot be read as data"):
        weights.read_weights(str(path))
    for content, words in ([torch.zeros(2)], "dictionary"), ({"epoch": 3}, "no state dict"), ({}, "no state dict"):
        torch.save(content, path)
        with pytest.raises(ValueError, match=words):
            weights.read_weights(str(path))
    torch.save({"conv1.weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="neither Faster nor Mask R-CNN"):
        weights.read_weights(str(path))


KINDS = {
    "model=cascade_rcnn": ["heads.box_head.classify", *(f"heads.later.{i}.box_head.classify" for i in (0, 1))],
    "model=rfcn": ["heads.maps.classify"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_classifiers_are_reordered_by_class_name(kind: str) -> None:
    theirs = ["star", "circle", "ring", "square"]
    pretrained = pretrained_of(model_of(theirs, kind, seed=1), theirs)
    model = model_of(CLASSES, kind, seed=2)
    assert weights.load_weights(model, pretrained, CLASSES).reinitialized == []
    rows = [*(theirs.index(name) for name in CLASSES), 4]
    for layer in KINDS[kind]:
        given, own = pretrained.state[f"{layer}.weight"], model.state_dict()[f"{layer}.weight"]
        assert own.unflatten(0, (5, -1)).equal(given.unflatten(0, (5, -1))[rows])
    assert set(differences(model, pretrained.state)) == set(KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_all_classifiers_stay_random_for_other_classes(kind: str) -> None:
    pretrained = pretrained_of(model_of(["a", "b"], kind, seed=1), ["a", "b"])
    model = model_of(CLASSES, kind, seed=2)
    assert weights.load_weights(model, pretrained, CLASSES).reinitialized == KINDS[kind]
    assert differences(model, pretrained.state) == KINDS[kind]


def test_a_model_without_an_rpn_keeps_its_proposer() -> None:
    pretrained = pretrained_of(model_of(CLASSES, seed=1), list(CLASSES))
    model = model_of(CLASSES, "model/proposer=given", seed=2)
    report = weights.load_weights(model, pretrained, CLASSES)
    rest = {k: v for k, v in pretrained.state.items() if not k.startswith("proposer.")}
    assert differences(model, rest) == []
    assert report.reinitialized == []
