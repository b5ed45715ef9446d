"""Write an RPN's proposals for model=fast_rcnn: python scripts/proposals.py checkpoint=... output=FILE.npz."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detector.config.command_line import run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(config: DictConfig) -> None:
    """Propose on the images of the dataset, resized and not augmented."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf
    from rich.progress import track

    from detector.config import build
    from detector.config.cli import console
    from detector.data.datamodule import DetectionDataModule
    from detector.data.proposal_files import ImageProposals, check_name, write
    from detector.inference.detector import Detector
    from detector.inference.proposing import propose

    build.check_additions("proposals", HydraConfig.get().overrides.task)
    output = check_name(config.output)
    if not config.splits or not set(config.splits) <= {"train", "val"}:
        raise ValueError(f"splits must be [train], [val] or [train,val], not {config.splits}")
    for name in ("pre_nms", "post_nms", "batch_size"):
        if config[name] is not None and (not isinstance(config[name], int) or config[name] < 1):
            raise ValueError(f"{name} must be a whole number of at least 1, not {config[name]!r}")
    detector = Detector(config.checkpoint, config.device, config.precision, config.norm_eps)
    saved = detector.config
    if config.data_dir is not None:
        saved.data_dir = config.data_dir
    if config.get("dataset") is not None:
        config.data_dir = saved.data_dir
        saved.dataset = OmegaConf.create(OmegaConf.to_container(config.dataset, resolve=True))
    augment = build.instantiate(saved.dataset.val_augment)
    found: list[ImageProposals] = []
    for split in config.splits:
        node = saved.dataset[split]
        node.update({"masks": False} if "masks" in node else {})
        data = DetectionDataModule(
            train=None,
            val=build.build_dataset(saved, split),
            train_augment=augment,
            val_augment=augment,
            steps=1,
            batch_size=1,
            val_batch_size=config.batch_size or saved.schedule.val_batch_size,
            workers=config.workers,
            stride=detector.stride,
        )
        images = propose(detector, data.val_dataloader(), split, config.pre_nms, config.post_nms)
        found += track(images, f"Proposing on {split}", len(data.val), console=console)
    write(output, found)
    console.print(f"{sum(len(i.boxes) for i in found)} proposals for {len(found)} images: {output}")


if __name__ == "__main__":
    run("proposals", main)
