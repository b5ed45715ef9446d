"""Find the checkpoint that a run resumes from, and keep what came after it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from detector.config.resolve import EXTENDING_KEYS, MACHINE_TRAINER_KEYS, MOVABLE_KEYS
from detector.training.folder import COMMAND, METRICS, is_finished, read_config
from detector.training.saving import copy_file
from detector.weights.checkpoints import read_checkpoint


def run_folder_of(checkpoint: Path) -> Path:
    """Return the folder of the run that a checkpoint belongs to.

    Raises:
        ValueError: the checkpoint is not in RUN/checkpoints/.
    """
    if checkpoint.is_file() and checkpoint.parent.name != "checkpoints":
        raise ValueError(
            f"resume {str(checkpoint)!r}: a run resumes in its own folder, from RUN/checkpoints/*.ckpt; a copy in "
            "NEW/checkpoints/ goes on in the folder NEW, and leaves this one as it is"
        )
    return checkpoint.parent.parent


def checkpoint_to_resume(folder: Path, config: Any, console: Console) -> tuple[bool, Path | None]:
    """Find the checkpoint to resume from in a run's folder (`resume=auto`).

    A truncated checkpoint, left by a run that was killed while writing it, is renamed, and the run starts over.

    Args:
        folder: the run's folder.
        config: the new configuration, as resolved plain data.
        console: prints whether the run is finished, or starts over.

    Returns:
        whether the run is finished, and the checkpoint to resume from (None: start from the beginning).

    Raises:
        ValueError: the folder holds a run with another configuration; the message names the keys.
    """
    last = folder / "checkpoints" / "last.ckpt"
    if (folder / "config.yaml").is_file():
        held = OmegaConf.to_container(read_config(folder), resolve=True)
        changed = sorted(differences(held, config))
        if changed:
            known = {key for key, _ in _leaves(held)}
            older = last.is_file() and not any(key in known for key in changed)
            way = f". An older version, without these keys, made it: resume={last} goes on with it" if older else ""
            if all(key in (*EXTENDING_KEYS, "schedule.scheduler.steps") for key in changed):
                values = {
                    key: OmegaConf.select(OmegaConf.create(config), key) for key in changed if key in EXTENDING_KEYS
                }
                given = " ".join(f"{key}={'null' if value is None else value}" for key, value in values.items())
                way = f". To go on with that one, give resume={last} {given} alone"
                done = _steps_of(last) if last.is_file() else 0
                if config["schedule"]["steps"] < done:
                    way = f". That one has done {done} steps: give as many, or more"
            raise ValueError(
                f"{folder} holds a run with other values of {', '.join(changed[:5])}: give another folder "
                f"(hydra.run.dir=...), or remove that one{way}"
            )
        if is_finished(folder):
            console.print(f"{folder}: done before", soft_wrap=True, markup=False)
            return True, None
    if last.is_file() and not zipfile.is_zipfile(last):
        broken = last.replace(last.with_name("last.ckpt.broken"))
        console.print(
            f"{last} is truncated (renamed to {broken.name}); the run starts over", soft_wrap=True, markup=False
        )
    return False, last if last.is_file() else None


def keep_later(folder: Path, resume: Path, steps: int, console: Console) -> None:
    """Move away what a run has written that goes on from a checkpoint.

    These are the results of a finished run, which it is no longer, and, where it goes on from an earlier step than its
    last one, the later checkpoints, `metrics.csv` and results: they become the folder of a run, which can go on, too.
    Checkpoints that cannot be read are renamed; all are read before the first is moved.

    Args:
        folder: the run's folder.
        resume: the checkpoint that it goes on from, in its folder `checkpoints`.
        steps: of the run.
        console: where it is said.
    """
    last, start = folder / "checkpoints" / "last.ckpt", _steps_of(resume)
    reached, damaged = {resume: start}, {}
    for path in [] if resume == last else sorted(last.parent.glob("*.ckpt")):
        try:
            reached[path] = _steps_of(path)
        except ValueError as error:  # of the last one, it is why an earlier one is resumed
            damaged[path] = error
    for path, reason in damaged.items():
        broken = path.replace(path.with_name(f"{path.name}.broken"))
        console.print(f"{reason}; it is kept as {broken.name}", markup=False, soft_wrap=True)
    done = reached.get(last, max(reached.values()))
    if start >= done:
        if is_finished(folder) and start < steps:
            (folder / METRICS).replace(folder / f"metrics_of_step_{done}.json")
        return
    kept, number = folder / f"until_step_{done}", 1
    while kept.exists():
        number += 1
        kept = folder / f"until_step_{done}_{number}"
    (kept / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", COMMAND, "metrics.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        if (folder / name).is_file():
            copy_file(folder / name, kept / name)
    for name in (METRICS, "predictions", "pictures"):
        if (folder / name).exists():
            (folder / name).replace(kept / name)
    for path, step in reached.items():
        if step > start and path != last:
            path.replace(kept / "checkpoints" / path.name)
    copy_file(resume, last)  # from which `resume=auto` goes on; until here, from where the run was
    console.print(
        f"The run goes on from step {start}; what it has done up to step {done} is kept in {kept}",
        markup=False,
        soft_wrap=True,
    )


def _steps_of(checkpoint: Path) -> int:
    return int(read_checkpoint(checkpoint)["global_step"])


def differences(one: Any, other: Any) -> set[str]:
    """Return the keys, such as `schedule.steps`, that differ between two resolved configurations and affect results.

    A key that one does not have is null: what newer versions add is off by default. Initial weights that one does not
    name are left out: a resumed run's configuration has none.
    """
    pairs = [dict(_leaves(_computed(config))) for config in (one, other)]
    changed = {k for k in pairs[0].keys() | pairs[1].keys() if pairs[0].get(k) != pairs[1].get(k)}
    initial = [
        [v for k, v in pair.items() if k == "weights" or (k.startswith("backbone.") and k.endswith(".weights"))]
        for pair in pairs
    ]

    def dropped(key: str) -> bool:
        """Whether one configuration names initial weights here and the other, of a resumed run, does not."""
        values = [pair.get(key) for pair in pairs]
        named = any(value is not None and value in own for value, own in zip(values, initial, strict=True))
        return key.rpartition(".")[2] == "weights" and None in values and named

    return {key for key in changed if not dropped(key)}


def _computed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the keys of a configuration that say where a run runs, not what it computes."""
    kept = {key: value for key, value in config.items() if key not in MOVABLE_KEYS or key == "data_dir"}
    return kept | {
        "trainer": {name: value for name, value in config["trainer"].items() if name not in MACHINE_TRAINER_KEYS},
        "schedule": {name: value for name, value in config["schedule"].items() if name != "validation_loss"},
    }


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from _leaves(part, f"{key}.{name}" if key else str(name))
    else:
        yield key, value
