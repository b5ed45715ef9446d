"""Load weights into a model: all of them, except predictors of other classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from detector.models.heads import FurtherHead
from detector.weights.conversion import PLACEHOLDER, PretrainedWeights, abbreviate

COUNTER = ".num_batches_tracked"
"""A batch norm's counter: no parameter, and used by none of the norms here."""


@dataclass(frozen=True)
class LoadReport:
    """Report what was loaded; as text, one line to print."""

    source: str
    loaded: int
    """number of tensors"""
    reinitialized: list[str] = field(default_factory=list)
    """layers that keep their initial weights"""
    reason: str = ""
    """why they do"""

    def __str__(self) -> str:
        text = f"weights: {self.loaded} tensors from {self.source}"
        return f"{text}; made anew for {self.reason}: {', '.join(self.reinitialized)}" if self.reinitialized else text


def load_weights(model: nn.Module, pretrained: PretrainedWeights, classes: Sequence[str]) -> LoadReport:
    """Load weights into a model.

    The predictors' rows are reordered by the names of the classes, if the weights have the same classes as the model;
    if their names are unknown and their number is the model's, rows keep their order; otherwise the predictors keep
    their initial weights. Everything else is loaded, and nothing may be missing or left over, except that a model
    without an RPN of its own keeps its proposer.

    Args:
        model: built with the conventions of the weights, for `classes`.
        pretrained: the weights.
        classes: names of the model's classes.

    Raises:
        ValueError: the weights are of another model; the message names what does not fit.
    """
    own, further = model.state_dict(), _further(model)
    state = {k: v for k, v in pretrained.state.items() if k in own or not k.endswith(COUNTER)}
    if not any(k.startswith("proposer.head.") for k in own):  # given proposals, or a frozen RPN
        state = {k: v for k, v in state.items() if not k.startswith("proposer.")}
        state |= {k: v for k, v in own.items() if k.startswith("proposer.")}
    theirs = _dependent(state, pretrained.num_classes, further)
    reinitialized = theirs | _dependent(own, len(classes), further)
    rows = _rows(pretrained, classes)
    if rows is None:
        state = {k: v for k, v in state.items() if _module(k) not in reinitialized}
    else:
        reinitialized = set()
        last = set(_classifiers(state))
        state |= {
            k: _reorder(v, rows, pretrained.num_classes, _module(k) in last)
            for k, v in state.items()
            if _module(k) in theirs
        }
    wanted = {k: v for k, v in own.items() if not k.endswith(COUNTER) and _module(k) not in reinitialized}
    _check(pretrained, state, wanted | {k: v for k, v in own.items() if k in state})
    model.load_state_dict(own | state)
    made = sorted({_module(k) for k in own} & reinitialized)
    return LoadReport(pretrained.source, len(state), made, _reason(pretrained, classes) if made else "")


def _module(key: str) -> str:
    return key.rpartition(".")[0]


def _further(model: nn.Module) -> dict[str, int]:
    """Find the layers of further heads with rows for each class: their names, and the rows of each class."""
    heads = {name: part for name, part in model.named_modules() if isinstance(part, FurtherHead)}
    return {f"{name}.{layer}": rows for name, head in heads.items() for layer, rows in head.class_rows().items()}


def _classifiers(state: Mapping[str, Tensor]) -> list[str]:
    """List the classification layers: one of a box head, several of a cascade, R-FCN's maps."""
    return [_module(k) for k in state if k.startswith("heads.") and k.endswith(".classify.weight")]


def _dependent(state: Mapping[str, Tensor], num_classes: int, further: Mapping[str, int]) -> set[str]:
    """Find the layers with rows for each class; of a single class only classifiers, as others may be class-agnostic.

    Args:
        state: in this project's names.
        num_classes: C.
        further: layers of further heads, with the rows that each class has there.
    """
    found = set(_classifiers(state))
    agnostic = dict(further)
    for name in found:
        bins = len(state[name + ".weight"]) // (num_classes + 1)  # of R-FCN's maps; else 1
        agnostic[name.replace("classify", "regress")] = 4 * bins
    if num_classes > 1:
        weights = {name: state.get(f"{name}.weight") for name in agnostic}
        found |= {name for name, weight in weights.items() if weight is not None and len(weight) != agnostic[name]}
    return found


def _rows(pretrained: PretrainedWeights, classes: Sequence[str]) -> list[int] | None:
    """Find the row of each of `classes` in the weights; None if the classes differ."""
    if pretrained.classes is None:
        return list(range(len(classes))) if pretrained.num_classes == len(classes) else None
    if list(classes) == pretrained.classes:
        return list(range(len(classes)))
    if sorted(name for name in pretrained.classes if name != PLACEHOLDER) != sorted(classes):
        return None
    return [pretrained.classes.index(name) for name in classes]


def _reorder(value: Tensor, rows: Sequence[int], num_classes: int, background: bool) -> Tensor:
    """Select a layer's rows by class; with a `background`, its rows come last and stay."""
    each = len(value) // (num_classes + background)
    by_class = value[: num_classes * each].reshape(num_classes, each, *value.shape[1:])
    return torch.cat((by_class[list(rows)].flatten(0, 1), value[num_classes * each :]))


def _reason(pretrained: PretrainedWeights, classes: Sequence[str]) -> str:
    names = [name for name in pretrained.classes or [] if name != PLACEHOLDER]
    count = len(names) if names else pretrained.num_classes
    if count != len(classes):
        return f"{len(classes)} classes instead of {count}"
    return f"other classes ({abbreviate(classes)} instead of {abbreviate(names)})"


def _check(pretrained: PretrainedWeights, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise ValueError, naming what does not fit.

    Args:
        pretrained: for the message.
        state: to be loaded.
        own: the model's state dict, without layers that keep their initial weights.
    """
    faults = []
    if missing := sorted(own.keys() - state.keys()):
        faults.append(f"{len(missing)} tensors missing ({abbreviate(missing)})")
    if left := sorted(state.keys() - own.keys()):
        faults.append(f"{len(left)} left over ({abbreviate(left)})")
    shapes = [
        f"{key} is {list(state[key].shape)} and the model's {list(own[key].shape)}"
        for key in sorted(own.keys() & state.keys())
        if state[key].shape != own[key].shape
    ]
    if shapes:
        faults.append(f"{len(shapes)} of another shape ({abbreviate(shapes, 2)})")
    if faults:
        way = "take its run's configuration"
        if pretrained.conventions:
            way = f"they need {' '.join(pretrained.conventions)}, and no other layers: leave out such choices as "
            way += "model=, backbone=, norm=, mask_head="
        raise ValueError(f"weights {pretrained.source!r} are of another model: {'; '.join(faults)}; {way}")
