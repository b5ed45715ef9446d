"""Compare the classes of datasets and detectors, by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from detector.data.relabel import Relabelled
from detector.types import DetectionDataset

log = logging.getLogger(__name__)


def dataset_classes(given: Sequence[str] | None, classes: Sequence[str]) -> list[str]:
    """Return the dataset's classes, after comparing them with those in the configuration, if any.

    Raises:
        ValueError: the configuration has other classes.
    """
    if given is not None and list(given) != list(classes):
        raise ValueError(f"classes={list(given)}, but the dataset has {list(classes)}: leave it out")
    return list(classes)


def with_labels_of(
    datasets: Mapping[str, DetectionDataset], known: Sequence[str] | None = None, source: str = ""
) -> tuple[dict[str, DetectionDataset], list[str]]:
    """Let the classes of several datasets have the same labels, whatever their order and ids.

    A dataset that gathers its classes from its objects, since its files have no list of them, may lack some.

    Args:
        datasets: by the name of the split.
        known: the class names of a trained detector, by label; None: those of the first dataset.
        source: what has these names, such as `checkpoint 'last.ckpt'`.

    Returns:
        the datasets, and the class names by label.

    Raises:
        ValueError: one names other classes; the message has those of one side only, and the ids that name different
            classes in two datasets.
    """
    ids: dict[int, str] = {}
    found: dict[str, DetectionDataset] = {}
    for split, dataset in datasets.items():
        own = f"dataset.{split}"
        if known is None:
            known, source = list(dataset.classes), own
            ids = dict(zip(dataset.category_ids, dataset.classes, strict=True))
        absent = sorted(set(known) - set(dataset.classes))
        fits = getattr(dataset, "gathers_classes", False) and set(dataset.classes) <= set(known)
        if not fits and sorted(dataset.classes) != sorted(known):
            raise ValueError(_clash(dataset, own, known, source, ids))
        if absent:
            log.info("%s has no object of %s, which %s has", own, _some([repr(name) for name in absent]), source)
            dataset = Relabelled(dataset, known)
        elif list(dataset.classes) != list(known):
            log.info("%s has the classes of %s in another order; they are matched by name", own, source)
            dataset = Relabelled(dataset, known)
        found[split] = dataset
    return found, list(known or [])


def _clash(dataset: DetectionDataset, own: str, known: Sequence[str], source: str, ids: Mapping[int, str]) -> str:
    here, there = sorted(set(dataset.classes) - set(known)), sorted(set(known) - set(dataset.classes))
    pairs = [
        f"{number} is {ids[number]!r} in {source} and {name!r} in {own}"
        for number, name in zip(dataset.category_ids, dataset.classes, strict=True)
        if ids.get(number, name) != name
    ]
    parts = [f"{source} knows {len(known)} classes, {own} has {len(dataset.classes)}"]
    parts += [f"only {own} has {_some([repr(name) for name in here])}"] if here else []
    parts += [f"only {source} has {_some([repr(name) for name in there])}"] if there else []
    parts += [f"the category id {_some(pairs)}"] if pairs else []
    way = "dataset.classes=[...] chooses some, and names those that XML files of the training set lack"
    return f"{'; '.join(parts)}: both must name the same classes, in any order and with any ids ({way})"


def _some(texts: Sequence[str], most: int = 5) -> str:
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
