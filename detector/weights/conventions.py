"""Infer the configuration of a Detectron2 checkpoint from its tensors; the file itself has none.

Overrides follow from names, shapes and buffers. Settings that leave no trace in the tensors (stride placement, pooler,
thresholds) are those of Detectron2's model zoo, in the presets `experiment=detectron2_...`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from detector.weights.conversion import CLASSIFY, MASK, REGRESS, TRUNK, layers

MEAN, STD = (123.675, 116.28, 103.53), (1.0, 1.0, 1.0)
"""The model zoo's pixel mean and standard deviation, in RGB order."""

IMAGENET_STD = (58.395, 57.12, 57.375)
"""The pixel deviation of the zoo's ResNeXts, whose ImageNet weights come from Caffe2, not MSRA."""

ANCHOR_SIZES, ANCHOR_RATIOS = [32, 64, 128, 256, 512], [0.5, 1, 2]

BODIES = {
    (2, 2, 1, 64): "resnet18",
    (4, 6, 1, 64): "resnet34",
    (4, 6, 1, 256): "resnet50",
    (4, 23, 1, 256): "resnet101",
    (4, 6, 32, 256): "resnext50_32x4d",
    (4, 23, 32, 256): "resnext101_32x8d",
}
"""Backbones by (blocks in the second stage, blocks in the third, groups, output channels of the first stage)."""


def infer_architecture(state: Mapping[str, Tensor], source: str) -> list[str]:
    """Infer the preset of a model, and overrides where the model differs from it.

    Args:
        state: renamed to this project's keys; fully connected weights are still matrices.
        source: the file, for messages.

    Raises:
        ValueError: the backbone is not one of `BODIES`.
    """
    body = r"backbone\.body\.layer"
    stage = [_count(state, rf"{body}{n}\.\d+\.conv1\.weight") for n in (2, 3)]
    first = [state[key] for key in sorted(state) if re.fullmatch(rf"{body}1\.0\.conv\d\.weight", key)]
    shape = (stage[0], stage[1], len(first[1]) // first[1].shape[1], len(first[-1])) if len(first) > 1 else (0, 0, 0, 0)
    name = BODIES.get(shape)
    if name is None:
        raise ValueError(
            f"weights {source!r}: no backbone of this project has these numbers of blocks in the second and third "
            f"stage, groups, and output channels of the first stage: {shape}"
        )
    if _count(state, r"backbone\.lateral\..+"):
        kind, anchors = "fpn", len(ANCHOR_RATIOS)
    else:
        kind = "c4" if _count(state, r"heads\.box_head\.trunk\.stage\..+") else "dc5"
        anchors = len(ANCHOR_SIZES) * len(ANCHOR_RATIOS)
    seen: dict[str, tuple[int, int]] = {
        "model.proposer.head.depth": (_count(state, r"proposer\.head\.convs\.\d+\.weight"), 1),
        "backbone.anchors": (len(state["proposer.head.objectness.weight"]), anchors),
    }
    if kind == "fpn":
        seen["backbone.channels"] = (state["proposer.head.convs.0.weight"].shape[1], 256)
    return [
        f"experiment=detectron2_{kind}",
        f"backbone={name}_{kind}",
        f"model={'mask' if layers(state, MASK) else 'faster'}_rcnn",
        *_norms(state),
        *(["backbone.stride_in_1x1=false", f"model.normalize.std={_list(IMAGENET_STD)}"] if "resnext" in name else []),
        *(f"{key}={value}" for key, (value, usual) in seen.items() if value != usual),
        *_box_head(state),
        *_mask_head(state, kind),
    ]


def _norms(state: Mapping[str, Tensor]) -> list[str]:
    """Infer the norm from its buffers. The zoo's models with trained norms stride in their 3x3 convolutions."""
    if "backbone.body.stem.1.running_mean" not in state:
        norm = ["norm=group", "~norm.eps", "backbone.stride_in_1x1=false"]
    elif "backbone.body.stem.1.num_batches_tracked" in state:
        norm = ["norm=batch", "backbone.stride_in_1x1=false"]
    else:
        norm = []
    return norm + (["backbone.fpn_norm=${norm}"] if "backbone.lateral.0.1.weight" in state else [])


def _box_head(state: Mapping[str, Tensor]) -> list[str]:
    trunk = layers(state, TRUNK)
    convs = [key for key in trunk if state[key].ndim == 4]
    matrices = [key for key in trunk if state[key].ndim == 2]
    overrides = []
    if convs:
        overrides += ["backbone.trunk._target_=detector.models.box_head.ConvFC", f"+backbone.trunk.convs={len(convs)}"]
        overrides += ["+backbone.trunk.norm=${norm}"] if TRUNK + "1.weight" in state else []
    if matrices and len(state[matrices[0]]) != 1024:
        overrides.append(f"backbone.width={len(state[matrices[0]])}")
    if len(state[REGRESS + ".weight"]) == 4 and len(state[CLASSIFY + ".weight"]) > 2:
        overrides.append("model.heads.box_head.cls_agnostic_bbox_reg=true")
    return overrides


def _mask_head(state: Mapping[str, Tensor], kind: str) -> list[str]:
    masks = layers(state, MASK)
    if not masks:
        return []
    *convs, double, last = (state[key] for key in masks if state[key].ndim == 4)
    overrides = ["mask_head.norm=${norm}"] if MASK + "1.weight" in state else []
    if len(convs) != (0 if kind == "c4" else 4):
        overrides.append(f"backbone.mask_depth={len(convs)}")
    if double.shape[1] != 256:
        overrides.append(f"backbone.mask_width={double.shape[1]}")
    if len(last) == 1 and len(state[CLASSIFY + ".weight"]) > 2:
        overrides.append("mask_loss=class_agnostic")
    return overrides


def infer_preprocessing(mean: Tensor | None, std: Tensor | None) -> tuple[bool, list[str]]:
    """Infer whether a model takes RGB images, and overrides for an unusual mean or deviation.

    Args:
        mean, std: the file's `pixel_mean` and `pixel_std`, [3] or [3, 1, 1], for pixels in 0..255; None if absent.

    Returns:
        whether the order is RGB (else BGR), and the overrides.
    """
    rgb = mean is not None and torch.allclose(mean.flatten().float(), torch.tensor(MEAN), atol=1e-3)
    overrides = []
    for name, value, usual in (("mean", mean, MEAN), ("std", std, STD)):
        if value is None:
            continue
        channels = value.flatten().float() if rgb else value.flatten().float().flip(0)
        if not torch.allclose(channels, torch.tensor(usual), atol=1e-3):
            overrides.append(f"model.normalize.{name}={_list(channels.tolist())}")
    return rgb, overrides


def infer_anchors(cells: Sequence[Tensor]) -> list[str]:
    """Infer overrides for unusual anchors.

    Args:
        cells: the anchors of one cell by level, each [A, 4] centred on the origin, ordered by size, then aspect ratio
            (height / width).
    """
    sides = [(cell[:, 2:] - cell[:, :2]).double() for cell in cells]
    sizes = [list(dict.fromkeys(round(s, 2) for s in side.prod(1).sqrt().tolist())) for side in sides]
    ratios = [list(dict.fromkeys(round(r, 3) for r in (side[:, 1] / side[:, 0]).tolist())) for side in sides]
    overrides = []
    if sizes and [size for level in sizes for size in level] != ANCHOR_SIZES:
        overrides.append(f"backbone.anchor_sizes=[{','.join(_list(level) for level in sizes)}]")
    if ratios and ratios[0] != ANCHOR_RATIOS:
        overrides.append(f"model.proposer.anchors.ratios={_list(ratios[0])}")
    return overrides


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return sum(re.fullmatch(pattern, key) is not None for key in state)


def _list(values: Sequence[float]) -> str:
    return f"[{','.join(f'{value:.6g}' for value in values)}]"
