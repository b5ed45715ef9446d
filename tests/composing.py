"""Compose configurations more quickly: Hydra and OmegaConf read the same few dozen files and values in each test."""

import os
import pickle
from collections import defaultdict
from copy import deepcopy
from functools import cache
from typing import Any

import omegaconf._utils
import omegaconf.base
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigSource
from omegaconf.base import Metadata


def read_once() -> None:
    """Read each file of a configuration once while it stays as it is, and parse the text of each value once."""
    load, files = ConfigRepository.load_config, {}

    def load_once(self: ConfigRepository, config_path: str) -> Any:
        source = self._find_object_source(config_path=config_path, object_type=ObjectType.CONFIG)
        key = source and (source.scheme(), source.path, source.provider, config_path, *_state(source, config_path))
        if not key or key[0] not in ("file", "pkg"):  # not by class: Hydra imports its plugins a second time
            return load(self, config_path)
        if key not in files:
            files[key] = pickle.dumps(load(self, config_path))  # Hydra moves the nodes into what it composes
        return pickle.loads(files[key])

    ConfigRepository.load_config = load_once
    omegaconf.base.parse = omegaconf._utils.parse = cache(omegaconf.base.parse)


def copy_quickly() -> None:
    """Copy the metadata of a configuration's nodes, plain values and types, without a look at each of them."""

    def copied(self: Metadata, memo: dict[int, Any]) -> Metadata:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__, flags=None if self.flags is None else self.flags.copy())
        new.resolver_cache = deepcopy(self.resolver_cache, memo) if self.resolver_cache else defaultdict(dict)
        return new

    Metadata.__deepcopy__ = copied


def _state(source: ConfigSource, config_path: str) -> tuple[int, ...]:
    """Tell a file from what it was before; those of packages stay."""
    if source.scheme() != "file":
        return ()
    status = os.stat(os.path.join(source.path, source._normalize_file_name(config_path)))
    return (status.st_mtime_ns, status.st_ino)


def compose_once() -> None:
    """Compose a script's configuration once: Hydra does so twice, first to find out whether it is of a multirun."""
    find = Hydra.get_mode

    def get_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        given = any(override.startswith("hydra.mode=") for override in overrides)
        return find(self, config_name, overrides) if given else None

    Hydra.get_mode = get_mode
