"""Compose configurations and launch jobs with Hydra."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from detector.config.help import CONFIGS
from detector.config.mistakes import explain
from detector.config.overrides import quote_value

SEARCH_PATH = "hydra.searchpath="
"""Prefix of overrides that add a user's own configuration folders; each composition needs them again."""


def current_job() -> int:
    """Return the number of this job of a multirun."""
    return int(HydraConfig.get().job.num)


def not_chosen(group: str) -> bool:
    """Return whether the running script has a group, and its choice is `null`."""
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return group in choices and choices[group] is None


def launcher() -> list[str]:
    """Return the overrides on this command line that choose and configure Hydra's launcher."""
    return [o for o in HydraConfig.get().overrides.hydra if o.startswith(("hydra/launcher", "hydra.launcher"))]


def override(key: str, value: object) -> str:
    """Write `key=value` in Hydra's grammar, quoting values with special characters."""
    text = str(value)
    return f"{key}={text}" if re.fullmatch(r"[\w./-]+", text) else f"{key}={quote_value(text)}"


def command_overrides(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of a command that makes this run again: the search path's, then the given ones."""
    return [*search_path(), *(o for o in overrides if not o.lstrip("+").startswith(SEARCH_PATH))]


def search_path() -> list[str]:
    """Return the overrides that extend Hydra's search path as this command line does, by `--config-dir` as well."""
    if not HydraConfig.initialized():
        return []
    settings = HydraConfig.get()
    given = [o for o in settings.overrides.hydra if o.lstrip("+").startswith(SEARCH_PATH)]
    sources = [f"file://{s.path}" for s in settings.runtime.config_sources if s.provider == "command-line"]
    if not sources:
        return given
    places = [quote_value(place) for place in (*sources, *settings.searchpath)]
    return [f"{SEARCH_PATH}[{','.join(places)}]"]


def compose_config(overrides: Sequence[str], name: str = "train") -> DictConfig:
    """Compose `configs/NAME.yaml` with overrides, inside `hydra.main` or outside of it.

    Raises:
        ValueError: a key or a choice does not exist.
    """
    try:
        if GlobalHydra.instance().is_initialized():
            return compose(name, overrides=[*search_path(), *overrides])
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return compose(name, overrides=list(overrides))
    except (HydraException, ValueError) as error:
        raise ValueError(explain(error, name, overrides)) from error


def read_yaml(path: Path) -> DictConfig:
    """Read the `config.yaml` of a run.

    Raises:
        ValueError: it is not YAML, or not a mapping.
    """
    try:
        config = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(config, DictConfig):
        raise ValueError(f"{path} is not the configuration of a training run: it is a list")
    return config


def launch(
    task: Callable[[DictConfig], None], jobs: Sequence[Sequence[str]], folder: Path, launching: Sequence[str] = ()
) -> None:
    """Run jobs of `configs/train.yaml` with a launcher of Hydra; called inside `hydra.main`.

    Args:
        task: called with the configuration of each job.
        jobs: the overrides of each job, including `hydra.sweep.subdir`, the name of its folder, and `search_path()`.
        folder: parent of the jobs' folders.
        launching: overrides that choose and configure the launcher, such as `hydra/launcher=joblib`.

    Raises:
        HydraException: there is no such launcher.
        ValueError: the overrides of a job cannot be composed.
        Exception: a job has raised it.
    """
    loader = GlobalHydra.instance().config_loader()
    overrides = ["hydra.mode=MULTIRUN", override("hydra.sweep.dir", folder), *launching]
    config = loader.load_configuration("train", overrides, run_mode=RunMode.MULTIRUN)
    context = HydraContext(config_loader=loader, callbacks=Callbacks(config))
    plugin = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    try:
        results = plugin.launch([list(job) for job in jobs], initial_job_idx=0)
    except (HydraException, ValueError) as error:
        raise ValueError(explain(error, "train", list(dict.fromkeys(o for job in jobs for o in job)))) from error
    for result in results:
        _ = result.return_value  # raises what the job raised
