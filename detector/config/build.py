"""Build the objects that a final configuration describes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_class
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from detector.data.proposal_files import attach_proposals
from detector.evaluation import METRICS, Collector, Metric
from detector.models.rcnn import RCNN
from detector.types import DetectionDataset, Output

STANDARD_HEADS = "detector.models.roi_heads.StandardHeads"
GIVEN_PROPOSALS = "detector.models.proposals.GivenProposals"


def instantiate(config: Any, **kwargs: Any) -> Any:
    """Build what `_target_` names, with all its parts.

    Args:
        config: a node of a configuration.
        kwargs: further arguments of what it builds.

    Raises:
        ValueError: an argument is missing or is refused; the message names the key.
    """
    own = config._get_full_key(None)
    given = {f"{own}.{name}" if own else name for name in kwargs}
    if missing := sorted(OmegaConf.missing_keys(config) - given):
        raise ValueError(f"give {' '.join(f'{key}=...' for key in missing)}: there is no default")
    # A copy: Hydra resolves interpolations in place, also in nodes that `config` only refers to.
    plain = OmegaConf.to_container(config, resolve=True)
    try:
        return hydra_instantiate(plain, **kwargs, _convert_="all")
    except InstantiationException as error:
        key = str(error).rsplit("full_key: ", 1)[-1].strip() if "full_key: " in str(error) else ""
        where = ".".join(part for part in (config._get_full_key(None), key) if part)
        cause = error.__cause__ or error
        raise ValueError(f"{cause} (key {where!r} of the configuration)" if where else str(cause)) from error


def build_model(config: DictConfig) -> RCNN:
    """Build the detector that `config.model` describes; `config.num_classes` must be known.

    Raises:
        ValueError: a part does not fit, see `check_heads` too.
    """
    check_heads(config.model, config.backbone)
    model: RCNN = instantiate(config.model)
    return model


def check_heads(model: DictConfig, backbone: DictConfig) -> None:
    """Refuse a backbone with heads of its own kind, such as C4, beside a model that brings others.

    Raises:
        ValueError: they do not go together.
    """
    own, used = backbone.get("heads"), OmegaConf.select(model, "heads._target_")
    if own not in (None, STANDARD_HEADS, used):
        raise ValueError(
            f"this backbone goes with heads of its own kind, {own}, which run the rest of the network on each RoI, and "
            f"the model's are {used}: use a backbone with FPN, C5 or DC5, or VGG16 (keys 'backbone.heads' and "
            "'model.heads' of the configuration)"
        )


def build_dataset(config: DictConfig, split: str) -> DetectionDataset:
    """Open the `train` or `val` split; see `open_split`."""
    return open_split(config.dataset[split], split, OmegaConf.select(config, "model"), config.get("proposals"))


def open_split(
    node: DictConfig, split: str, model: DictConfig | None = None, proposals: str | None = None
) -> DetectionDataset:
    """Open a split of a dataset, with what the model needs of it.

    Args:
        node: of the split.
        split: `train` or `val`.
        model: the model's node; masks are read only for one with a head that needs them.
        proposals: a file, which a model without an RPN needs.

    Raises:
        ValueError, OSError: the data is missing or malformed.
    """
    wanted = needed_annotations(model)
    unread = {name: False for name in OPTIONAL_ANNOTATIONS if name in node and name not in wanted}
    dataset: DetectionDataset = instantiate(node, **unread)
    return attach_proposals(dataset, proposals, split) if takes_proposals(model) else dataset


OPTIONAL_ANNOTATIONS = ("masks",)
"""Annotations that datasets read only for a head that learns from them."""


def needed_annotations(model: DictConfig | None) -> set[str]:
    """Return the annotations that a model's further heads learn from, such as `masks`."""
    heads = OmegaConf.select(model, "heads.further") if model is not None else None
    return {name for head in (heads or {}).values() for name in getattr(get_class(head["_target_"]), "needs", ())}


def check_needs(wanted: Iterable[str], train: DetectionDataset) -> None:
    """Refuse a training set without the annotations that a head learns from.

    Raises:
        ValueError: naming them.
    """
    if missing := sorted(name for name in wanted if not getattr(train, f"has_{name}", False)):
        raise ValueError(
            f"model: its heads learn from {', '.join(missing)}, and dataset.train has none; use a model without them, "
            "such as faster_rcnn"
        )


def metric_nodes(metrics: Any) -> list[dict[str, Any]]:
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
    return nodes


def takes_proposals(model: DictConfig | None) -> bool:
    """Return whether a model has no RPN and takes the proposals that come with the images."""
    return model is not None and OmegaConf.select(model, "proposer._target_") == GIVEN_PROPOSALS


def build_collector(outputs: Iterable[Output], dataset: DetectionDataset, size_bins: Sequence[float]) -> Collector:
    """Make the collector of detections on a dataset.

    Args:
        outputs: of the model's further heads; those that the dataset has no ground truth for are left out.
        dataset: with the ground truth.
        size_bins: sides in pixels whose squares part small, medium and large objects.
    """
    measured = [output for output in outputs if getattr(dataset, f"has_{output.needs}", False)]
    small, large = size_bins
    return Collector(dataset.ground_truth(), dataset.category_ids, (small, large), measured)


def build_metrics(nodes: ListConfig, collector: Collector) -> list[Metric]:
    """Build the metrics of a dataset, all of which read one collector."""
    return [instantiate(node, collector=collector) for node in nodes]
