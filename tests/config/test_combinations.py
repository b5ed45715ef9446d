"""All combinations of config groups build, or are refused with the reason."""

import json
import re
from functools import cache
from itertools import combinations, product

import omegaconf
import pytest
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from detector.config import build
from detector.config.resolve import with_classes
from detector.evaluation import CocoMetric, Collector
from detector.models import resnet
from detector.types import Batch
from tests.conftest import CLASSES, ROOT, compose_config, random_batch

GROUPS = ("model", "backbone", "pooler", "mask_loss", "mask_head", "box_loss", "norm", "assignment")
CHOICES = {group: sorted(p.stem for p in (ROOT / "configs" / group).glob("*.yaml")) for group in GROUPS}
MASKS = ("mask_rcnn", "fast_mask_rcnn", "cascade_mask_rcnn")
NO_VOTE = ("roialign_max", "roialign_legacy", "roiwarp", "roicrop", "crop_and_resize")
KINDS = ("resnet18_small_fpn", "resnet18_c4", "resnet18_c5", "resnet18_dc5", "vgg16", "extracted_fpn")
"""The smallest backbone of each kind."""


CHANNELS = {
    "resnet18_small_fpn": 32,
    "resnet18_c4": 64,
    "resnet18_c5": 128,
    "resnet18_dc5": 128,
    "vgg16": 128,
    "extracted_fpn": 32,
}
"""Of the features of thin bodies."""


def refusal(choice: dict[str, str]) -> str | None:
    """Return the message that refuses an impossible combination; None for the possible ones."""
    shared_stage = choice["backbone"].endswith("_c4")
    if choice["model"] == "rfcn" and choice["pooler"] in NO_VOTE and not shared_stage:
        return "use pooler=roialign, roialign_adaptive or roipool"
    if choice["model"] in ("rfcn", "cascade_rcnn", "cascade_mask_rcnn") and shared_stage:
        return "use a backbone with FPN, C5 or DC5"
    pyramid = choice["backbone"].endswith("_fpn") and choice["backbone"] != "extracted_fpn"
    if choice.get("assignment") == "rfla" and not pyramid and not choice["model"].startswith("fast_"):
        return "use assignment=rfla_anchors"
    return None


@cache
def node(group: str, name: str) -> DictConfig:
    """Take a choice of one group from a composition of choices of all: the groups are independent of each other."""
    place = CHOICES[group].index(name)
    node: DictConfig = compose_config(*(f"{g}={names[place % len(names)]}" for g, names in CHOICES.items()))[group]
    return node


def choose(config: DictConfig, choice: dict[str, str]) -> None:
    """Replace the nodes of groups by copies of others."""
    with open_dict(config):
        for group, name in choice.items():
            config[group] = node(group, name)


def combined(choice: dict[str, str]) -> DictConfig:
    config = compose_config()
    choose(config, choice)
    return with_classes(config, CLASSES)


def given_proposals(batch: Batch) -> Batch:
    """Add proposals to the batch: shifted ground-truth boxes, and random ones."""
    generator = torch.Generator().manual_seed(1)
    batch.proposals = []
    for target in batch.targets:
        corner = 80 * torch.rand(20, 2, generator=generator)
        others = torch.cat((corner, corner + 10 + 30 * torch.rand(20, 2, generator=generator)), 1)
        batch.proposals.append(torch.cat((target.boxes + 2, others)))
    return batch


def test_groups_are_independent() -> None:
    choice = {"model": "cascade_mask_rcnn", "backbone": "vgg16", "pooler": "roiwarp", "mask_loss": "softmax"}
    choice |= {"mask_head": "mlp", "box_loss": "giou", "norm": "group"}
    composed = compose_config(*(f"{group}={name}" for group, name in choice.items()))
    assert combined(choice) == with_classes(composed, CLASSES)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse each interpolation once, draw no weights, and build each ResNet once: res5 is in all heads on its C4."""
    monkeypatch.setattr(omegaconf.base, "parse", cache(omegaconf.base.parse))
    for draw in ("normal_", "uniform_"):  # without effect on the meta device
        monkeypatch.setattr(torch.Tensor, draw, lambda tensor, *arguments, **options: tensor)
    build, built = resnet._network, {}

    def network(name: str, norm: resnet.Norm, *options: object) -> nn.Module:
        if (name, *options) not in built:
            built[name, *options] = build(name, norm, *options)
        return built[name, *options]

    monkeypatch.setattr(resnet, "_network", network)


@pytest.mark.slow(minutes=1)
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("model", CHOICES["model"])
def test_all_combinations_build_or_are_refused(model: str) -> None:
    losses = CHOICES["mask_loss"] if model in MASKS else ["sigmoid"]
    count = refused = 0
    results: dict[str, str | None] = {}
    for pooler in CHOICES["pooler"]:
        config = combined({"model": model, "pooler": pooler})
        # Each backbone is built by test_configs; here it would be the same hundred times.
        config.model.backbone = OmegaConf.create({"_target_": "torch.nn.Identity"})
        for backbone, mask_loss in product(CHOICES["backbone"], losses):
            choose(config, {"backbone": backbone, "mask_loss": mask_loss})
            count += 1
            message = refusal({"model": model, "backbone": backbone, "pooler": pooler})
            refused += message is not None
            # Backbones that give the heads the same are built once.
            seen = [config.backbone.get("heads"), OmegaConf.to_container(config.model, resolve=True)]
            if (key := json.dumps(seen, sort_keys=True)) in results:
                assert results[key] == message
                continue
            results[key] = message
            with torch.device("meta"):
                if message is None:
                    detector = build.build_model(config)
                    assert sum(p.numel() for p in detector.heads.parameters()) > 0
                else:
                    with pytest.raises(ValueError, match=re.escape(message)):
                        build.build_model(config)
    assert count == len(CHOICES["backbone"]) * len(CHOICES["pooler"]) * len(losses)
    assert (refused > 0) is (model == "rfcn" or model.startswith("cascade"))


def covering() -> list[dict[str, str]]:
    """Select few combinations that together contain each pair of choices, except the refused ones."""
    choices = CHOICES | {"backbone": list(KINDS)}
    usual = {"model": "faster_rcnn", "backbone": KINDS[0], "pooler": "roialign"}
    left = {
        frozenset(((a, x), (b, y)))
        for a, b in combinations(GROUPS, 2)
        for x, y in product(choices[a], choices[b])
        if refusal(usual | {a: x, b: y}) is None
    }
    chosen = []
    while left:
        row = dict(min(left, key=sorted))
        for group in (g for g in GROUPS if g not in row):
            allowed = [name for name in choices[group] if refusal(usual | row | {group: name}) is None]
            new = {name: sum(frozenset(((group, name), pair)) in left for pair in row.items()) for name in allowed}
            row[group] = max(new, key=lambda name: new[name])
        met = {frozenset(pair) for pair in combinations(row.items(), 2)}
        assert met & left, f"{row} adds nothing"
        left -= met
        chosen.append(row)
    return chosen


@pytest.mark.slow(minutes=1)
@pytest.mark.usefixtures("thin")
def test_pairwise_combinations_train_and_evaluate() -> None:
    rows = covering()
    assert {(row["model"], row["backbone"]) for row in rows} >= {("rfcn", "vgg16"), ("fast_mask_rcnn", "resnet18_c4")}
    batch = given_proposals(random_batch(3, 1, size=(64, 96)))
    for row in rows:
        config = combined(row)
        with open_dict(config):
            if row["norm"] == "group":
                config.norm.groups = 8  # of which all layers have a multiple
            config.backbone.channels = CHANNELS[row["backbone"]]
            config.backbone.width = 128 if row["backbone"].endswith("_c4") else 32
            config.mask_head.width = 32
            config.dataset.detections = 10
            config.dataset.rpn.train.post_nms_topk = config.dataset.rpn.test.post_nms_topk = config.dataset.rois = 16
        torch.manual_seed(0)
        model = build.build_model(config)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-3)
        for _ in range(2):
            losses = model.loss(batch)
            total = torch.stack(list(losses.values())).sum()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            assert total.isfinite(), row
        with torch.inference_mode():
            found = model.eval()(batch)
        assert len(found) == 2
        truth = {
            "images": [{"id": i, "height": 64, "width": 96} for i in batch.ids],
            "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}],
            "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
        }
        collector = Collector(truth, list(range(len(CLASSES))))
        collector.update(batch.ids, found, batch.original_sizes)
        assert 0 <= CocoMetric(collector).results()["box/AP"] <= 1
        assert all(o.masks is not None for o in found) is (row["model"] in MASKS), row
