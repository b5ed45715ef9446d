"""Resolve a composed configuration into the final one. It is called once, before anything is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from detector.config.build import check_heads, check_needs, metric_nodes, needs, open_split, takes_proposals
from detector.config.compose import key_of
from detector.config.conventions import with_conventions
from detector.config.proposer import borrowed_rpn
from detector.config.trained import Trained, open_checkpoint
from detector.data.stream import default_workers
from detector.types import DetectionDataset
from detector.weights import Foreign
from detector.weights.checkpoints import config_of, portable, read_checkpoint
from detector.weights.trust import allow, check_targets

AUTO = "auto"
"""`resume=auto`: go on with what the run's folder holds."""
MOVABLE = ("data_dir", "workers", "trainer", "logger", "resume", "trust", "hydra")
"""Keys that a resumed run may change: where it runs, not what it computes."""
FIXED = ("precision", "accumulate_grad_batches")
"""Keys of the trainer that change what is computed; a resumed run keeps them."""
PLACE = ("accelerator", "devices", "num_nodes", "strategy", "enable_progress_bar", "log_every_n_steps")
"""Keys of the trainer that say where a run runs, not what it computes."""
PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Lightning's names of precisions, and the dtype of autocast."""
SHORT = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
"""Lightning's short names."""


@dataclass(frozen=True)
class Resolved:
    """A final configuration, and what had to be read to complete it."""

    config: DictConfig
    """complete and read-only"""
    portable: dict[str, Any]
    """the configuration that a checkpoint carries"""
    datasets: Mapping[str, DetectionDataset] = field(default_factory=dict)
    """the splits that were opened, by name"""
    trained: Trained | None = None
    """the trained detector of `checkpoint=`"""
    initial: Foreign | None = None
    """the weights that a new run begins with (`weights=`)"""
    proposer: Mapping[str, Tensor] | None = None
    """the state of a frozen RPN (`proposals=CHECKPOINT`)"""


def resolve(
    config: DictConfig,
    overrides: Sequence[str] = (),
    splits: Sequence[str] = ("train", "val"),
    annotations: bool = True,
) -> Resolved:
    """Resolve the configuration of a script: everything that is decided, is decided here.

    A new run takes the conventions of its initial weights; a resumed run (`resume=`) takes the configuration in its
    checkpoint, with the overrides that may change; a trained detector (`checkpoint=`) takes its training's, with the
    dataset, trainer and so on that the script gives. Then precision, number of workers, proposer and classes are
    settled, and every `_target_` is checked against what checkpoints may build.

    Args:
        config: composed from `configs/train.yaml`, `evaluate.yaml`, `predict.yaml` or `proposals.yaml`.
        overrides: from the command line.
        splits: of the dataset that are opened; a training needs both.
        annotations: whether to read what the model's further heads learn from, such as masks.

    Raises:
        ValueError, OSError: the configuration, a checkpoint or the data is at fault.
    """
    allow(config.get("trust") or ())
    trained = initial = proposer = None
    if "checkpoint" in config:
        trained = open_checkpoint(config.checkpoint, config.norm_eps)
        final = _applied(config, trained, overrides)
    elif config.resume not in (None, AUTO):
        final = _resumed(config, overrides)
    elif config.weights is not None:
        final, initial = with_conventions(config, overrides)
    else:
        final = config
    OmegaConf.set_struct(final, False)
    key = "precision" if "precision" in config else "trainer.precision"
    final.trainer.precision = precision(str(final.trainer.precision), str(final.trainer.accelerator), key)
    final.workers = default_workers() if final.workers is None else final.workers
    final.trust = list(config.get("trust") or ())
    final.dataset.metrics = metric_nodes(final.dataset.metrics)
    check_levels(final.get("pooler"))
    check_heads(final.model, final.backbone)
    if trained is None:
        check_numbers(OmegaConf.to_container(final, resolve=True))
        if (borrowed := borrowed_rpn(final.get("proposals"), final.model)) is not None:
            final.model.proposer, proposer = borrowed
        check_targets(portable(final), "this run", begins=True)
    model = final.model if annotations else None
    datasets = {split: open_split(final.dataset[split], split, model, final.proposals) for split in splits}
    if trained is None:
        check_needs(needs(final.model), datasets["train"])
    for dataset in datasets.values():
        if trained is not None:
            names = trained_classes(trained, dataset.classes, str(config.checkpoint), final.dataset.name)
        else:
            names = dataset_classes(final.classes, dataset.classes)
        final.classes, final.num_classes = names, len(names)
    OmegaConf.set_struct(final, True)
    OmegaConf.set_readonly(final, True)
    return Resolved(final, portable(final), datasets, trained, initial, proposer)


def _applied(config: DictConfig, trained: Trained, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a trained detector as a script runs it."""
    final = trained.config
    if "trainer" in config:
        precision = config.trainer.precision or final.trainer.precision
        final.trainer = {**config.trainer, "precision": precision}
    elif config.precision is not None:
        final.trainer.precision = config.precision
    final.workers = config.get("workers")
    if config.get("batch_size") is not None:
        final.schedule.val_batch_size = config.batch_size
    if config.get("data_dir") is not None:
        final.data_dir = config.data_dir
    if config.get("dataset") is not None:
        config.data_dir = final.data_dir
        resized = final.dataset.val_augment
        final.dataset = OmegaConf.create(OmegaConf.to_container(config.dataset, resolve=True))
        if not (trained.own or any(o.startswith("dataset.val_augment") for o in overrides)):
            final.dataset.val_augment = resized
    if config.get("proposals") is not None:
        if not takes_proposals(final.model):
            raise ValueError(
                f"proposals={config.proposals}: checkpoint {config.checkpoint!r} has an RPN, and needs none"
            )
        final.proposals = config.proposals
    return final


def _resumed(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration in the checkpoint, with the overrides that may change."""
    final = config_of(read_checkpoint(config.resume))
    overrides = [o for o in overrides if not o.startswith("resume=")]
    keys = [key_of(o) for o in overrides]
    refused = {f"trainer.{name}" for name in FIXED}
    fixed = [o for o, key in zip(overrides, keys, strict=True) if key.split(".")[0] not in MOVABLE or key in refused]
    if fixed:
        raise ValueError(f"resume takes the run's own configuration; leave out {' '.join(fixed)}")
    final.logger = config.logger
    if "trainer" in keys:
        final.trainer = {**config.trainer, **{name: final.trainer[name] for name in FIXED}}
    for key in keys:
        if key != "trainer" and not key.startswith("hydra"):
            OmegaConf.update(final, key, OmegaConf.select(config, key), force_add=True)
    return final


def precision(name: str, accelerator: str, key: str = "trainer.precision") -> str:
    """Return the precision in Lightning's long name.

    `auto` is bf16-mixed where the device multiplies matrices in it (GPUs since Ampere, CPUs with AMX), else 32-true.

    Raises:
        ValueError: there is no such precision.
    """
    name = SHORT.get(name, name)
    if name in PRECISIONS:
        return name
    if name != AUTO:
        raise ValueError(f"{key} must be one of auto, {', '.join((*PRECISIONS, *SHORT))}, not {name!r}")
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = accelerator in ("auto", "cpu") and torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if fast else "32-true"


def with_classes(config: DictConfig, classes: Sequence[str]) -> DictConfig:
    """Return a copy of a configuration with the names and the number of its dataset's classes.

    Raises:
        ValueError: it names other classes, or an unknown rule for a RoI's level.
    """
    config = config.copy()
    OmegaConf.set_readonly(config, False)
    check_levels(config.get("pooler"))
    config.classes = dataset_classes(config.classes, classes)
    config.num_classes = len(classes)
    return config


def dataset_classes(given: Sequence[str] | None, classes: Sequence[str]) -> list[str]:
    """Return the dataset's classes.

    Raises:
        ValueError: the configuration names others.
    """
    if given is not None and list(given) != list(classes):
        raise ValueError(f"classes is {list(given)}, but the dataset has {list(classes)}; leave it out")
    return list(classes)


def trained_classes(trained: Trained, classes: Sequence[str], checkpoint: str, dataset: str) -> list[str]:
    """Return the classes of a trained detector, which must be those of the dataset.

    Raises:
        ValueError: the dataset has others, or another order.
    """
    known = list(trained.config.classes)
    if list(classes) != known and (trained.named or len(classes) != len(known)):
        here, there = set(classes), set(known)
        raise ValueError(
            f"checkpoint {checkpoint!r} knows {len(there)} classes, the dataset {dataset} has {len(here)}; not in the "
            f"dataset: {sorted(there - here)[:5]}, not in the checkpoint: {sorted(here - there)[:5]}; give the dataset "
            "that it was trained for, with the classes in the same order"
        )
    return list(classes)


def check_levels(pooler: DictConfig | None) -> None:
    """Refuse an unknown rule for a RoI's level."""
    words = None if pooler is None else pooler.get("rounding_by")
    if pooler is not None and words is not None and pooler.levels not in words:
        raise ValueError(f"pooler.levels must be one of {', '.join(words)}, not {pooler.levels!r}")


def check_numbers(config: Any) -> None:
    """Refuse numbers that no part would look at before the training is under way.

    Args:
        config: resolved, plain data.
    """
    seed, trainer, schedule = config["seed"], config["trainer"], config["schedule"]
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be a whole number from 0 to 2^32 - 1, not {seed!r}")
    counts = ("steps", "batch_size", "val_batch_size", "validate_every", "checkpoint_every")
    for name, value in (
        *((f"schedule.{name}", schedule[name]) for name in counts),
        ("trainer.accumulate_grad_batches", trainer.get("accumulate_grad_batches")),
    ):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    if trainer.get("gradient_clip_algorithm") not in (None, "norm"):
        raise ValueError("trainer.gradient_clip_algorithm: gradients are clipped by norm; leave it out")
    if trainer["precision"] == "16-mixed" and schedule["optimizer"].get("fused"):
        raise ValueError("trainer.precision=16-mixed needs schedule.optimizer.fused=false; or take bf16-mixed")
    if Path(config["data_dir"]).is_file():
        raise ValueError(f"data_dir={config['data_dir']} is a file; give the folder where datasets lie or shall lie")
