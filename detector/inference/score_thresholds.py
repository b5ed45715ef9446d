"""Choose which detections are drawn by their scores, and say how many they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from detector.data.json_values import is_number
from detector.types import Objects
from detector.weights.thresholds import read_thresholds

BEST = "best"
DEFAULT = "default"
"""The key of a threshold by class that stands for all other classes."""
COMMON = 0.5
"""The threshold of classes for which none is given."""

STEPS = (*(round(0.95 - 0.05 * i, 2) for i in range(19)), 0.01, 0.0)
"""Thresholds that are proposed, from the highest."""


def read_threshold(given: Any, classes: Sequence[str], checkpoint: str) -> list[float | None]:
    """Return the least score of drawn detections of each class, by label; None: no detection of it is drawn.

    Args:
        given: a number; `best`, for the thresholds beside the checkpoint; or scores by class name, where `default`
            stands for the others (`COMMON` if it is not given).
        classes: names by label.
        checkpoint: the detector's.

    Raises:
        ValueError: it is none of these, or names no class.
    """
    if given == BEST:
        return read_thresholds(checkpoint, classes)
    if isinstance(given, DictConfig):
        given = OmegaConf.to_container(given)
    if isinstance(given, Mapping):
        scores = {str(name): _score(score, f"threshold of {name}") for name, score in given.items()}
        for name in scores:
            if name not in classes and name != DEFAULT:
                alike = [known for known in classes if known.casefold() == name.casefold()]
                near = alike or get_close_matches(name, classes, n=1)
                meant = f"did you mean {near[0]}? It has" if near else "it has"
                known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
                raise ValueError(f"threshold: the detector has no class {name!r}; {meant} {known}")
        return [scores.get(name, scores.get(DEFAULT, COMMON)) for name in classes]
    return [_score(given, "threshold")] * len(classes)


def _score(value: Any, name: str) -> float:
    if not is_number(value) or not 0 <= value <= 1:
        raise ValueError(
            f"{name} must be a score from 0 to 1{'' if ' ' in name else ', best, or scores by class'}, not {value!r}"
        )
    return float(value)


class Drawn:
    """Count detections, and those that are drawn.

    Args:
        least: the least score of each class, by label; None: none is drawn.
    """

    def __init__(self, least: Sequence[float | None]) -> None:
        self.least = list(least)
        self._limits = torch.tensor([math.inf if score is None else score for score in least])
        self._steps = torch.tensor(STEPS)
        self._reached = torch.zeros(len(STEPS), dtype=torch.int64)
        self.found = self.drawn = 0

    def __call__(self, objects: Objects) -> Tensor:
        """Return which detections are drawn, bool [N], and count them."""
        scores, chosen = objects.scores.float(), self.chosen(objects)
        self._reached += (scores[:, None] >= self._steps).sum(0)
        self.found += len(objects)
        self.drawn += int(chosen.sum())
        return chosen

    def chosen(self, objects: Objects) -> Tensor:
        """Return which detections are drawn, bool [N]."""
        return objects.scores.float() >= self._limits[objects.labels]

    def sentence(self) -> str:
        """Say how many are drawn, and which threshold would draw more."""
        one = self.least[0] if len(set(self.least)) == 1 else None
        what = f"score {one:g} or more" if one is not None else "reach the threshold of their class"
        text = f"{self.drawn} of {self.found} {what}"
        reached = self._reached.tolist()
        below = [s for s, n in zip(STEPS, reached, strict=True) if n > self.drawn and (one is None or s < one)]
        return f"{text}; threshold={below[0]:g} draws more" if below else text
