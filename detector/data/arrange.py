"""Arrange annotations: choose and join classes, join files and images, split by image."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import numpy as np

from detector.data.annotations import Annotations, Flags, Floats
from detector.data.coco_entries import DIFFER
from detector.data.faults import Effect, note, refusing
from detector.data.packed import Ids, Integers, Strings, starts_of
from detector.data.segmentations import Segmentations

log = logging.getLogger(__name__)

MISSED = 0.02
"""Of all images, by which a part of a split may miss its share without a warning."""

Others = Literal["background", "ignore"]
ClassChoice = Sequence[str | Mapping[str, str | Sequence[str]]]


def choose_classes(
    table: Annotations, classes: ClassChoice, others: Others = "background", *, absent: bool = False
) -> Annotations:
    """Choose, order and join classes.

    A joined class has the category id of its first name. How many objects belong to none of them is logged.

    Args:
        table: the annotations.
        classes: by label, a name, or `{name: [names to be joined]}`.
        absent: let there be classes that do not occur, as in XML files of one split, which name those of their objects.
        others: what objects of other classes are: "background", or regions to "ignore", as crowds are, in training and
            at evaluation.

    Raises:
        ValueError: a class does not occur in `table`, or twice in `classes`.
    """
    if others not in ("background", "ignore"):
        raise ValueError(f"others must be background or ignore, not {others!r}")
    joined = _joined(classes)
    known = {name: label for label, name in enumerate(table.classes)}
    named = [name for names in joined.values() for name in names]
    if twice := [name for name, count in Counter(named).items() if count > 1]:
        raise ValueError(f"classes: {twice[0]!r} is named more than once")
    for name in [] if absent else named:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{table.source}: classes: there is no class {name!r} among {table.classes}{hint}")
    places = np.full(len(known), -1, np.int32)
    for label, names in enumerate(joined.values()):
        places[[known[name] for name in names if name in known]] = label
    labels = places[table.labels]
    left = Counter(table.classes[label] for label in table.labels[labels < 0].tolist())
    if left:
        what = "background" if others == "background" else "regions to ignore"
        counts = ", ".join(f"{name} ({count})" for name, count in left.most_common(5))
        log.info("%s: objects of %d other classes are %s: %s", table.source, len(left), what, counts)
    free = itertools.count(max(table.category_ids, default=0) + 1)
    present = [next((name for name in names if name in known), None) for names in joined.values()]
    first = [{"id": next(free)} if name is None else table.categories[known[name]] for name in present]
    chosen = replace(
        table,
        classes=list(joined),
        category_ids=[int(c["id"]) for c in first],
        categories=[{**c, "name": name} for name, c in zip(joined, first, strict=True)],
        labels=labels,
        crowd=table.crowd | (labels < 0),
        gathered=False,
    )
    return chosen if others == "ignore" else chosen.select_objects(labels >= 0)


def with_classes_of(table: Annotations, classes: Sequence[str]) -> Annotations:
    """Give annotations whose classes are gathered from their objects those of a list, if it has all of them."""
    fits = table.gathered and set(table.classes) <= set(classes)
    return choose_classes(table, list(classes), absent=True) if fits else table


def _joined(classes: ClassChoice) -> dict[str, list[str]]:
    """Read `classes` of `choose_classes`: the names in the file, by class."""
    example = "[person, {helmet: [hard hat, helmet]}]"
    message = f"classes must be names, or {{name: [names to be joined]}}, such as {example}, not {classes!r}"
    if isinstance(classes, str):
        raise ValueError(message)
    joined: dict[str, list[str]] = {}
    entries: list[tuple[Any, Any]] = []
    for entry in [classes] if isinstance(classes, Mapping) else classes:
        entries += entry.items() if isinstance(entry, Mapping) else [(entry, entry)]
    for name, names in entries:
        parts = list(names) if isinstance(names, Sequence) and not isinstance(names, str) else [names]
        if not parts or not all(isinstance(part, str) for part in [name, *parts]):
            raise ValueError(message)
        if name in joined:
            raise ValueError(f"classes: {name!r} is named more than once")
        joined[name] = parts
    if not joined:
        raise ValueError(message)
    return joined


def join(tables: Sequence[Annotations]) -> Annotations:
    """Join the annotations of several files into one.

    Classes are the same where their names are; where their ids differ, or one id has two names, they are numbered anew.
    Further keys of a class, such as `supercategory`, are those of the first file that has them.
    So are objects, whose former ids are the column `annotation` of `extra`, and images whose ids occur in more than one
    file: theirs become `FILE:ID`, by the name of the file or, where files share it, by its path.

    Args:
        tables: at least one; their `files` are absolute paths, or relative to the same folder.

    Raises:
        ValueError: two of them name the same image file.
    """
    if len(tables) == 1:
        return tables[0]
    names = list(dict.fromkeys(name for table in tables for name in table.classes))
    entries: dict[str, Mapping[str, Any]] = {}  # of the categories, by name; what the first file says counts
    for table in tables:
        for name, entry in zip(table.classes, table.categories, strict=False):  # some tables have no entries
            entries[name] = {**entry, **entries.get(name, {})}
    pairs = {pair for table in tables for pair in zip(table.classes, table.category_ids, strict=True)}
    unique = len(pairs) == len(names) == len({number for _, number in pairs})
    numbers = dict(pairs) if unique else {name: number for number, name in enumerate(names, 1)}
    if not unique:
        log.warning("%s: the category ids differ, so they are numbered anew: %s", _sources(tables), numbers)
    files = Strings.join([table.files for table in tables])
    if twice := [name for name, count in Counter(files).items() if count > 1]:
        raise ValueError(f"{_sources(tables)} both name the image {twice[0]} ({len(twice)} such); remove it from one")
    ids = [number for table in tables for number in table.image_ids]
    if len(set(ids)) < len(ids):
        stems = [table.source.stem for table in tables]
        names_of = stems if len(set(stems)) == len(stems) else [str(table.source) for table in tables]
        ids = [f"{name}:{number}" for name, table in zip(names_of, tables, strict=True) for number in table.image_ids]
    places = {name: place for place, name in enumerate(names)}
    labels = [np.array([places[n] for n in t.classes], np.int32)[t.labels] for t in tables]
    total = sum(len(table.ids) for table in tables)
    return replace(
        tables[0],
        source=Path(_sources(tables)),  # for messages; `sources` has that of each image
        classes=names,
        category_ids=[numbers[name] for name in names],
        categories=[{**entries.get(name, {}), "id": numbers[name], "name": name} for name in names],
        image_ids=Ids.pack(ids),
        files=files,
        sizes=np.concatenate([t.sizes for t in tables]),
        starts=starts_of(np.concatenate([np.diff(t.starts) for t in tables])),
        ids=np.arange(1, total + 1),
        labels=np.concatenate(labels),
        boxes=np.concatenate([t.boxes for t in tables]),
        areas=np.concatenate([t.areas for t in tables]),
        crowd=np.concatenate([t.crowd for t in tables]),
        difficult=np.concatenate([t.difficult for t in tables]),
        segmentations=_join_segmentations(tables),
        sources=Strings.pack(path for table in tables for path in table.sources or [str(table.source)] * len(table)),
        extra={
            "annotation": np.concatenate([t.ids for t in tables]),
            **{
                name: np.concatenate([t.extra[name] for t in tables])
                for name in tables[0].extra
                if all(name in t.extra for t in tables)
            },
        },
    )


def join_images(table: Annotations, files: Sequence[str]) -> Annotations:
    """Join entries of one image file, under the id of the first; else the objects of each are background for others.

    Args:
        table: the annotations of N images.
        files: of each image, equal where they are the same, [N].

    Raises:
        ValueError: two entries of one file state different sizes.
    """
    first: dict[str, int] = {}
    target = np.array([first.setdefault(file, place) for place, file in enumerate(files)], np.int64)
    joined = np.flatnonzero(target != np.arange(len(table)))
    if not len(joined):
        return table
    pairs = [(int(target[place]), place) for place in joined.tolist()]
    for one, other in pairs:
        with refusing("image entries that cannot be read"):
            if table.size(one) != table.size(other):
                ids = table.image_ids[one], table.image_ids[other]
                raise ValueError(f"{table.source}: {DIFFER.format(*ids, table.files[one])}")
    note(
        "images that are listed more than once",
        Effect.CORRECTED,
        (
            f"{table.source}: {table.files[other]} has the ids {table.image_ids[one]!r} and {table.image_ids[other]!r}"
            for one, other in pairs
        ),
    )
    one, other = pairs[0]
    log.warning(
        "%s: %d images are listed more than once, such as %s (id %r); their objects are joined under the first id",
        table.source,
        len({one for one, _ in pairs}),
        table.files[other],
        table.image_ids[one],
    )
    if (again := _held_by_both(table, target, joined)).any():
        log.warning("%s: %d objects that several of these entries hold count once", table.source, int(again.sum()))
        table = table.select_objects(~again)
    owners = target[table.images()]
    several = np.isin(owners, target[joined])
    order = np.lexsort((np.where(several, table.ids, 0), owners))  # those of one image as the file numbers them
    starts = starts_of(np.bincount(owners, minlength=len(table)))
    return table.order_objects(order, starts).select(np.unique(target))


def _held_by_both(table: Annotations, target: Integers, joined: Integers) -> Flags:
    """Find the objects of joined entries that an entry before holds, too: of equal class, box and crowd flag."""
    images = table.images()
    again = np.zeros(len(images), bool)
    held: dict[tuple[object, ...], int] = {}
    for i in np.flatnonzero(np.isin(target[images], target[joined])).tolist():
        key = (int(target[images[i]]), int(table.labels[i]), *table.boxes[i].tolist(), bool(table.crowd[i]))
        again[i] = held.setdefault(key, int(images[i])) != images[i]
    return again


def _sources(tables: Sequence[Annotations]) -> str:
    return " and ".join(str(table.source) for table in tables)


def _join_segmentations(tables: Sequence[Annotations]) -> Segmentations | None:
    if all(table.segmentations is None for table in tables):
        return None
    parts = [t.segmentations or Segmentations.none(len(t.ids)) for t in tables]
    return Segmentations(
        np.concatenate([p.coordinates for p in parts]),
        starts_of(np.concatenate([np.diff(p.polygons) for p in parts])),
        starts_of(np.concatenate([np.diff(p.parts) for p in parts])),
        Strings.join([p.codes for p in parts]),
    )


def split_images(
    table: Annotations, shares: Sequence[float], seed: int = 0, groups: Integers | None = None
) -> list[Integers]:
    """Split the images at random, stratified by class.

    Images are ordered by the rarest of their classes, at random among those of one class, and each goes to the part
    that lacks most of its share, so that each part has its share of each class as nearly as whole images allow.
    Groups of images that stay together go first, those of more images before those of fewer (by powers of two), and
    the rest is divided by what each part then lacks. Where a share is missed by far, a warning says so.

    Args:
        table: the annotations of N images.
        shares: of each part; they sum to 1.
        seed: of the random order.
        groups: [N], images of one number stay together, such as near-duplicates; None: each may go anywhere.

    Returns:
        for each part the numbers of its images, ascending.

    Raises:
        ValueError: the shares do not sum to 1, or a part would be empty.
    """
    if len(shares) < 2 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"split must be shares above 0 that sum to 1, such as [0.8, 0.2], not {list(shares)}")
    together = np.arange(len(table)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(together)
    count = len(sizes)
    owner = together[table.images()]
    present = np.zeros((count, len(table.classes) + 1), bool)
    inside = table.labels >= 0
    present[owner[inside], table.labels[inside]] = True
    present[:, -1] = True  # of images without objects
    frequency = present.sum(0)
    frequency[-1] = count + 1
    rarest = np.where(present, frequency, count + 2).argmin(1)
    octaves = np.frexp(sizes)[1]
    draw = np.random.default_rng(seed)
    order = np.lexsort((draw.random(count), rarest, frequency[rarest]))
    part = np.empty(count, np.int64)
    wanted, reached = np.array(shares) * len(table), np.zeros(len(shares))
    of_class = np.zeros((len(frequency), len(shares)))  # what each part lacks of a class so far
    for octave in np.unique(octaves)[::-1].tolist():
        lacking = (wanted - reached).clip(0)
        own, places = np.array(shares), order[octaves[order] == octave]
        most = 0.0
        if reached.any():
            # Each round begins with the first part, which should not have the rarest class each time.
            own, places = lacking / lacking.sum(), np.roll(places, draw.integers(len(places)))
            most = 2.0**octave if octave > 1 else 0.0  # the last round, of single images, meets the shares
        missing = np.zeros(len(shares))  # what each part lacks of its share so far
        for place in places.tolist():
            due = own * sizes[place]
            missing += due
            of_class[rarest[place]] += due
            chosen = (missing + of_class[rarest[place]].clip(-most, most)).argmax()
            part[place] = chosen
            for lacks in (missing, of_class[rarest[place]]):
                lacks[chosen] -= sizes[place]
            reached[chosen] += sizes[place]
    _fill(part, sizes, wanted)
    parts = [np.flatnonzero(part[together] == number) for number in range(len(shares))]
    _compare(table.source, parts, shares, sizes)
    return parts


def _fill(part: Integers, sizes: Integers, wanted: Floats) -> None:
    """Give each part that is due at least one image and has none the group of the size nearest to its share."""
    for empty in np.setdiff1d(np.flatnonzero(wanted.round() >= 1), part).tolist():
        spare = np.flatnonzero(np.bincount(part, minlength=len(wanted))[part] > 1)  # leaves none without a group
        if len(spare):
            part[spare[np.abs(sizes[spare] - wanted[empty]).argmin()]] = empty


def _compare(source: Path, parts: Sequence[Integers], shares: Sequence[float], sizes: Integers) -> None:
    """Refuse a split with an empty part, and warn of one that groups of images keep from its shares."""
    images, groups = int(sizes.sum()), len(sizes)
    alike = f", of which {int(sizes[sizes > 1].sum())} look like others and stay together" if groups < images else ""
    way = "divide them yourself, dataset.train.annotations=FILE and dataset.val.annotations=FILE"
    if empty := [share for share, part in zip(shares, parts, strict=True) if not len(part)]:
        what = f"{images} images{alike}: {groups} groups" if alike else f"{images} images"
        raise ValueError(f"{source}: split: a share of {empty[0]:g} of {what} is none; give more, or {way}")
    reached = [len(part) for part in parts]
    off = max(abs(number - share * images) for number, share in zip(reached, shares, strict=True))
    if alike and off > max(1.0, MISSED * images):
        log.warning(
            "%s: the parts have %s images for shares of %s of %d images%s, up to %d in a group; otherwise %s",
            source,
            " and ".join(map(str, reached)),
            " and ".join(f"{share:g}" for share in shares),
            images,
            alike,
            int(sizes.max()),
            way,
        )
