"""Write the proposals of a detector's RPN to a file (`scripts/proposals.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader

from detector.config.build import instantiate
from detector.config.resolve import resolve
from detector.data.collate import Collate
from detector.data.proposal_files import ImageProposals, check_name, write_proposals
from detector.data.stream import InOrder, prepare_worker
from detector.inference.detector import Detector
from detector.models.proposals import freeze
from detector.types import Batch


def propose_on_dataset(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
    """Run the RPN on the images of a dataset, resized as in evaluation, and write the file `config.output`.

    Args:
        config: composed from `configs/proposals.yaml`.
        overrides: from the command line.
        folder: not used; see `detector.config.cli.Work`.
        console: where progress is shown.

    Raises:
        ValueError, OSError: the configuration, the checkpoint or the data is invalid.
    """
    del folder
    output = check_name(config.output)
    if not config.splits or not set(config.splits) <= {"train", "val"}:
        raise ValueError(f"splits must be [train], [val] or [train,val], not {config.splits}")
    for name in ("pre_nms_topk", "post_nms_topk", "batch_size"):
        if config[name] is not None and (not isinstance(config[name], int) or config[name] < 1):
            raise ValueError(f"{name} must be a whole number of at least 1, not {config[name]!r}")
    resolved = resolve(config, overrides, config.splits, evaluated=False)
    detector = Detector.of(resolved, config.device, config.checkpoint)
    augment = instantiate(resolved.config.dataset.val_augment)
    found: list[ImageProposals] = []
    for split, dataset in resolved.datasets.items():
        loader = DataLoader(
            InOrder(dataset, augment),
            resolved.config.schedule.val_batch_size,
            num_workers=resolved.config.workers,
            collate_fn=Collate(detector.size_divisibility),
            worker_init_fn=prepare_worker,
        )
        images = propose(detector, loader, split, config.pre_nms_topk, config.post_nms_topk)
        found += track(images, f"Proposing on {split}", len(dataset), console=console)
    write_proposals(output, found)
    console.print(f"{sum(len(i.boxes) for i in found)} proposals for {len(found)} images: {output}", markup=False)


@torch.inference_mode()
def propose(
    detector: Detector,
    batches: Iterable[Batch],
    split: str,
    pre_nms_topk: int | None = None,
    post_nms_topk: int | None = None,
) -> Iterator[ImageProposals]:
    """Yield the proposals of each image, in pixels of the original image.

    Args:
        detector: a detector with an RPN.
        batches: batches of images, resized as in evaluation.
        split: `train` for the RPN's limits in training, `val` for those at inference.
        pre_nms_topk, post_nms_topk: override these limits, see `detector.models.rpn.Limits`.
    """
    frozen = freeze(detector.model, detector.size_divisibility)
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
