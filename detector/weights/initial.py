"""What a new run begins with: the weights that it names, and a warning where they are not what they seem."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from detector import weights


def begin(model: nn.Module, config: DictConfig) -> list[str]:
    """Put the weights that `config.weights` names into a new model.

    Args:
        model: built from `config`.
        config: complete, classes included.

    Returns:
        lines to print: what was loaded, and what the user should know of it.

    Raises:
        FileNotFoundError, OSError, ValueError: the weights cannot be read, or are of another model.
    """
    if config.weights is None:
        warning = random_and_frozen(config)
        return [] if warning is None else [warning]
    foreign = weights.read(str(config.weights))
    lines = [str(weights.load(model, foreign, list(config.classes)))]
    changed = [] if foreign.config is None else weights.departures(config, foreign.config)
    if changed:
        lines.append(
            f"warning: weights={config.weights} was trained with {', '.join(changed)}: give these to keep them"
        )
    return lines


def random_and_frozen(config: DictConfig) -> str | None:
    """A warning where stages are not trained whose weights are random; None where there are none.

    Args:
        config: complete, with no `weights` of a whole detector.
    """
    count = config.backbone.get("freeze_at") or 0
    named = list(_weights(OmegaConf.to_container(config.backbone, resolve=True)))
    if not count or not named or any(value is not None for value in named):
        return None
    return (
        f"warning: backbone.freeze_at={count} keeps {count} stages as they are, which with backbone.weights=null is "
        "random; give weights=... (of a whole detector) or backbone.weights=imagenet, or train them: "
        "backbone.freeze_at=0"
    )


def _weights(value: Any) -> Iterator[Any]:
    """What is given as `weights` anywhere below."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key == "weights":
                yield part
            else:
                yield from _weights(part)
