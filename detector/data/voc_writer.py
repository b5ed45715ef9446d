"""Write annotations in VOC's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from detector.data.annotations import Annotations
from detector.data.voc_masks import VOID, colour_map
from detector.data.writers import Placing, Split, file_names, new_folder, place_images
from detector.run_lengths import decode, from_segmentation


@dataclass
class _Lost:
    """What VOC cannot hold, counted."""

    crowds: int = 0
    covered: int = 0
    """masks of which a smaller one covers pixels"""
    without: int = 0
    """objects without a mask among others"""
    long: int = 0
    """images of more objects than a byte counts"""
    others: int = 0
    """objects of classes that are ignored"""

    def sentences(self) -> list[str]:
        """Say what is lost."""
        kinds = (
            (self.crowds, "VOC has no crowds: {} are written as difficult objects, with a tag iscrowd beside"),
            (self.covered, "VOC's masks do not overlap: {} lose the pixels that a smaller mask covers"),
            (self.without, "{} objects have no mask, among others that have; theirs are empty"),
            (self.others, "{} objects of other classes, which are ignored, are left out"),
            (self.long, "the masks of {} images with more than 254 objects are PNGs of 16 bits, which few tools read"),
        )
        return [sentence.format(count) for count, sentence in kinds if count]


def write_voc(splits: Sequence[Split], folder: Path, placing: Placing = "copy") -> list[str]:
    """Write `Annotations/*.xml`, `JPEGImages`, a list `ImageSets/Main/NAME.txt` for each split, and masks.

    Coordinates are counted from 1, as VOC's, with fractions where boxes have them; boxes are cut at the edge of the
    image. Masks become `SegmentationObject/*.png`.

    Args:
        splits, folder, placing: as of `write_coco`.

    Returns:
        sentences about what the format cannot hold.

    Raises:
        FileExistsError: there are files in the folder.
    """
    lost, used = _Lost(), set()
    names = file_names(splits)
    with new_folder(folder) as place:
        for part in ("Annotations", "ImageSets/Main"):
            (place / part).mkdir(parents=True)
        for split in splits:
            table = split.annotations.select_objects(split.annotations.labels >= 0)
            lost.others += len(split.annotations.ids) - len(table.ids)
            shapes = table.segmentations
            masks = shapes is not None and bool(shapes.known.any())
            stems = [Path(name).stem for name in names[split.name]]
            for image, (stem, name) in enumerate(zip(stems, names[split.name], strict=True)):
                tree = annotation_tree(table, image, name, masks)
                tree.write(place / "Annotations" / f"{stem}.xml", encoding="utf-8")
                if masks:
                    path = place / "SegmentationObject" / f"{stem}.png"
                    path.parent.mkdir(exist_ok=True)
                    _write_masks(table, image, path, lost)
            for kind in ("Main", "Segmentation") if masks else ("Main",):
                path = place / "ImageSets" / kind / f"{split.name}.txt"
                path.parent.mkdir(exist_ok=True)
                path.write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
            place_images(split, place / "JPEGImages", names[split.name], placing)
            lost.crowds += int(table.crowd.sum())
            used |= {table.classes[label] for label in np.unique(table.labels).tolist()}
    unused = [name for name in splits[0].annotations.classes if name not in used] if splits else []
    said = [f"VOC has no list of classes: {unused} have no objects and are left out"] if unused else []
    return lost.sentences() + said


def annotation_tree(
    table: Annotations, image: int, name: str, masks: bool
) -> ElementTree.ElementTree[ElementTree.Element]:
    """Return the XML of an image.

    Args:
        table: annotations without objects of other classes.
        image: its number.
        name: of its file.
        masks: whether there is a PNG of masks beside.
    """
    height, width = table.size(image)
    root = ElementTree.Element("annotation")
    _texts(root, {"folder": "JPEGImages", "filename": name})
    _texts(ElementTree.SubElement(root, "size"), {"width": width, "height": height, "depth": 3})
    _texts(root, {"segmented": int(masks)})
    truncated = table.extra.get("truncated", np.zeros(len(table.ids), bool))
    corners = table.corners()
    for i in table.objects(image):
        element = ElementTree.SubElement(root, "object")
        crowd = bool(table.crowd[i])
        _texts(element, {"name": table.classes[table.labels[i]], "pose": "Unspecified", "truncated": int(truncated[i])})
        _texts(element, {"difficult": int(table.difficult[i] or crowd)} | ({"iscrowd": 1} if crowd else {}))
        x1, y1, x2, y2 = corners[i].tolist()
        box = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2}
        _texts(ElementTree.SubElement(element, "bndbox"), {key: decimal(v, 4) for key, v in box.items()})
    ElementTree.indent(root)
    return ElementTree.ElementTree(root)


def _texts(parent: ElementTree.Element, values: Mapping[str, object]) -> None:
    for tag, value in values.items():
        ElementTree.SubElement(parent, tag).text = str(value)


def decimal(value: float, digits: int) -> str:
    """Write a number with at most so many decimals, at least one, and no zeros behind them."""
    return f"{value:.{digits}f}".rstrip("0").rstrip(".")


def _write_masks(table: Annotations, image: int, path: Path, lost: _Lost) -> None:
    """Write the number of the object at each pixel; where masks overlap, that of the smallest."""
    size, objects, shapes = table.size(image), table.objects(image), table.segmentations
    assert shapes is not None
    known = [number for number, i in enumerate(objects, 1) if shapes.known[i]]
    codes = [from_segmentation(shapes.get(objects[number - 1], size), size) for number in known]
    masks = decode(codes, size)
    windows = [masks.window(i).numpy() for i in range(len(masks))]
    areas = [int(window.sum()) for window in windows]
    wide = len(objects) >= VOID
    pixels = np.zeros(size, np.uint16 if wide else np.uint8)
    for place in sorted(range(len(known)), key=lambda p: -areas[p]):
        x1, y1, x2, y2 = masks.windows[place].tolist()
        pixels[y1:y2, x1:x2][windows[place]] = known[place]
    left = np.bincount(pixels.reshape(-1), minlength=len(objects) + 1)
    lost.covered += sum(int(left[number]) < area for number, area in zip(known, areas, strict=True))
    lost.without += len(objects) - len(known)
    lost.long += wide
    picture = Image.fromarray(pixels)
    if not wide:
        picture.putpalette(colour_map().tobytes())
    picture.save(path)
