"""Read the weights that the user names, and convert them to this project's names."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.weights import detectron2, torchvision
from detector.weights.checkpoints import model_state, read_checkpoint
from detector.weights.conversion import PretrainedWeights

PREFIX = "torchvision:"


def read_weights(source: str) -> PretrainedWeights:
    """Read the weights of a whole detector. No code in a file is executed.

    Args:
        source: one of

            - `torchvision:NAME`: torchvision's published COCO weights, from torch's cache;
            - `torchvision:NAME:download`: the same, downloaded if they are not in the cache;
            - `torchvision:NAME:FILE`: a state dict of that model, or a checkpoint of torchvision's reference scripts;
            - `FILE.pkl`: from Detectron2's model zoo;
            - `FILE.pth`: as written by Detectron2's DetectionCheckpointer;
            - `FILE.ckpt`: a checkpoint of this project.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the download fails.
        ValueError: the file is damaged or hostile, or its detector has layers that this project does not have.
    """
    if source.startswith(PREFIX):
        return _read_torchvision(source)
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"weights {source!r}: no such file; give a .pkl or .pth of Detectron2, a .ckpt of this project, or "
            f"{PREFIX}{torchvision.NAMES[0]}"
        )
    if path.suffix == ".ckpt":
        return _read_own(path)
    if path.suffix == ".pkl" and not _is_torch_archive(path):
        return detectron2.convert(detectron2.read_zoo_file(path), source)
    content = _read_content(path)
    if "aligned_rcnn" in content:
        return _read_own(path)
    state = _state_dict(content, source)
    if not detectron2.is_detectron2(state) and (name := torchvision.infer_name(state)):
        raise ValueError(f"weights {source!r}: a state dict of torchvision; give {PREFIX}{name}:{source}")
    return detectron2.convert(state, source)


def _read_torchvision(source: str) -> PretrainedWeights:
    name, _, file = source.removeprefix(PREFIX).partition(":")
    torchvision.check_name(name)
    path = torchvision.published_file(name, download=file == "download") if file in ("", "download") else Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"weights {source!r}: no file {file!r}")
    return torchvision.convert(_state_dict(_read_content(path), source), name, source)


def _read_own(path: Path) -> PretrainedWeights:
    content = read_checkpoint(path)
    config = content["aligned_rcnn"]["config"]
    classes = config.get("classes")
    return PretrainedWeights(model_state(content), [], None if classes is None else list(classes), str(path), config)


def _is_torch_archive(path: Path) -> bool:
    """Return whether a file is a zip archive, as `torch.save` writes it."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _read_content(path: Path) -> dict[str, Any]:
    """Read the dictionary in a file of `torch.save`, as data only."""
    try:
        # torchvision's reference scripts save their arguments, a harmless Namespace, beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a damaged or hostile file
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"weights {str(path)!r} cannot be read as data: {first} (if objects saved beside the weights are "
            "the reason, save the state dict alone)"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"weights {str(path)!r}: expected a dictionary, but the file holds a {type(content).__name__}")
    return content


def _state_dict(content: dict[str, Any], source: str) -> dict[str, Tensor]:
    """Return the entry `model` of a file's content, or else the content itself, as a state dict."""
    state = content["model"] if isinstance(content.get("model"), dict) else content
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights {source!r}: no state dict, neither the whole file nor its entry `model`")
    return {str(key): value for key, value in state.items()}
