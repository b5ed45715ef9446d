"""Give a trained detector another dataset, and keep what it was trained with."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detector.config.conventions import takes
from detector.config.mistakes import unknown_key
from detector.config.overrides import key_of, parse
from detector.config.reading import add_readers, followers, is_of_reading, read_alike, unread
from detector.data.json_values import is_number
from detector.evaluation import METRICS

DATA = ("name", "train", "val")
"""Keys of `dataset` that say what is read; they can be changed one by one, without choosing a dataset."""
KEPT = ("val_augment", "size_bins", "metrics", "channels", "range", "detections")
"""Keys of `dataset` that say how images are preprocessed and measured: those of the training, unless they are given."""
BUILT = ("train_augment", "canonical_size", "anchor_sizes", "rpn", "rois")
"""Keys of `dataset` that are settled in a trained detector."""
TRAINING = ("mixing", "repeat_threshold", "empty_share")
"""Keys of `dataset` that only a training uses, as `train_augment`."""
SPLITS = ("train", "val")


def given_dataset(
    trained: DictConfig, config: DictConfig, overrides: Sequence[str], splits: Sequence[str] = ("val",)
) -> tuple[DictConfig, list[str]]:
    """Return the dataset that a script gives to a trained detector.

    Images, ground truth and class names are those of `dataset=NAME`; with keys below `dataset` alone, they are those of
    the training with these changes. Preprocessing and measures (`KEPT`) stay those of the training, unless the user
    gives these very keys.

    Args:
        trained: the configuration of the trained detector.
        config: composed from a script's configuration; it has a node `dataset`.
        overrides: from the command line.
        splits: that are opened.

    Returns:
        the node `dataset`, resolved, and lines that say in what it differs from the training or from `dataset=NAME`,
        and what has no effect.

    Raises:
        ValueError: a key does not exist, or can only be given beside `dataset=NAME`.
    """
    before, given = _resolved(trained), config.copy()
    OmegaConf.set_struct(given, False)
    given.data_dir = trained.data_dir
    own = [o for o in overrides if key_of(o).startswith("dataset.")]
    explicit = list(dict.fromkeys(key for o in own for key in _leaves(key_of(o), _value(o))))
    if any(map(is_of_reading, explicit)):
        add_readers(before.dataset)
    used = _references(config.dataset)
    if own and not any(key_of(o) == "dataset" for o in overrides):
        _check(explicit, before)
        changes, given, used = _resolved(given), before.copy(), set()
        for key in explicit:
            _take(key, changes, given)
            for follower in followers(key):
                if OmegaConf.select(given, follower.rpartition(".")[0]) is not None:
                    OmegaConf.update(given, follower, OmegaConf.select(given, key), merge=False, force_add=True)
        for split in ("train", "val"):
            if f"dataset.{split}.annotations" in explicit and f"dataset.{split}.images" not in explicit:
                _look_up_images(given.dataset[split], before.dataset[split], before.dataset.train)
    itself = _resolved(given)
    result = itself.copy()  # resolved before, since generated images depend on their own size_bins
    for name in (*KEPT, *BUILT):
        if name in before.dataset:
            result.dataset[name] = before.dataset[name]
    for key in explicit:
        if key.split(".")[1] in KEPT:
            _take(key, itself, result)
    read_alike(result.dataset, before.dataset, explicit)
    useless = [*_without_effect(explicit, splits, used), *unread(result.dataset, splits, explicit)]
    return result.dataset, _differences(before, itself, explicit, useless)


def set_detections(final: DictConfig, trained: DictConfig, config: DictConfig, overrides: Sequence[str]) -> None:
    """Let a trained detector find as many objects on an image as the user asks for, in place; else as in training.

    Raises:
        ValueError: it is not a number of detections, or the model does not say where it is set.
    """
    key = "detections" if "detections" in config else "dataset.detections"
    select = OmegaConf.select(final, "model.heads.select")
    known = select is not None and "topk_per_image" in select
    if key == "dataset.detections" and not any(key_of(o) == key for o in overrides):
        if known and OmegaConf.select(trained, key) is None:
            final.dataset.detections = select.topk_per_image
        return
    number = OmegaConf.select(config, key)
    if number is None and key == "detections":
        return
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"{key} must be a number of 1 or more, not {number!r}")
    if not known:
        raise ValueError(f"{key}={number}: the model has no heads.select.topk_per_image; leave it out, or train anew")
    select.topk_per_image = final.dataset.detections = number


LIMITS = ("pre_nms_topk", "post_nms_topk")
"""Keys of the RPN's limits, see `detector.models.rpn.Limits`."""


def set_proposals(final: DictConfig, config: DictConfig) -> None:
    """Let the RPN of a trained detector keep as many proposals as the user asks for, in place; else as in training.

    Raises:
        ValueError: it is not a number of proposals, or the model has no RPN.
    """
    given = {key: config[key] for key in LIMITS if config.get(key) is not None}
    for key, number in given.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(f"{key} must be a number of 1 or more, not {number!r}")
        for place in ("model.proposer", "model.proposer.rpn"):  # the second: of a frozen one
            limits = OmegaConf.select(final, f"{place}.test")
            if isinstance(limits, DictConfig) and key in limits:
                limits[key] = number
                break
        else:
            raise ValueError(f"{key}={number}: the model has no RPN, but takes given proposals; leave it out")


def set_nms(final: DictConfig, config: DictConfig) -> None:
    """Let a trained detector suppress detections from another IoU on, in place; else as in training.

    Raises:
        ValueError: it is no IoU, or the model does not say where it is set.
    """
    thresh = config.get("nms_thresh")
    if thresh is None:
        return
    if not is_number(thresh) or not 0 <= thresh <= 1:
        raise ValueError(f"nms_thresh must be an IoU from 0 to 1, not {thresh!r}")
    select = OmegaConf.select(final, "model.heads.select")
    if select is None or "nms_thresh" not in select:
        raise ValueError(f"nms_thresh={thresh}: the model has no heads.select.nms_thresh; leave it out, or train anew")
    select.nms_thresh = float(thresh)


def _resolved(config: DictConfig) -> DictConfig:
    return OmegaConf.create({"dataset": OmegaConf.to_container(config.dataset, resolve=True)})


def _value(override: str) -> Any:
    parsed = parse(override)
    return None if parsed is None or parsed.is_delete() else parsed.value()


def _leaves(key: str, value: Any) -> Iterator[str]:
    """Yield the keys of the values below `key`; a part, which has a `_target_`, counts as one value."""
    if isinstance(value, dict) and value and "_target_" not in value:
        for name, below in value.items():
            yield from _leaves(f"{key}.{name}", below)
    else:
        yield key


def _take(key: str, source: DictConfig, config: DictConfig) -> None:
    """Set a key to its value in `source`, in place; without one there, delete it."""
    parent, _, last = key.rpartition(".")
    if last in list(OmegaConf.select(source, parent) or ()):
        OmegaConf.update(config, key, OmegaConf.select(source, key), merge=False, force_add=True)
    elif (node := OmegaConf.select(config, parent)) is not None:
        node.pop(last, None)


def _look_up_images(split: DictConfig, former: DictConfig, train: DictConfig) -> None:
    """Let the images of other annotations be looked up, in place: beside them, or else where the former ones are.

    Args:
        split: the node of the split, which has the other annotations.
        former: the node as it was in the training, whose images these may not be.
        train: the node of the training images, which may lie in the same folder.
    """
    if not takes(split, "shared_images"):
        return
    if split.get("images") is not None:
        split.shared_images, split.images = split.images, None
    nodes = [former, train] if split.get("shared_images") == train.get("images") else [former]
    named = [node.get(key) for node in nodes for key in ("annotations", "whole") if node.get(key) is not None]
    paths = [path for item in named for path in ([item] if isinstance(item, str) else item)]
    split.shared_annotations = list(dict.fromkeys(paths))


def _check(keys: Sequence[str], before: DictConfig) -> None:
    """Check that keys can be changed without choosing a dataset.

    Raises:
        ValueError: they cannot, or do not exist.
    """
    for key in keys:
        parent, _, last = key.rpartition(".")
        node = OmegaConf.select(before, parent)
        if not isinstance(node, DictConfig) or not (last in list(node) or takes(node, last)):
            raise ValueError(unknown_key(key, before))
        if key.split(".")[1] not in (*DATA, *KEPT, *BUILT, *TRAINING) and not is_of_reading(key):
            raise ValueError(
                f"{key}: the dataset of the training was made from it, and does not change with it any more; give it "
                f"beside dataset={before.dataset.name}, or another dataset=NAME"
            )


def _references(dataset: DictConfig) -> set[str]:
    """Return the keys of `dataset` to which others refer: those of training images from outside of `dataset.train`."""
    found: set[str] = set()
    plain: dict[str, Any] = OmegaConf.to_container(dataset, resolve=False)  # type: ignore[assignment]
    for name, node in plain.items():
        named = re.findall(r"\$\{(dataset(?:\.\w+)+)\}", str(node))
        found.update(key for key in named if not key.startswith(f"dataset.{name}."))
    return found


def _without_effect(explicit: Sequence[str], splits: Sequence[str], used: Collection[str]) -> Iterator[str]:
    """Yield the keys of the training alone, and of splits that are not opened, unless another key refers to them."""
    for key in explicit:
        part = key.split(".")[1]
        if any(f"{a}.".startswith(f"{b}.") for name in used for a, b in ((key, name), (name, key))):
            continue
        if part in TRAINING:
            yield key
        elif part in SPLITS and part not in splits:
            yield f"{key} (images of {' and '.join(f'dataset.{name}' for name in splits)} are read)"


def _differences(before: DictConfig, itself: DictConfig, explicit: Sequence[str], useless: Sequence[str]) -> list[str]:
    """List what differs between the training and the given dataset by itself: kept, given, and without effect."""
    kept, given, useless = [], [], [*useless]
    trained, own = dict(_values(before)), dict(_values(itself))
    for key in dict.fromkeys((*trained, *own)):
        theirs, here = trained.get(key), own.get(key)
        chosen = any(f"{key}.".startswith(f"{name}.") for name in explicit)
        if theirs == here or (not chosen and (key not in trained or key not in own)):
            continue
        if key.split(".")[1] in BUILT:
            useless += [f"{key}={_text(here)} (there {_text(theirs)})"] if chosen else []
        elif chosen:
            given.append(f"{key}={_text(here)} (there {_text(theirs)})")
        else:
            kept.append(f"{key}={_text(theirs)} (dataset {itself.dataset.name} by itself: {_text(here)})")
    return [
        *([f"as in the detector's training: {', '.join(kept)}"] if kept else []),
        *([f"other than in the detector's training: {', '.join(given)}"] if given else []),
        *([f"without effect on a trained detector: {', '.join(useless)}"] if useless else []),
    ]


def _values(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values below those of `KEPT` and `BUILT`, metrics by their words."""

    def below(key: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for name, part in value.items():
                yield from below(f"{key}.{name}", part)
        else:
            yield key, value

    words = {target: word for word, target in METRICS.items()}
    plain: dict[str, Any] = OmegaConf.to_container(config.dataset)  # type: ignore[assignment]
    for name in (*KEPT, *BUILT):
        value = plain.get(name)
        if name == "metrics" and isinstance(value, list):
            value = [words.get(m["_target_"], m) if isinstance(m, dict) and len(m) == 1 else m for m in value]
        yield from below(f"dataset.{name}", value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)
