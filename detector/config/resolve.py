"""Resolve a composed configuration into the final one, once, before anything is built."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from detector.config.build import (
    check_annotations,
    check_heads,
    complete_dataset,
    drop_inherited,
    metric_nodes,
    needed_annotations,
    open_split,
    pastes_masks,
    takes_proposals,
)
from detector.config.classes import dataset_classes, with_labels_of
from detector.config.compose import read_yaml
from detector.config.conventions import apply_conventions
from detector.config.given import given_dataset, set_detections, set_nms, set_proposals
from detector.config.images import fit_normalization
from detector.config.overrides import key_of
from detector.config.proposer import borrowed_rpn
from detector.config.splits import refuse_nulls
from detector.config.trained import Trained, open_checkpoint
from detector.data.augment import Augment
from detector.data.stream import default_workers
from detector.types import DetectionDataset
from detector.weights import PretrainedWeights
from detector.weights.checkpoints import checkpoint_config, portable_config, read_checkpoint
from detector.weights.trust import check_loggers, check_targets, trust_packages

log = logging.getLogger(__name__)

AUTO = "auto"
"""`resume=auto` resumes the run in the run's folder if there is one; `trainer.precision=auto` follows the device."""
MOVABLE_KEYS = ("data_dir", "workers", "trainer", "logger", "resume", "trust", "hydra")
"""Keys that a resumed run may change, since they do not change what is computed."""
_EXTENDING = "steps validate_every checkpoint_every keep_every patience skip_bad_steps validation_loss"
EXTENDING_KEYS = tuple(f"schedule.{name}" for name in _EXTENDING.split())
"""Further keys that `resume=CHECKPOINT` may change: how long the run goes on, and what is saved meanwhile."""
FIXED_TRAINER_KEYS = ("precision", "accumulate_grad_batches")
"""Keys of `trainer` that change what is computed, and that a resumed run therefore keeps."""
MACHINE_TRAINER_KEYS = (
    *("accelerator", "devices", "num_nodes", "strategy"),
    *("compile", "enable_progress_bar", "log_every_n_steps"),
)
"""Keys of `trainer` that describe the machine and the display, and do not change what is computed, but for rounding."""
PRECISIONS = {"32-true": None, "64-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Autocast's dtype by Lightning's name of the precision; None: no autocast."""
PRECISION_ALIASES = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
"""Lightning's names of precisions by its short names."""


@dataclass(frozen=True)
class Resolved:
    """A final configuration, with the datasets and weights that were read to complete it."""

    config: DictConfig
    """complete and read-only"""
    portable: dict[str, Any]
    """the configuration to store in checkpoints, see `portable_config`"""
    datasets: Mapping[str, DetectionDataset] = field(default_factory=dict)
    """the splits that were opened, by name"""
    trained: Trained | None = None
    """the trained detector of `checkpoint=`"""
    initial: PretrainedWeights | None = None
    """initial weights of a new run (`weights=`)"""
    proposer: Mapping[str, Tensor] | None = None
    """state dict of a frozen RPN (`proposals=CHECKPOINT`)"""


def resolve(
    config: DictConfig,
    overrides: Sequence[str] = (),
    splits: Sequence[str] = ("train", "val"),
    evaluated: bool = True,
) -> Resolved:
    """Resolve the composed configuration of a script; nothing is decided later.

    The configuration is, of

    - a new run: the composed one, with the conventions of its initial weights (`weights=`);
    - a resumed run (`resume=`): the one in its checkpoint, with the overrides that may change;
    - a trained detector (`checkpoint=`): the one in its checkpoint, with the script's dataset, trainer, ...

    Then precision, number of workers, proposer, metrics and classes are filled in, and each `_target_` is checked.

    Args:
        config: composed from `configs/train.yaml`, `evaluate.yaml`, `predict.yaml` or `proposals.yaml`.
        overrides: from the command line.
        splits: splits of the dataset to open; training needs both.
        evaluated: whether the detector is trained or evaluated on these splits: they must have its classes, and the
            annotations that its heads need are read. Else only its RPN is used.

    Raises:
        ValueError, OSError: the configuration, a checkpoint or the data is invalid.
    """
    trusted = trust_packages(config.get("trust") or ())
    trained = initial = proposer = None
    if config.get("dataset") is not None:
        refuse_nulls(config.dataset)
    if "checkpoint" in config:
        trained = open_checkpoint(config.checkpoint, config.norm_eps)
        final = _trained_config(config, trained, overrides, splits)
        if evaluated:
            set_proposals(final, config)
            set_nms(final, config)
    elif config.resume not in (None, AUTO):
        final = _resumed_config(config, overrides)
    elif config.weights is not None:
        final, initial = apply_conventions(config, overrides)
    else:
        final = config.copy()
    OmegaConf.set_struct(final, False)
    key = "precision" if "precision" in config else "trainer.precision"
    final.trainer.precision = resolve_precision(str(final.trainer.precision), str(final.trainer.accelerator), key)
    if final.trainer.precision == "16-mixed" and not _on_gpu(str(config.get("device") or final.trainer.accelerator)):
        asked = trained is None or OmegaConf.select(config, key) is not None
        final.trainer.precision = _without_fp16(key, asked, config.get("resume") not in (None, AUTO))
    final.workers = default_workers() if final.workers is None else final.workers
    final.trust = trusted
    final.dataset.metrics = metric_nodes(final.dataset.metrics)
    check_levels(final.get("pooler"))
    check_heads(final.model, final.backbone)
    complete_dataset(final.dataset)
    if trained is None:
        fit_normalization(final)
        check_numbers(OmegaConf.to_container(final, resolve=True))
        if (borrowed := borrowed_rpn(final.get("proposals"), final.model, final.dataset.val_augment)) is not None:
            final.model.proposer, proposer = borrowed
        check_targets(portable_config(final), "this run", new_run=True)
    for augment in (final.dataset.train_augment, final.dataset.val_augment):
        drop_inherited(augment, Augment)
    model = final.model if evaluated else None
    masks = {split: trained is None and pastes_masks(final.dataset, split) for split in splits}
    datasets = {s: open_split(final.dataset[s], s, model, final.proposals, masks[s]) for s in splits}
    if trained is None:
        check_annotations(needed_annotations(final.model), datasets["train"])
    if evaluated and datasets:
        datasets, names = _with_labels(datasets, final.classes, config, trained)
        final.classes, final.num_classes = names, len(names)
    OmegaConf.set_struct(final, True)
    OmegaConf.set_readonly(final, True)
    return Resolved(final, portable_config(final), datasets, trained, initial, proposer)


def _with_labels(
    datasets: Mapping[str, DetectionDataset], given: Sequence[str] | None, config: DictConfig, trained: Trained | None
) -> tuple[dict[str, DetectionDataset], list[str]]:
    """Return the datasets with the labels of a trained detector, a resumed run, or else the first; and their names.

    Args:
        datasets: by split.
        given: class names in the final configuration, if any.
        config: the composed one.
        trained: the trained detector, if any.

    Raises:
        ValueError: they have other classes.
    """
    if trained is not None:
        source, first = f"checkpoint {str(config.checkpoint)!r}", next(iter(datasets.values()))
        unnamed = not trained.named and len(first.classes) == len(trained.config.classes)
        return with_labels_of(datasets, None if unnamed else list(trained.config.classes), source)
    if config.resume not in (None, AUTO):
        return with_labels_of(datasets, given, f"the run of {str(config.resume)!r}")
    found, names = with_labels_of(datasets)
    return found, dataset_classes(given, names)


def _trained_config(
    config: DictConfig, trained: Trained, overrides: Sequence[str], splits: Sequence[str]
) -> DictConfig:
    """Return the configuration of a trained detector with the settings of a script."""
    final = trained.config.copy()
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
        final.dataset, lines = given_dataset(final, config, overrides, splits)
        for line in lines:
            log.info(line)
    set_detections(final, trained.config, config, overrides)
    if config.get("proposals") is not None:
        if not takes_proposals(final.model):
            raise ValueError(
                f"proposals={config.proposals}: checkpoint {config.checkpoint!r} has an RPN, and needs none"
            )
        final.proposals = config.proposals
    return final


def _resumed_config(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Return the configuration in the checkpoint of `resume=`, with the overrides that may change."""
    content = read_checkpoint(config.resume)
    final = checkpoint_config(content)
    overrides = [o for o in overrides if key_of(o) != "resume"]
    keys = [key_of(o) for o in overrides]
    refused = {f"trainer.{name}" for name in FIXED_TRAINER_KEYS}
    fixed = [
        o
        for o, key in zip(overrides, keys, strict=True)
        if (key.split(".")[0] not in MOVABLE_KEYS and key not in EXTENDING_KEYS) or key in refused
    ]
    if fixed:
        raise ValueError(
            f"resume takes the run's own configuration; leave out {' '.join(fixed)}. To train on with other settings, "
            f"begin a new run from these weights: weights={config.resume} in place of resume="
        )
    if "schedule.steps" in keys:
        _extend(final, config.schedule.steps, int(content["global_step"]))
    given = any(re.split(r"[./]", key)[0] == "logger" for key in keys)
    final.logger = config.logger if given else recorded_logger(Path(config.resume).absolute().parents[1], config.logger)
    if "trainer" in keys:
        kept = {name: final.trainer[name] for name in FIXED_TRAINER_KEYS}
        final.trainer = {**config.trainer, **kept, "compile": final.trainer.get("compile", False)}
    for key in keys:
        if key != "trainer" and not key.startswith("hydra"):
            OmegaConf.update(final, key, OmegaConf.select(config, key), force_add=True)
    return final


def _extend(final: DictConfig, steps: Any, done: int) -> None:
    """Give a resumed run another number of steps, in place; its learning rate follows the schedule of that length.

    Args:
        final: the run's configuration.
        steps: the new number.
        done: steps that the checkpoint has done.

    Raises:
        ValueError: the run has done more.
    """
    if isinstance(steps, int) and steps < done:  # other mistakes: `check_numbers`
        raise ValueError(f"schedule.steps={steps}: the run has done {done} steps; give more, or leave it out")
    if final.schedule.scheduler.get("steps") == final.schedule.steps:
        final.schedule.scheduler.steps = steps


def recorded_logger(run: Path, default: Any) -> Any:
    """Return the logger that a run's `config.yaml` records; without that file, `default`.

    Raises:
        ValueError: the file is damaged, or would build a logger that is neither Lightning's nor trusted.
    """
    path = run / "config.yaml"
    if not path.is_file():
        return default
    logger = OmegaConf.select(read_yaml(path), "logger")
    if logger is not None:
        check_loggers(OmegaConf.to_container(logger, resolve=False), str(path))
    return logger


def resolve_precision(name: str, accelerator: str, key: str = "trainer.precision") -> str:
    """Return Lightning's long name of a precision.

    `auto` is bf16-mixed on devices with bf16 matrix units (GPUs since Ampere, CPUs with AMX), else 32-true.

    Raises:
        ValueError: the precision is unknown.
    """
    name = PRECISION_ALIASES.get(name, name)
    if name in PRECISIONS:
        return name
    if name != AUTO:
        raise ValueError(f"{key} must be one of auto, {', '.join((*PRECISIONS, *PRECISION_ALIASES))}, not {name!r}")
    if _on_gpu(accelerator):
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = accelerator in ("auto", "cpu") and torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if fast else "32-true"


def _on_gpu(accelerator: str) -> bool:
    return accelerator.split(":")[0] in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def _without_fp16(key: str, asked: bool, resumed: bool) -> str:
    """Return the precision of a detector on a CPU that was trained in 16-mixed, which needs a GPU.

    Args:
        key: of the precision, for messages.
        asked: whether 16-mixed is asked for.
        resumed: whether a run is to go on in it.

    Raises:
        ValueError: it is.
    """
    if resumed:
        raise ValueError("the run trains in 16-mixed, which needs a GPU: go on there, or begin a new run with weights=")
    if asked:
        raise ValueError(f"{key}=16-mixed needs a GPU: give bf16-mixed or 32-true")
    log.info("%s=bf16-mixed on a CPU, since 16-mixed, in which the detector was trained, needs a GPU", key)
    return "bf16-mixed"


def with_classes(config: DictConfig, classes: Sequence[str]) -> DictConfig:
    """Return a copy of a configuration with `classes` and `num_classes` of its dataset.

    Raises:
        ValueError: it names other classes, or an unknown rule for the level of a RoI.
    """
    config = config.copy()
    OmegaConf.set_readonly(config, False)
    check_levels(config.get("pooler"))
    config.classes = dataset_classes(config.classes, classes)
    config.num_classes = len(classes)
    return config


def check_levels(pooler: DictConfig | None) -> None:
    """Check `pooler.levels`, the rule for the level of a RoI.

    Raises:
        ValueError: the rule is unknown.
    """
    words = None if pooler is None else pooler.get("rounding_by")
    if pooler is not None and words is not None and pooler.levels not in words:
        raise ValueError(f"pooler.levels must be one of {', '.join(words)}, not {pooler.levels!r}")


def check_numbers(config: Any) -> None:
    """Check numbers that would otherwise fail only after the training has started.

    Args:
        config: the resolved configuration, as plain data.

    Raises:
        ValueError: a number is out of range.
    """
    seed, trainer, schedule = config["seed"], config["trainer"], config["schedule"]
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be a whole number from 0 to 2^32 - 1, not {seed!r}")
    counts = ("steps", "batch_size", "val_batch_size", "validate_every", "checkpoint_every")
    for name, value in (
        *((f"schedule.{name}", schedule[name]) for name in counts),
        ("trainer.accumulate_grad_batches", trainer.get("accumulate_grad_batches")),
        ("trainer.log_every_n_steps", trainer.get("log_every_n_steps", 1)),
    ):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    for name, least in (("keep_every", 1), ("patience", 1), ("skip_bad_steps", 0)):
        value = schedule.get(name)
        if value is not None and (type(value) is not int or value < least):
            raise ValueError(f"schedule.{name} must be null or a whole number of at least {least}, not {value!r}")
    if not isinstance(schedule.get("validation_loss", False), bool):
        raise ValueError(f"schedule.validation_loss must be true or false, not {schedule['validation_loss']!r}")
    clip = schedule.get("clip")
    if clip is not None and (isinstance(clip, bool) or not isinstance(clip, int | float) or not 0 <= clip < math.inf):
        raise ValueError(f"schedule.clip must be null or a norm such as 10.0, not {clip!r}")
    given = {"max_steps": "schedule.steps", "gradient_clip_val": "schedule.clip", "logger": "logger"}
    given |= {"val_check_interval": "schedule.validate_every", "max_epochs": "schedule.steps"}
    for name, key in given.items():
        if name in trainer:
            raise ValueError(f"trainer.{name} is set by {key}: give that")
    if schedule.get("monitor") == "val_loss":
        if not schedule.get("validation_loss"):
            raise ValueError("schedule.monitor=val_loss needs schedule.validation_loss=true")
        if schedule.get("monitor_mode") != "min":
            raise ValueError("schedule.monitor=val_loss: lower is better; give schedule.monitor_mode=min, too")
    decay = schedule.get("ema")
    if decay is not None and not (isinstance(decay, float) and 0 < decay < 1):
        raise ValueError(f"schedule.ema must be null or a number between 0 and 1, such as 0.999, not {decay!r}")
    if schedule.get("monitor_mode") not in ("max", "min"):
        raise ValueError(f"schedule.monitor_mode must be max or min, not {schedule.get('monitor_mode')!r}")
    if trainer.get("gradient_clip_algorithm") not in (None, "norm"):
        raise ValueError("trainer.gradient_clip_algorithm: gradients are always clipped by norm; leave it out")
    parts = trainer.get("compile", False)
    if not isinstance(parts, bool) and not (isinstance(parts, list) and all(isinstance(part, str) for part in parts)):
        raise ValueError(f"trainer.compile must be true, false or a list such as [backbone], not {parts!r}")
    if trainer["precision"] == "16-mixed" and schedule.get("skip_bad_steps"):
        raise ValueError(
            "trainer.precision=16-mixed leaves out steps whose gradients overflow itself; leave out "
            "schedule.skip_bad_steps, or use bf16-mixed"
        )
    if Path(config["data_dir"]).is_file():
        raise ValueError(f"data_dir={config['data_dir']} is a file; give the folder of the datasets")
