"""Pictures of true and of found objects."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from detector.masks import paste
from detector.types import Objects, Target

Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels of the picture, the end not included."""

PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""The colours of Okabe and Ito, which colour-blind people can tell apart, without black."""

SHORT_SIDE = 384
"""Smaller images are drawn enlarged, so that lines and text do not cover what they are about."""
LONG_SIDE = 2048
"""No image is enlarged beyond this."""
OPACITY = 0.45
"""Of masks."""
HIDDEN = 0.35
"""A label is moved, or left out, rather than hide more than this share of an object."""
TILE = 480
"""The side of one picture in a contact sheet."""
GAP = 12


def colour(label: int) -> Colour:
    """The colour of a class, the same in every picture."""
    if label < len(PALETTE):
        return PALETTE[label]
    turn = (label * 0.618034) % 1.0  # golden section: neighbours in label lie far apart in hue
    r, g, b = colorsys.hls_to_rgb(turn, (0.45, 0.62, 0.75)[label % 3], 0.75)
    return round(255 * r), round(255 * g), round(255 * b)


def _enlargement(height: int, width: int) -> int:
    wanted = math.ceil(SHORT_SIDE / min(height, width))
    return max(1, min(wanted, LONG_SIDE // max(height, width)))


@dataclass
class _Item:
    """One object, ready to be drawn."""

    box: Rectangle
    colour: Colour
    text: str
    mask: NDArray[np.bool_] | None
    """over the pixels of `box`"""


def _rectangle(box: Sequence[float], width: int, height: int) -> Rectangle:
    """The pixels of a box, within the picture and at least one."""
    x1, y1 = (min(max(round(v), 0), end - 1) for v, end in zip(box[:2], (width, height), strict=True))
    x2, y2 = (min(max(round(v), low + 1), end) for v, low, end in zip(box[2:], (x1, y1), (width, height), strict=True))
    return x1, y1, x2, y2


def _name(classes: Sequence[str], label: int) -> str:
    return classes[label] if label < len(classes) else f"class {label}"


def _found(
    objects: Objects, classes: Sequence[str], threshold: float, scale: int, size: tuple[int, int]
) -> list[_Item]:
    """The detections from `threshold` on, the best last, so that they are drawn on top."""
    kept = objects.scores.argsort().tolist()
    items = []
    for i in (i for i in kept if objects.scores[i] >= threshold and objects.boxes[i].isfinite().all()):
        box, label = objects.boxes[i] * scale, int(objects.labels[i])
        rectangle = _rectangle(box.tolist(), size[1], size[0])
        mask = None
        if objects.masks is not None:
            x1, y1, x2, y2 = rectangle  # the mask is laid on these pixels alone: an image can be large
            moved = box - box.new_tensor((x1, y1, x1, y1))
            mask = paste(objects.masks[i, None], moved[None], (y2 - y1, x2 - x1))[0].numpy()
        text = f"{_name(classes, label)} {100 * float(objects.scores[i]):.0f}"
        items.append(_Item(rectangle, colour(label), text, mask))
    return items


def _true(target: Target, classes: Sequence[str], scale: int, size: tuple[int, int]) -> list[_Item]:
    """The true objects, the smallest last."""
    side = target.boxes[:, 2:] - target.boxes[:, :2]
    items = []
    for i in (side[:, 0] * side[:, 1]).argsort(descending=True).tolist():
        label = int(target.labels[i])
        notes = [note for note, flag in (("crowd", target.crowd), ("difficult", target.difficult)) if flag[i]]
        text = _name(classes, label) + (f" ({', '.join(notes)})" if notes else "")
        rectangle = _rectangle((target.boxes[i] * scale).tolist(), size[1], size[0])
        mask = None
        if target.masks is not None:
            x1, y1, x2, y2 = rectangle
            rows, columns = np.arange(y1, y2) // scale, np.arange(x1, x2) // scale
            mask = target.masks[i].numpy()[rows[:, None], columns]
        items.append(_Item(rectangle, colour(label), text, mask))
    return items


def _fill(pixels: NDArray[np.uint8], items: Sequence[_Item]) -> None:
    """Blend the masks into an image [H, W, 3], with a firm edge."""
    for item in items:
        if item.mask is None:
            continue
        x1, y1, x2, y2 = item.box
        window = pixels[y1:y2, x1:x2]
        padded = np.pad(item.mask, 1)
        inner = item.mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        shade = np.array(item.colour)
        window[inner] = ((1 - OPACITY) * window[inner] + OPACITY * shade).astype(np.uint8)
        window[item.mask & ~inner] = shade


def _share(a: Rectangle, b: Rectangle) -> float:
    """The share of `b` that `a` covers."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0) / ((b[2] - b[0]) * (b[3] - b[1]))


def _place(
    box: Rectangle,
    text: tuple[int, int],
    size: tuple[int, int],
    boxes: Sequence[Rectangle],
    labels: Sequence[Rectangle],
) -> Rectangle | None:
    """Where a label goes: above its box, below, beside or inside, off other labels; None if it would hide something."""
    (width, height), (x1, y1, x2, y2) = text, box
    corners = ((x1, y1 - height), (x1, y2), (x2, y1), (x1 - width, y1), (x2 - width, y1 - height), (x1, y1))
    for x, y in corners:
        x = min(max(x, 0), size[1] - width)
        place = (x, y, x + width, y + height)
        inside = x >= 0 and y >= 0 and y + height <= size[0]
        free = not any(_share(place, other) for other in labels)
        if inside and free and all(_share(place, other) <= HIDDEN for other in boxes):
            return place
    return None


def _ink(background: Colour) -> Colour:
    """Black or white, whichever reads better."""
    r, g, b = background
    return (0, 0, 0) if 0.299 * r + 0.587 * g + 0.114 * b > 128 else (255, 255, 255)


def draw(image: Tensor, objects: Objects | Target, classes: Sequence[str], threshold: float = 0.5) -> Image.Image:
    """An image with boxes, masks, class names and scores in %; one colour for each class.

    Small images are enlarged by a whole factor, every pixel of theirs a square. A label that would hide an object, or
    another label, is left out; the box's colour still tells the class.

    Args:
        image: uint8 [3, H, W], RGB.
        objects: detections or truth, boxes in the image's pixels.
        classes: names by label.
        threshold: detections with a lower score are not drawn.

    Raises:
        ValueError: the image is not uint8 [3, H, W].
    """
    if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
        raise ValueError(f"image must be uint8 [3, H, W], but is {image.dtype} {tuple(image.shape)}")
    height, width = image.shape[1:]
    scale = _enlargement(height, width)
    size = height * scale, width * scale
    objects = objects.to("cpu")
    if isinstance(objects, Target):
        items = _true(objects, classes, scale, size)
    else:
        items = _found(objects, classes, threshold, scale, size)
    pixels = image.cpu().numpy().transpose(1, 2, 0).repeat(scale, 0).repeat(scale, 1)
    _fill(pixels, items)
    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    line = max(1, round(min(size) / 250))
    for item in items:
        x1, y1, x2, y2 = item.box
        thin = max(1, min(line, (x2 - x1) // 6, (y2 - y1) // 6))  # a line must not fill a small box
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), outline=item.colour, width=thin)
    _write(pen, items, size)
    return picture


def _write(pen: ImageDraw.ImageDraw, items: Sequence[_Item], size: tuple[int, int]) -> None:
    """Label the items, those on top first."""
    font = ImageFont.load_default(max(11, round(min(size) / 32)))
    boxes = [item.box for item in items]
    labels: list[Rectangle] = []
    for item in reversed(items):
        left, top, right, bottom = (round(v) for v in pen.textbbox((0, 0), item.text, font=font))
        place = _place(item.box, (right - left + 4, bottom - top + 4), size, boxes, labels)
        if place is None:
            continue
        labels.append(place)
        pen.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=item.colour)
        pen.text((place[0] + 2 - left, place[1] + 2 - top), item.text, fill=_ink(item.colour), font=font)


def contact_sheet(
    rows: Sequence[tuple[Tensor, Target, Objects]],
    classes: Sequence[str],
    path: str | Path,
    threshold: float = 0.5,
    limit: int = 8,
) -> None:
    """Write a PNG of images twice, the truth at the left and the detections at the right, two such pairs in a row.

    Args:
        rows: image uint8 [3, H, W], its truth, and its detections in the same pixels.
        classes: names by label.
        path: the file to write; its folder is made.
        threshold: detections with a lower score are not drawn.
        limit: at most so many images.

    Raises:
        ValueError: there are no images.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one image")
    pairs = []
    for image, truth, found in rows[:limit]:
        shown = int((found.scores >= threshold).sum())
        pairs.append(
            (
                (f"truth: {len(truth)} objects", draw(image, truth, classes)),
                (f"found: {shown} of score {threshold:g} or more", draw(image, found, classes, threshold)),
            )
        )
    font = ImageFont.load_default(16)
    tiles = [[(title, _fit(picture)) for title, picture in pair] for pair in pairs]
    across = min(2, len(tiles))
    lines = [tiles[i : i + across] for i in range(0, len(tiles), across)]
    heights = [max(picture.height for pair in line for _, picture in pair) + 24 for line in lines]
    step = 2 * TILE + 3 * GAP
    sheet = Image.new("RGB", (across * step, sum(heights) + GAP * (len(lines) + 1)), "white")
    pen = ImageDraw.Draw(sheet)
    y = GAP
    for line, tall in zip(lines, heights, strict=True):
        for column, pair in enumerate(line):
            for side, (title, picture) in enumerate(pair):
                x = column * step + GAP + side * (TILE + GAP)
                pen.text((x, y), title, fill="black", font=font)
                sheet.paste(picture, (x, y + 24))
        y += tall + GAP
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, format="PNG")


def _fit(picture: Image.Image) -> Image.Image:
    """The picture, its longer side a tile's."""
    ratio = TILE / max(picture.size)
    size = max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio))
    return picture.resize(size, Image.Resampling.LANCZOS)
