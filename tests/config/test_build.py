"""Targets that the configuration in a checkpoint may build, and its content."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torchvision
from omegaconf import OmegaConf
from omegaconf.errors import ReadonlyConfigError

from detector.config import build
from detector.config.conventions import apply_conventions
from detector.config.resolve import resolve, with_classes
from detector.config.trained import open_checkpoint
from detector.training.resume import differences
from detector.weights import trust
from detector.weights.checkpoints import FORMAT, portable_config
from detector.weights.trust import check_loggers, check_targets, trust_packages
from tests.conftest import CLASSES, compose_config

HARMLESS = "ops.multiscale_roi_align"


def node(target: str, **arguments: Any) -> dict[str, Any]:
    return {"model": {"part": {"_target_": target, **arguments}}}


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.run",
        "torch.load",
        "torch.hub.load",
        "torch.nn.Module.apply",
        "torch.nn.Module.compile",
        "torch.nn.modules.module.torch.load",
        "torch.nn.utils.clip_grad_norm_",
        "torch.nn.init.normal_",
        "torch.utils.cpp_extension.load",
        "torchvision.models.resnet18",
        "torchvision.models.get_model",
        "torchvision.models._api.WeightsEnum.get_state_dict",
        "torchvision.models.feature_extraction.create_feature_extractor",
        "torchvision.ops.misc.torch.load",
        "detector.config.build.instantiate",
        "detector.data.datamodule.os.system",
        "detector.data.image.read_image",
        "detector.data.shapes.generate",
        "detector.data.coco.json.load",
        "detector.evaluation.collector.Collector.write",
        "detector.models.pretrained.read_pretrained",
        "detector.models.pretrained.torch.load",
        "detector.models.pretrained.Path",
        "detector.models.extracted.create_feature_extractor",
        "detector.models.extracted.torchvision.models.get_model",
        "detector.models.rcnn.RCNN.__init__.__globals__",
        "detector.training.run.fit",
        "ops.compile.build",
        "ops.build.main",
        "ops._missing",
        "hydra.utils.instantiate",
        "lightning.pytorch.loggers.TensorBoardLogger",
        "torch.nn.NoSuchThing",
        "",
    ],
)
def test_untrusted_targets_are_refused(target: str) -> None:
    check_targets(node(HARMLESS), "x.ckpt")
    with pytest.raises(ValueError, match=r"x\.ckpt"):
        check_targets(node(target), "x.ckpt")
    with pytest.raises(ValueError, match=r"x\.ckpt"):
        check_targets({"deep": [{"list": [node(target)]}]}, "x.ckpt")


@pytest.mark.parametrize(
    "config",
    [
        node("${oc.env:HOME}"),
        node("${data_dir}"),
        node(HARMLESS, scale="${oc.env:HOME}"),
        node("detector.models.resnet.ResNet", name="resnet18", weights="/etc/passwd"),
        node("detector.models.resnet.ResNet", name="resnet18", weights={"_target_": HARMLESS}),
        node("detector.models.resnet.ResNetStage", name="resnet18", weights="imagenet"),
        node("detector.models.vgg.VGG16", weights="imagenet"),
        node("detector.models.vgg.VGGTrunk", weights="imagenet"),
        node("detector.models.extracted.torchvision_model", name="resnet18", weights="imagenet"),
        node("detector.models.resnet.ResNet", _args_=["resnet18", None, "imagenet"]),
        node("detector.data.shapes.ShapesDataset", root="/somewhere/else"),
        node("detector.data.shapes.ShapesDataset", root="${data_dir}/../else"),
    ],
)
def test_interpolations_and_paths_outside_data_dir_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"x\.ckpt"):
        check_targets(config, "x.ckpt")


@pytest.mark.parametrize(
    "choice",
    [
        *("model=mask_rcnn", "model=rfcn", "model=fast_rcnn", "model=cascade_mask_rcnn"),
        *("dataset=coco", "dataset=voc07", "backbone=resnet50_fpn", "schedule=1x"),
    ],
)
def test_own_configurations_pass_the_check(choice: str) -> None:
    config = with_classes(compose_config(choice), CLASSES)
    plain = portable_config(config)
    check_targets(plain, "own")
    assert plain["dataset"]["train"].get("root", plain["dataset"]["train"].get("images")).startswith("${data_dir}")
    again = OmegaConf.create(plain)
    assert OmegaConf.to_container(again.model, resolve=True) == OmegaConf.to_container(config.model, resolve=True)


def test_a_checkpoint_needs_no_initial_weights(tmp_path: Path) -> None:
    name = "backbone=resnet18_fpn"
    body = build.build_model(with_classes(compose_config(name), CLASSES)).backbone.body
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "weights.pth")
    configs = []
    for key in ("backbone.weights", "backbone.module.body.weights"):
        config = with_classes(compose_config(name, f"{key}={tmp_path}/weights.pth"), CLASSES)
        loaded = build.build_model(config).backbone.body
        assert not torch.equal(loaded.layer1[0].conv1.weight, body.layer1[0].conv1.weight)
        configs.append(config)
    (tmp_path / "weights.pth").unlink()
    for config in configs:
        plain = portable_config(config)
        check_targets(plain, "own")
        build.build_model(OmegaConf.create(plain))


def test_an_argument_called_weights_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    class Head:
        pass

    package = ModuleType("mypackage")
    package.Head, Head.__module__ = Head, "mypackage"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mypackage", package)
    monkeypatch.setattr(trust, "_trusted", {"mypackage"})
    for weights in ("balanced", "{a: 1, b: 2}"):
        head = f"+model.heads.further.mine={{_target_: mypackage.Head, weights: {weights}, of: {{weights: x}}}}"
        config = with_classes(compose_config(head, "backbone=resnet18_c4", "backbone.weights=imagenet"), CLASSES)
        plain = portable_config(config)
        assert plain["model"]["heads"]["further"]["mine"] == OmegaConf.to_container(config.model.heads.further.mine)
        assert plain["model"]["heads"]["box_head"]["trunk"]["stage"]["weights"] is None
        assert plain["model"]["backbone"]["body"]["weights"] is None
        check_targets(plain, "own")
    monkeypatch.setattr(trust, "_trusted", set())
    with pytest.raises(ValueError, match="own"):
        check_targets(plain, "own")


def test_initial_weights_do_not_make_another_run(tmp_path: Path) -> None:
    config = compose_config("backbone=resnet18_c4", "backbone.weights=imagenet", "weights=a.ckpt", "+mine.weights=x")
    config = with_classes(config, CLASSES)
    one, resumed = (
        OmegaConf.to_container(c, resolve=True) for c in (config, OmegaConf.create(portable_config(config)))
    )
    assert differences(one, resumed) == differences(resumed, one) == set()
    resumed["mine"]["weights"], resumed["mine"]["list"] = None, []
    assert differences(one, resumed) == {"mine.weights", "mine.list"}
    other = compose_config("backbone=resnet18_c4", "backbone.weights=here.pth", "weights=a.ckpt", "+mine.weights=x")
    found = differences(one, OmegaConf.to_container(with_classes(other, CLASSES), resolve=True))
    assert {"backbone.weights", "model.backbone.body.weights"} <= found


def test_data_dir_can_be_changed_in_a_checkpoint(tmp_path: Path) -> None:
    moved = OmegaConf.create(portable_config(with_classes(compose_config("data_dir=here"), CLASSES)))
    assert moved.dataset.train.root == "here/shapes_coco"
    moved.data_dir = str(tmp_path)
    assert moved.dataset.train.root == f"{tmp_path}/shapes_coco"


def test_other_classes_than_the_datasets_are_refused() -> None:
    with pytest.raises(ValueError, match="leave it out"):
        with_classes(compose_config("classes=[a,b]"), CLASSES)


def test_errors_name_the_key() -> None:
    config = compose_config("assignment.rpn.high_threshold=0.1")
    with pytest.raises(ValueError, match=r"0 < low_threshold <= high_threshold.*model\.proposer\.matcher"):
        build.build_model(with_classes(config, CLASSES))
    config = compose_config("model.proposer.anchors.ratios=[1.0]")
    with pytest.raises(ValueError, match="3 anchors a cell"):
        build.build_model(with_classes(config, CLASSES))


def test_tuples_are_checked_too() -> None:
    hidden = node("detector.data.shapes.ShapesDataset", root="/anywhere")
    with pytest.raises(ValueError, match=r"mean.*under `dataset` only"):
        check_targets({"model": {"normalize": {"mean": (hidden,)}}}, "x.ckpt")
    with pytest.raises(ValueError, match="_args_"):
        check_targets({"list": ({"_args_": [1]},)}, "x.ckpt")


def test_datasets_within_a_model_are_refused() -> None:
    inside = {"_target_": "detector.data.shapes.ShapesDataset", "root": "${data_dir}/shapes"}
    check_targets({"dataset": {"train": inside}}, "x.ckpt")
    with pytest.raises(ValueError, match=r"model\.x\._target_.*under `dataset` only"):
        check_targets({"model": {"x": inside}}, "x.ckpt")


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("torchvision")
    model = torchvision.models.get_model("fasterrcnn_resnet50_fpn", weights=None, weights_backbone=None)
    torch.save(model.state_dict(), folder / "weights.pth")
    return f"torchvision:fasterrcnn_resnet50_fpn:{folder / 'weights.pth'}"


def test_overrides_take_precedence_over_conventions_of_weights(torchvision_file: str) -> None:
    overrides = [f"weights={torchvision_file}", "experiment=nuclei", "norm.eps=0.5", "dataset.rois=7"]
    config = apply_conventions(compose_config(*overrides), overrides)[0]
    assert config.dataset.name == "nuclei"
    assert config.dataset.canonical_size == 54
    assert (config.norm.eps, config.dataset.rois) == (0.5, 7)
    assert config.norm["_target_"].endswith("frozen_batch_norm")
    assert config.pooler.aligned is False
    assert config.model.proposer.anchors.measured is True
    overrides = [f"weights={torchvision_file}", "backbone=vgg17"]
    with pytest.raises(ValueError, match="needs experiment=torchvision_fasterrcnn_resnet50_fpn"):
        apply_conventions(compose_config(overrides[0]), overrides)


def test_torchvision_weights_do_not_depend_on_the_dataset(tmp_path: Path, torchvision_file: str) -> None:
    trained = open_checkpoint(torchvision_file)
    trained.config.dataset = compose_config("dataset=custom").dataset
    anchors = trained.config.model.proposer.anchors
    assert list(anchors.sizes) == [32, 64, 128, 256, 512]
    assert trained.config.model.heads.box_pooler.assign.canonical_size == 224
    assert not trained.own
    assert trained.named
    assert trained.config.norm.eps == 1e-5
    assert open_checkpoint(torchvision_file, norm_eps=0.0).config.norm.eps == 0.0
    with pytest.raises(ValueError, match=r"norm_eps=0\.1: checkpoint .* leave it out"):
        open_checkpoint("last.ckpt", norm_eps=0.1)
    torch.save({"aligned_rcnn": {"format": FORMAT, "config": {}}, "state_dict": {}}, tmp_path / "own.pth")
    with pytest.raises(ValueError, match=r"own\.pth.*rename it to \*\.ckpt"):
        open_checkpoint(tmp_path / "own.pth")


@pytest.mark.parametrize("name", ["os", "torch", "detector.models", "subprocess", "a-b", ""])
def test_trust_is_for_packages_of_the_user(name: str) -> None:
    with pytest.raises(ValueError, match="trust="):
        trust_packages([name])


def test_a_head_that_is_switched_off_needs_nothing() -> None:
    config = with_classes(compose_config("model=mask_rcnn"), CLASSES)
    assert build.needed_annotations(config.model) == {"masks"}
    config = with_classes(compose_config("model=mask_rcnn", "model.heads.further.mask=null"), CLASSES)
    assert build.needed_annotations(config.model) == set()
    assert list(build.build_model(config).heads.further) == []


def test_loggers_of_a_folder_are_lightnings_or_trusted() -> None:
    good = {"board": {"_target_": "lightning.pytorch.loggers.TensorBoardLogger", "name": ""}}
    check_loggers(good, "config.yaml")
    for target in ("os.system", "lightning.pytorch.loggers.tensorboard.os.system", "lightning.pytorch.Trainer", ""):
        with pytest.raises(ValueError, match=r"config\.yaml: logger\.mine\._target_"):
            check_loggers(good | {"mine": {"_target_": target}}, "config.yaml")
    with pytest.raises(ValueError, match=r"give trust=\[mypackage\] if you trust"):
        check_loggers({"mine": {"_target_": "mypackage.Lines"}}, "config.yaml")
    with pytest.raises(ValueError, match="interpolations"):
        check_loggers({"board": {"name": "${oc.env:HOME}"}}, "config.yaml")


class Points:
    """A dataset with switches for two kinds of annotations."""

    def __init__(self, masks: bool = True, points: bool = False, age: float = 0.0) -> None:
        self.read = (masks, points, age)


class PointsHead:
    needs = ("points", "age")


@pytest.mark.parametrize(
    ("head", "node", "read"),
    [
        (True, {}, (True, True, 0.0)),  # `age` is a number, no switch
        (True, {"masks": True}, (False, True, 0.0)),
        (True, {"masks": True, "points": False}, (False, False, 0.0)),
        (False, {"masks": True}, (False, False, 0.0)),
    ],
)
def test_datasets_read_the_annotations_that_the_heads_need(head: bool, node: dict[str, bool], read: object) -> None:
    further = {"mine": {"_target_": f"{__name__}.PointsHead"}} if head else {}
    model = OmegaConf.create({"heads": {"further": further}})
    dataset = build.open_split(OmegaConf.create({"_target_": f"{__name__}.Points", **node}), "train", model)
    assert getattr(dataset, "read") == read  # noqa: B009


@pytest.mark.parametrize("name", ["box_head.Prediction", "mask_head.Sigmoid", "selection.Select", "rpn.Limits"])
def test_classes_of_the_models_are_trusted(name: str) -> None:
    check_targets(node(f"detector.models.{name}"), "x.ckpt")


def test_functions_of_torch_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="wrap it in a class or function of your own package"):
        check_targets(node("torch.nn.functional.relu"), "this run", new_run=True)


def test_resolving_leaves_its_argument_as_it_is(tmp_path: Path) -> None:
    config = compose_config(f"data_dir={tmp_path}", "dataset.train.train=1", "dataset.train.val=1")
    before = config.copy()
    for _ in range(2):
        resolved = resolve(config)
        assert config == before
    assert resolved.config.num_classes == 5
    with pytest.raises(ReadonlyConfigError):
        resolved.config.seed = 3


def test_an_item_of_a_list_is_named_as_it_can_be_overridden() -> None:
    nodes = OmegaConf.create(
        {"dataset": {"metrics": [{"_target_": HARMLESS}, {"_target_": "torch.nn.Linear", "x": 1}]}}
    )
    with pytest.raises(ValueError, match=r"key 'dataset\.metrics\[1\]' of the configuration"):
        build.instantiate(nodes.dataset.metrics[1])
    missing = OmegaConf.create({"parts": [{"_target_": "torch.nn.Linear", "in_features": "???", "out_features": 1}]})
    with pytest.raises(ValueError, match=r"give parts\[0\]\.in_features=\.\.\."):
        build.instantiate(missing.parts[0])
    assert build.instantiate(missing.parts[0], in_features=3).in_features == 3
