"""Convert the tensors of other projects' checkpoints: rename and reshape; none may be left over."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

PLACEHOLDER = "N/A"
"""Name of a predictor's row without a class (ids that COCO skips)."""

CLASSIFY = "heads.box_head.classify"
REGRESS = "heads.box_head.regress"
"""Classification and box regression layers of the box head."""

MASK = "heads.further.mask.predictor."
TRUNK = "heads.box_head.trunk."
"""Key prefixes of the layers of the mask predictor and of the box head's trunk."""

REQUIRED = ("backbone.body.stem.0", "proposer.head.convs.0", "proposer.head.objectness", CLASSIFY, REGRESS)
"""Modules that every two-stage detector has."""

Rule = tuple[str, str]
"""A pattern for a module's full name, and this project's name for it, a template for `re.Match.expand`."""


@dataclass(frozen=True)
class PretrainedWeights:
    """Weights of a whole detector in this project's conventions: its names, RGB input, the background's row last."""

    state: dict[str, Tensor]
    conventions: list[str]
    """overrides that configure the model of these weights; empty for a checkpoint of this project"""
    classes: list[str] | None
    """class names by row, `PLACEHOLDER` for a row without a class; None if unknown"""
    source: str
    """what the user gave, for messages"""
    config: dict[str, Any] | None = None
    """the resolved configuration of the run that trained them; None for weights of other projects"""

    @property
    def num_classes(self) -> int:
        """The number of classes, including placeholders."""
        return len(self.classes) if self.classes else len(self.state[CLASSIFY + ".weight"]) - 1


def rename_tensors(state: Mapping[str, Tensor], rules: Sequence[Rule], source: str) -> dict[str, Tensor]:
    """Rename each tensor by the first rule that matches its module.

    Raises:
        ValueError: no rule matches a tensor, two tensors get the same name, or a module of `REQUIRED` is missing.
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
            raise ValueError(f"weights {source!r}: two tensors become {new}; the second is {key}")
        else:
            result[new] = value
    if unknown:
        raise ValueError(
            f"weights {source!r}: {len(unknown)} of {len(state)} tensors belong to no part of this project's "
            f"Faster or Mask R-CNN: {abbreviate(unknown)}"
        )
    if absent := [module for module in REQUIRED if f"{module}.weight" not in result]:
        raise ValueError(f"weights {source!r}: no tensor becomes {abbreviate(absent)}: the file is no whole detector")
    return result


def unflatten(state: dict[str, Tensor], channels: int, source: str) -> None:
    """Reshape the weight of the trunk's first fully connected layer, in place, from [width, D * P * P].

    Its new shape, that of `FullyConnected`, is [width, D, P, P]: channels, rows, columns.

    Args:
        state: renamed to this project's keys.
        channels: D, the channels of the pooled features; convolutions of the trunk before that layer may change it.
        source: the file, for messages.

    Raises:
        ValueError: the number of inputs is not D times a square.
    """
    for key in layers(state, TRUNK):
        if state[key].ndim == 4:
            channels = len(state[key])
        elif state[key].ndim == 2:
            width, inputs = state[key].shape
            side = math.isqrt(inputs // channels)
            if channels * side * side != inputs:
                raise ValueError(
                    f"weights {source!r}: {key} has {inputs} inputs, which is no square map of {channels} channels"
                )
            state[key] = state[key].reshape(width, channels, side, side)
            return


def layers(state: Mapping[str, Tensor], prefix: str) -> list[str]:
    """List the weight keys of the `nn.Sequential` at `prefix`, in its order."""
    found = {k: k.removeprefix(prefix).removesuffix(".weight") for k in state if k.startswith(prefix)}
    return sorted((k for k, index in found.items() if index.isdecimal()), key=lambda k: int(found[k]))


def abbreviate(names: Sequence[str], most: int = 4) -> str:
    """Join the first `most` of `names` for a message."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
