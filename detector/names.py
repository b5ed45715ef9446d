"""Names of this project's parts: as configurations and checkpoints have them, and as Python imports them here.

In a clone the packages are `detector` and `ops`, in an installation (a wheel) `aligned_rcnn.detector` and
`aligned_rcnn.ops` (setup.py). Configurations and checkpoints have the names of a clone, everywhere, so that each can be
read in the other; this file is where they are told apart.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGE = "aligned_rcnn"
"""The package of an installation."""

OWN = ("detector", "ops")
"""The packages of a clone."""

PARENT = __name__.removesuffix("detector.names")
"""What stands before those names here: nothing in a clone, `aligned_rcnn.` in an installation."""

ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds `detector`, `ops`, `configs` and `scripts`: the clone, or the installed package."""

PLACE = ROOT.parents[PARENT.count(".") - 1] if PARENT else ROOT
"""The folder from which Python imports this project: the clone, or the one that `aligned_rcnn` lies in."""


def here(name: str) -> str:
    """Return the name by which Python imports a part here.

    Args:
        name: as configurations have it, such as `detector.models.rcnn.RCNN`; those of other packages stay.
    """
    name = everywhere(name)
    return f"{PARENT}{name}" if name.split(".")[0] in OWN else name


def everywhere(name: str) -> str:
    """Return the name that configurations have of a part, which Python may import here by another; see `here`."""
    first, _, rest = name.partition(".")
    return rest if first == PACKAGE and rest.split(".")[0] in OWN else name


def module_of(part: Any) -> str:
    """Return the name of the module in which a class or a function is defined, as configurations have it."""
    return everywhere(str(getattr(part, "__module__", "")))


def find(name: str) -> Any:
    """Import the part with this name.

    Args:
        name: `module.name`, as configurations have it.

    Raises:
        ImportError: there is no such module.
        AttributeError: it has no such part.
    """
    module, _, part = here(name).rpartition(".")
    return getattr(importlib.import_module(module), part)


def importable(node: Any) -> Any:
    """Return plain data with each `_target_` as Python imports it here."""
    if isinstance(node, Mapping):
        return {
            key: here(value) if key == "_target_" and isinstance(value, str) else importable(value)
            for key, value in node.items()
        }
    return [importable(item) for item in node] if isinstance(node, list) else node
