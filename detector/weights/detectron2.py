"""Convert Detectron2's Faster and Mask R-CNN: tensor names and conventions.

Names and shapes are those of its model definitions (modeling/backbone/resnet.py and fpn.py,
modeling/proposal_generator/rpn.py, modeling/roi_heads/*.py), for any number of blocks, levels and layers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from detector.data.voc import CLASSES as VOC
from detector.weights import conventions, unpickle
from detector.weights.conversion import (
    CLASSIFY,
    MASK,
    PLACEHOLDER,
    REGRESS,
    TRUNK,
    PretrainedWeights,
    Rule,
    abbreviate,
    rename_tensors,
    unflatten,
)
from detector.weights.torchvision import categories

COCO = tuple(name for name in categories("fasterrcnn_resnet50_fpn") if name != PLACEHOLDER)
"""COCO's class names in the order of their ids, which is Detectron2's row order. VOC's are alphabetical in both."""


def read_zoo_file(path: Path) -> dict[str, Tensor]:
    """Read the state dict in a `.pkl` file of Detectron2's model zoo.

    Raises:
        ValueError: the file has another format.
    """
    content = unpickle.read_pickle(path)
    if not isinstance(content, dict):
        raise ValueError(f"weights {str(path)!r}: expected a dictionary, but the file holds a {type(content).__name__}")
    if not isinstance(content.get("model"), dict) or "__author__" not in content:
        raise ValueError(
            f"weights {str(path)!r}: not in the format of Detectron2's model zoo (keys `model` and `__author__`). "
            "Files of Caffe2 and the first Detectron have other names and norms: load them with Detectron2 and save "
            "them with its DetectionCheckpointer"
        )
    state = {}
    for key, value in content["model"].items():
        if not isinstance(value, unpickle.Array):
            raise ValueError(f"weights {str(path)!r}: expected an array, but {key} is a {type(value).__name__}")
        try:
            state[str(key)] = value.tensor()
        except ValueError as error:
            raise ValueError(f"weights {str(path)!r}: {key}: {error}") from error
    return state


def is_detectron2(state: Mapping[str, Any]) -> bool:
    """Return whether the keys of a state dict are those of a two-stage detector of Detectron2."""
    names = [key.removeprefix("module.") for key in state]
    return all(
        any(name.startswith(part) for name in names)
        for part in ("proposal_generator.rpn_head.", "roi_heads.box_predictor.")
    )


def convert(state: Mapping[str, Tensor], source: str) -> PretrainedWeights:
    """Convert a state dict of Detectron2; the first convolution is flipped from BGR to RGB where needed.

    The overrides state the kind and depth of the backbone, masks, norms and, if the file has the buffers, unusual pixel
    means, deviations and anchors. Where a block strides is not in the file: as in the zoo, the first 1x1 convolution,
    but the 3x3 in ResNeXts and in models with trained norms.

    Raises:
        ValueError: layers are missing, or are not part of this project's detectors.
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}
    if not is_detectron2(state):
        raise ValueError(
            f"weights {source!r}: neither Faster nor Mask R-CNN of Detectron2 (proposal_generator.rpn_head or "
            f"roi_heads.box_predictor is missing); it holds {abbreviate(sorted(state))}"
        )
    mean, std = state.pop("pixel_mean", None), state.pop("pixel_std", None)
    cells = [state.pop(key) for key in sorted(state) if ".anchor_generator.cell_anchors." in key]
    new = rename_tensors(state, _rules(state), source)
    overrides = conventions.infer_architecture(new, source)
    unflatten(new, new["proposer.head.convs.0.weight"].shape[1], source)
    rgb, normalise = conventions.infer_preprocessing(mean, std)
    if not rgb:
        stem = "backbone.body.stem.0.weight"
        new[stem] = new[stem].flip(1)
    overrides += normalise + conventions.infer_anchors(cells)
    classes = {len(COCO): list(COCO), len(VOC): list(VOC)}.get(len(new[CLASSIFY + ".weight"]) - 1)
    return PretrainedWeights(new, overrides, classes, source)


def _rules(state: Mapping[str, Tensor]) -> list[Rule]:
    """Return the renaming rules for Detectron2's modules, for as many layers as `state` has."""
    body, stage = r"backbone\.(?:bottom_up\.)?", r"roi_heads\.res5"
    fpn = ".0" if any(re.match(r"backbone\.fpn_lateral\d+\.norm\.", key) for key in state) else ""
    finest = min((int(m[1]) for m in (re.match(r"backbone\.fpn_lateral(\d+)\.", k) for k in state) if m), default=0)
    rules = [
        (body + r"stem\.conv1", "backbone.body.stem.0"),
        (body + r"stem\.conv1\.norm", "backbone.body.stem.1"),
        (r"proposal_generator\.rpn_head\.conv", "proposer.head.convs.0"),
        (r"proposal_generator\.rpn_head\.conv\.conv(\d+)", r"proposer.head.convs.\1"),
        (r"proposal_generator\.rpn_head\.objectness_logits", "proposer.head.objectness"),
        (r"proposal_generator\.rpn_head\.anchor_deltas", "proposer.head.deltas"),
        (r"roi_heads\.box_predictor\.cls_score", CLASSIFY),
        (r"roi_heads\.box_predictor\.bbox_pred", REGRESS),
    ]
    stages = [(body + rf"res{n}", f"backbone.body.layer{n - 1}") for n in range(2, 6)]
    for theirs, own in [*stages, (stage, "heads.box_head.trunk.stage.layer4")]:
        block, name = rf"{theirs}\.(\d+)\.", rf"{own}.\1."
        rules += [
            (block + r"conv(\d)", name + r"conv\2"),
            (block + r"conv(\d)\.norm", name + r"bn\2"),
            (block + r"shortcut", name + "downsample.0"),
            (block + r"shortcut\.norm", name + "downsample.1"),
        ]
    for n in range(finest, finest + 8):
        for part in ("lateral", "output"):
            rules += [
                (rf"backbone\.fpn_{part}{n}", f"backbone.{part}.{n - finest}{fpn}"),
                (rf"backbone\.fpn_{part}{n}\.norm", f"backbone.{part}.{n - finest}.1"),
            ]
    convs, place = _convs(state, r"roi_heads\.box_head\.conv", TRUNK)
    rules += [*convs, *((rf"roi_heads\.box_head\.fc{n + 1}", f"{TRUNK}{place + 2 * n}") for n in range(8))]
    convs, place = _convs(state, r"roi_heads\.mask_head\.mask_fcn", MASK)
    return [
        *rules,
        *convs,
        (r"roi_heads\.mask_head\.deconv", f"{MASK}{place}"),
        (r"roi_heads\.mask_head\.predictor", f"{MASK}{place + 2}"),
    ]


def _convs(state: Mapping[str, Tensor], theirs: str, own: str) -> tuple[list[Rule], int]:
    """Return the rules for convolutions numbered from 1, which become an `nn.Sequential` with norms and ReLUs.

    Returns:
        the rules, and the next free index of the sequence.
    """
    rules, place = [], 0
    for n in range(1, sum(re.fullmatch(rf"{theirs}\d+\.weight", key) is not None for key in state) + 1):
        normed = any(re.match(rf"{theirs}{n}\.norm\.", key) for key in state)
        rules += [(f"{theirs}{n}", f"{own}{place}"), (rf"{theirs}{n}\.norm", f"{own}{place + 1}")]
        place += 3 if normed else 2
    return rules, place
