"""Compare runs by the overrides in their commands."""

from __future__ import annotations

import shlex

from detector.config.resolve import MACHINE_TRAINER_KEYS, MOVABLE_KEYS


def _is_placement(key: str) -> bool:
    """Whether a key says where a run runs, such as `workers`, not what it computes; `data_dir` counts as what."""
    section, _, name = key.partition(".")
    return section in set(MOVABLE_KEYS) - {"data_dir", "trainer"} or (
        section == "trainer" and name in MACHINE_TRAINER_KEYS
    )


def chosen_overrides(command: str) -> frozenset[str]:
    """Return the overrides in a run's command that decide what it computes; equal sets make the same run.

    The order does not count, and of several overrides of one key only the last, as in Hydra. Where an override sets
    several keys (`{...}`) the order may matter, and only an equal command makes the same run.
    """
    try:
        words = shlex.split(command)
    except ValueError:  # no valid shell command
        words = ["{", command]
    if any("{" in word for word in words):
        return frozenset([command.strip()])
    overrides = {word.partition("=")[0].lstrip("+~"): word for word in words}
    return frozenset(word for key, word in overrides.items() if not _is_placement(key))
