"""Write what was found: drawn images, tables, COCO's JSONs, VOC's XML, YOLO's labels, masks."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TextIO

import numpy as np
from PIL import Image
from torch import Tensor

from detector.data.voc_writer import annotation_tree
from detector.data.writers import coco_document
from detector.data.yolo_writer import Lost, label_rows
from detector.inference.output_folder import OutputFolder
from detector.inference.results import MASK, Found, as_annotations, categories
from detector.run_lengths import decode
from detector.visualize import draw

Shown = tuple[Tensor, int]
"""An image to draw on, [D, H, W], and the whole number by which its sides were divided."""

DETECTIONS = "detections.json"


class Saver(Protocol):
    """Write what was found in images, one after the other, in one format."""

    def add(self, found: Found, show: Callable[[], Shown]) -> None:
        """Write an image's objects; `show` reads the image."""

    def close(self) -> None:
        """Finish the files of all images."""


class JsonList:
    """Write a JSON file item by item, so that its text is never held as a whole; it gets its name at the end.

    Args:
        folder: of the results.
        name: of the file.
        begin, end: the text before and after the items.
    """

    def __init__(self, folder: OutputFolder, name: str, begin: str, end: str) -> None:
        self.folder, self.name, self.end = folder, name, end
        self.draft = folder.draft(name)
        self.file: TextIO = self.draft.open("w", encoding="utf-8")
        self.file.write(begin)
        self.count = 0

    def add(self, text: str) -> None:
        """Write an item."""
        self.file.write((",\n" if self.count else "\n") + text)
        self.count += 1

    def close(self) -> None:
        """Finish the file."""
        self.file.write(f"\n{self.end}\n")
        self.file.close()
        self.folder.finish(self.name, self.draft)


class Detections:
    """Write `detections.json`: all objects of each image by the image's name."""

    def __init__(self, folder: OutputFolder) -> None:
        self.list = JsonList(folder, DETECTIONS, "{", "}")

    def add(self, found: Found, show: Callable[[], Shown]) -> None:
        """Write the objects of an image."""
        del show
        self.list.add(f"{json.dumps(found.name)}: {rows_text(found.rows)}")

    def close(self) -> None:
        """Finish the file."""
        self.list.close()


def rows_text(rows: Sequence[dict[str, Any]]) -> str:
    """Write objects as a JSON list, one a line."""
    return "[" + ",".join(f"\n {json.dumps(row, allow_nan=False)}" for row in rows) + ("\n]" if rows else "]")


class DrawnImages:
    """Write `NAME.png` for each image, its objects drawn on it."""

    def __init__(self, folder: OutputFolder, classes: Sequence[str]) -> None:
        self.folder, self.classes = folder, classes

    def add(self, found: Found, show: Callable[[], Shown]) -> None:
        """Draw an image."""
        image, factor = show()
        with self.folder.writing(f"{found.stem}.png") as path:
            draw_found(image, factor, found, self.classes).save(path)

    def close(self) -> None:
        """Do nothing: each image has its file."""


def draw_found(image: Tensor, factor: int, found: Found, classes: Sequence[str]) -> Image.Image:
    """Draw the objects that reach their threshold on their image, which may be smaller by a whole number."""
    objects = found.objects.select(found.drawn)
    return draw(image, replace(objects, boxes=objects.boxes / factor), classes, 0.0)


class Table:
    """Write `detections.csv`: a line for each object."""

    COLUMNS = ("image", "frame", "number", "class", "score", "x", "y", "width", "height")

    def __init__(self, folder: OutputFolder) -> None:
        self.folder = folder
        self.draft = folder.draft("detections.csv")
        self.file = self.draft.open("w", encoding="utf-8", newline="")
        self.writer = csv.writer(self.file)
        self.writer.writerow(self.COLUMNS)

    def add(self, found: Found, show: Callable[[], Shown]) -> None:
        """Write the lines of an image."""
        del show
        self.add_rows(found.name, None, found.rows)

    def add_rows(self, image: str, frame: int | None, rows: Sequence[dict[str, Any]]) -> None:
        """Write the lines of an image, or of a frame of a video, counted from 0."""
        for number, row in enumerate(rows, 1):
            self.writer.writerow(
                (image, "" if frame is None else frame, number, row["class"], row["score"], *row["bbox"])
            )

    def close(self) -> None:
        """Finish the file."""
        self.file.close()
        self.folder.finish("detections.csv", self.draft)


class CocoResults:
    """Write `coco_results.json`, all objects in COCO's results format, and `image_info.json`, which has the ids.

    The ids of images count from 1 in the order of `detections.json`, those of categories are labels + 1.
    """

    def __init__(self, folder: OutputFolder, classes: Sequence[str]) -> None:
        self.folder, self.classes = folder, classes
        self.list = JsonList(folder, "coco_results.json", "[", "]")
        self.images: list[dict[str, Any]] = []

    def add(self, found: Found, show: Callable[[], Shown]) -> None:
        """Write the objects of an image."""
        del show
        self.images.append(_image_entry(found))
        for label, row in zip(found.objects.labels.tolist(), found.rows, strict=True):
            entry = {"image_id": found.number, "category_id": label + 1} | row
            del entry["class"]
            self.list.add(json.dumps(entry, allow_nan=False))

    def close(self) -> None:
        """Finish the files."""
        self.list.close()
        info = {"images": self.images, "categories": categories(self.classes)}
        self.folder.write_text("image_info.json", json.dumps(info, ensure_ascii=False, indent=1) + "\n")


def _image_entry(found: Found) -> dict[str, Any]:
    height, width = found.size
    return {"id": found.number, "file_name": found.name, "height": height, "width": width}


class CocoAnnotations:
    """Write `annotations.json`, the drawn objects as annotations of COCO, with polygons and scores."""

    def __init__(self, folder: OutputFolder, classes: Sequence[str]) -> None:
        self.classes = classes
        begin = f'{{"categories": {json.dumps(categories(classes), ensure_ascii=False)},\n"annotations": ['
        self.list = JsonList(folder, "annotations.json", begin, "]")
        self.images: list[dict[str, Any]] = []

    def add(self, found: Found, show: Callable[[], Shown]) -> None:
        """Write the objects of an image."""
        del show
        self.images.append(_image_entry(found))
        document = coco_document(as_annotations(found, self.classes), [found.name])
        scores = found.objects.scores[found.drawn].tolist()
        for annotation, score in zip(document["annotations"], scores, strict=True):
            numbered = annotation | {"id": self.list.count + 1, "score": score}
            self.list.add(json.dumps(numbered, allow_nan=False))

    def close(self) -> None:
        """Finish the file."""
        self.list.end = f'],\n"images": {json.dumps(self.images, ensure_ascii=False)}}}'
        self.list.close()


class VocAnnotations:
    """Write `voc/Annotations/NAME.xml` for each image: the drawn objects."""

    def __init__(self, folder: OutputFolder, classes: Sequence[str]) -> None:
        self.folder, self.classes = folder, classes

    def add(self, found: Found, show: Callable[[], Shown]) -> None:
        """Write the file of an image."""
        del show
        tree = annotation_tree(as_annotations(found, self.classes), 0, found.name, masks=False)
        with self.folder.writing(f"voc/Annotations/{found.stem}.xml") as path:
            tree.write(path, encoding="utf-8")

    def close(self) -> None:
        """Do nothing: each image has its file."""


class YoloLabels:
    """Write `yolo/labels/NAME.txt` for each image, the drawn objects, and `yolo/classes.txt`.

    Objects are polygons if the detector has masks, else boxes.
    """

    def __init__(self, folder: OutputFolder, classes: Sequence[str], masks: bool) -> None:
        self.folder, self.classes, self.masks = folder, classes, masks
        folder.write_text("yolo/classes.txt", "".join(f"{name}\n" for name in classes))

    def add(self, found: Found, show: Callable[[], Shown]) -> None:
        """Write the file of an image."""
        del show
        rows = label_rows(as_annotations(found, self.classes), 0, self.masks, Lost())
        self.folder.write_text(f"yolo/labels/{found.stem}.txt", "".join(f"{row}\n" for row in rows))

    def close(self) -> None:
        """Do nothing: each image has its file."""


class MaskImages:
    """Write `masks/NAME.png` for each image: at each pixel the number of the drawn object, 0 where there is none.

    Numbers are those of the objects in `detections.json`, from 1 on; where masks overlap, that of the higher score. The
    PNG has 8 bits, or 16 where an image has more than 255 objects.

    Args:
        folder: of the results.
    """

    def __init__(self, folder: OutputFolder) -> None:
        self.folder = folder

    def add(self, found: Found, show: Callable[[], Shown]) -> None:
        """Write the file of an image.

        Raises:
            ValueError: there are more objects than 16 bits count.
        """
        del show
        chosen = found.drawn.nonzero().flatten().tolist()
        if len(found.rows) >= 1 << 16:
            raise ValueError(f"save=masks: {found.name} has {len(found.rows)} objects, and a PNG counts to 65535")
        pixels = np.zeros(found.size, np.uint8 if len(found.rows) < 256 else np.uint16)
        for i in reversed(chosen):
            masks = decode([found.rows[i][MASK]], found.size)
            x1, y1, x2, y2 = masks.windows[0].tolist()
            pixels[y1:y2, x1:x2][masks.window(0).numpy()] = i + 1
        with self.folder.writing(f"masks/{found.stem}.png") as path:
            Image.fromarray(pixels).save(path)

    def close(self) -> None:
        """Do nothing: each image has its file."""


FORMATS = ("images", "csv", "coco", "annotations", "voc", "yolo", "masks")
"""What `save=` may list; `detections.json` is always written."""


def check_formats(given: Any, masks: bool) -> list[str]:
    """Return the formats of the key `save`, each once.

    Args:
        given: a list of names, or one.
        masks: whether the detector has masks.

    Raises:
        ValueError: there is no such format, or masks are to be saved, and there are none.
    """
    names = [given] if isinstance(given, str) else list(given or ())
    if unknown := [name for name in names if name not in FORMATS]:
        raise ValueError(f"save={unknown[0]!r}: there is no such format; choose among [{', '.join(FORMATS)}]")
    if "masks" in names and not masks:
        raise ValueError("save=masks: the detector has no masks; leave it out, or train with model=mask_rcnn")
    return list(dict.fromkeys(names))


def make_savers(formats: Sequence[str], folder: OutputFolder, classes: Sequence[str], masks: bool) -> dict[str, Saver]:
    """Make what writes each format, by its name; `detections` is among them.

    Args:
        formats: as of `check_formats`.
        folder: of the results.
        classes: names by label.
        masks: whether the detector has masks.
    """
    makers: dict[str, Callable[[], Saver]] = {
        "images": lambda: DrawnImages(folder, classes),
        "csv": lambda: Table(folder),
        "coco": lambda: CocoResults(folder, classes),
        "annotations": lambda: CocoAnnotations(folder, classes),
        "voc": lambda: VocAnnotations(folder, classes),
        "yolo": lambda: YoloLabels(folder, classes, masks),
        "masks": lambda: MaskImages(folder),
    }
    return {"detections": Detections(folder)} | {name: makers[name]() for name in formats}
