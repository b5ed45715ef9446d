"""Load the weights that a new run begins with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from detector.weights.foreign import Foreign
from detector.weights.loading import load


def load_initial(
    model: nn.Module, foreign: Foreign | None, classes: Sequence[str], changed: Sequence[str], backbone: Any
) -> list[str]:
    """Load initial weights into a new model.

    Args:
        model: a new model.
        foreign: the weights of a whole detector; None for none.
        classes: the names that the model tells apart.
        changed: settings in which the run departs from the one that the weights come from, see `departures`.
        backbone: the backbone's settings, plain data.

    Returns:
        lines to print: what was loaded, and warnings.

    Raises:
        ValueError: the weights are of another model.
    """
    if foreign is None:
        warning = random_and_frozen(backbone)
        return [] if warning is None else [warning]
    lines = [str(load(model, foreign, list(classes)))]
    if changed:
        lines.append(
            f"warning: weights={foreign.source} was trained with {', '.join(changed)}: give these to keep them"
        )
    return lines


def random_and_frozen(backbone: Any) -> str | None:
    """Return a warning where frozen stages have random weights; None where they have not.

    Args:
        backbone: the backbone's settings, plain data, in a run that begins without `weights` of a whole detector.
    """
    count = backbone.get("freeze_at") or 0
    named = list(_weights(backbone))
    if not count or not named or any(value is not None for value in named):
        return None
    return (
        f"warning: backbone.freeze_at={count} keeps {count} stages as they are, which with backbone.weights=null is "
        "random; give weights=... (of a whole detector) or backbone.weights=imagenet, or train them: "
        "backbone.freeze_at=0"
    )


def _weights(value: Any) -> Iterator[Any]:
    """The values of all keys called `weights`, at any depth."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key == "weights":
                yield part
            else:
                yield from _weights(part)
