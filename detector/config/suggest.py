"""Suggest settings for a dataset, and write them as an experiment (`scripts/data.py suggest`)."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from detector.config.build import AUGMENT, instantiate_split
from detector.config.compose import search_path
from detector.config.help import CONFIGS
from detector.config.overrides import key_of
from detector.data.check.splits import Split
from detector.data.page.numbers import measure
from detector.data.suggest.anchors import AnchorSet
from detector.data.suggest.rules import suggest
from detector.data.suggest.settings import Present, Suggestion, Value
from detector.data.suggest.sizes import InputSize

OWN = ("write", "overwrite")
"""Keys of this action, which a training does not have."""


def suggest_settings(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
    """Print suggestions for a dataset as a table and as overrides, and write them as an experiment.

    Args:
        config: composed from `configs/data_suggest.yaml`.
        overrides: the user's; they become a part of the experiment.
        folder: not used; see `detector.config.cli.Work`.
        console: where the suggestions are printed.

    Raises:
        ValueError, OSError: a key is wrong, the data is missing or malformed, there are no objects, or the file exists.
    """
    del folder
    present = present_settings(config)
    path = None if config.write is None else _checked(Path(str(config.write)), bool(config.overwrite))
    numbers = measure(Split.of(instantiate_split(config.dataset.train)).table)
    suggestions, advice = suggest(numbers, present)
    console.print(Text(f"train: {len(numbers.widths)} images, {len(numbers.labels)} objects"))
    _print_suggestions(suggestions, console)
    changes = [s for s in suggestions if s.changes]
    for sentence in advice:
        console.print(Text(sentence), soft_wrap=True)
    words = [f"{key}={shown(s.value)}" for s in changes for key in s.keys]
    console.print(Text(f"overrides: {shlex.join(words) if words else 'none'}"), soft_wrap=True)
    if path is not None:
        given = [o for o in overrides if key_of(o) not in OWN]
        command = _command(path, [o for o in given if _stays(o)])
        path.parent.mkdir(parents=True, exist_ok=True)
        groups = HydraConfig.get().runtime.choices
        text = experiment(config, groups, [o for o in given if not _stays(o)], changes, command)
        path.write_text(text, encoding="utf-8")
        console.print(Text(f"written to {path}, as an experiment:\n{command}"), soft_wrap=True)


def _print_suggestions(suggestions: Sequence[Suggestion], console: Console) -> None:
    """Print the suggestions that change a setting, whose keys are longer than a table's columns, and other names."""
    for item in (s for s in suggestions if s.changes):
        console.print(Text(", ".join(item.keys), style="bold"), soft_wrap=True)
        said = f"{shown(item.present)} -> {shown(item.value)}: {item.reason}"
        console.print(Padding(Text(said), (0, 0, 0, 4)))
    console.print("Shares of objects count each class alike, as AP does.", soft_wrap=True)
    if unchanged := [key for s in suggestions if not s.changes for key in s.keys]:
        console.print(Text(f"good as they are: {', '.join(unchanged)}"), soft_wrap=True)


def _checked(path: Path, overwrite: bool) -> Path:
    if path.suffix != ".yaml" or path.parent.name != "experiment":
        raise ValueError(
            f"write={path}: give FOLDER/experiment/NAME.yaml, which train.py --config-dir FOLDER experiment=NAME finds"
        )
    if (CONFIGS / "experiment" / path.name).exists():
        raise ValueError(f"write={path}: experiment={path.stem} is one of this project; choose another name")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists; overwrite=true writes over it, write=FOLDER/experiment/NAME.yaml elsewhere")
    return path


def _stays(override: str) -> bool:
    """Return whether an override stays on the command line, since an experiment cannot hold it."""
    return override.startswith("~") or key_of(override) == "experiment"


def _command(path: Path, staying: Sequence[str]) -> str:
    """Return the command that trains with the new experiment, which comes after those that the user has given."""
    names = [name for o in staying if o[0] != "~" for name in o.partition("=")[2].strip("[]").split(",")]
    names.append(path.stem)
    chosen = names[0] if len(names) == 1 else f"[{','.join(names)}]"
    others = [*search_path(), f"experiment={chosen}", *(o for o in staying if o[0] == "~")]
    return f"python scripts/train.py {shlex.join(['--config-dir', str(path.parent.parent), *others])}"


def present_settings(config: DictConfig) -> Present:
    """Read the present settings from a training's configuration.

    Raises:
        ValueError: whole detectors are trained on, or images are resized by another class than `Augment`.
    """
    if config.weights is not None:
        raise ValueError(
            f"weights={config.weights}: a trained detector keeps its anchors, levels and input size; leave weights out "
            "for suggestions on training from random weights, or a backbone's (backbone.weights=imagenet)"
        )
    dataset, backbone = config.dataset, config.backbone
    for name in ("train_augment", "val_augment"):
        if (target := dataset[name].get("_target_")) != AUGMENT:
            raise ValueError(f"dataset.{name} is a {target}; the sizes that are suggested are keys of {AUGMENT}")
    anchors = OmegaConf.select(config, "model.proposer.anchors")
    train, resize = dataset.train_augment, dataset.val_augment
    crop = train.fixed_size
    return Present(
        size=InputSize(max(resize.short_sizes) if resize.short_sizes else None, resize.max_size),
        train_short_sizes=tuple(train.short_sizes) if train.short_sizes else None,
        train_longest=train.max_size,
        anchors=None if anchors is None else _anchor_set(backbone, anchors),
        canonical_size=dataset.canonical_size,
        canonical_level=config.pooler.canonical_level,
        strides=tuple(backbone.strides),
        roi_strides=tuple(backbone.roi_strides),
        divisibility=backbone.size_divisibility,
        detections=dataset.detections,
        rois=dataset.rois,
        positive_fraction=config.model.heads.sampler.positive_fraction,
        train_topk=(dataset.rpn.train.pre_nms_topk, dataset.rpn.train.post_nms_topk),
        test_topk=(dataset.rpn.test.pre_nms_topk, dataset.rpn.test.post_nms_topk),
        size_bins=(dataset.size_bins[0], dataset.size_bins[1]),
        batch_size=config.schedule.batch_size,
        val_batch_size=config.schedule.val_batch_size,
        crop=None if crop is None else (crop[0], crop[1]),
    )


def _anchor_set(backbone: DictConfig, anchors: DictConfig) -> AnchorSet:
    sizes: Any = OmegaConf.to_container(backbone.anchor_sizes, resolve=True)
    levels = tuple(tuple(level) if isinstance(level, list) else (level,) for level in sizes)
    return AnchorSet(tuple(backbone.strides), levels, tuple(anchors.ratios), anchors.offset)


def shown(value: Value | None) -> str:
    """Write a value as on the command line."""
    if isinstance(value, list):
        return f"[{','.join(shown(item) for item in value)}]"
    return "null" if value is None else f"{value:g}"


def experiment(
    config: DictConfig,
    groups: Mapping[str, str],
    given: Sequence[str],
    changes: Sequence[Suggestion],
    command: str,
) -> str:
    """Write an experiment of the user's own overrides and of suggestions, with their reasons as comments.

    Args:
        config: the composed configuration, which the overrides are a part of.
        groups: the choices of all groups.
        given: the user's overrides: choices of groups, and keys.
        changes: the suggestions.
        command: trains with it.
    """
    plain = OmegaConf.to_container(config, resolve=False)
    tree: dict[str, Any] = {}
    for key in (key_of(o) for o in given):
        if key not in groups:
            _put(tree, key, _get(plain, key))
    reasons = {}
    for item in changes:
        for key in item.keys:
            _put(tree, key, item.value)
            reasons[key] = item.reason
    chosen = [key for key in dict.fromkeys(key_of(o) for o in given) if key in groups]
    defaults = ["defaults:", *(f"  - override /{key}: {groups[key]}" for key in chosen)] if chosen else []
    return "\n".join(["# @package _global_", f"# {command}", *defaults, *_lines(tree, reasons)]) + "\n"


def _lines(tree: Mapping[str, Any], reasons: Mapping[str, str], parents: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the lines of a YAML, with the reasons above their keys."""
    indent = "  " * len(parents)
    for name, value in tree.items():
        path = (*parents, name)
        yield from textwrap.wrap(
            reasons.get(".".join(path), ""), 110, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        if isinstance(value, dict) and value:
            yield f"{indent}{name}:"
            yield from _lines(value, reasons, path)
        else:
            text: str = yaml.safe_dump([value], default_flow_style=True, width=10**6)  # in a list: one line, no `...`
            yield f"{indent}{name}: {text.strip()[1:-1]}"


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value


def _get(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree
