"""Environment variables of Hydra."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

FULL_ERROR = "HYDRA_FULL_ERROR"
"""Environment variable of Hydra: with 1, errors are raised and not printed."""


@contextlib.contextmanager
def environment_variable(variable: str, value: str | None) -> Iterator[None]:
    """Set an environment variable (None: unset it) for a while."""
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
