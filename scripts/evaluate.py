"""Evaluate a checkpoint: python scripts/evaluate.py checkpoint=RUN/checkpoints/last.ckpt [dataset=... data_dir=...]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detector.config.command_line import run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(config: DictConfig) -> None:
    """Evaluate the checkpoint on its own dataset, or on the one given."""
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from detector.config import build
    from detector.config.cli import console
    from detector.training.run import build_evaluators, evaluate, precision
    from detector.training.task import DetectionTask

    build.check_additions("evaluate", HydraConfig.get().overrides.task)
    trained = build.open_checkpoint(config.checkpoint, config.norm_eps)
    saved = trained.config
    if config.trainer.precision is None:
        config.trainer.precision = saved.trainer.precision
    saved.trainer, saved.workers = config.trainer, config.workers
    saved.trainer.precision = precision(saved)
    if config.batch_size is not None:
        saved.schedule.val_batch_size = config.batch_size
    if config.data_dir is not None:
        saved.data_dir = config.data_dir
    if config.get("dataset") is not None:
        config.data_dir = saved.data_dir
        resized = saved.dataset.val_augment
        saved.dataset = OmegaConf.create(OmegaConf.to_container(config.dataset, resolve=True))
        if not (trained.own or any(o.startswith("dataset.val_augment") for o in HydraConfig.get().overrides.task)):
            saved.dataset.val_augment = resized
    if config.proposals is not None:
        if not build.takes_proposals(saved):
            raise ValueError(
                f"proposals={config.proposals}: checkpoint {config.checkpoint!r} has an RPN, and needs none"
            )
        saved.proposals = config.proposals
    val = build.build_dataset(saved, "val")
    if not trained.named and len(val.classes) == len(saved.classes):
        saved.classes = list(val.classes)
    if list(val.classes) != list(saved.classes):
        here, there = set(val.classes), set(saved.classes)
        raise ValueError(
            f"checkpoint {config.checkpoint!r} knows {len(there)} classes, the dataset {saved.dataset.name} has "
            f"{len(here)}; not in the dataset: {sorted(there - here)[:5]}, not in the checkpoint: "
            f"{sorted(here - there)[:5]}; give the dataset that it was trained for, with the classes in the same order"
        )
    model = build.build_model(saved)
    trained.load(model)
    task = DetectionTask(model, evaluators=build_evaluators(saved, val))
    evaluate(saved, Path(HydraConfig.get().runtime.output_dir), console, task, val)


if __name__ == "__main__":
    run("evaluate", main)
