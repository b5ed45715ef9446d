"""Build the objects that a final configuration describes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from detector.config.splits import refuse_nulls
from detector.config.targets import target_of
from detector.data.extra import check_nodes
from detector.data.mixing import Mixing
from detector.data.proposal_files import attach_proposals
from detector.evaluation import METRICS, Collector, Metric
from detector.models.rcnn import RCNN
from detector.names import importable
from detector.types import DetectionDataset, Output

AUGMENT = "detector.data.augment.Augment"
STANDARD_HEADS = "detector.models.roi_heads.StandardHeads"
GIVEN_PROPOSALS = "detector.models.proposals.GivenProposals"


def instantiate(config: Any, **kwargs: Any) -> Any:
    """Call the `_target_` of a node, and those of the nodes in it.

    Args:
        config: a node of a configuration.
        kwargs: further arguments of its `_target_`.

    Raises:
        ValueError: an argument is missing or invalid; the message names the key.
    """
    own = _key(config)
    given = {f"{own}.{name}" if own else name for name in kwargs}
    if missing := sorted(OmegaConf.missing_keys(config) - given):
        raise ValueError(f"give {' '.join(f'{key}=...' for key in missing)}: there is no default")
    # A copy, since Hydra resolves interpolations in place, also in nodes that `config` only refers to.
    plain = importable(OmegaConf.to_container(config, resolve=True))
    try:
        return hydra_instantiate(plain, **kwargs, _convert_="all")
    except InstantiationException as error:
        key = str(error).rsplit("full_key: ", 1)[-1].strip() if "full_key: " in str(error) else ""
        where = ".".join(part for part in (own, key) if part)
        cause = error.__cause__ or error
        raise ValueError(f"{cause} (key {where!r} of the configuration)" if where else str(cause)) from error


def _key(node: Any) -> str:
    """Return the key of a node, such as `dataset.metrics[1]`: that of a key below it, without that.

    Asked for its own key, an item of a list says `dataset.metrics1` (omegaconf 2.3.1).
    """
    below: str = node._get_full_key("_") if isinstance(node, DictConfig) else f"{node._get_full_key(None)}._"
    return below.removesuffix("_").removesuffix(".")


def build_model(config: DictConfig) -> RCNN:
    """Build the detector that `config.model` describes; `config.num_classes` must be known.

    Raises:
        ValueError: an argument is invalid, or backbone and heads do not match (`check_heads`).
    """
    check_heads(config.model, config.backbone)
    model: RCNN = instantiate(config.model)
    return model


def check_heads(model: DictConfig, backbone: DictConfig) -> None:
    """Check that a model has the heads that its backbone requires, such as C4's.

    Raises:
        ValueError: backbone and heads do not match.
    """
    own, used = backbone.get("heads"), OmegaConf.select(model, "heads._target_")
    if own not in (None, STANDARD_HEADS, used):
        raise ValueError(
            f"{used} cannot be used with this backbone, whose res5 runs on each RoI as a part of {own}: use a backbone "
            "with FPN, C5 or DC5, or VGG16 (keys 'backbone.heads' and 'model.heads' of the configuration)"
        )


def build_dataset(config: DictConfig, split: str) -> DetectionDataset:
    """Open the `train` or `val` split; see `open_split`."""
    return open_split(config.dataset[split], split, OmegaConf.select(config, "model"), config.get("proposals"))


def open_split(
    node: DictConfig,
    split: str,
    model: DictConfig | None = None,
    proposals: str | None = None,
    keep_masks: bool = False,
) -> DetectionDataset:
    """Open a split of a dataset.

    Args:
        node: the split's node.
        split: `train` or `val`.
        model: the model's node. Its heads' needs decide which annotations are read: `masks` are switched off where no
            head needs them; others that the dataset has a switch for, such as `keypoints: bool = False`, are switched
            on where one does.
        proposals: a file of proposals, for a model without an RPN.
        keep_masks: read masks although no head needs them.

    Raises:
        ValueError, OSError: the data is missing or malformed.
    """
    needed = needed_annotations(model)
    switches = {name: True for name in (needed & _switches(node)) - {"masks"} if name not in node}
    if "masks" in node and "masks" not in needed and not keep_masks:
        switches["masks"] = False
    dataset = instantiate_split(node, **switches)
    return attach_proposals(dataset, proposals, split) if takes_proposals(model) else dataset


def _takes(node: DictConfig, name: str) -> bool:
    """Return whether the `_target_` of a node has an argument of this name."""
    parameters = inspect.signature(target_of(node)).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def instantiate_split(node: DictConfig, **changes: Any) -> DetectionDataset:
    """Build a dataset from a split's node and changes of its arguments, whatever a model needs of it.

    Raises:
        ValueError, OSError: the data is missing or malformed.
    """
    if "reader" in node and not _takes(node, "reader"):  # inherited from the dataset whose `_target_` was replaced
        arguments: Any = OmegaConf.to_container(node, resolve=True)
        node = OmegaConf.create({name: value for name, value in arguments.items() if name != "reader"})
    dataset: DetectionDataset = instantiate(node, **changes)
    return dataset


def _switches(node: DictConfig) -> set[str]:
    """Return the arguments of a node's `_target_` whose default is a bool."""
    if "_target_" not in node:
        return set()
    parameters = inspect.signature(target_of(node)).parameters
    return {name for name, parameter in parameters.items() if isinstance(parameter.default, bool)}


def needed_annotations(model: DictConfig | None) -> set[str]:
    """Return the annotations that the further heads of a model need for training, such as `masks`."""
    nodes = OmegaConf.select(model, "heads.further") if model is not None else None
    heads = [target_of(node) for node in (nodes or {}).values() if node is not None]
    return {name for head in heads for name in getattr(head, "needs", ())}  # a factory function needs nothing


def drop_inherited(node: DictConfig, default: type) -> None:
    """Drop keys that a node has inherited from a default part, where its own `_target_` does not take them.

    `dataset.train_augment={_target_: mypackage.MyAugment}` is merged with the keys of the default augmentation.

    Args:
        node: changed in place.
        default: the default part; only names of its arguments are dropped.
    """
    target = target_of(node)
    own, inherited = inspect.signature(target).parameters, inspect.signature(default).parameters
    if target is default or any(p.kind is p.VAR_KEYWORD for p in own.values()):
        return
    for key in [str(key) for key in node if key in inherited and key not in own]:
        del node[key]


def complete_dataset(dataset: DictConfig) -> None:
    """Check the parts and `extra` transforms of a dataset; keep the images that `empty_share` draws from.

    Args:
        dataset: changed in place.

    Raises:
        ValueError: a part is null, or a transform does not exist or cannot be used; the message names its key, and the
            nearest that exists.
    """
    refuse_nulls(dataset)
    for name in ("train_augment", "val_augment"):
        node = OmegaConf.to_container(dataset[name], resolve=True)
        if isinstance(node, dict) and node.get("_target_") == AUGMENT and "extra" in node:
            check_nodes(node["extra"], f"dataset.{name}.extra", still=name == "val_augment")
    if dataset.get("empty_share") is not None and "keep_empty" in dataset.train:
        dataset.train.keep_empty = True


def completed(config: DictConfig) -> DictConfig:
    """Return a copy of a script's configuration with its dataset completed; see `complete_dataset`."""
    config = config.copy()
    OmegaConf.set_struct(config, False)
    complete_dataset(config.dataset)
    return config


def build_mixing(dataset: DictConfig) -> list[Mixing]:
    """Build the parts of `dataset.mixing`, in their order; none where the dataset has no such key."""
    parts = {} if dataset.get("mixing") is None else instantiate(dataset.mixing)
    return [part for part in parts.values() if part is not None]


def pastes_masks(dataset: DictConfig, split: str) -> bool:
    """Return whether a part of `dataset.mixing` makes use of the masks of a split, which is so for `train` at most."""
    if split != "train":
        return False
    nodes = [node for node in (dataset.get("mixing") or {}).values() if node is not None and node.get("p") != 0]
    return any(getattr(target_of(node), "uses_masks", False) for node in nodes)


def check_annotations(needed: Iterable[str], train: DetectionDataset) -> None:
    """Check that a training set has the annotations that the model's heads need.

    Raises:
        ValueError: annotations are missing; the message names them.
    """
    if missing := sorted(name for name in needed if not getattr(train, f"has_{name}", False)):
        raise ValueError(
            f"the model's heads are trained with {', '.join(missing)}, but dataset.train has none: use a model without "
            "such heads, as model=faster_rcnn"
        )


def metric_nodes(metrics: Any) -> list[dict[str, Any]]:
    """Replace the words of `METRICS` in a dataset's list of metrics by nodes with a `_target_`.

    Raises:
        ValueError: it is no list, or has an unknown word or a node without a `_target_`.
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
    return nodes


def takes_proposals(model: DictConfig | None) -> bool:
    """Return whether a model has no RPN and takes proposals from a file."""
    return model is not None and OmegaConf.select(model, "proposer._target_") == GIVEN_PROPOSALS


def build_collector(
    outputs: Iterable[Output], dataset: DetectionDataset, size_bins: Sequence[float], limit: int = 100
) -> Collector:
    """Build the collector of detections on a dataset.

    Args:
        outputs: outputs of the model's further heads; those without ground truth in the dataset are left out.
        dataset: the evaluated dataset.
        size_bins: square roots of the areas that separate small, medium and large objects, in pixels.
        limit: the most detections of an image, `dataset.detections`.
    """
    measured = [o for o in outputs if o.needs is None or getattr(dataset, f"has_{o.needs}", False)]
    small, large = size_bins
    return Collector(dataset.ground_truth(), dataset.category_ids, (small, large), measured, limit)


def build_metrics(nodes: ListConfig, collector: Collector) -> list[Metric]:
    """Build the metrics of a dataset, which share one collector."""
    return [instantiate(node, collector=collector) for node in nodes]
