"""Read the annotations of VOC folders into arrays."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from detector.data.annotations import Annotations, Floats
from detector.data.doubts import impossible_boxes
from detector.data.faults import Effect, note, refusing
from detector.data.image import ImageReader
from detector.data.image_files import header_sizes, relative_to
from detector.data.packed import Ids, Strings, starts_of
from detector.data.voc_files import LAYOUT, VocList, find_image, list_folder, list_stems, xml_files
from detector.data.voc_origin import Origin, check_origin, continuous, origin_doubt
from detector.data.voc_xml import Description, describe, names_in, parse

log = logging.getLogger(__name__)


def read_voc(
    lists: Sequence[VocList],
    root: Path,
    *,
    classes: Sequence[str] | None = None,
    origin: Origin = 1,
    unannotated: Literal["error", "empty"] = "error",
    reader: ImageReader | None = None,
) -> Annotations:
    """Read the annotations of VOC folders, without their masks.

    A box of an XML, 1-based and inclusive, becomes (xmin - 1, ymin - 1, xmax, ymax) in continuous pixels. Boxes without
    area or outside the image are skipped, and their number is logged; boxes that cross the image's edge are clipped. It
    is logged, too, if the coordinates contradict the origin. Image ids are file names without their suffix, with the
    folders below that of the XML files; category ids are 1..C in the order of the labels. `extra` has the columns
    `truncated` and `instance`, the object's number in the PNGs of `SegmentationObject`: 1 for the first one of an XML.

    Args:
        lists: the parts of the dataset.
        root: the folder that the paths of the images are relative to.
        classes: class names by label; None: all that occur in the folders' XML files, listed or not, sorted.
        origin: how the tool counts coordinates; 1 is VOC's own.
        unannotated: images without an XML are an "error", or "empty": without objects.
        reader: reads the images, and from the headers of those without an XML their sizes; None: one for RGB of 8 bits.

    Raises:
        FileNotFoundError: a list, image or XML does not exist.
        ValueError: `origin` or `unannotated` is none of these; an XML is malformed, or its class unknown; an image is
            listed twice. The message names the file.
    """
    check_origin(origin)
    if unannotated not in ("error", "empty"):
        raise ValueError(f"unannotated must be error or empty, not {unannotated!r}")
    sources = ", ".join(str(part.source) for part in lists)
    listings = {part.images: list_folder(part.images) for part in lists}
    entries = [(part, stem) for part in lists for stem in list_stems(part, listings[part.images])]
    repeated = [stem for stem, count in Counter(stem for _, stem in entries).items() if count > 1]
    for stem in repeated:
        with refusing("images that are listed more than once"):
            raise ValueError(f"{root}: image {stem} is listed twice ({len(repeated)} such) in {sources}")
    entries = list({stem: (part, stem) for part, stem in entries}.values())
    if not entries:
        raise ValueError(f"{root}: the lists {sources} hold no image to use")
    paths = [part.annotations / f"{stem}.xml" for part, stem in entries]
    chosen, found = _read(paths, lists, classes)
    absent = [place for place, path in enumerate(paths) if path not in found and not path.is_file()]
    for place in absent if unannotated == "error" else ():
        with refusing("images without an XML file"):
            raise FileNotFoundError(
                f"{paths[place]}: no such annotation, but {entries[place][0].source} has its image "
                f"({len(absent)} of {len(paths)} images have none); dataset.unannotated=empty reads them as images "
                f"without objects. {LAYOUT}"
            )
    if not chosen and classes is None:
        raise ValueError(
            f"{lists[0].annotations}: none of the {len(found)} XML files has an object; where the tool "
            "drew polygons, write COCO instead, since VOC's XML holds boxes"
        )
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"{root}: the classes {chosen} are empty, or repeat")
    images, kept = [], []
    for place, ((part, stem), path) in enumerate(zip(entries, paths, strict=True)):
        if path in found or (unannotated == "empty" and not path.is_file()):
            with refusing("missing images"):
                images.append(find_image(part, stem, found.get(path), listings[part.images]))
                kept.append(place)
    entries, paths = [entries[place] for place in kept], [paths[place] for place in kept]
    lacking = [place for place, path in enumerate(paths) if path not in found]
    empty = dict(zip(lacking, header_sizes([images[place] for place in lacking], reader), strict=True))
    described = [
        found[path] if path in found else Description("", empty[place], [], [], [], 0)
        for place, path in enumerate(paths)
    ]
    corners = np.array([c for d in described for c in d.corners], np.float64).reshape(-1, 4)
    flags = np.array([f for d in described for f in d.flags], bool).reshape(-1, 3)
    label = {name: place for place, name in enumerate(chosen)}
    table = Annotations(
        source=lists[0].source if len(lists) == 1 else root,
        classes=chosen,
        category_ids=list(range(1, len(chosen) + 1)),
        image_ids=Ids.pack([stem for _, stem in entries]),
        files=Strings.pack(relative_to(image, root) for image in images),
        sizes=np.array([d.size for d in described], np.int32).reshape(-1, 2),
        starts=starts_of([len(d.names) for d in described]),
        ids=np.arange(1, len(corners) + 1),
        labels=np.array([label[name] for d in described for name in d.names], np.int32),
        boxes=np.zeros((len(corners), 4)),
        areas=np.zeros(len(corners)),
        crowd=flags[:, 2],
        difficult=flags[:, 0] & ~flags[:, 2],
        categories=[{"id": i, "name": name} for i, name in enumerate(chosen, 1)],
        sources=Strings.pack(map(str, paths)),
        extra={
            "truncated": flags[:, 1],
            "instance": np.array([i for d in described for i in range(1, len(d.names) + 1)], np.int64),
        },
        gathered=classes is None,
    )
    points = sum(d.points for d in described) == corners.size
    doubt = origin_doubt(corners, table.sizes[table.images()][:, ::-1].astype(np.float64), origin, points=points)
    if doubt:
        note("doubts about a whole file", Effect.LEARNT, [f"{table.source}: {doubt}"])
        log.warning("%s: %s", table.source, doubt)
    return _with_boxes(table, continuous(corners, origin))


def _with_boxes(table: Annotations, corners: Floats) -> Annotations:
    """Add the boxes, in continuous pixels, without those that are none, and cut at the edges of their images."""
    x1, y1, x2, y2 = corners.T
    table = replace(table, boxes=np.stack((x1, y1, x2 - x1, y2 - y1), 1))  # as in the file, for what is said
    impossible = impossible_boxes(table, cut=True)
    limits = table.sizes[table.images()][:, ::-1].astype(np.float64)
    x1, y1, x2, y2 = np.maximum(x1, 0), np.maximum(y1, 0), np.minimum(x2, limits[:, 0]), np.minimum(y2, limits[:, 1])
    table = replace(table, boxes=np.stack((x1, y1, x2 - x1, y2 - y1), 1), areas=(x2 - x1) * (y2 - y1))
    kept = table.select_objects(~impossible)
    return replace(kept, ids=np.arange(1, len(kept.ids) + 1))


def _read(
    paths: Sequence[Path], lists: Sequence[VocList], classes: Sequence[str] | None
) -> tuple[list[str], dict[Path, Description]]:
    """Read the classes, of all XML files of the folders so that every split has the same, and the listed files."""
    present: Iterable[Path] = (path for path in paths if path.is_file())
    if classes is None:
        folders = dict.fromkeys(part.annotations for part in lists)
        present = dict.fromkeys([*present, *(path for folder in folders for path in xml_files(folder))])
    listed, names, found = set(paths), set(), {}
    for path in present:
        with refusing("XML files that cannot be read"):
            tree = parse(path)
            described = describe(tree, path) if path in listed else None
            if classes is None:
                names |= names_in(tree, path)
            unknown = [name for name in described.names if name not in classes] if described and classes else []
            if unknown:
                raise ValueError(
                    f"{path}: unknown class {unknown[0]!r}; the classes are {list(classes or ())}. Correct it, or set "
                    "classes"
                )
            if described is not None:
                found[path] = described
    return sorted(names) if classes is None else list(classes), found
