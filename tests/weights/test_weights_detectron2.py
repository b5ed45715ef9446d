"""Checkpoints of Detectron2 are converted: each tensor is used once, and the outputs are equal."""

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detector import weights
from detector.config import build
from detector.config.resolve import with_classes
from detector.weights import detectron2
from detector.weights.conversion import PretrainedWeights
from tests.conftest import compose_config
from tests.weights.detectron2_state import Shapes, cell_anchors, numbered, run_backbone, run_stage
from tests.weights.detectron2_state import detector as shapes_of

VARIANTS = [(depth, kind, masks) for depth in (50, 101) for kind in ("c4", "dc5", "fpn") for masks in (False, True)]
STEM = "backbone.body.stem.0.weight"


def converted(shapes: Shapes, extra: Mapping[str, Tensor] | None = None) -> PretrainedWeights:
    return detectron2.convert(numbered(shapes) | dict(extra or {}), "file.pth")


def loaded(pretrained: PretrainedWeights, num_classes: int = 80) -> weights.LoadReport:
    """Load into the model that the conventions describe, on the meta device: only names and shapes are checked."""
    classes = pretrained.classes or [str(i) for i in range(num_classes)]
    config = with_classes(compose_config(*pretrained.conventions), classes)
    with torch.device("meta"):
        model = build.build_model(config)
    return weights.load_weights(
        model, replace(pretrained, state={k: v.to("meta") for k, v in pretrained.state.items()}), classes
    )


@pytest.mark.parametrize(("depth", "kind", "masks"), VARIANTS)
def test_every_tensor_is_used_once_and_fits(depth: int, kind: str, masks: bool) -> None:
    shapes = shapes_of(depth, kind, masks)
    pretrained = converted(shapes)
    used = [int(value.flatten()[0]) for value in pretrained.state.values()]
    assert sorted(used) == list(range(len(shapes)))
    assert pretrained.conventions == [
        f"experiment=detectron2_{kind}",
        f"backbone=resnet{depth}_{kind}",
        f"model={'mask' if masks else 'faster'}_rcnn",
    ]
    report = loaded(pretrained)
    assert report.loaded == len(shapes)
    assert report.reinitialized == []


PLACES = {
    "fpn": {
        "backbone.bottom_up.stem.conv1.weight": STEM,
        "backbone.bottom_up.stem.conv1.norm.bias": "backbone.body.stem.1.bias",
        "backbone.bottom_up.res2.0.shortcut.weight": "backbone.body.layer1.0.downsample.0.weight",
        "backbone.bottom_up.res2.0.shortcut.norm.running_mean": "backbone.body.layer1.0.downsample.1.running_mean",
        "backbone.bottom_up.res3.1.conv2.norm.running_var": "backbone.body.layer2.1.bn2.running_var",
        "backbone.bottom_up.res5.2.conv3.weight": "backbone.body.layer4.2.conv3.weight",
        "backbone.fpn_lateral2.weight": "backbone.lateral.0.weight",
        "backbone.fpn_lateral5.bias": "backbone.lateral.3.bias",
        "backbone.fpn_output3.weight": "backbone.output.1.weight",
        "proposal_generator.rpn_head.conv.weight": "proposer.head.convs.0.weight",
        "proposal_generator.rpn_head.objectness_logits.bias": "proposer.head.objectness.bias",
        "proposal_generator.rpn_head.anchor_deltas.weight": "proposer.head.deltas.weight",
        "roi_heads.box_head.fc1.weight": "heads.box_head.trunk.0.weight",
        "roi_heads.box_head.fc2.bias": "heads.box_head.trunk.2.bias",
        "roi_heads.box_predictor.cls_score.weight": "heads.box_head.classify.weight",
        "roi_heads.box_predictor.bbox_pred.bias": "heads.box_head.regress.bias",
        "roi_heads.mask_head.mask_fcn1.weight": "heads.further.mask.predictor.0.weight",
        "roi_heads.mask_head.mask_fcn4.bias": "heads.further.mask.predictor.6.bias",
        "roi_heads.mask_head.deconv.weight": "heads.further.mask.predictor.8.weight",
        "roi_heads.mask_head.predictor.weight": "heads.further.mask.predictor.10.weight",
    },
    "c4": {
        "backbone.stem.conv1.norm.weight": "backbone.body.stem.1.weight",
        "backbone.res4.5.conv1.weight": "backbone.body.layer3.5.conv1.weight",
        "roi_heads.res5.0.shortcut.norm.weight": "heads.box_head.trunk.stage.layer4.0.downsample.1.weight",
        "roi_heads.res5.2.conv3.norm.bias": "heads.box_head.trunk.stage.layer4.2.bn3.bias",
        "roi_heads.mask_head.deconv.bias": "heads.further.mask.predictor.0.bias",
        "roi_heads.mask_head.predictor.bias": "heads.further.mask.predictor.2.bias",
    },
    "dc5": {
        "backbone.res5.1.conv2.weight": "backbone.body.layer4.1.conv2.weight",
        "roi_heads.box_head.fc1.bias": "heads.box_head.trunk.0.bias",
        "roi_heads.mask_head.mask_fcn2.weight": "heads.further.mask.predictor.2.weight",
    },
}


@pytest.mark.parametrize("kind", PLACES)
def test_each_tensor_keeps_its_values(kind: str) -> None:
    state = numbered(shapes_of(50, kind, masks=True))
    pretrained = detectron2.convert(state, "file.pth")
    for theirs, own in PLACES[kind].items():
        assert pretrained.state[own].flatten()[0] == state[theirs].flatten()[0], theirs
        assert pretrained.state[own].numel() == state[theirs].numel(), theirs


@pytest.mark.parametrize("kind", PLACES)
def test_converted_weights_give_equal_features(kind: str) -> None:
    """Compare the backbone on an image (normalisation, strides, dilation) and C4's res5 on RoIs."""
    state = numbered(shapes_of(50, kind, num_classes=3))
    torch.manual_seed(0)
    for name, value in state.items():
        if name.startswith(("backbone.", "roi_heads.res5.")):
            spread = (2 / value[0].numel()) ** 0.5 if value.ndim == 4 else 0.1
            state[name] = torch.rand(value.shape) + 0.5 if "var" in name else spread * torch.randn(value.shape)
    pretrained = detectron2.convert(state, "file.pth")
    model = build.build_model(with_classes(compose_config(*pretrained.conventions), list("abc"))).eval()
    weights.load_weights(model, pretrained, list("abc"))
    image, pooled = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8), torch.randn(2, 1024, 14, 14)
    with torch.no_grad():
        pairs = list(
            zip(
                model.backbone(model.normalize(image[None], [(64, 96)])),
                run_backbone(image.float(), state, kind),
                strict=True,
            )
        )
        if kind == "c4":
            pairs.append((model.heads.box_head.trunk.stage(pooled), run_stage(pooled, state, "roi_heads.res5", 3, 2)))
    for found, expected in pairs:
        assert found.shape == expected.shape
        assert expected.abs().max() > 0
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_stem_is_flipped_to_rgb_and_first_fc_is_unflattened() -> None:
    state = numbered(shapes_of(50, "fpn"))
    first = state["backbone.bottom_up.stem.conv1.weight"] = torch.randn(64, 3, 7, 7)
    matrix = state["roi_heads.box_head.fc1.weight"] = torch.randn(1024, 256 * 49)
    found = detectron2.convert(state, "file.pth").state
    image = torch.randn(1, 3, 9, 9)  # red, green, blue
    assert torch.allclose(
        torch.conv2d(image, found[STEM]), torch.conv2d(image[:, [2, 1, 0]], first), rtol=1e-4, atol=1e-4
    )
    assert torch.equal(found["heads.box_head.trunk.0.weight"].flatten(1), matrix)
    assert found["heads.box_head.trunk.0.weight"].shape == (1024, 256, 7, 7)


def test_rgb_models_are_recognised_by_their_mean() -> None:
    first = torch.randn(64, 3, 7, 7)
    shapes, stem = shapes_of(50, "fpn"), "backbone.bottom_up.stem.conv1.weight"
    for mean, turned in (([103.53, 116.28, 123.675], True), ([123.675, 116.28, 103.53], False), ([90.0] * 3, True)):
        extra = {stem: first, "pixel_mean": torch.tensor(mean)[:, None, None], "pixel_std": torch.ones(3, 1, 1)}
        found = converted(shapes, extra)
        assert torch.equal(found.state[STEM], first.flip(1) if turned else first)
        assert ("model.normalize.mean=[90,90,90]" in found.conventions) == (mean[0] == 90)
        assert len(found.conventions) == 3 + (mean[0] == 90)


def test_unusual_preprocessing_and_anchors_become_overrides() -> None:
    std = {"pixel_mean": torch.tensor([103.53, 116.28, 123.675]), "pixel_std": torch.tensor([57.375, 57.12, 58.395])}
    name = "proposal_generator.anchor_generator.cell_anchors."

    def extra(*anchors: Any) -> list[str]:
        cells = {f"{name}{i}": cell for i, cell in enumerate(cell_anchors(*anchors))}
        return converted(shapes_of(50, "fpn"), cells).conventions[3:]

    assert converted(shapes_of(50, "fpn"), std).conventions[3:] == ["model.normalize.std=[58.395,57.12,57.375]"]
    assert extra([[32.0], [64.0], [128.0], [256.0], [512.0]]) == []
    assert extra([[16.0], [32.0], [64.0], [128.0], [256.0]]) == ["backbone.anchor_sizes=[[16],[32],[64],[128],[256]]"]
    assert extra([[32.0], [64.0], [128.0], [256.0], [512.0]], (0.5, 1.0, 1.5)) == [
        "model.proposer.anchors.ratios=[0.5,1,1.5]"
    ]
    cells = {f"{name}0": next(cell_anchors([[32.0, 64.0, 128.0, 256.0, 512.0]]))}
    assert converted(shapes_of(50, "c4"), cells).conventions[3:] == []


@pytest.mark.parametrize(
    ("options", "conventions"),
    [
        ({"norm": "BN"}, {"norm=batch", "backbone.stride_in_1x1=false"}),
        (
            {"norm": "GN", "head_norm": "GN", "box_convs": 4},
            {
                "norm=group",
                "~norm.eps",
                "backbone.stride_in_1x1=false",
                "backbone.fpn_norm=${norm}",
                "backbone.trunk._target_=detector.models.box_head.ConvFC",
                "+backbone.trunk.convs=4",
                "+backbone.trunk.norm=${norm}",
                "mask_head.norm=${norm}",
            },
        ),
        (
            {"groups": 32, "width_per_group": 8, "depth": 101},
            {"backbone.stride_in_1x1=false", "model.normalize.std=[58.395,57.12,57.375]"},
        ),
        ({"rpn_convs": 2}, {"model.proposer.head.depth=2"}),
        ({"agnostic": True}, {"model.heads.box_head.cls_agnostic_bbox_reg=true", "mask_loss=class_agnostic"}),
        ({"num_classes": 8}, set()),
        ({"num_classes": 1}, set()),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else str(len(value)),
)
def test_architecture_is_inferred(options: dict[str, Any], conventions: set[str]) -> None:
    shapes = shapes_of(**{"depth": 50, "kind": "fpn", "masks": True} | options)
    pretrained = converted(shapes)
    name = "resnext101_32x8d" if "groups" in options else "resnet50"
    assert pretrained.conventions[:3] == ["experiment=detectron2_fpn", f"backbone={name}_fpn", "model=mask_rcnn"]
    assert set(pretrained.conventions[3:]) == conventions
    assert loaded(pretrained, options.get("num_classes", 80)).reinitialized == []


def test_class_names_follow_from_their_number() -> None:
    coco = converted(shapes_of(num_classes=80)).classes
    assert coco is not None
    assert (len(coco), coco[0], coco[11], coco[79]) == (80, "person", "stop sign", "toothbrush")
    voc = converted(shapes_of(num_classes=20)).classes
    assert voc is not None
    assert (len(voc), voc[0], voc[14]) == (20, "aeroplane", "person")
    assert converted(shapes_of(num_classes=3)).classes is None


def test_pkl_and_pth_files_are_read(tmp_path: Path) -> None:
    shapes = shapes_of(50, "c4", num_classes=3)
    state = {k: v.clone() for k, v in numbered(shapes).items()}
    expected = detectron2.convert(state, "").state
    content: dict[str, Any] = {"model": {k: v.numpy() for k, v in state.items()}, "__author__": "Detectron2 Model Zoo"}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(content))
    found = weights.read_weights(str(tmp_path / "model.pkl"))
    assert found.source == str(tmp_path / "model.pkl")
    assert found.state.keys() == expected.keys()
    assert all(torch.equal(found.state[k], expected[k]) for k in expected)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], 0.1, momentum=0.9).state_dict()
    content = {"model": state, "optimizer": optimizer, "scheduler": {"last_epoch": 7}, "iteration": 7}
    torch.save(content, tmp_path / "model_0000007.pth")
    torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "plain.pkl")
    for name in ("model_0000007.pth", "plain.pkl"):
        found = weights.read_weights(str(tmp_path / name))
        assert all(torch.equal(found.state[k], expected[k]) for k in expected)


def test_other_pickles_are_refused(tmp_path: Path) -> None:
    def refused(content: Any, words: str) -> None:
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=words):
            weights.read_weights(str(tmp_path / "x.pkl"))

    zero = torch.zeros(2).numpy()
    refused({"blobs": {"conv1_w": zero}, "cfg": ""}, "Caffe2")
    refused({"conv1_w": zero}, "Caffe2")
    refused([zero], "dictionary")
    refused({"model": {"stem.conv1.weight": zero}, "__author__": "MSRA"}, "neither Faster nor Mask R-CNN")
    refused({"model": {"stem.conv1.weight": "text"}, "__author__": "MSRA"}, "expected an array")
    with pytest.raises(FileNotFoundError, match="no such file"):
        weights.read_weights(str(tmp_path / "none.pkl"))


def test_unsupported_layers_are_refused() -> None:
    shapes = shapes_of()
    more = shapes | {"roi_heads.keypoint_head.conv_fcn1.weight": (512, 256, 3, 3)}
    with pytest.raises(ValueError, match=r"1 of \d+ tensors belong to no part.*keypoint_head\.conv_fcn1"):
        converted(more)
    cascade = {k.replace("box_head.fc", "box_head.0.fc"): v for k, v in shapes.items()}
    with pytest.raises(ValueError, match=r"4 of \d+ tensors belong to no part.*box_head\.0\.fc1"):
        converted(cascade)
    deeper = shapes | {k.replace("res3.3", f"res3.{i}"): v for i in range(4, 9) for k, v in shapes.items()}
    with pytest.raises(ValueError, match="no backbone of this project has these numbers"):
        converted(deeper)
    with pytest.raises(ValueError, match="no whole detector"):
        converted({k: v for k, v in shapes.items() if "objectness" not in k})
    with pytest.raises(ValueError, match="no square"):
        converted(shapes | {"roi_heads.box_head.fc1.weight": (1024, 256 * 48)})
