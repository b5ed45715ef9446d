"""Compare runs by the overrides in their commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from itertools import dropwhile

from detector.config.conventions import STUDY_DEFAULTS
from detector.config.overrides import key_of
from detector.config.renamed import current_key
from detector.config.resolve import MACHINE_TRAINER_KEYS, MOVABLE_KEYS


def _is_placement(key: str) -> bool:
    """Whether a key says where a run runs, such as `workers`, not what it computes; `data_dir` counts as what."""
    section, _, name = key.partition(".")
    return section in set(MOVABLE_KEYS) - {"data_dir", "trainer"} or (
        section == "trainer" and name in MACHINE_TRAINER_KEYS
    )


def with_current_key(override: str) -> str:
    """Replace a key of version 0.1 in an override by its current name; other overrides stay."""
    name = override.lstrip("+~")
    key, equals, value = name.partition("=")
    return override[: len(override) - len(name)] + current_key(key) + equals + value


def without_study_defaults(overrides: Iterable[str]) -> list[str]:
    """Leave out the preset of studies, which runs of version 0.1 do not name: its choices were the defaults."""
    kept = []
    for override in overrides:
        if key_of(override) == "experiment":
            names = [name.strip() for name in override.partition("=")[2].strip("[]").split(",")]
            others = [name for name in names if name != STUDY_DEFAULTS]
            if others != names:
                if others:
                    kept.append(f"experiment={others[0]}" if len(others) == 1 else f"experiment=[{','.join(others)}]")
                continue
        kept.append(override)
    return kept


def chosen_overrides(command: str) -> frozenset[str]:
    """Return the overrides of a study's run that affect results; runs with equal sets are identical.

    Keys of version 0.1 count as the keys they are called now, and the preset of studies, `STUDY_DEFAULTS`, as given.
    The order does not count, and of several overrides of one key only the last, as in Hydra. Where an override sets
    several keys (`{...}`) the order may matter, and only runs with equal commands are identical.
    """
    try:
        words = shlex.split(command)
        # Without `python scripts/train.py`, or `aligned-rcnn train` of an installation.
        words = list(dropwhile(lambda word: "=" not in word and not word.startswith("~"), words))
    except ValueError:  # no valid shell command
        words = ["{", command.strip()]
    words = without_study_defaults(words)
    if any("{" in word for word in words):
        return frozenset([shlex.join(words)])
    overrides = {word.partition("=")[0].lstrip("+~"): word for word in map(with_current_key, words)}
    return frozenset(word for key, word in overrides.items() if not _is_placement(key))
