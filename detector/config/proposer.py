"""Use the frozen RPN of a trained detector as the proposer of another model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from detector.config.build import build_model, takes_proposals
from detector.config.trained import open_checkpoint
from detector.data.proposal_files import NEEDED, READERS
from detector.models.proposals import FrozenProposals, freeze
from detector.weights.checkpoints import portable_config

log = logging.getLogger(__name__)

FROZEN = "detector.models.proposals.FrozenProposals"


def borrowed_rpn(
    source: str | None, model: DictConfig, augment: DictConfig | None = None
) -> tuple[Any, Mapping[str, Tensor]] | None:
    """Return the configuration and weights of the frozen RPN of the detector that `proposals=` names.

    The configuration is plain data, so that the new run later needs only its own checkpoint.

    Args:
        source: a checkpoint, a file of proposals, or None.
        model: the new model's node.
        augment: the new run's `dataset.val_augment`; where it resizes other than the detector's, that is logged, since
            the RPN proposes on the images of the new run.

    Returns:
        the node for `model.proposer` and its state dict; None if `source` is no checkpoint.

    Raises:
        ValueError: `source` is missing, the model has an RPN of its own, or `source` is neither a file of proposals nor
            a detector with an RPN.
    """
    if not takes_proposals(model):
        if source is not None and not has_frozen(model):  # the model of a resumed run already has the frozen RPN
            ways = "model=fast_rcnn, model=fast_mask_rcnn, or another model with model/proposer=given"
            raise ValueError(f"proposals={source}: this model has an RPN of its own; use {ways}")
        return None
    if source is None:
        raise ValueError(NEEDED)
    if Path(source).suffix in READERS:
        return None
    try:
        trained = open_checkpoint(source)
    except (ValueError, FileNotFoundError) as error:
        kinds = f"a file of proposals (*{', *'.join(READERS)}) or a trained detector"
        raise ValueError(f"proposals={source}: expected {kinds}; {error}") from error
    if takes_proposals(trained.config.model):
        raise ValueError(
            f"proposals={source}: this detector has no RPN either; give one that has, such as a faster_rcnn"
        )
    theirs = trained.config.dataset.val_augment
    changed = [
        f"dataset.val_augment.{key}={theirs.get(key)} (here {augment.get(key)})"
        for key in ("short_sizes", "max_size")
        if augment is not None and augment.get(key) != theirs.get(key)
    ]
    if changed:
        log.warning(
            "proposals=%s was trained with %s: give these overrides to keep its scale", source, ", ".join(changed)
        )
    detector = build_model(trained.config)
    trained.load(detector)
    proposer: FrozenProposals = freeze(detector, trained.config.backbone.size_divisibility)
    parts = portable_config(trained.config)["model"]
    node = {
        "_target_": FROZEN,
        "normalize": parts["normalize"],
        "backbone": parts["backbone"],
        "rpn": parts["proposer"],
        "size_divisibility": proposer.size_divisibility,
    }
    return (parts["proposer"] if has_frozen(trained.config.model) else node), proposer.state_dict()


def has_frozen(model: DictConfig) -> bool:
    """Return whether the proposer of a model is the frozen RPN of another detector."""
    return bool(OmegaConf.select(model, "proposer._target_") == FROZEN)
