"""From a configuration to objects, from a checkpoint to a model. The only module of the package that knows Hydra."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

import ops
from detector import weights
from detector.data.proposal_files import attach
from detector.models.rcnn import RCNN
from detector.types import DetectionDataset

FORMAT = 3
"""The version of what a checkpoint carries under `aligned_rcnn`."""

FACTORIES = frozenset(
    {
        "detector.data.augment.Augment",
        "detector.data.coco.CocoDataset",
        "detector.data.custom.custom",
        "detector.data.shapes.ShapesDataset",
        "detector.data.voc.VocDataset",
        "detector.matching.BalancedSampler",
        "detector.matching.Matcher",
        "detector.models.backbone.frozen_batch_norm",
        "detector.models.backbone.group_norm",
        "detector.models.extracted.torchvision_model",
        "detector.models.losses.giou",
        "detector.models.losses.smooth_l1",
        "detector.models.mask_head.ClassAgnostic",
        "detector.models.mask_head.Sigmoid",
        "detector.models.mask_head.Softmax",
        "detector.masks.paste",
        "detector.masks.paste_on_whole_pixels",
        "detector.models.rpn.Limits",
        "detector.models.selection.Select",
        "detector.optim.cosine",
        "detector.optim.multistep",
    }
)
"""What a checkpoint's configuration may build beside the operators of `ops`, modules and optimisers."""

MODULES = ("detector.models.", "torch.nn.modules.", "torchvision.ops.")
"""Where the modules are defined that a checkpoint's configuration may build."""

_CONFIGS = Path(__file__).resolve().parents[1] / "configs"
_DATA_DIR = "${data_dir}"


def sweeping() -> bool:
    """Whether this is one run of several, started by `-m`."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def instantiate(config: Any, **kwargs: Any) -> Any:
    """Build what `_target_` names, with its parts.

    Raises:
        ValueError: an argument does not fit; the message is the part's own, with the key in the configuration.
    """
    # A copy: Hydra resolves interpolations in place, also those in nodes that `config` only refers to.
    plain = OmegaConf.to_container(config, resolve=True)
    try:
        return hydra_instantiate(plain, **kwargs, _convert_="all")
    except InstantiationException as error:
        key = str(error).rsplit("full_key: ", 1)[-1].strip() if "full_key: " in str(error) else ""
        where = ".".join(part for part in (config._get_full_key(None), key) if part)
        cause = error.__cause__ or error
        raise ValueError(f"{cause} (key {where!r} of the configuration)" if where else str(cause)) from error


def check_additions(name: str, overrides: Sequence[str]) -> None:
    """Refuse a key added by `+key=value` where nothing would ever read it; a part that is built refuses by itself.

    Args:
        name: of the script's configuration; called within `hydra.main`.
        overrides: from the command line.

    Raises:
        ValueError: naming the key.
    """
    added = [o for o in overrides if o.startswith("+")]
    if not added:
        return
    known = compose(name, overrides=[o for o in overrides if not o.startswith("+")])
    for override in added:
        key = override.lstrip("+").split("=")[0]
        parent, _, last = key.rpartition(".")
        node = OmegaConf.select(known, parent) if parent else known
        built = isinstance(node, DictConfig) and ("_target_" in node or last in node)
        if not built and not key.startswith(("trainer.", "logger.")):
            keys = ", ".join(str(k) for k in node) if isinstance(node, DictConfig) else "no keys"
            raise ValueError(f"unknown key {key!r}; {parent or 'the configuration'} has {keys}")


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """The configuration of `train.py` with these overrides; within a script, or outside of one."""
    if GlobalHydra.instance().is_initialized():
        return compose("train", overrides=list(overrides))
    with initialize_config_dir(str(_CONFIGS), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def compose_model(config: DictConfig, classes: Sequence[str]) -> DictConfig:
    """The configuration with the facts that only the dataset knows: the names and the number of its classes."""
    if config.classes is not None and list(config.classes) != list(classes):
        raise ValueError(f"classes is {list(config.classes)}, but the dataset has {list(classes)}; leave it out")
    config = config.copy()
    OmegaConf.set_readonly(config, False)
    config.classes = list(classes)
    config.num_classes = len(classes)
    return config


def build_model(config: DictConfig) -> RCNN:
    """The detector that `config.model` describes; `config.num_classes` must be known."""
    model: RCNN = instantiate(config.model)
    return model


def build_dataset(config: DictConfig, split: str) -> DetectionDataset:
    """The dataset's `train` or `val` part, with what the model needs of masks and of proposals (`config.proposals`)."""
    node = config.dataset[split]
    options = {"masks": False} if "masks" in node and not has_mask_head(config) else {}
    dataset: DetectionDataset = instantiate(node, **options)
    return attach(dataset, config.get("proposals"), split) if takes_proposals(config) else dataset


def has_mask_head(config: DictConfig) -> bool:
    """Whether the model predicts masks."""
    return OmegaConf.select(config, "model.heads.mask_head") is not None


def takes_proposals(config: DictConfig) -> bool:
    """Whether the model works on proposals that come with the images."""
    return bool(OmegaConf.select(config, "model.proposer._target_") == "detector.models.proposals.GivenProposals")


# Checkpoints


def portable(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain data, but for the loggers, which are not part of what a checkpoint is.

    In it the datasets still hang on `data_dir`, so that they can be moved. It names no weights to begin with.
    """
    data_dir = config.data_dir
    moved = config.copy()
    OmegaConf.set_readonly(moved, False)
    moved.data_dir = _DATA_DIR.replace("$", "\0")
    moved.logger = None
    plain = OmegaConf.to_container(moved, resolve=True)

    def restore(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("\0", "$")
        if isinstance(value, dict):
            # The checkpoint has better weights.
            return {k: None if k == "weights" and isinstance(v, str) else restore(v) for k, v in value.items()}
        return [restore(v) for v in value] if isinstance(value, list) else value

    result: dict[str, Any] = restore(plain)
    result["data_dir"] = data_dir
    return result


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string within plain data, with its path."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for k, v in value.items():
            yield from _strings(v, f"{key}.{k}" if key else str(k))
    elif isinstance(value, Sequence):
        for i, v in enumerate(value):
            yield from _strings(v, f"{key}[{i}]")


def _inside(path: Any) -> bool:
    """Whether a path lies under `data_dir`."""
    return isinstance(path, str) and path.startswith(_DATA_DIR + "/") and ".." not in Path(path).parts


def _nodes(value: Any, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping within plain data, with its path."""
    if isinstance(value, Mapping):
        yield key, value
        for k, v in value.items():
            yield from _nodes(v, f"{key}.{k}" if key else str(k))
    elif isinstance(value, list):
        for i, v in enumerate(value):
            yield from _nodes(v, f"{key}[{i}]")


def _allowed(target: str) -> bool:
    """Whether `target` names a part of a detector: a public class or function, not something that hangs on one.

    What the name leads to is looked at, not the name alone: a module that imports `os` does not lend it its name.
    """
    module, _, name = target.rpartition(".")
    if target in FACTORIES:
        return True
    if module == "ops":
        return name in ops.__all__
    if not module.startswith(("detector.models", "torch.nn", "torch.optim", "torchvision.ops")) or "._" in target:
        return False
    found = getattr(importlib.import_module(module), name)
    if not isinstance(found, type):
        return False
    if issubclass(found, nn.Module):
        return found.__module__.startswith(MODULES)
    return issubclass(found, torch.optim.Optimizer | LRScheduler) and found.__module__.startswith("torch.optim.")


def check_targets(config: Mapping[str, Any], source: str) -> None:
    """Refuse a configuration from a file unless all its targets are parts of detectors.

    Raises:
        ValueError: naming the target and its key.
    """
    for key, value in _strings(config):
        if "${" in value.replace(_DATA_DIR, ""):
            raise ValueError(f"{source}: {key} = {value!r} would be computed when read; only {_DATA_DIR} may be")
        if key.rpartition(".")[2].strip() != "_target_":
            continue
        try:
            allowed = _allowed(value)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{source}: nothing is called {value!r} (at {key}) in this version") from error
        if not allowed:
            raise ValueError(
                f"{source}: its configuration asks for {value!r} (at {key}), which is no part of a detector of this "
                "project, torch or torchvision; it is refused and nothing of it was run"
            )
    for key, node in _nodes(config):
        if "_args_" in node:
            raise ValueError(f"{source}: {key}._args_: arguments go by their names")
        target = node.get("_target_")
        # Numbers under this name weigh a box's deltas.
        if target is not None and isinstance(node.get("weights"), str | Mapping):
            raise ValueError(f"{source}: {key}.weights = {node['weights']!r}: a checkpoint brings its own weights")
        if target == "detector.data.shapes.ShapesDataset" and not _inside(node.get("root")):
            raise ValueError(f"{source}: {key}.root = {node.get('root')!r}: shapes are drawn under {_DATA_DIR} only")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content, read as data only.

    Raises:
        FileNotFoundError, ValueError: it is not there, or it is not one of this project's.
    """
    path = Path(path)
    if not path.is_file():
        hint = f"; did you mean {path / 'checkpoints' / 'last.ckpt'}?" if path.is_dir() else ""
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
            f"checkpoint {str(path)!r} was not written by this project's train.py: it carries no configuration"
        )
    own = content["aligned_rcnn"]
    if own.get("format") != FORMAT or not isinstance(own.get("config"), dict):
        raise ValueError(f"checkpoint {str(path)!r} has format {own.get('format')!r}; this version reads {FORMAT}")
    check_targets(own["config"], f"checkpoint {str(path)!r}")
    return content


def checkpoint_config(content: Mapping[str, Any]) -> DictConfig:
    """The configuration that a checkpoint read by `read_checkpoint` carries."""
    config: DictConfig = OmegaConf.create(content["aligned_rcnn"]["config"])
    return config


@dataclass(frozen=True)
class Trained:
    """A trained detector: what it is, and its weights."""

    config: DictConfig
    """complete, classes included"""
    load: Callable[[nn.Module], None]
    """puts the weights into the model that `build_model(config)` makes"""


def open_checkpoint(source: str | Path) -> Trained:
    """A checkpoint of this project, or weights of torchvision's or Detectron2's as `detector.weights.read` names them.

    Raises:
        FileNotFoundError, ValueError: it is not there, or cannot be read.
    """
    if not _is_foreign(str(source)):
        content = read_checkpoint(source)
        return Trained(checkpoint_config(content), lambda model: load_weights(model, content, str(source)))
    foreign = weights.read(str(source))
    config = compose_config(foreign.conventions)
    config.trainer.precision = "32-true"  # that of those who published them
    names = [name for name in foreign.classes or [] if name != weights.PLACEHOLDER]
    config = compose_model(config, names or [str(i) for i in range(foreign.num_classes)])
    return Trained(config, lambda model: _load_all(model, foreign, config.classes))


def _is_foreign(source: str) -> bool:
    return source.startswith("torchvision:") or source.endswith((".pkl", ".pth"))


def _load_all(model: nn.Module, foreign: weights.Foreign, classes: Sequence[str]) -> None:
    named = foreign if foreign.classes else replace(foreign, classes=list(classes))
    report = weights.load(model, named, list(classes))
    if report.anew:
        raise ValueError(f"{report}: it cannot tell these classes apart without being trained for them")


def _key(override: str) -> str:
    return override.lstrip("+~").split("=")[0].split("@")[0]


def in_conventions(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration as the weights that it names need it, where the overrides do not say otherwise.

    Args:
        config: as composed from the overrides.
        overrides: from the command line.
    """
    if config.weights is None:
        return config
    given = {_key(o) for o in overrides}
    needed = [o for o in weights.read(str(config.weights)).conventions if _key(o) not in given]
    return compose_config([*needed, *overrides]) if needed else config


def load_weights(model: nn.Module, content: Mapping[str, Any], source: str) -> None:
    """Put a checkpoint's weights into `model`.

    Raises:
        ValueError: they are of another model; names what does not fit.
    """
    state: dict[str, Tensor] = {
        k.removeprefix("model."): v for k, v in content["state_dict"].items() if k.startswith("model.")
    }
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    if missing or unexpected or shapes:
        raise ValueError(
            f"checkpoint {source!r} is of another model: {len(missing)} weights missing {missing[:2]}, "
            f"{len(unexpected)} left over {unexpected[:2]}, {len(shapes)} of another shape {sorted(shapes)[:2]}"
        )
    model.load_state_dict(state)
