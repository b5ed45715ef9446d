"""Read the folder of a run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detector.config.compose import read_yaml
from detector.weights.trust import DATA_DIR, check_targets

COMMAND = "command.txt"
"""Name of the file with the command of a run, in its folder."""
PREDICTIONS = "predictions"
"""Key in `config.yaml` of the file of given predictions, where no detector of this project has made them."""
METRICS = "metrics.json"
"""Name of the file with the results of a finished run, likewise."""


def train_command(overrides: Sequence[str]) -> str:
    """Return the shell command of a run with these overrides."""
    return script_command("train", overrides)


def script_command(script: str, overrides: Sequence[str]) -> str:
    """Return the shell command of a script, such as `train`, with these overrides."""
    return " ".join([f"python scripts/{script}.py", *(shlex.quote(override) for override in overrides)])


def command_of(folder: Path) -> str | None:
    """Return the command of the run in a folder; None if the folder does not record it."""
    file = folder / COMMAND
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def short_names(folders: Sequence[Path]) -> list[str]:
    """Shorten the paths of runs to the parts in which they differ; returns whole paths if they cannot be shortened."""
    if len({len(folder.parts) for folder in folders}) > 1 or len(set(folders)) < len(folders):
        return [str(folder) for folder in folders]
    levels = zip(*(folder.parts for folder in folders), strict=True)
    differ = [level for level, parts in enumerate(levels) if len(set(parts)) > 1]
    return ["/".join(folder.parts[level] for level in differ) for folder in folders]


def is_finished(folder: Path) -> bool:
    """Return whether the run in a folder is finished: its `metrics.json`, which is written last, is complete."""
    try:
        return "time/total" in json.loads((folder / METRICS).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False


def read_config(folder: Path) -> DictConfig:
    """Read a run's `config.yaml`, or that of given predictions, which has no `seed` and no `schedule`.

    Raises:
        ValueError: it is missing, is not the configuration of a training, or would build untrusted parts.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ValueError(
            f"{folder} is no folder of a run: it has no config.yaml; give a folder that train.py has written"
        )
    config = read_yaml(path)
    trained = () if PREDICTIONS in config else ("seed", "schedule.steps")
    check_keys(config, (*trained, "dataset.val", "data_dir"), path)
    parts = {key: OmegaConf.to_container(config[key]) for key in ("dataset", "pooler") if key in config}
    check_targets(_movable(parts, f"{config.data_dir}/"), str(path))
    return config


def check_keys(config: DictConfig, keys: Sequence[str], path: Path) -> None:
    """Check that the configuration of a run has these keys.

    Raises:
        ValueError: some are missing; the message names them and the file, `path`.
    """
    if missing := [key for key in keys if OmegaConf.select(config, key) is None]:
        raise ValueError(f"{path} is not the configuration of a training run: it lacks {', '.join(missing)}")


def _movable(value: Any, data_dir: str) -> Any:
    """Replace `data_dir` at the beginning of paths by `${data_dir}`, as in a checkpoint."""
    if isinstance(value, dict):
        return {key: _movable(part, data_dir) for key, part in value.items()}
    if isinstance(value, list):
        return [_movable(part, data_dir) for part in value]
    return f"{DATA_DIR}/{value.removeprefix(data_dir)}" if str(value).startswith(data_dir) else value
