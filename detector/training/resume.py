"""Decide what a run goes on from."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from detector.config.resolve import MACHINE_TRAINER_KEYS, MOVABLE_KEYS
from detector.training.folder import is_finished, read_config


def run_folder_of(checkpoint: Path) -> Path:
    """Return the folder of the run that a checkpoint belongs to.

    Raises:
        ValueError: the checkpoint is not in RUN/checkpoints/.
    """
    if checkpoint.is_file() and checkpoint.parent.name != "checkpoints":
        raise ValueError(f"resume {str(checkpoint)!r}: a run goes on in its own folder, from RUN/checkpoints/*.ckpt")
    return checkpoint.parent.parent


def checkpoint_to_resume(folder: Path, asked: Any, console: Console) -> tuple[bool, Path | None]:
    """Find out how the run in a folder goes on (`resume=auto`).

    A checkpoint that ends early, since the run was killed while it was written, is set aside.

    Args:
        folder: the run's.
        asked: the configuration that it is to have, resolved plain data.
        console: where it is said that a run is finished or begins anew.

    Returns:
        whether it is finished, and the checkpoint to go on from; None: from the beginning.

    Raises:
        ValueError: the folder holds a run that computes something else; names the keys.
    """
    last = folder / "checkpoints" / "last.ckpt"
    if (folder / "config.yaml").is_file():
        held = OmegaConf.to_container(read_config(folder), resolve=True)
        changed = sorted(differences(held, asked))
        if changed:
            raise ValueError(
                f"{folder} holds a run with other values of {', '.join(changed[:5])}: give a folder of its own "
                "(hydra.run.dir), or remove that one"
            )
        if is_finished(folder):
            console.print(f"{folder}: done before", soft_wrap=True)
            return True, None
    if last.is_file() and not zipfile.is_zipfile(last):
        broken = last.replace(last.with_name("last.ckpt.broken"))
        console.print(f"{last} ends early (now {broken.name}); the run begins anew", soft_wrap=True)
    return False, last if last.is_file() else None


def differences(one: Any, other: Any) -> set[str]:
    """Return the keys at which two resolved configurations differ in what they compute, such as `schedule.steps`."""
    pairs = [dict(_leaves(_computed(config))) for config in (one, other)]
    missing = object()
    return {
        key for key in pairs[0].keys() | pairs[1].keys() if pairs[0].get(key, missing) != pairs[1].get(key, missing)
    }


def _computed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the keys of a configuration that say where a run runs, not what it computes."""
    kept = {key: value for key, value in config.items() if key not in MOVABLE_KEYS or key == "data_dir"}
    return kept | {
        "trainer": {name: value for name, value in config["trainer"].items() if name not in MACHINE_TRAINER_KEYS}
    }


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from _leaves(part, f"{key}.{name}" if key else str(name))
    else:
        yield key, value
