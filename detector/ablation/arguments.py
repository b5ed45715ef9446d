"""Separate `ablate.py`'s own keys from overrides of the runs."""

from __future__ import annotations

import re
from collections.abc import Sequence

KEYS = (
    *("study", "arms", "datasets", "data_dir", "reuse", "dry_run", "report", "trust", "hydra", "overrides"),
    *("plan", "difference", "plan_from"),
)
"""The keys of `configs/ablate.yaml`; all others on the command line are overrides of every run."""


def split_arguments(arguments: Sequence[str]) -> list[str]:
    """Collect the overrides of runs, among the arguments of `scripts/ablate.py`, in `overrides=[...]`.

    Raises:
        ValueError: overrides are given both in `overrides=[...]` and beside it.
    """
    from detector.config.overrides import quote_value  # it imports Hydra, which `--help` does without

    own = [a for a in arguments if a[:1] == "-" or "=" not in a or re.split(r"[./@=]", a.lstrip("+~"))[0] in KEYS]
    others = [a for a in arguments if a not in own]
    if others and any(a.startswith("overrides=") for a in own):
        raise ValueError(f"give {' '.join(others)} within overrides=[...], or give all overrides without it")
    if any(a.startswith("report=") for a in own) and not any(a.startswith("hydra.run.dir=") for a in own):
        own.append("hydra.run.dir=multirun/report")
    quoted = [quote_value(a) for a in others]
    return [*own, f"overrides=[{','.join(quoted)}]"] if quoted else own
