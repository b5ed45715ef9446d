"""Proposals from a detector that was trained apart: its RPN as a part of another model, and what it proposes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from detector.config import build
from detector.data.proposal_files import NEEDED, READERS, ImageProposals
from detector.inference.detector import Detector
from detector.models.proposals import FrozenProposals
from detector.models.rcnn import RCNN
from detector.models.rpn import RPN
from detector.types import Batch
from detector.weights import checkpoints

FROZEN = "detector.models.proposals.FrozenProposals"


def adopt(config: DictConfig) -> tuple[DictConfig, dict[str, Tensor] | None]:
    """Where `proposals` is a detector, the configuration with its RPN, frozen, as the model's proposer.

    The RPN is described by plain data, so that a run from then on needs only itself.

    Args:
        config: composed; `proposals` is None, a file of proposals, or what `build.open_checkpoint` opens.

    Returns:
        the configuration, and the state of `model.proposer`; None where nothing is to be put into it.

    Raises:
        ValueError: `proposals` is missing, not for this model, or neither a file of proposals nor a detector with an
            RPN.
    """
    source = config.get("proposals")
    if not build.takes_proposals(config):
        if source is not None and not has_frozen(config):  # which a resumed run has
            ways = "model=fast_rcnn, model=fast_mask_rcnn, or model/proposer=given beside another"
            raise ValueError(f"proposals={source}: this model has an RPN of its own; take {ways}")
        return config, None
    if source is None:
        raise ValueError(NEEDED)
    if Path(source).suffix in READERS:
        return config, None
    try:
        trained = build.open_checkpoint(source)
    except (ValueError, FileNotFoundError) as error:
        kinds = f"a file of proposals (*{', *'.join(READERS)}) or a trained detector"
        raise ValueError(f"proposals={source}: {kinds} was expected; {error}") from error
    if build.takes_proposals(trained.config):
        raise ValueError(f"proposals={source}: this detector has no RPN either; give one of model=faster_rcnn")
    model = build.build_model(trained.config)
    trained.load(model)
    proposer = freeze(model, trained.config.backbone.size_divisibility)
    parts = checkpoints.portable(trained.config)["model"]
    node = {
        "_target_": FROZEN,
        "normalize": parts["normalize"],
        "backbone": parts["backbone"],
        "rpn": parts["proposer"],
        "size_divisibility": proposer.size_divisibility,
    }
    config = config.copy()
    OmegaConf.set_readonly(config, False)
    OmegaConf.set_struct(config, False)
    config.model.proposer = parts["proposer"] if has_frozen(trained.config) else node
    OmegaConf.set_struct(config, True)
    return config, proposer.state_dict()


def has_frozen(config: DictConfig) -> bool:
    """Whether the model has the RPN of another."""
    return bool(OmegaConf.select(config, "model.proposer._target_") == FROZEN)


def freeze(model: RCNN, size_divisibility: int) -> FrozenProposals:
    """The first stage of a detector, with the weights that it has; a borrowed one is lent on.

    Args:
        size_divisibility: of the detector's backbone.
    """
    if isinstance(model.proposer, FrozenProposals):
        return model.proposer
    assert isinstance(model.proposer, RPN)
    return FrozenProposals(model.normalize, model.backbone, model.proposer, size_divisibility)


@torch.inference_mode()
def propose(
    detector: Detector,
    batches: Iterable[Batch],
    split: str,
    pre_nms_topk: int | None = None,
    post_nms_topk: int | None = None,
) -> Iterator[ImageProposals]:
    """What the RPN of a detector proposes, in pixels of the images on disk.

    Args:
        batches: images as the detector wants them.
        split: `train` or `val`; the limits are those of the RPN in training or at inference.
        pre_nms_topk, post_nms_topk: other limits, see `detector.models.rpn.Limits`.
    """
    frozen = freeze(detector.model, detector.stride)
    limits = {"train": frozen.rpn.train_limits, "val": frozen.rpn.test_limits}[split]
    changes = {"pre_nms_topk": pre_nms_topk, "post_nms_topk": post_nms_topk}
    limits = replace(limits, **{name: value for name, value in changes.items() if value is not None})
    for batch in batches:
        with torch.autocast(detector.device.type, detector.dtype) if detector.dtype else nullcontext():
            found = frozen.scored(batch.to(detector.device), limits)
        for image, size, original, (boxes, scores) in zip(
            batch.ids, batch.sizes, batch.original_sizes, found, strict=True
        ):
            y, x = original[0] / size[0], original[1] / size[1]
            yield ImageProposals(split, image, (boxes * boxes.new_tensor([x, y, x, y])).cpu(), scores.cpu())
