"""From a configuration to objects, from a checkpoint to a model. The only module of the package that knows Hydra."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, InstantiationException
from hydra.types import HydraContext, RunMode
from hydra.utils import get_object
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from detector import weights
from detector.data.proposal_files import attach_proposals
from detector.evaluation import METRICS
from detector.models.rcnn import RCNN
from detector.types import DetectionDataset
from detector.weights import checkpoints

_CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def sweeping() -> bool:
    """Whether this is one run of several, started by `-m`."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def job() -> tuple[int, Path, list[str]]:
    """Of the run that a launcher has begun: its number, its folder, and its overrides."""
    config = HydraConfig.get()
    return int(config.job.num), Path(config.runtime.output_dir), list(config.overrides.task)


def override(key: str, value: object) -> str:
    """`key=value` as Hydra reads it, whatever characters the value has."""
    text = str(value)
    if re.fullmatch(r"[\w./~-]+", text):
        return f"{key}={text}"
    return f"{key}='{text.replace(chr(39), chr(92) + chr(39))}'"


def launch(
    task: Callable[[DictConfig], None], jobs: Sequence[Sequence[str]], folder: Path, launcher: Sequence[str] = ()
) -> None:
    """Run jobs of `train.py`'s configuration by one of Hydra's launchers; called within `hydra.main`.

    Args:
        task: called with the configuration of each job.
        jobs: the overrides of each; `hydra.sweep.subdir` among them is its folder.
        folder: where those folders lie.
        launcher: overrides that choose the launcher and set it, such as `hydra/launcher=joblib`.

    Raises:
        HydraException: there is no such launcher.
        Exception: whatever a job raised.
    """
    loader = GlobalHydra.instance().config_loader()
    overrides = ["hydra.mode=MULTIRUN", override("hydra.sweep.dir", folder), *launcher]
    config = loader.load_configuration("train", overrides, run_mode=RunMode.MULTIRUN)
    context = HydraContext(config_loader=loader, callbacks=Callbacks(config))
    plugin = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    for result in plugin.launch([list(job) for job in jobs], initial_job_idx=0):
        _ = result.return_value  # raises what the job raised


def instantiate(config: Any, **kwargs: Any) -> Any:
    """Build what `_target_` names, with its parts.

    Raises:
        ValueError: an argument does not fit; the message is the part's own, with the key in the configuration.
    """
    own = config._get_full_key(None)
    given = {f"{own}.{name}" if own else name for name in kwargs}
    if missing := sorted(OmegaConf.missing_keys(config) - given):
        raise ValueError(f"give {' '.join(f'{key}=...' for key in missing)}: the configuration leaves that open")
    # A copy: Hydra resolves interpolations in place, also those in nodes that `config` only refers to.
    plain = OmegaConf.to_container(config, resolve=True)
    try:
        return hydra_instantiate(plain, **kwargs, _convert_="all")
    except InstantiationException as error:
        key = str(error).rsplit("full_key: ", 1)[-1].strip() if "full_key: " in str(error) else ""
        where = ".".join(part for part in (config._get_full_key(None), key) if part)
        cause = error.__cause__ or error
        raise ValueError(f"{cause} (key {where!r} of the configuration)" if where else str(cause)) from error


def _takes(node: DictConfig, key: str) -> bool:
    """Whether what `node` builds has an argument of this name."""
    if "_target_" not in node:
        return False
    parameters = inspect.signature(get_object(node["_target_"])).parameters
    return key in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


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
    others = [o for o in overrides if not o.startswith("+")]
    known = compose(name, overrides=others)
    if known.get("weights") is not None:
        known = in_conventions(known, others)
    for override in added:
        key = override.lstrip("+").split("=")[0]
        parent, _, last = key.rpartition(".")
        node = OmegaConf.select(known, parent) if parent else known
        built = isinstance(node, DictConfig) and (last in node or _takes(node, last))
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
    """The configuration with the facts that only the dataset knows: the names and the number of its classes.

    Raises:
        ValueError: it names other classes, or an unknown way to choose levels.
    """
    words = OmegaConf.select(config, "pooler.rounding_by")
    if words is not None and config.pooler.levels not in words:
        raise ValueError(f"pooler.levels must be one of {', '.join(words)}, not {config.pooler.levels!r}")
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
    return attach_proposals(dataset, config.get("proposals"), split) if takes_proposals(config) else dataset


def metric_nodes(metrics: ListConfig) -> ListConfig:
    """Turn a dataset's metrics, words of `METRICS` and nodes with a `_target_`, into nodes alone.

    Raises:
        ValueError: a word that is none of these, a node without a `_target_`, or no list.
    """
    known = f"each of them is one of {', '.join(sorted(METRICS))}, or {{_target_: mypackage.MyMetric}}"
    if not isinstance(metrics, ListConfig):
        raise ValueError(f"dataset.metrics must be a list, such as [coco], not {metrics!r}; {known}")
    nodes = []
    for metric in list(OmegaConf.to_container(metrics, resolve=True)):  # type: ignore[arg-type]
        if isinstance(metric, str) and metric in METRICS:
            nodes.append({"_target_": METRICS[metric]})
        elif isinstance(metric, dict) and "_target_" in metric:
            nodes.append(metric)
        else:
            raise ValueError(f"dataset.metrics: unknown metric {metric!r}; {known}")
    # As a part of a configuration, so that errors name its key.
    found: ListConfig = OmegaConf.create({"dataset": {"metrics": nodes}}).dataset.metrics
    return found


def has_mask_head(config: DictConfig) -> bool:
    """Whether the model predicts masks."""
    return OmegaConf.select(config, "model.heads.mask_head") is not None


def takes_proposals(config: DictConfig) -> bool:
    """Whether the model works on proposals that come with the images."""
    return bool(OmegaConf.select(config, "model.proposer._target_") == "detector.models.proposals.GivenProposals")


@dataclass(frozen=True)
class Trained:
    """A trained detector: what it is, and its weights."""

    config: DictConfig
    """complete, classes included"""
    load: Callable[[nn.Module], None]
    """puts the weights into the model that `build_model(config)` makes"""
    own: bool = True
    """whether this project trained it"""
    named: bool = True
    """whether the names of its classes are known, and not only their number"""


def open_checkpoint(source: str | Path, norm_eps: float | None = None) -> Trained:
    """A checkpoint of this project, or weights of torchvision's or Detectron2's as `detector.weights.read` names them.

    Args:
        source: as `detector.weights.read` takes it.
        norm_eps: what the norms of the weights of others add to the variance, where it is not what their file is taken
            to say (see `detector.weights.torchvision.convert`); None for that.

    Raises:
        FileNotFoundError, ValueError: it is not there, or cannot be read; `norm_eps` with a checkpoint of this project.
    """
    if not _is_foreign(str(source)):
        if norm_eps is not None:
            raise ValueError(f"norm_eps={norm_eps}: checkpoint {str(source)!r} says itself what it is; leave it out")
        content = checkpoints.read(source)
        return Trained(checkpoints.config_of(content), lambda model: checkpoints.load(model, content, str(source)))
    foreign = weights.read(str(source))
    if not foreign.conventions:
        raise ValueError(f"checkpoint {str(source)!r} is one of this project's: give its name the suffix .ckpt")
    config = compose_config([*foreign.conventions, *([] if norm_eps is None else [f"norm.eps={norm_eps}"])])
    config.trainer.precision = "32-true"  # that of those who published them
    names = [name for name in foreign.classes or [] if name != weights.PLACEHOLDER]
    config = compose_model(config, names or [str(i) for i in range(foreign.num_classes)])
    # Resolved, as a checkpoint's is: the model is the same whatever dataset it is then shown.
    config = OmegaConf.create(checkpoints.portable(config))
    return Trained(config, lambda model: _load_all(model, foreign, config.classes), own=False, named=bool(names))


def _is_foreign(source: str) -> bool:
    return source.startswith("torchvision:") or source.endswith((".pkl", ".pth"))


def _load_all(model: nn.Module, foreign: weights.Foreign, classes: Sequence[str]) -> None:
    named = foreign if foreign.classes else replace(foreign, classes=list(classes))
    report = weights.load(model, named, list(classes))
    if report.anew:
        raise ValueError(f"{report}: it cannot tell these classes apart without being trained for them")


def _key(override: str) -> str:
    return override.lstrip("+~").split("=")[0].split("@")[0]


def tolerant(arguments: Sequence[str]) -> list[str]:
    """The arguments of a script; beside `weights=`, keys may also be ones that only its preset brings.

    Hydra composes before anything reads the weights, and takes `++key=value` for a key that is not there yet.
    `check_additions` then refuses those that never come.
    """
    if not any(argument.startswith("weights=") for argument in arguments):
        return list(arguments)
    return [f"++{a}" if re.match(r"(?!hydra\.)\w+(\.\w+)+=", a) else a for a in arguments]


def in_conventions(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration as the weights that it names need it, where the overrides do not say otherwise.

    What the preset says of a part that the user has replaced by one without such a key is left out.

    Args:
        config: as composed from the overrides.
        overrides: from the command line.

    Raises:
        FileNotFoundError, OSError, ValueError: the weights cannot be read, or the overrides do not go with them.
    """
    if config.weights is None:
        return config
    given = {_key(o): o for o in overrides}
    needed = [o for o in weights.read(str(config.weights)).conventions if _key(o) not in given or "experiment=" in o]
    if not needed:
        return config
    presets = [o.partition("=")[2] for o in needed if _key(o) == "experiment"]
    asked = given.get("experiment", "").partition("=")[2].strip("[]").split(",")
    asked = [name.strip() for name in asked if name.strip() not in ("", "null", *presets)]
    others = tolerant(["weights=", *(o for o in needed if _key(o) != "experiment")])[1:]
    # `+key` as Hydra advises where a key is not there, which in the preset it is.
    own = [re.sub(r"^\+(?!\+)", "++", o) for o in tolerant(overrides) if _key(o) != "experiment"]
    try:
        plain = compose_config([*([f"experiment=[{','.join(asked)}]"] if asked else []), *own])
        # The user's experiments come second, and so have the last word.
        config = compose_config([f"experiment=[{','.join([*presets, *asked])}]", *others, *own])
    except HydraException as error:
        raise ValueError(f"weights={config.weights} needs {' '.join(needed)}, and with it: {error}") from error
    OmegaConf.set_struct(config, False)
    _prune(config, plain)
    OmegaConf.set_struct(config, True)
    return config


def _prune(config: DictConfig, plain: DictConfig) -> None:
    """Drop, in place, what parts do not take and `plain` does not give them."""
    for key in [str(k) for k in config]:
        part = _part(config, key)
        if "_target_" in config and key not in plain and not key.startswith("_"):
            detail = part is not None and "_target_" not in part  # of a part that is not there
            if detail or not _takes(config, key):
                del config[key]
                continue
        if part is not None:
            _prune(part, _part(plain, key) or OmegaConf.create())


def _part(config: DictConfig, key: str) -> DictConfig | None:
    """What is described at this key itself."""
    if key not in config or OmegaConf.is_interpolation(config, key):
        return None
    part = config[key]
    return part if isinstance(part, DictConfig) else None
