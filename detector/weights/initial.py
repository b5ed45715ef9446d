"""Load the initial weights of a new run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from detector.weights.conversion import PretrainedWeights
from detector.weights.loading import load_weights


def load_initial(
    model: nn.Module,
    pretrained: PretrainedWeights | None,
    classes: Sequence[str],
    changed: Sequence[str],
    backbone: Any,
) -> list[str]:
    """Load initial weights into a new model.

    Args:
        model: a new model.
        pretrained: weights of a whole detector; None: the model keeps its random (or ImageNet) weights.
        classes: names of the model's classes.
        changed: settings that differ from those the weights were trained with, see `changed_settings`.
        backbone: the node `backbone` of the configuration, as plain data.

    Returns:
        lines to print: what was loaded, and warnings.

    Raises:
        ValueError: the weights do not fit the model.
    """
    if pretrained is None:
        warning = random_frozen_warning(backbone)
        return [] if warning is None else [warning]
    lines = [str(load_weights(model, pretrained, list(classes)))]
    if changed:
        lines.append(
            f"warning: weights={pretrained.source} was trained with {', '.join(changed)}: give these overrides to keep "
            "its settings"
        )
    return lines


def random_frozen_warning(backbone: Any) -> str | None:
    """Return a warning if the frozen stages of a backbone have random weights, else None.

    Args:
        backbone: the node `backbone` of the configuration, as plain data, of a run without `weights=`.
    """
    count = backbone.get("freeze_at") or 0
    named = list(_weights(backbone))
    if not count or not named or any(value is not None for value in named):
        return None
    return (
        f"warning: backbone.freeze_at={count} freezes {count} stages, whose weights are random with "
        "backbone.weights=null; give weights=... (a whole detector) or backbone.weights=imagenet, or train all stages: "
        "backbone.freeze_at=0"
    )


def _weights(value: Any) -> Iterator[Any]:
    """Yield the values of all keys called `weights`, at any depth."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key == "weights":
                yield part
            else:
                yield from _weights(part)
