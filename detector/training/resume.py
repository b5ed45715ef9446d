"""Which run it is to be: a new one, one that was stopped, or none where it is done."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from detector.config import build
from detector.training.folder import configuration, finished, train_command
from detector.training.run import fit, settle
from detector.weights import checkpoints

MOVABLE = ("data_dir", "workers", "trainer", "logger", "resume", "hydra")
"""What a resumed run may change: where it runs, not what it computes."""
FIXED = ("precision", "accumulate_grad_batches")
"""What of the trainer is what it computes, and a resumed run may not change."""
PLACE = ("accelerator", "devices", "num_nodes", "strategy", "enable_progress_bar", "log_every_n_steps")
"""What of the trainer is where it runs."""
AUTO = "auto"


def train(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
    """Train as configured, or go on as `config.resume` says.

    Args:
        config: composed (`configs/train.yaml`). Its `resume` is a checkpoint in a run's folder, which goes on there;
            or `auto`: what `folder` holds goes on, and is left as it is where it is done; None: a new run.
        overrides: from the command line.
        folder: the run's.
        console: where tables are printed.

    Raises:
        ValueError, OSError: the configuration or the data is at fault; before the first step.
    """
    made = train_command([o for o in overrides if not o.lstrip("+").startswith("resume=")])
    if config.resume is None:
        fit(build.in_conventions(config, overrides), folder, console, command=made)
    elif config.resume == AUTO:
        _go_on(build.in_conventions(config, overrides), folder, console, made)
    else:
        checkpoint = Path(config.resume).absolute()
        if checkpoint.is_file() and checkpoint.parent.name != "checkpoints":
            raise ValueError(f"resume {config.resume!r}: a run goes on in its own folder, from RUN/checkpoints/*.ckpt")
        config = _resumed(config, overrides)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        OmegaConf.set_struct(config, True)
        fit(config, checkpoint.parent.parent, console, resume=checkpoint)


def _go_on(config: DictConfig, folder: Path, console: Console, command: str) -> None:
    last = folder / "checkpoints" / "last.ckpt"
    if (folder / "config.yaml").is_file():
        held = configuration(folder)
        changed = sorted(differences(held, build.compose_model(settle(config)[0], held.classes)))
        if changed:
            raise ValueError(
                f"{folder} holds a run with other values of {', '.join(changed[:5])}: give a folder of its own "
                "(hydra.run.dir), or remove that one"
            )
        if finished(folder):
            console.print(f"{folder}: done before", soft_wrap=True)
            return
    if last.is_file() and not zipfile.is_zipfile(last):  # the run was killed while this was written
        broken = last.replace(last.with_name("last.ckpt.broken"))
        console.print(f"{last} ends early (now {broken.name}); the run begins anew", soft_wrap=True)
    fit(config, folder, console, last if last.is_file() else None, command)


def differences(one: Any, other: Any) -> set[str]:
    """The keys at which two runs' configurations differ in what they compute, such as `schedule.steps`."""
    pairs = [dict(_leaves(_computed(config))) for config in (one, other)]
    missing = object()
    return {
        key for key in pairs[0].keys() | pairs[1].keys() if pairs[0].get(key, missing) != pairs[1].get(key, missing)
    }


def _computed(config: Any) -> dict[str, Any]:
    """A configuration without what may change."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    kept = {key: value for key, value in plain.items() if key not in MOVABLE or key == "data_dir"}
    return kept | {"trainer": {name: value for name, value in plain["trainer"].items() if name not in PLACE}}


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from _leaves(part, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _resumed(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The checkpoint's configuration with the overrides that may change."""
    saved = checkpoints.config_of(checkpoints.read(config.resume))
    overrides = [o for o in overrides if not o.startswith("resume=")]
    keys = [o.lstrip("+~").split("=")[0] for o in overrides]
    refused = {f"trainer.{name}" for name in FIXED}
    fixed = [o for o, key in zip(overrides, keys, strict=True) if key.split(".")[0] not in MOVABLE or key in refused]
    if fixed:
        raise ValueError(f"resume takes the run's own configuration; leave out {' '.join(fixed)}")
    saved.logger = config.logger
    if "trainer" in keys:
        saved.trainer = {**config.trainer, **{name: saved.trainer[name] for name in FIXED}}
    for key in keys:
        if key != "trainer" and not key.startswith("hydra"):
            OmegaConf.update(saved, key, OmegaConf.select(config, key), force_add=True)
    return saved
