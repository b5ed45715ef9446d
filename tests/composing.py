"""Compose configurations more quickly: Hydra and OmegaConf read the same few dozen files and values in each test."""

import os
from functools import cache
from typing import Any

import omegaconf._utils
import omegaconf.base
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.hydra import Hydra
from hydra.core.object_type import ObjectType


def read_once() -> None:
    """Read each file of a configuration once while it stays as it is, and parse the text of each value once."""
    load, files = ConfigRepository.load_config, {}

    def load_once(self: ConfigRepository, config_path: str) -> Any:
        source = self._find_object_source(config_path=config_path, object_type=ObjectType.CONFIG)
        if not isinstance(source, FileConfigSource):
            return load(self, config_path)
        file = os.path.join(source.path, source._normalize_file_name(config_path))
        state = os.stat(file)
        key = (file, config_path, source.provider, state.st_mtime_ns, state.st_ino)
        if key not in files:
            files[key] = load(self, config_path)
        return files[key]

    ConfigRepository.load_config = load_once
    omegaconf.base.parse = omegaconf._utils.parse = cache(omegaconf.base.parse)


def compose_once() -> None:
    """Compose a script's configuration once: Hydra does so twice, first to find out whether it is of a multirun."""
    find = Hydra.get_mode

    def get_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        given = any(override.startswith("hydra.mode=") for override in overrides)
        return find(self, config_name, overrides) if given else None

    Hydra.get_mode = get_mode
