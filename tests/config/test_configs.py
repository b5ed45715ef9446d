"""Every YAML file composes, and its objects can be built."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from detector.config import build
from detector.config.resolve import with_classes
from detector.types import Sample
from detector.weights.checkpoints import portable_config
from detector.weights.trust import check_targets
from tests.conftest import CLASSES, ROOT, compose_config, random_batch, random_target

CONFIGS = ROOT / "configs"
SHARED = ROOT.parent / "shared" / "data"


def choices(group: str) -> list[str]:
    return sorted(p.stem for p in (CONFIGS / group).glob("*.yaml"))


def complete(*overrides: str) -> DictConfig:
    return with_classes(compose_config(*overrides), CLASSES)


def test_every_folder_is_a_known_group() -> None:
    groups = {p.name for p in CONFIGS.iterdir() if p.is_dir()}
    assert groups == {
        *("dataset", "norm", "backbone", "pooler", "model", "schedule", "trainer", "logger", "experiment"),
        *("assignment", "box_loss", "mask_head", "mask_loss", "study", "hydra"),
    }
    assert {p.stem for p in CONFIGS.glob("*.yaml")} == {
        *("train", "evaluate", "predict", "export", "data", "proposals", "ablate", "alignment"),
        *("data_check", "data_convert", "data_show", "data_stats", "data_suggest"),
    }


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("pooler", choices("pooler"))
@pytest.mark.parametrize("model", choices("model"))
def test_models_and_poolers(model: str, pooler: str) -> None:
    small = ["backbone.channels=16", "backbone.width=16", "dataset.rois=16"]
    config = complete(f"model={model}", f"pooler={pooler}", *small)
    if model == "rfcn" and pooler not in ("roialign", "roialign_adaptive", "roipool"):
        with pytest.raises(ValueError, match="pooler=roialign, roialign_adaptive or roipool"):
            build.build_model(config)
        return
    detector = build.build_model(config)
    losses = detector.loss(random_batch(2, size=(64, 96), proposals=20))
    assert torch.stack(list(losses.values())).isfinite().all()


@pytest.mark.parametrize("backbone", choices("backbone"))
def test_backbones(backbone: str) -> None:
    config = complete(f"backbone={backbone}")
    batch = random_batch(1, size=(64, 96))
    with torch.device("meta"), torch.inference_mode():
        detector = build.build_model(config).eval()
        features = detector.features(replace(batch, images=batch.images.to("meta")))
    assert [f.shape[1] for f in features] == [config.backbone.channels] * len(config.backbone.strides)
    for feature, stride in zip(features, config.backbone.strides, strict=True):
        assert feature.shape[-2:] == (-(-64 // stride), -(-96 // stride))


@pytest.mark.parametrize("backbone", choices("backbone"))
def test_backbones_have_all_keys_that_others_refer_to(backbone: str) -> None:
    node = OmegaConf.to_container(complete(f"backbone={backbone}").backbone, resolve=True)
    assert isinstance(node, dict)
    sizes = [size if isinstance(size, list) else [size] for size in node["anchor_sizes"]]
    assert [len(level) * 3 for level in sizes] == [node["anchors"]] * len(node["strides"])
    assert node["strides"][: len(node["roi_strides"])] == node["roi_strides"]
    assert node["size_divisibility"] in (1, 32)
    standard = node["heads"] == "detector.models.roi_heads.StandardHeads"
    assert standard is (node["box_size"] == 7) is (node["mask_pooler"] is not None) is ("stage" not in node["trunk"])
    keys = {"channels", "freeze_at", "mask_channels", "mask_depth", "module", "trunk", "weights", "width"}
    assert keys <= node.keys()


@pytest.mark.parametrize("norm", choices("norm"))
def test_norms(norm: str) -> None:
    config = complete(f"norm={norm}", "backbone.channels=32")
    kind = {"batch": "BatchNorm2d", "frozen": "FrozenBatchNorm2d", "sync": "SyncBatchNorm", "group": "GroupNorm"}[norm]
    backbone = build.instantiate(config.backbone.module)
    assert {type(m).__name__ for m in backbone.modules() if "Norm" in type(m).__name__} == {kind}
    check_targets(portable_config(config), "own")


@pytest.mark.parametrize("dataset", choices("dataset"))
def test_datasets(dataset: str, tmp_path: Path) -> None:
    extra = [f"dataset.{s}.annotations={tmp_path}/{s}.json" for s in ("train", "val")] if dataset == "custom" else []
    config = complete(f"dataset={dataset}", f"data_dir={tmp_path}", *extra)
    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)
    assert len(config.dataset.anchor_sizes) == 5
    for name in ("train_augment", "val_augment"):
        assert callable(build.instantiate(config.dataset[name]))
    if not dataset.startswith("shapes"):
        with pytest.raises(ValueError, match=str(tmp_path)):
            build.build_dataset(config, "train")


@pytest.mark.parametrize("schedule", choices("schedule"))
def test_schedules(schedule: str) -> None:
    config = complete(f"schedule={schedule}")
    check_targets(portable_config(config), "own")
    weight = torch.nn.Parameter(torch.zeros(3, 3))
    optimizer = build.instantiate(config.schedule.optimizer)([{"params": [weight]}])
    scheduler = build.instantiate(config.schedule.scheduler)(optimizer)
    rates = [scheduler.lr_lambdas[0](round(i * config.schedule.steps / 12)) for i in range(13)]
    assert rates[0] < 0.02
    if schedule == "quick":
        assert rates[6] == pytest.approx(0.5, abs=0.01)
        assert rates[12] == pytest.approx(0.0, abs=1e-6)
    if schedule == "1x":
        assert (rates[4], rates[9], rates[11]) == pytest.approx((1.0, 0.1, 0.01))
    if schedule == "3x":
        assert (rates[9], rates[10], rates[12]) == pytest.approx((1.0, 0.1, 0.01))


@pytest.mark.parametrize("trainer", choices("trainer"))
@pytest.mark.parametrize("logger", sorted({*choices("logger")} - {"mlflow", "wandb"}))  # see scripts/test_loggers.py
def test_trainers_and_loggers(trainer: str, logger: str, tmp_path: Path) -> None:
    config = complete(f"trainer={trainer}", f"logger={logger}")
    assert config.trainer.accelerator in ("auto", "cpu", "gpu")
    for node in (config.logger or {}).values():
        assert build.instantiate(node, save_dir=str(tmp_path)).save_dir == str(tmp_path)


@pytest.mark.parametrize("experiment", choices("experiment"))
def test_experiments(experiment: str) -> None:
    with torch.device("meta"):
        build.build_model(complete(f"experiment={experiment}", "backbone.weights=null"))  # no download


def test_recipes_of_several_sizes() -> None:
    longer, jitter = (compose_config(f"experiment={name}") for name in ("coco_3x", "coco_lsj"))
    assert longer.dataset.train_augment.short_sizes == [640, 672, 704, 736, 768, 800]
    assert longer.dataset.val_augment.short_sizes == [800]
    assert (longer.schedule.steps, longer.backbone.freeze_at, longer.backbone.weights) == (270000, 2, "imagenet")
    augment = build.instantiate(jitter.dataset.train_augment)
    sample = Sample(
        torch.zeros(3, 480, 640, dtype=torch.uint8), random_target((480, 640), 3, torch.Generator()), 1, (480, 640)
    )
    assert {augment(sample, seed).image.shape for seed in range(4)} == {(3, 1024, 1024)}
    assert build.instantiate(jitter.norm)(8).momentum == 0.1
    assert (jitter.schedule.steps, jitter.backbone.freeze_at) == (270000, 0)


@pytest.mark.parametrize("name", ["evaluate", "predict", "proposals"])
def test_other_scripts(name: str) -> None:
    config = compose_config(name=name)
    assert "checkpoint" in list(config)
    assert OmegaConf.select(config, "checkpoint") is None  # the user gives it


def test_the_pooler_applies_to_both_heads() -> None:
    for pooler, operator in (("roialign", "ops.multiscale_roi_align"), ("roipool", "ops.multiscale_roi_pool")):
        config = complete("model=mask_rcnn", f"pooler={pooler}")
        for own in (config.model.heads.box_pooler, config.model.heads.further.mask.pooler):
            assert own.operator["_target_"] == operator
    assert (
        complete("pooler=roipool", "pooler.quantization=floor").model.heads.box_pooler.operator.quantization == "floor"
    )


@pytest.mark.parametrize("pooler", choices("pooler"))
def test_level_rules(pooler: str) -> None:
    config = compose_config(f"pooler={pooler}")
    for word, rounding in (("fpn", "floor"), ("keras", "round")):
        config.pooler.levels = word
        assert with_classes(config, CLASSES).model.heads.box_pooler.assign.rounding == rounding
    config.pooler.levels = "paper"
    with pytest.raises(ValueError, match=r"pooler\.levels must be one of fpn, keras, not 'paper'"):
        with_classes(config, CLASSES)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the sample data are not beside the repository")
@pytest.mark.parametrize(
    ("choice", "classes", "masks"),
    [
        ("dataset=coco", 80, True),
        ("dataset=voc07", 20, False),
        ("experiment=nuclei", 1, True),
        ("experiment=bccd", 3, False),
    ],
)
def test_real_data(choice: str, classes: int, masks: bool) -> None:
    config = compose_config(choice, f"data_dir={SHARED}", "model=mask_rcnn")
    for split in ("train", "val"):
        dataset = build.build_dataset(config, split)
        assert len(dataset.classes) == len(dataset.category_ids) == classes
        assert dataset.has_masks is masks
        sample = build.instantiate(config.dataset[f"{split}_augment"])(dataset[0], 0)
        assert min(sample.size) in (800, 600, 320, 240) or max(sample.size) in (1333, 1000, 480, 320)
        assert (sample.target.masks is not None) is masks
        assert len(sample.target) > 0
        assert len(dataset.ground_truth()["images"]) == len(dataset)
