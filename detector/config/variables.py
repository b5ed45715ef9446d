"""Set environment variables of Hydra for a while."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

FULL_ERROR = "HYDRA_FULL_ERROR"
"""Hydra's environment variable: with 1, errors are raised with their traceback instead of printed."""


@contextlib.contextmanager
def environment_variable(variable: str, value: str | None) -> Iterator[None]:
    """Set an environment variable (None: unset it) within a `with` block."""
    before = os.environ.get(variable)
    _put(variable, value)
    try:
        yield
    finally:
        _put(variable, before)


def _put(variable: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = value
