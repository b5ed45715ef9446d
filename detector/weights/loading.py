"""Load weights into a model: all of them, except the predictors of other classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from detector.models.heads import FurtherHead
from detector.models.pretrained import adapt_stems
from detector.weights.conversion import PLACEHOLDER, PretrainedWeights, abbreviate

COUNTER = ".num_batches_tracked"
"""Suffix of a batch norm's counter, a buffer that no norm of this project uses."""

PRIOR = 1e-3
"""The probability of classes without rows at first, all together, as a share of the background's."""


@dataclass(frozen=True)
class LoadReport:
    """Describe what was loaded; `str` gives one line to print."""

    source: str
    loaded: int
    """number of loaded tensors"""
    reinitialized: list[str] = field(default_factory=list)
    """layers that keep their random weights"""
    reason: str = ""
    """why they were not loaded"""
    added: list[str] = field(default_factory=list)
    """further heads that the weights do not have, which keep their random weights as well"""
    adapted: str = ""
    """what was done to the first convolution, for images of other channels"""
    kept: list[str] = field(default_factory=list)
    """classes that keep their rows, where not all of both lists are the same"""
    new: list[str] = field(default_factory=list)
    """the others, which the weights do not know"""

    def __str__(self) -> str:
        text = f"weights: {self.loaded} tensors from {self.source}"
        if self.reinitialized:
            text += f"; randomly initialized for {self.reason}: {', '.join(self.reinitialized)}"
        if self.kept:
            text += f"; rows kept of {abbreviate(self.kept)}"
        if self.new:
            text += f"; new rows of {abbreviate(self.new)}"
        if self.adapted:
            text += f"; {self.adapted}"
        if self.added:
            text += f"; randomly initialized, since the weights have no such head: {', '.join(self.added)}"
        return text


def load_weights(model: nn.Module, pretrained: PretrainedWeights, classes: Sequence[str]) -> LoadReport:
    """Load the weights of a whole detector into a model.

    The predictors depend on the classes:

    - The same classes in any order: their rows are reordered by class name.
    - Some of the same names: the rows of these are loaded, and of the background. Other classes begin as the background
      with a probability of together `PRIOR` of it, so that they do not change the scores; the rows of their boxes and
      masks keep their random weights.
    - Unknown class names, but the same number: their rows keep their order.
    - Other classes: the predictors keep their random weights.

    All other tensors are loaded; none may be missing or left over. A model without a trainable RPN keeps its proposer.
    A first convolution on RGB is adapted to a model for images of other channels.
    A further head of which the weights have no tensor, such as one added for fine-tuning, keeps its random weights.

    Args:
        model: a model for `classes`, built with the conventions of the weights.
        pretrained: the weights.
        classes: names of the model's classes.

    Raises:
        ValueError: the weights are of another model; the message names the tensors that do not fit.
    """
    own, further = model.state_dict(), _further(model)
    state = {k: v for k, v in pretrained.state.items() if k in own or not k.endswith(COUNTER)}
    state, adapted = adapt_stems(state, {k: v for k, v in own.items() if k.startswith("backbone.")})
    if not any(k.startswith("proposer.head.") for k in own):  # proposals from a file, or a frozen RPN
        state = {k: v for k, v in state.items() if not k.startswith("proposer.")}
        state |= {k: v for k, v in own.items() if k.startswith("proposer.")}
    heads = [f"{name}." for name, part in model.named_modules() if isinstance(part, FurtherHead)]
    heads = [head for head in heads if any(key.startswith(head) for key in own)]
    added = [head for head in heads if not any(key.startswith(head) for key in state)]
    own = {k: v for k, v in own.items() if not k.startswith(tuple(added))}
    theirs, ours = (_dependent(s, n, further) for s, n in ((state, pretrained.num_classes), (own, len(classes))))
    rows = _rows(pretrained, classes)
    moved, reinitialized = _sort_layers(pretrained, classes, theirs, ours)
    state = {k: v for k, v in state.items() if _module(k) not in reinitialized}
    last = set(_classifiers(state))
    state |= {
        k: _by_class(v, own.get(k), rows, pretrained.num_classes, _module(k) in last)
        for k, v in state.items()
        if rows is not None and _module(k) in moved
    }
    expected = {k: v for k, v in own.items() if not k.endswith(COUNTER) and _module(k) not in reinitialized}
    _check(pretrained, state, expected | {k: v for k, v in own.items() if k in state})
    model.load_state_dict(model.state_dict() | state)
    made = sorted({_module(k) for k in own} & reinitialized)
    reason = _reason(pretrained, classes) if made else ""
    kept = [name for name in classes if name in (pretrained.classes or ()) and not _is_same(pretrained, classes)]
    new = [name for name in classes if kept and name not in kept]
    without = [head.rstrip(".") for head in added]
    return LoadReport(pretrained.source, len(state), made, reason, without, adapted, kept, new)


def _module(key: str) -> str:
    return key.rpartition(".")[0]


def _further(model: nn.Module) -> dict[str, int]:
    """Map the class-specific layers of further heads to their number of rows per class."""
    heads = {name: part for name, part in model.named_modules() if isinstance(part, FurtherHead)}
    return {f"{name}.{layer}": rows for name, head in heads.items() for layer, rows in head.class_rows().items()}


def _classifiers(state: Mapping[str, Tensor]) -> list[str]:
    """List the classification layers: one of a box head, one of each cascade stage, or R-FCN's score maps."""
    return [_module(k) for k in state if k.startswith("heads.") and k.endswith(".classify.weight")]


def _dependent(state: Mapping[str, Tensor], num_classes: int, further: Mapping[str, int]) -> set[str]:
    """Find the class-specific layers.

    With a single class, only classifiers count: other layers have as many rows as a class-agnostic one.

    Args:
        state: a state dict in this project's names.
        num_classes: the number of classes, without background.
        further: rows per class of the layers of further heads.
    """
    found = set(_classifiers(state))
    rows = dict(further)
    for name in found:
        bins = len(state[name + ".weight"]) // (num_classes + 1)  # more than 1 only in R-FCN's score maps
        rows[name.replace("classify", "regress")] = 4 * bins
    if num_classes > 1:
        weights = {name: state.get(f"{name}.weight") for name in rows}
        found |= {name for name, weight in weights.items() if weight is not None and len(weight) != rows[name]}
    return found


def _names(pretrained: PretrainedWeights) -> dict[str, int]:
    """Return the row of each class name in the pretrained predictors."""
    return {name: row for row, name in enumerate(pretrained.classes or ()) if name != PLACEHOLDER}


def _is_same(pretrained: PretrainedWeights, classes: Sequence[str]) -> bool:
    """Return whether the weights are of these classes, in any order, or of as many unknown ones."""
    if pretrained.classes is None:
        return pretrained.num_classes == len(classes)
    return list(classes) == list(pretrained.classes) or sorted(_names(pretrained)) == sorted(classes)


def _rows(pretrained: PretrainedWeights, classes: Sequence[str]) -> list[int | None] | None:
    """Return the row of each of `classes` in the pretrained predictors, None for a new one; None if all are new."""
    if pretrained.classes is None or list(classes) == list(pretrained.classes):
        return list(range(len(classes))) if _is_same(pretrained, classes) else None
    rows = [_names(pretrained).get(name) for name in classes]
    return rows if any(row is not None for row in rows) else None


def _sort_layers(
    pretrained: PretrainedWeights, classes: Sequence[str], theirs: set[str], ours: set[str]
) -> tuple[set[str], set[str]]:
    """Sort class-specific layers into those whose rows are loaded by class, and those that keep their random weights.

    Args:
        pretrained: the weights.
        classes: of the model.
        theirs, ours: the class-specific layers of both. Those of a single class look like class-agnostic ones.
    """
    if _is_same(pretrained, classes):
        return theirs, set()
    if _rows(pretrained, classes) is None:
        return set(), theirs | ours
    both = {layer for layer in theirs | ours if layer in theirs or pretrained.num_classes == 1}
    moved = {layer for layer in both if layer in ours or len(classes) == 1}
    return moved, (theirs | ours) - moved


def _by_class(
    value: Tensor, own: Tensor | None, rows: Sequence[int | None], num_classes: int, background: bool
) -> Tensor:
    """Select a layer's rows by class.

    Args:
        value: the rows of the weights.
        own: those of the model, which new classes keep, unless there is a background.
        rows: by the classes of the model, see `_rows`.
        num_classes: of the weights.
        background: whether it has rows, too, which stay last.
    """
    each, rest = divmod(len(value), num_classes + background)
    if rest or not each or (not background and own is not None and own.shape[1:] != value.shape[1:]):
        return value  # of another model, which `_check` tells
    parts = value.reshape(num_classes + background, each, *value.shape[1:])
    if background:
        less = math.log(rows.count(None) / PRIOR) if None in rows and value.ndim == 1 else 0.0  # of the bias
        made = [parts[-1] - less if row is None else parts[row] for row in rows]
        return torch.cat([*made, parts[-1]])
    return torch.cat(
        [
            (own if own is not None else value)[label * each : (label + 1) * each] if row is None else parts[row]
            for label, row in enumerate(rows)
        ]
    )


def _reason(pretrained: PretrainedWeights, classes: Sequence[str]) -> str:
    names = [name for name in pretrained.classes or [] if name != PLACEHOLDER]
    count = len(names) if names else pretrained.num_classes
    if count != len(classes):
        return f"{len(classes)} classes instead of {count}"
    return f"other classes ({abbreviate(classes)} instead of {abbreviate(names)})"


def _check(pretrained: PretrainedWeights, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Check that keys and shapes match.

    Args:
        pretrained: for the message.
        state: the tensors to load.
        own: the model's state dict, without layers that keep their random weights.

    Raises:
        ValueError: they differ; the message names the tensors.
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
        way = "train with the configuration of the run that they come from"
        if pretrained.conventions:
            way = f"they need {' '.join(pretrained.conventions)}: leave out choices of other layers, such as "
            way += "model=, backbone=, norm= and mask_head="
        raise ValueError(f"weights {pretrained.source!r} are of another model: {'; '.join(faults)}; {way}")
