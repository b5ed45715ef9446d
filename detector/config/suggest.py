"""Suggest settings for a dataset, and write them as an experiment (`scripts/data.py suggest`)."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from detector.config.build import instantiate_split
from detector.config.help import CONFIGS
from detector.config.overrides import key_of
from detector.data.check.splits import Split
from detector.data.page.numbers import measure
from detector.data.suggest.anchors import AnchorSet
from detector.data.suggest.settings import Present, Suggestion, Value, suggest
from detector.data.suggest.sizes import InputSize


def suggest_settings(config: DictConfig, overrides: Sequence[str], folder: Path, console: Console) -> None:
    """Print suggestions for a dataset as a table and as overrides, and write them as an experiment.

    Args:
        config: composed from `configs/data_suggest.yaml`.
        overrides: the user's; they become a part of the experiment.
        folder: not used; see `detector.config.cli.Work`.
        console: where the suggestions are printed.

    Raises:
        ValueError, OSError: the data is missing or malformed, there are no objects, or the file cannot be written.
    """
    del folder
    path = None if config.write is None else _checked(Path(str(config.write)), bool(config.overwrite))
    numbers = measure(Split.of(instantiate_split(config.dataset.train)).table)
    found, advice = suggest(numbers, present_settings(config))
    console.print(Text(f"{len(numbers.widths)} training images, {len(numbers.labels)} objects"))
    table = Table(show_lines=True)
    for name in ("key", "now", "suggested", "reason"):
        table.add_column(name, overflow="fold")
    for item in found:
        now, new = shown(item.present), shown(item.value) if item.value != item.present else "-"
        table.add_row(Text("\n".join(item.keys)), Text(now), Text(new), Text(item.reason))
    console.print(table)
    for sentence in advice:
        console.print(Text(sentence), soft_wrap=True)
    changed = [item for item in found if item.value != item.present]
    given = [o for o in overrides if key_of(o) not in ("write", "overwrite")]
    words = [f"{key}={shown(item.value)}" for item in changed for key in item.keys]
    console.print(Text("overrides: " + " ".join(shlex.quote(word) for word in words)), soft_wrap=True)
    if path is not None:
        others = [o for o in given if o.startswith("~") or key_of(o) == "experiment"]
        command = ["python", "scripts/train.py", "--config-dir", str(path.parent.parent), *_experiment(path, others)]
        text = experiment(config, [o for o in given if o not in others], changed, " ".join(map(shlex.quote, command)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        console.print(Text(f"written to {path}; train with them:\n{' '.join(map(shlex.quote, command))}"))


def _checked(path: Path, overwrite: bool) -> Path:
    if path.suffix != ".yaml" or path.parent.name != "experiment":
        raise ValueError(
            f"write={path} must be FOLDER/experiment/NAME.yaml, where train.py --config-dir FOLDER experiment=NAME "
            "finds it"
        )
    if (CONFIGS / "experiment" / path.name).exists():
        raise ValueError(f"write={path}: experiment={path.stem} is a preset of this project; choose another name")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists; overwrite=true writes over it, write=FOLDER/experiment/NAME.yaml elsewhere")
    return path


def _experiment(path: Path, others: Iterable[str]) -> list[str]:
    """Return the overrides that choose the new experiment after those of the user."""
    names, rest = [], []
    for override in others:
        if key_of(override) == "experiment":
            names += override.partition("=")[2].strip("[]").split(",")
        else:
            rest.append(override)
    names.append(path.stem)
    return [f"experiment={names[0]}" if len(names) == 1 else f"experiment=[{','.join(names)}]", *rest]


def present_settings(config: DictConfig) -> Present:
    """Read the present settings from a training's configuration.

    Raises:
        ValueError: the images are not resized, or anchors have other levels than the backbone.
    """
    dataset, backbone = config.dataset, config.backbone
    augment = dataset.val_augment
    short = list(augment.short_sizes or ())
    anchors = OmegaConf.select(config, "model.proposer.anchors")
    levels: list[Any] = list(OmegaConf.to_container(backbone.anchor_sizes, resolve=True))  # type: ignore[arg-type]
    sizes = [level if isinstance(level, list) else [level] for level in levels]
    return Present(
        size=InputSize(short[-1], augment.max_size or 10**9) if short else InputSize(10**9, 10**9),
        anchors=None
        if anchors is None
        else AnchorSet(tuple(backbone.strides), tuple(map(tuple, sizes)), tuple(anchors.ratios), float(anchors.offset)),
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
        crop=dataset.train_augment.fixed_size,
    )


def shown(value: Value | None) -> str:
    """Write a value as on the command line."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(shown(v) for v in value)}]"
    return f"{value:g}"


def experiment(config: DictConfig, given: Sequence[str], suggestions: Sequence[Suggestion], command: str) -> str:
    """Write an experiment of the user's own overrides and of suggestions, with their reasons.

    Args:
        config: the composed configuration, which the overrides are a part of.
        given: the user's overrides: choices of groups, and keys.
        suggestions: those that change a setting.
        command: trains with it.
    """
    groups = {key.lstrip("/"): value for key, value in HydraConfig.get().runtime.choices.items()}
    chosen = [key for key in dict.fromkeys(key_of(o) for o in given) if key in groups]
    plain = OmegaConf.to_container(config, resolve=False)
    tree: dict[str, Any] = {}
    for override in given:
        if (key := key_of(override)) not in groups:
            _put(tree, key, _get(plain, key))
    for item in suggestions:
        for key in item.keys:
            _put(tree, key, copy(item.value))  # YAML would make references of one list
    lines = ["# @package _global_", f"# {command}"]
    for item in suggestions:
        lines.append(f"# {', '.join(item.keys)}: {item.reason}")
    if chosen:
        lines += ["defaults:", *(f"  - override /{key}: {groups[key]}" for key in chosen)]
    body: str = yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=110)
    return "\n".join(lines) + "\n" + body


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value


def _get(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree
