"""Convert torchvision's Faster and Mask R-CNN: tensor names, published files, conventions.

The names are those of torchvision.models.detection and of the published files. The latter predate version 0.13: a
convolution that is now `X.0`, the first of a sequence, is called `X` there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
import torchvision
from torch import Tensor

from detector.weights.conversion import (
    CLASSIFY,
    MASK,
    REGRESS,
    TRUNK,
    PretrainedWeights,
    Rule,
    layers,
    rename_tensors,
    unflatten,
)

NAMES = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
)
"""The supported models."""


def check_name(name: str) -> None:
    """Check that a torchvision model is supported.

    Raises:
        ValueError: it is not; the message lists those that are.
    """
    if name not in NAMES:
        raise ValueError(
            f"torchvision:{name}: weights of this model cannot be read; those that can: {', '.join(NAMES)}"
        )


def published_file(name: str, download: bool = False) -> Path:
    """Return the path in torch's cache of the weights that torchvision publishes for COCO.

    Args:
        name: one of `NAMES`.
        download: whether to download a missing file, which is then checked against the hash in its name.

    Raises:
        FileNotFoundError: the file is missing, and `download` is false.
        OSError: the download fails.
    """
    url: str = torchvision.models.get_model_weights(name).DEFAULT.url
    path: Path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.is_file():
        return path
    if not download:
        raise FileNotFoundError(
            f"weights torchvision:{name}: no file {str(path)!r}; put {url} there, or download it with "
            f"torchvision:{name}:download"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    match = re.search(r"-([0-9a-f]{8,})\.", path.name)
    try:
        torch.hub.download_url_to_file(url, str(path), match and match[1])
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"weights torchvision:{name}: the download of {url} failed ({error}); download it elsewhere and put it at "
            f"{str(path)!r}"
        ) from error
    return path


def categories(name: str) -> list[str]:
    """Return the names of COCO's ids 1 to 90 (`N/A` if unused): the predictors' rows after the background."""
    names: list[str] = torchvision.models.get_model_weights(name).DEFAULT.meta["categories"]
    return names[1:]


def infer_name(state: Iterable[str]) -> str | None:
    """Infer from its keys which of `NAMES` a state dict belongs to; None if it is not torchvision's."""
    keys = set(state)
    if "rpn.head.cls_logits.weight" not in keys:
        return None
    kind = "maskrcnn" if any(key.startswith("roi_heads.mask_predictor.") for key in keys) else "fasterrcnn"
    return f"{kind}_resnet50_fpn" + ("_v2" if "backbone.fpn.inner_blocks.0.1.weight" in keys else "")


def convert(state: Mapping[str, Tensor], name: str, source: str) -> PretrainedWeights:
    """Convert a state dict of torchvision's model `name`.

    The epsilon of the norms is not in the file:

    - Version 1 as published, and fine-tuned from there: frozen batch norms with eps=0 (torchvision's `overwrite_eps`).
      A file of version 1 without `num_batches_tracked`, which only trained norms have, is taken for one of these.
    - Version 1 trained from ImageNet weights only (`weights_backbone=`): frozen norms with torchvision's default, 1e-5.
      Such a file looks the same, so the user must set `norm.eps` (`norm_eps` in scripts that take a checkpoint).
    - Version 2: trained norms, 1e-5.

    Raises:
        ValueError: the state dict is of another model; the message names the tensors that do not fit.
    """
    check_name(name)
    found = infer_name(state)
    if found != name:
        hint = f"; it looks like torchvision:{found}" if found else ""
        raise ValueError(f"weights {source!r}: not a state dict of torchvision:{name}{hint}")
    new = rename_tensors(state, _rules(state), source)
    unflatten(new, new["proposer.head.convs.0.weight"].shape[1], source)
    mask = [key.removesuffix(".weight") for key in layers(new, MASK)[-1:]]
    for leaf in (".weight", ".bias"):
        new[CLASSIFY + leaf] = new[CLASSIFY + leaf].roll(-1, 0)
        new[REGRESS + leaf] = new[REGRESS + leaf][4:]  # drop the background's box deltas, which torchvision never uses
        for last in mask:
            new[last + leaf] = new[last + leaf][1:]
    trained_norms = name.endswith("_v2") or any(key.endswith("num_batches_tracked") for key in state)
    eps = "1e-5" if trained_norms else "0.0"
    names = categories(name)
    known = len(new[CLASSIFY + ".weight"]) == len(names) + 1
    return PretrainedWeights(
        new, [f"experiment=torchvision_{name}", f"norm.eps={eps}"], names if known else None, source
    )


def _rules(state: Mapping[str, Tensor]) -> list[Rule]:
    """Return the renaming rules for torchvision's modules, for as many layers as `state` has."""
    convs = _count(state, r"roi_heads\.box_head\.(\d+)\.0\.weight")
    depth = _count(state, r"roi_heads\.mask_head\.(?:mask_fcn\d+|\d+\.0)\.weight")
    pace = 3 if "roi_heads.mask_head.0.1.weight" in state else 2
    normed = "backbone.fpn.inner_blocks.0.1.weight" in state
    rules = [
        (r"backbone\.body\.conv1", "backbone.body.stem.0"),
        (r"backbone\.body\.bn1", "backbone.body.stem.1"),
        (r"(backbone\.body\.layer[1-4]\..+)", r"\1"),
        (r"rpn\.head\.conv", "proposer.head.convs.0"),
        (r"rpn\.head\.conv\.(\d+)\.0", r"proposer.head.convs.\1"),
        (r"rpn\.head\.cls_logits", "proposer.head.objectness"),
        (r"rpn\.head\.bbox_pred", "proposer.head.deltas"),
        (r"roi_heads\.box_head\.fc6", TRUNK + "0"),
        (r"roi_heads\.box_head\.fc7", TRUNK + "2"),
        (rf"roi_heads\.box_head\.{convs + 1}", f"{TRUNK}{3 * convs}"),
        (r"roi_heads\.box_predictor\.cls_score", CLASSIFY),
        (r"roi_heads\.box_predictor\.bbox_pred", REGRESS),
        (r"roi_heads\.mask_predictor\.conv5_mask", f"{MASK}{pace * depth}"),
        (r"roi_heads\.mask_predictor\.mask_fcn_logits", f"{MASK}{pace * depth + 2}"),
    ]
    for theirs, own in (("inner", "lateral"), ("layer", "output")):
        if normed:
            rules += [(rf"backbone\.fpn\.{theirs}_blocks\.(\d)\.([01])", rf"backbone.{own}.\1.\2")]
        else:
            rules += [(rf"backbone\.fpn\.{theirs}_blocks\.(\d)(?:\.0)?", rf"backbone.{own}.\1")]
    for i in range(convs):
        rules += [(rf"roi_heads\.box_head\.{i}\.{part}", f"{TRUNK}{3 * i + part}") for part in (0, 1)]
    for i in range(depth):
        rules += [(rf"roi_heads\.mask_head\.(?:mask_fcn{i + 1}|{i}\.0)", f"{MASK}{pace * i}")]
        rules += [(rf"roi_heads\.mask_head\.{i}\.1", f"{MASK}{pace * i + 1}")]
    return rules


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return sum(re.fullmatch(pattern, key) is not None for key in state)
