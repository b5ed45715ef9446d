"""Run a script from its command line.

Help and mistakes must be answered at once: `--help` imports only the standard library and PyYAML, and torch is imported
after the configuration is composed.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.config.help import CONFIGS, help_text
from detector.config.variables import FULL_ERROR, environment_variable

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from detector.config.cli import Work


@dataclass(frozen=True)
class Action:
    """What the first word of a command line chooses."""

    name: str
    """its configuration, `configs/NAME.yaml`"""
    target: str | Work
    """as of `run`"""


def run(
    name: str,
    target: str | Work,
    prepare: Callable[[list[str]], list[str]] | None = None,
    actions: Mapping[str, Action] | None = None,
) -> None:
    """Run a script: answer `--help`, or compose the configuration and call `target` with it, once for each job of `-m`.

    All options of Hydra work. A mistake in the command line becomes one message on standard error and exit code 1; with
    HYDRA_FULL_ERROR=1 the traceback is shown instead.

    Args:
        name: the script's configuration, `configs/NAME.yaml`.
        target: the function that does the work, or better its name, `package.module.function`: it is then imported when
            the configuration is composed, since torch and Lightning take seconds.
        prepare: rewrites the overrides before Hydra reads them.
        actions: by the word that may come first on the command line, in place of `name` and `target`.
    """
    if actions and sys.argv[1:] and (action := _action(sys.argv[1], actions)) is not None:
        name, target = action.name, action.target
        del sys.argv[1]
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text(name))
        return
    _run(name, target, prepare)


def _action(word: str, actions: Mapping[str, Action]) -> Action | None:
    """Look up the action that a word names; None if it is an option or sets a key."""
    if word in actions or not word.isidentifier():
        return actions.get(word)
    from difflib import get_close_matches

    near = get_close_matches(word, actions, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    print(f"error: unknown action {word!r}: {meant}Actions: {', '.join(actions)}", file=sys.stderr)
    sys.exit(1)


def _run(name: str, target: str | Work, prepare: Callable[[list[str]], list[str]] | None) -> None:
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from detector.config.cli import Command, JobError, failures, reraise_ctrl_c
    from detector.config.mistakes import explain
    from detector.config.overrides import allow_new_keys, plain_keys, quote_override, split_options
    from detector.config.show import show

    full = os.environ.get(FULL_ERROR)
    overrides: list[str] = []
    try:
        parsed, options, overrides = split_options(sys.argv[1:])
        name = parsed.config_name or name
        multirun = parsed.multirun or "hydra.mode=MULTIRUN" in overrides
        overrides = [quote_override(override, multirun) for override in overrides]
        overrides = overrides if prepare is None else prepare(overrides)
        task: Callable[[DictConfig], None] = Command(target, full, plain_keys(overrides))
        overrides = allow_new_keys(overrides)
        sys.argv[1:] = [*overrides, *options]
        if parsed.cfg == "job" and parsed.package is None and not multirun:
            # Prints only; the current folder is the run's, so that none is created.
            task = functools.partial(show, resolve=parsed.resolve)
            folder = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]
            places = {"--config-dir": parsed.config_dir, "--config-path": parsed.config_path}
            options = [f"{option}={place}" for option, place in places.items() if place is not None]
            sys.argv[1:] = [*overrides, *folder, *options]
        with reraise_ctrl_c(), environment_variable(FULL_ERROR, "1"):  # Hydra raises its errors, explained below
            hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=name)(task)()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if full == "1":
            raise
        print(f"error: {explain(error, name, overrides)}", file=sys.stderr)
        sys.exit(1)
    except JobError:  # it is raised when all jobs are done
        print(
            f"{len(failures) or 'some'} runs of the sweep failed", file=sys.stderr
        )  # of launchers, in other processes
        sys.exit(1)
