"""Rename the tensors of other projects' checkpoints to this project's names; none may be left over."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

PLACEHOLDER = "N/A"
"""The name of classes that a file has rows for but no dataset has (ids that COCO skips)."""

CLASSIFY = "heads.box_head.classify"
REGRESS = "heads.box_head.regress"
"""The predictors of the box head."""

MASK = "heads.further.mask.predictor."
TRUNK = "heads.box_head.trunk."
"""Prefixes of the mask head's and the box head's layers."""

REQUIRED = ("backbone.body.stem.0", "proposer.head.convs.0", "proposer.head.objectness", CLASSIFY, REGRESS)
"""The modules that every two-stage detector has."""

Rule = tuple[str, str]
"""A pattern that matches a module's whole name, and this project's name for it, as for `re.Match.expand`."""


@dataclass(frozen=True)
class PretrainedWeights:
    """Weights from a file, in this project's names and order: RGB, the background's row last."""

    state: dict[str, Tensor]
    conventions: list[str]
    """overrides of the configuration that build the model these weights are of"""
    classes: list[str] | None
    """names, by row; `PLACEHOLDER` where a row has no class; None where the file does not tell"""
    source: str
    """as the user gave it, for messages"""
    config: dict[str, Any] | None = None
    """the resolved configuration of the run, where they come from one of this project"""

    @property
    def num_classes(self) -> int:
        """Number of classes, including placeholders."""
        return len(self.classes) if self.classes else len(self.state[CLASSIFY + ".weight"]) - 1


def rename_tensors(state: Mapping[str, Tensor], rules: Sequence[Rule], source: str) -> dict[str, Tensor]:
    """Rename tensors by the first rule that matches their module.

    Raises:
        ValueError: no rule matches a tensor, two get the same name, or a module of `REQUIRED` is missing.
    """
    compiled = [(re.compile(pattern), name) for pattern, name in rules]
    result: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        matches = ((pattern.fullmatch(module), name) for pattern, name in compiled)
        new = next((f"{match.expand(name)}.{leaf}" for match, name in matches if match), None)
        if new is None:
            unknown.append(key)
        elif new in result:
            raise ValueError(f"weights {source!r}: two tensors for {new}; the second is {key}")
        else:
            result[new] = value
    if unknown:
        raise ValueError(
            f"weights {source!r}: {len(unknown)} of {len(state)} tensors belong to no part of a Faster or Mask R-CNN "
            f"here: {abbreviate(unknown)}"
        )
    if absent := [module for module in REQUIRED if f"{module}.weight" not in result]:
        raise ValueError(f"weights {source!r}: nothing in it becomes {abbreviate(absent)}; it is no whole detector")
    return result


def unflatten(state: dict[str, Tensor], channels: int, source: str) -> None:
    """Reshape the weight of the trunk's first fully connected layer for `FullyConnected`, in place.

    From [width, D * P * P] (channels, rows, columns) to [width, D, P, P].

    Args:
        state: in this project's names.
        channels: D of the pooled features; a convolution of the trunk before that layer may change it.
        source: for messages.

    Raises:
        ValueError: the layer's inputs are no square map of D channels.
    """
    for key in layers(state, TRUNK):
        if state[key].ndim == 4:
            channels = len(state[key])
        elif state[key].ndim == 2:
            width, inputs = state[key].shape
            side = math.isqrt(inputs // channels)
            if channels * side * side != inputs:
                raise ValueError(f"weights {source!r}: {key} has {inputs} inputs, no square of {channels} channels")
            state[key] = state[key].reshape(width, channels, side, side)
            return


def layers(state: Mapping[str, Tensor], prefix: str) -> list[str]:
    """List the names of the weights in the sequence at `prefix`, in its order."""
    found = {k: k.removeprefix(prefix).removesuffix(".weight") for k in state if k.startswith(prefix)}
    return sorted((k for k, index in found.items() if index.isdecimal()), key=lambda k: int(found[k]))


def abbreviate(names: Sequence[str], most: int = 4) -> str:
    """Format the first of `names`, for a message."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
