"""What all sources of weights have in common: names become this project's, and none is left over."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

PLACEHOLDER = "N/A"
"""The name of a class that a file has rows for and no dataset has objects of."""

CLASSIFY = "heads.box_head.classify"
REGRESS = "heads.box_head.regress"
MASK = "heads.further.mask.predictor."
TRUNK = "heads.box_head.trunk."

REQUIRED = ("backbone.body.stem.0", "proposer.head.convs.0", "proposer.head.objectness", CLASSIFY, REGRESS)
"""The modules without which nothing is a two-stage detector."""

Rule = tuple[str, str]
"""A pattern for the whole name of a module, and this project's name for it (as in `re.Match.expand`)."""


@dataclass(frozen=True)
class Foreign:
    """Weights from elsewhere, in this project's names and order: RGB, the background's row last."""

    state: dict[str, Tensor]
    conventions: list[str]
    """the overrides of the configuration that make the model these weights were learnt in"""
    classes: list[str] | None
    """by row, `PLACEHOLDER` where a row has no class; None where the file does not say"""
    source: str
    """what the user asked for"""
    config: dict[str, Any] | None = None
    """the resolved configuration of the run of this project that they come from"""

    @property
    def num_classes(self) -> int:
        """How many classes the weights tell apart, placeholders among them."""
        return len(self.classes) if self.classes else len(self.state[CLASSIFY + ".weight"]) - 1


def rename(state: Mapping[str, Tensor], rules: Sequence[Rule], source: str) -> dict[str, Tensor]:
    """The tensors under the names that `rules` give their modules; the first rule that fits counts.

    Raises:
        ValueError: a tensor fits no rule, two of them the same name, or a part of every detector is not there.
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
            f"here: {some(unknown)}"
        )
    if absent := [module for module in REQUIRED if f"{module}.weight" not in result]:
        raise ValueError(f"weights {source!r}: nothing in it becomes {some(absent)}; it is no whole detector")
    return result


def unflatten(state: dict[str, Tensor], channels: int, source: str) -> None:
    """Shape the weight of the trunk's first layer on flattened features as `FullyConnected` has it, in place.

    From [width, D * P * P] over channels, rows and columns, in this order, to [width, D, P, P].

    Args:
        state: in this project's names.
        channels: D of the pooled features, where no convolution of the trunk has changed it.
        source: for the error.

    Raises:
        ValueError: the features were no square of so many channels.
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
    """The names of the weights in the sequence at `prefix`, in its order."""
    found = {k: k.removeprefix(prefix).removesuffix(".weight") for k in state if k.startswith(prefix)}
    return sorted((k for k, index in found.items() if index.isdecimal()), key=lambda k: int(found[k]))


def some(names: Sequence[str], most: int = 4) -> str:
    """The first of `names`, for a message."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
