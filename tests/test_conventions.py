"""What weights need of a configuration, what the user may say beside it, and what the user is told."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from hydra import initialize_config_dir
from torch import Tensor

from detector import weights
from detector.config import build
from detector.config import conventions as module
from detector.config.conventions import apply_conventions, check_additions
from detector.config.overrides import allow_new_keys, plain_keys
from detector.config.resolve import with_classes
from detector.models.rcnn import RCNN
from detector.weights import TORCHVISION, PretrainedWeights
from detector.weights.checkpoints import portable_config
from detector.weights.initial import load_initial
from detector.weights.torchvision import convert
from tests.conftest import CLASSES, ROOT, compose_config, small_model

GROUP_NORMS = ["norm=group", "~norm.eps", "backbone.stride_in_1x1=false", "backbone.fpn_norm=${norm}"]
CONV_FC = ["backbone.trunk._target_=detector.models.box_head.ConvFC", "+backbone.trunk.convs=4"]
CONVENTIONS = {
    **{name: [f"experiment=torchvision_{name}", "norm.eps=1e-5"] for name in TORCHVISION},
    "fpn": ["experiment=detectron2_fpn", "backbone=resnet101_fpn", "model=mask_rcnn"],
    "c4": ["experiment=detectron2_c4", "backbone=resnet50_c4", "model=faster_rcnn", "model.normalize.std=[2,2,2]"],
    "dc5": ["experiment=detectron2_dc5", "backbone=resnet50_dc5", "model=mask_rcnn"],
    "norms": ["experiment=detectron2_fpn", *GROUP_NORMS, *CONV_FC, "model.proposer.head.depth=2"],
}
"""Of the weights that this project reads."""

Composed = Callable[..., build.DictConfig]


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> Composed:
    """The configuration in given conventions, with the user's overrides."""

    def composed(conventions: list[str], *overrides: str) -> build.DictConfig:
        monkeypatch.setattr(module, "read_weights", lambda source: PretrainedWeights({}, conventions, None, source))
        given = allow_new_keys(["weights=x", *overrides])
        return apply_conventions(compose_config(*given), given)[0]

    return composed


def begin(model: RCNN, config: build.DictConfig, pretrained: PretrainedWeights | None = None) -> list[str]:
    """Load initial weights as a new run does; returns the lines that it prints."""
    changed = (
        [] if pretrained is None or pretrained.config is None else weights.changed_settings(config, pretrained.config)
    )
    return load_initial(
        model, pretrained, list(config.classes), changed, build.OmegaConf.to_container(config.backbone, resolve=True)
    )


def pretrained_of(name: str) -> PretrainedWeights:
    """Names and shapes alone of torchvision's model."""
    with torch.device("meta"):
        state: dict[str, Tensor] = torchvision.models.get_model(name, weights=None, weights_backbone=None).state_dict()
    return convert(state, name, f"torchvision:{name}")


@pytest.mark.parametrize("name", CONVENTIONS)
def test_nothing_of_a_preset_is_left_out_unasked(composed: Composed, name: str) -> None:
    assert composed(CONVENTIONS[name]) == compose_config(*CONVENTIONS[name], "weights=x")


def test_a_preset_may_be_named_too(composed: Composed) -> None:
    conventions = CONVENTIONS[TORCHVISION[0]]
    assert composed(conventions, conventions[0]) == compose_config(*conventions, "weights=x")


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "c4"])
def test_the_preset_of_studies_comes_before_that_of_the_weights(composed: Composed, name: str) -> None:
    config = composed(CONVENTIONS[name], "experiment=[study_defaults,dry]")
    plain = composed(CONVENTIONS[name], "experiment=dry")
    assert config == plain


@pytest.mark.parametrize("name", [*TORCHVISION, "norms"])
def test_a_model_without_an_rpn_takes_what_concerns_it(composed: Composed, name: str) -> None:
    model = "fast_mask_rcnn" if name.startswith("mask") else "fast_rcnn"
    config = composed(CONVENTIONS[name], f"model={model}")
    plain = compose_config(f"model={model}")
    assert set(config.model.proposer) == set(plain.model.proposer)
    assert config.model.proposer.min_size == (0.0 if name == "norms" else 0.001)
    if name in TORCHVISION:
        pretrained = pretrained_of(name)
        with torch.device("meta"):
            built = build.build_model(with_classes(config, pretrained.classes or []))
        assert not weights.load_weights(built, pretrained, pretrained.classes or []).reinitialized


@pytest.mark.parametrize(
    ("name", "choice", "key"),
    [
        ("fasterrcnn_resnet50_fpn", "norm=group", "norm.eps"),
        ("fasterrcnn_resnet50_fpn_v2", "norm=group", "norm.eps"),
        ("maskrcnn_resnet50_fpn_v2", "mask_head=mlp", "mask_head.norm"),
        ("maskrcnn_resnet50_fpn", "model=faster_rcnn", "model.heads.further.mask"),
    ],
)
def test_choices_of_other_layers_say_what_to_leave_out(composed: Composed, name: str, choice: str, key: str) -> None:
    config = composed(CONVENTIONS[name], choice)
    assert build.OmegaConf.select(config, key) is None
    pretrained = pretrained_of(name)
    with torch.device("meta"):
        model = build.build_model(with_classes(config, pretrained.classes or []))
    way = rf"they need experiment=torchvision_{name} .*: leave out choices of other layers, such as model=, backbone="
    with pytest.raises(ValueError, match=way):
        weights.load_weights(model, pretrained, pretrained.classes or [])


@pytest.mark.parametrize("override", ["backbone.trunk.convs=2", "+backbone.trunk.convs=2", "++backbone.trunk.convs=2"])
def test_keys_of_the_preset_can_be_given(composed: Composed, override: str) -> None:
    assert composed(CONVENTIONS["fasterrcnn_resnet50_fpn_v2"], override).backbone.trunk.convs == 2


def test_only_keys_beside_weights_may_come_later() -> None:
    keys = ["a=1", "a.b=1", "+a.b=1", "hydra.run.dir=x", "-m", "a/b=c", "~a.b"]
    assert allow_new_keys(keys) == keys
    assert allow_new_keys(["weights=x", *keys]) == ["weights=x", "a=1", "++a.b=1", *keys[2:]]


@pytest.mark.parametrize("override", ["schedule.optimizer.betas=[0.5,0.9]", "backbone.chanels=3", "dataset.x.y=1"])
def test_keys_that_never_come_are_refused(composed: Composed, override: str) -> None:
    composed(CONVENTIONS["fasterrcnn_resnet50_fpn"])  # what `weights=x` is
    given = allow_new_keys(["weights=x", "schedule.optimizer.momentum=0.5"])
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        check_additions("train", given)
        with pytest.raises(ValueError, match=f"unknown key '{override.partition('=')[0]}'"):
            check_additions("train", [*given, *allow_new_keys(["weights=x", override])[1:]])


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("trainer.precison=32-true", "trainer.precision"),
        ("model.heads.further.mask.treshold=0.3", "model.heads.further.mask.threshold"),
        ("logger.tensorbord.name=x", "logger.tensorboard.name"),
    ],
)
def test_misspelt_keys_of_open_sections_are_answered_beside_weights(
    composed: Composed, override: str, meant: str
) -> None:
    composed(CONVENTIONS["maskrcnn_resnet50_fpn"])  # what `weights=x` is
    given = ["weights=x", "logger.tensorboard.name=x", override]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        with pytest.raises(ValueError, match=rf"unknown key .*; did you mean {meant}\?"):
            check_additions("train", allow_new_keys(given), plain_keys(given))
        own = ["+trainer.limit_val_batches=1", "+model.heads.further.mine.channels=3", "+logger.mine={_target_: a.B}"]
        check_additions("train", ["weights=x", *own], ())
        with pytest.raises(ValueError, match=r"unknown key 'model\.heads\.further\.mask\.treshold'"):
            check_additions("train", ["weights=x", "+model.heads.further.mask.treshold=1"])


def test_weights_of_a_run_say_where_the_new_one_departs() -> None:
    narrow = ["backbone.channels=32", "backbone.width=64"]
    changes = ["norm.eps=0.25", "pooler=roialign_legacy", "dataset.canonical_size=33", "model.normalize.std=[2,2,2]"]
    changes += ["backbone.anchor_sizes=[[4],[9],[16],[32],[64]]", "model.heads.box_head.bbox_reg_weights=[1,1,1,1]"]
    own = with_classes(compose_config(*narrow), CLASSES)
    trained = portable_config(with_classes(compose_config(*narrow, *changes), CLASSES))
    usual = {"norm.eps": "1e-05", "pooler.aligned": "true", "model.normalize.std": "[58.395,57.12,57.375]"}
    usual |= {"dataset.canonical_size": str(own.dataset.canonical_size)}
    usual |= {"backbone.anchor_sizes": str(list(own.dataset.anchor_sizes)).replace(" ", "")}
    usual |= {"model.heads.box_head.bbox_reg_weights": "[10.0,10.0,5.0,5.0]"}
    wanted = dict(change.split("=") for change in changes if "." in change) | {"pooler.aligned": "false"}
    found = weights.changed_settings(own, trained)
    assert sorted(found) == sorted(f"{key}={wanted[key]} (here {usual[key]})" for key in wanted)
    again = with_classes(compose_config(*narrow, *(line.split(" ")[0] for line in found)), CLASSES)
    assert weights.changed_settings(again, trained) == []
    assert weights.changed_settings(own, portable_config(own)) == []


def test_weights_of_a_run_name_other_kinds_of_parts_alone() -> None:
    own = with_classes(compose_config(), CLASSES)
    other = with_classes(compose_config("norm=frozen", "norm.eps=0.5", "pooler=roipool"), CLASSES)
    assert weights.changed_settings(own, portable_config(other)) == [
        f"norm._target_={other.norm['_target_']} (here torch.nn.BatchNorm2d)",
        "pooler.operator._target_=ops.multiscale_roi_pool (here ops.multiscale_roi_align)",
    ]


def test_a_run_from_weights_prints_where_it_departs() -> None:
    narrow = ["backbone.channels=32", "backbone.width=64", "weights=run.ckpt"]
    config = with_classes(compose_config(*narrow), CLASSES)
    trained = portable_config(with_classes(compose_config(*narrow, "norm.eps=0.25"), CLASSES))
    pretrained = PretrainedWeights(small_model(seed=1).state_dict(), [], CLASSES, "run.ckpt", trained)
    loaded, warning = begin(small_model(), config, pretrained)
    assert loaded == f"weights: {len(pretrained.state)} tensors from run.ckpt"
    assert "weights=run.ckpt was trained with norm.eps=0.25 (here 1e-05): give" in warning
    config.norm.eps = 0.25
    assert begin(small_model(), config, pretrained) == [loaded]


@pytest.mark.parametrize(
    ("overrides", "stages"),
    [
        (["experiment=detectron2_fpn"], 2),
        (["experiment=torchvision_maskrcnn_resnet50_fpn_v2"], 2),
        (["backbone=vgg16", "backbone.freeze_at=3"], 3),
        (["backbone=extracted_fpn", "backbone.freeze_at=1"], 1),
        (["experiment=coco_1x"], 0),
        (["backbone=resnet18_fpn", "backbone.freeze_at=2", "backbone.module.body.weights=imagenet"], 0),
        (["backbone=extracted_fpn", "backbone.freeze_at=1", "backbone.weights=imagenet"], 0),
        (["experiment=detectron2_fpn", "backbone.freeze_at=0"], 0),
        ([], 0),
    ],
)
def test_frozen_stages_of_random_weights_are_pointed_out(overrides: list[str], stages: int) -> None:
    warnings = begin(small_model(), with_classes(compose_config(*overrides), CLASSES))
    assert len(warnings) == (stages > 0)
    for line in warnings:
        assert f"backbone.freeze_at={stages} freezes {stages} stages" in line
        assert "backbone.weights=imagenet" in line
