"""Find the text files of the labels of YOLO's images, and say what of them is not used."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from detector.data.faults import Effect, note
from detector.data.image_files import NO_IMAGES, images_among

log = logging.getLogger(__name__)


def label_file(image: Path) -> Path:
    """Return the text file of an image's labels: the last folder `images` of its path becomes `labels`."""
    head, found, tail = image.as_posix().rpartition("/images/")
    return Path(f"{head}/labels/{tail}" if found else tail).with_suffix(".txt")


def usual_labels(images: list[Path], path: Path) -> list[Path]:
    """Return the text file of each image's labels; those of an obj.data may also lie beside the images."""
    if path.suffix != ".data":
        return [label_file(image) for image in images]
    home = Path(os.path.abspath(path)).parent
    return [_darknet_label(Path(os.path.abspath(image)), home) for image in images]


def _darknet_label(image: Path, home: Path) -> Path:
    beside = image.with_suffix(".txt")
    if not image.is_relative_to(home):
        place = label_file(image)
    else:  # a folder `images` above that of obj.data is none of its own
        place = home / label_file("/" / image.relative_to(home)).relative_to("/")
    return beside if beside.is_file() and not place.is_file() else place


def labels_beside(labels: Path, folder: Path, images: list[Path]) -> Iterator[list[Path]]:
    """Yield where the text files of images may be that lie elsewhere: by path or name in `labels`, or beside them."""
    yield [labels / image.relative_to(folder).with_suffix(".txt") for image in images]
    stems = [image.stem for image in images]
    if len(set(stems)) == len(stems):
        yield [labels / f"{stem}.txt" for stem in stems]
    yield [image.with_suffix(".txt") for image in images]


def most_labels(places: list[list[Path]], images: list[Path]) -> list[Path]:
    """Choose of several places the one with the most text files, and log what is then unused."""
    labels = max(places, key=_present)
    _say_elsewhere(images, labels, places)
    return labels


def _present(paths: list[Path]) -> int:
    return sum(path.is_file() for path in paths)


def _say_elsewhere(images: list[Path], labels: list[Path], places: list[list[Path]]) -> None:
    """Log a warning if images whose labels are not where most are have some in another place."""
    lost = [
        (image, next(other for other in others if other.is_file()))
        for image, label, *others in zip(images, labels, *places, strict=True)
        if not label.is_file() and any(other.is_file() for other in others)
    ]
    if lost:
        log.warning(
            "%s is not used, as the labels of other images lie elsewhere: %d images such as %s are read as without "
            "objects; move the text files of labels into one folder",
            lost[0][1],
            len(lost),
            lost[0][0],
        )


def say_shared(images: list[Path], labels: list[Path]) -> None:
    """Log a warning if several images, such as a.jpg and a.png, have the same text file."""
    stated_in = dict(zip(images, labels, strict=True))  # an image may be listed again
    counts = Counter(stated_in.values())
    shared = [image for image, label in stated_in.items() if counts[label] > 1 and label.is_file()]
    if shared:
        log.warning(
            "%s holds the labels of several images, as %d images share them, such as %s; rename or remove all but one",
            stated_in[shared[0]],
            len(shared),
            ", ".join(str(image) for image in shared if stated_in[image] == stated_in[shared[0]]),
        )


def say_unused(images: list[Path], labels: list[Path]) -> None:
    """Log a warning if text files of labels have no image, as where it is of a format that is not read.

    Those below folders of labels count, and those beside images that begin as labels do. Images of another split count
    as images, listed or not.
    """
    sources: dict[Path, set[Path]] = {}
    for image, label in zip(images, labels, strict=True):
        sources.setdefault(label.parent, set()).add(image.parent)
    beside = set().union(*sources.values())
    used, lost = set(labels), list[tuple[Path, list[Path]]]()
    for place in sorted(sources):
        if place in beside:
            found = [text for text in place.glob("*.txt") if text not in used]
        elif sources.keys() & set(place.parents) - beside:
            continue  # found from above
        else:
            found = [text for text in place.rglob("*.txt") if text not in used and text.name != "classes.txt"]
        stems: dict[Path, set[str]] = {}
        for text in sorted(found):
            if text.parent not in stems:
                folders = [source / text.parent.relative_to(place) for source in sorted(sources[place])]
                folders = [folder for folder in folders if folder.is_dir()]
                stems[text.parent] = {image.stem for f in folders for image in images_among(f.iterdir())}
            if text.stem not in stems[text.parent] and text.is_file() and (place not in beside or _is_label(text)):
                lost.append((text, folders))
    if not lost:
        return
    note("labels without an image", Effect.SKIPPED, (str(text) for text, _ in lost))
    text, folders = lost[0]
    beside_it = (p for f in folders for p in sorted(f.glob(f"{glob.escape(text.stem)}.*")))
    named = (p for p in beside_it if p.suffix.lower() not in NO_IMAGES)
    other = next(named, None)
    log.warning(
        "%d text files of labels belong to no image, such as %s%s",
        len(lost),
        text,
        "" if other is None else f"; {other} is of no format that is read here: write it as PNG or JPEG",
    )


def _is_label(path: Path) -> bool:
    """Return whether a text file begins with five numbers or more."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        words = file.readline(1000).split()
    try:
        return len(list(map(float, words))) >= 5
    except ValueError:
        return False
