"""Find what a node of a configuration names as its `_target_`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig

from detector.names import here


def target_of(node: DictConfig | Mapping[str, Any]) -> Any:
    """Import the `_target_` of a node.

    Raises:
        Exception: as of `hydra.utils.get_object`, where there is no such class or function.
    """
    return get_object(here(str(node["_target_"])))
