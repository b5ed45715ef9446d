"""Read and load checkpoints of this project: weights, and the configuration of their run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from detector.weights.trust import DATA_DIR, check_targets

FORMAT = 4
"""Version of the entry `aligned_rcnn` of a checkpoint."""


def portable_config(config: DictConfig) -> dict[str, Any]:
    """Return the configuration to store in a checkpoint, as resolved plain data.

    Only `${data_dir}` stays an interpolation, so that datasets can be moved. Loggers, initial weights (`weights`, those
    of the backbone, and what refers to them), trusted packages and the number of workers are left out: they concern the
    machine or the start of the run, not the trained model.
    """
    data_dir = config.data_dir
    moved = config.copy()
    OmegaConf.set_readonly(moved, False)
    moved.data_dir = DATA_DIR.replace("$", "\0")
    moved.logger = moved.workers = moved.weights = None
    moved.trust = []
    _drop_weights(moved.backbone)
    plain = OmegaConf.to_container(moved, resolve=True)

    def restore(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("\0", "$")
        if isinstance(value, dict):
            return {k: restore(v) for k, v in value.items()}
        return [restore(v) for v in value] if isinstance(value, list) else value

    result: dict[str, Any] = restore(plain)
    result["data_dir"] = data_dir
    return result


def _drop_weights(backbone: DictConfig) -> None:
    """Replace the names of initial weights in a backbone by None, in place: a checkpoint has the trained ones."""
    for key, value in OmegaConf.to_container(backbone, resolve=False).items():  # type: ignore[union-attr]
        if key == "weights" and isinstance(value, str):
            backbone[key] = None
        elif isinstance(value, dict):
            _drop_weights(backbone[key])


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this project. No code in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is not a checkpoint of this project, or is one of another format.
    """
    path = Path(path)
    if not path.is_file():
        hint = "; a training writes RUN/checkpoints/best.ckpt, for use, and last.ckpt, to go on with"
        if path.is_dir():
            hint = f"; did you mean {path / 'checkpoints' / 'last.ckpt'}, or best.ckpt there?"
        raise FileNotFoundError(f"checkpoint {str(path)!r}: no such file{hint}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a damaged or hostile file
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"checkpoint {str(path)!r} cannot be read as data: {first}") from error
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("aligned_rcnn"), dict)
        or "state_dict" not in content
    ):
        raise ValueError(
            f"checkpoint {str(path)!r} was not written by this project's train.py: it has no configuration; "
            "other weights are given as torchvision:NAME:FILE, or as Detectron2's .pkl and .pth files"
        )
    own = content["aligned_rcnn"]
    if own.get("format") != FORMAT or not isinstance(own.get("config"), dict):
        raise ValueError(
            f"checkpoint {str(path)!r} has format {own.get('format')!r}, but this version reads format {FORMAT} only, "
            "since keys and parts were renamed; evaluate or resume it with the version that wrote it (0.1.0 for format "
            "3), or train again"
        )
    check_targets(own["config"], f"checkpoint {str(path)!r}")
    return content


def checkpoint_config(content: Mapping[str, Any]) -> DictConfig:
    """Return the configuration in the content of a checkpoint (see `read_checkpoint`)."""
    config: DictConfig = OmegaConf.create(content["aligned_rcnn"]["config"])
    for head in (OmegaConf.select(config, "model.heads.further") or {}).values():
        if head and OmegaConf.select(head, "crop._target_") == "ops.roi_align":
            head.crop._target_ = "ops.roi_align_masks"  # the operator of checkpoints from before masks had windows
    return config


def model_state(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the model's state dict in the content of a checkpoint (see `read_checkpoint`)."""
    return {k.removeprefix("model."): v for k, v in content["state_dict"].items() if k.startswith("model.")}


def load_checkpoint(model: nn.Module, content: Mapping[str, Any], source: str) -> None:
    """Load a checkpoint's weights into `model`.

    Raises:
        ValueError: the weights are of another model; the message names the keys that do not fit.
    """
    state = model_state(content)
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    if missing or unexpected or shapes:
        raise ValueError(
            f"checkpoint {source!r} is of another model: {len(missing)} weights missing {missing[:2]}, "
            f"{len(unexpected)} unexpected {unexpected[:2]}, {len(shapes)} of another shape {sorted(shapes)[:2]}"
        )
    model.load_state_dict(state)
