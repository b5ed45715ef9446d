"""Draw ground truth and detections on images."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from detector.masks import paste
from detector.types import Masks, Objects, Target

Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels of the picture, x2 and y2 excluded."""

PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""Okabe and Ito's colours, which colour-blind people can tell apart, without black."""

SHORT_SIDE = 384
"""Images with a shorter side below this are enlarged, so that lines and text do not hide the objects."""
LONG_SIDE = 2048
"""The longer side of an enlarged image is at most this."""
OPACITY = 0.45
"""of masks"""
LETTERS = 11
"""The least height of letters, in pixels. In a crowd they are a third as high as half of the objects, not more."""
HIDDEN = 0.35
"""A class name is moved, or not drawn, where it would hide more than this fraction of an object."""
TILE = 480
"""The longer side of a picture in a contact sheet."""
GAP = 12


def colour(label: int) -> Colour:
    """Return the colour of a class, the same in every picture."""
    if label < len(PALETTE):
        return PALETTE[label]
    turn = (label * 0.618034) % 1.0  # golden ratio: consecutive labels get distant hues
    r, g, b = colorsys.hls_to_rgb(turn, (0.45, 0.62, 0.75)[label % 3], 0.75)
    return round(255 * r), round(255 * g), round(255 * b)


def _enlargement(height: int, width: int) -> int:
    factor = math.ceil(SHORT_SIDE / min(height, width))
    return max(1, min(factor, LONG_SIDE // max(height, width)))


@dataclass
class _Item:
    """One object, ready to be drawn."""

    box: Rectangle
    colour: Colour
    text: str
    mask: Callable[[], NDArray[np.bool_]] | None
    """makes the mask over the pixels of `box`; it is not kept, since the masks of all objects can be many times the
    picture"""


def _rectangle(box: Sequence[float], width: int, height: int) -> Rectangle:
    """Round a box to pixels, clipped to the picture, at least one pixel wide and high."""
    x1, y1 = (min(max(round(v), 0), end - 1) for v, end in zip(box[:2], (width, height), strict=True))
    x2, y2 = (min(max(round(v), low + 1), end) for v, low, end in zip(box[2:], (x1, y1), (width, height), strict=True))
    return x1, y1, x2, y2


def _name(classes: Sequence[str], label: int) -> str:
    """Return the name of a class; of the only one, nothing."""
    if len(classes) == 1 and label == 0:
        return ""
    return classes[label] if label < len(classes) else f"class {label}"


def _detection_items(
    objects: Objects,
    classes: Sequence[str],
    threshold: float,
    scale: int,
    size: tuple[int, int],
    colours: Sequence[Colour] | None,
) -> list[_Item]:
    """Prepare the detections with a score of at least `threshold`, in ascending order, so the best are drawn on top."""
    order = objects.scores.argsort().tolist()
    items = []
    for i in (i for i in order if objects.scores[i] >= threshold and objects.boxes[i].isfinite().all()):
        box, label = objects.boxes[i] * scale, int(objects.labels[i])
        rectangle = _rectangle(box.tolist(), size[1], size[0])
        mask = None if objects.masks is None else partial(_pasted, objects.masks[i], box, rectangle)
        text = f"{_name(classes, label)} {100 * float(objects.scores[i]):.0f}".lstrip()
        items.append(_Item(rectangle, colours[i] if colours else colour(label), text, mask))
    return items


def _pasted(grid: Tensor, box: Tensor, rectangle: Rectangle) -> NDArray[np.bool_]:
    """Paste the grid [M, M] of an object's mask, which spans `box`, over the pixels of `rectangle`."""
    x1, y1, x2, y2 = rectangle
    moved = box - box.new_tensor((x1, y1, x1, y1))
    return paste(grid[None], moved[None], (y2 - y1, x2 - x1)).dense(0).numpy()


def _magnified(masks: Masks, index: int, scale: int, rectangle: Rectangle) -> NDArray[np.bool_]:
    """Magnify a mask by a whole number, over the pixels of `rectangle`."""
    x1, y1, x2, y2 = rectangle
    left, top, right, bottom = masks.windows[index].tolist()
    rows, columns = np.arange(y1, y2) // scale, np.arange(x1, x2) // scale
    within = np.ix_((rows >= top) & (rows < bottom), (columns >= left) & (columns < right))
    mask = np.zeros((y2 - y1, x2 - x1), bool)
    window = masks.window(index).numpy()
    mask[within] = window[np.ix_(rows[within[0].ravel()] - top, columns[within[1].ravel()] - left)]
    return mask


def _target_items(
    target: Target, classes: Sequence[str], scale: int, size: tuple[int, int], colours: Sequence[Colour] | None
) -> list[_Item]:
    """Prepare the ground truth in descending order of area, so that small objects are drawn on top."""
    side = target.boxes[:, 2:] - target.boxes[:, :2]
    items = []
    for i in (side[:, 0] * side[:, 1]).argsort(descending=True).tolist():
        label = int(target.labels[i])
        notes = [note for note, flag in (("crowd", target.crowd), ("difficult", target.difficult)) if flag[i]]
        name = "other" if label < 0 else _name(classes, label)
        text = f"{name} ({', '.join(notes)})".lstrip() if notes else name
        rectangle = _rectangle((target.boxes[i] * scale).tolist(), size[1], size[0])
        mask = None if target.masks is None else partial(_magnified, target.masks, i, scale, rectangle)
        items.append(_Item(rectangle, colours[i] if colours else colour(label), text, mask))
    return items


def _fill(pixels: NDArray[np.uint8], items: Sequence[_Item]) -> None:
    """Blend masks into an image [H, W, 3]; their outlines are opaque."""
    for item in items:
        if item.mask is None:
            continue
        x1, y1, x2, y2 = item.box
        window = pixels[y1:y2, x1:x2]
        mask = item.mask()
        padded = np.pad(mask, 1)
        inner = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        for channel, shade in zip(np.moveaxis(window, 2, 0), item.colour, strict=True):
            blended = ((1 - OPACITY) * np.arange(256) + OPACITY * shade).astype(np.uint8)
            channel[inner] = blended[channel[inner]]
            channel[mask & ~inner] = shade


def _shares(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the fraction of each rectangle of `b` [N, 4] that each of `a` [R, 4] covers, [R, N]."""
    common = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    shares: NDArray[np.float64] = common.clip(0).prod(2) / (b[:, 2:] - b[:, :2]).prod(1)
    return shares


def _place(
    box: Rectangle,
    text: tuple[int, int],
    size: tuple[int, int],
    boxes: NDArray[np.int64],
    labels: NDArray[np.int64],
) -> Rectangle | None:
    """Place a text above, below, beside or inside its box, off other texts; None if it would hide an object.

    Args:
        box: the text's.
        text: its width and height.
        size: height and width of the picture.
        boxes: [N, 4], of all objects.
        labels: [L, 4], the places of other texts.
    """
    (width, height), (x1, y1, x2, y2) = text, box
    corners = ((x1, y1 - height), (x1, y2), (x2, y1), (x1 - width, y1), (x2 - width, y1 - height), (x1, y1))
    shifted = [(min(max(x, 0), size[1] - width), y) for x, y in corners]
    places = [
        (x, y, x + width, y + height) for x, y in shifted if x >= 0 and y >= 0 and y + height <= size[0]
    ]  # within the picture
    if not places:
        return None
    at = np.array(places)
    fit = (_shares(at, labels) == 0).all(1) & (_shares(at, boxes) <= HIDDEN).all(1)
    return places[int(fit.argmax())] if fit.any() else None


def _ink(background: Colour) -> Colour:
    """Choose black or white text, for contrast."""
    r, g, b = background
    return (0, 0, 0) if 0.299 * r + 0.587 * g + 0.114 * b > 128 else (255, 255, 255)


def as_rgb(image: Tensor) -> Tensor:
    """Show an image of any channels, uint8 or floats in 0..255, as uint8 [3, H, W].

    Of three channels and more, the first three are red, green and blue; of fewer, the first is grey. Values beyond
    0..255 are shown as black and white.

    Raises:
        ValueError: the image is not [D, H, W] of uint8 or floats.
    """
    if image.ndim != 3 or not len(image) or not (image.dtype == torch.uint8 or image.is_floating_point()):
        raise ValueError(f"image must be uint8 or floats [D, H, W], but is {image.dtype} {tuple(image.shape)}")
    shown = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return shown if shown.dtype == torch.uint8 else shown.round().clamp(0, 255).to(torch.uint8)


def draw(
    image: Tensor,
    objects: Objects | Target,
    classes: Sequence[str],
    threshold: float = 0.5,
    colours: Sequence[Colour] | None = None,
) -> Image.Image:
    """Draw boxes, masks, class names and scores in % on an image, in one colour per class.

    Small images are enlarged by an integer factor, without interpolation. A class name stands above, below, beside or
    in its box, wherever it hides no other name, and of no object more than a third; where there is no such place, it is
    not drawn, nor is that of the only class. Lines and letters are the smaller, the smaller most objects are.

    Args:
        image: [D, H, W], shown by `as_rgb`.
        objects: detections or ground truth; boxes in pixels of the image.
        classes: class names by label.
        threshold: detections with a lower score are not drawn.
        colours: of each object; None: those of their classes.

    Raises:
        ValueError: the image is not [D, H, W] of uint8 or floats.
    """
    image = as_rgb(image)
    height, width = image.shape[1:]
    scale = _enlargement(height, width)
    size = height * scale, width * scale
    objects = objects.to("cpu")
    if isinstance(objects, Target):
        items = _target_items(objects, classes, scale, size, colours)
    else:
        items = _detection_items(objects, classes, threshold, scale, size, colours)
    pixels = image.cpu().numpy().transpose(1, 2, 0)
    pixels = np.array(pixels, order="C") if scale == 1 else pixels.repeat(scale, 0).repeat(scale, 1)
    _fill(pixels, items)
    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    extent = _extent(items)
    line = max(1, round(min(min(size) / 250, extent / 24)))
    for item in items:
        x1, y1, x2, y2 = item.box
        thin = max(1, min(line, (x2 - x1) // 6, (y2 - y1) // 6))  # a line must not fill a small box
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), outline=item.colour, width=thin)
    _write(pen, items, size, max(LETTERS, round(min(min(size) / 32, extent / 3))))
    return picture


def _extent(items: Sequence[_Item]) -> float:
    """Return the median of the objects' shorter sides, in pixels; infinity without objects."""
    sides = sorted(min(x2 - x1, y2 - y1) for x1, y1, x2, y2 in (item.box for item in items))
    return sides[len(sides) // 2] if sides else math.inf


def _write(pen: ImageDraw.ImageDraw, items: Sequence[_Item], size: tuple[int, int], height: int) -> None:
    """Write the items' texts, those of the topmost items first, in letters of a height in pixels."""
    font = ImageFont.load_default(height)
    boxes = np.array([item.box for item in items], np.int64).reshape(-1, 4)
    labels = np.empty_like(boxes)
    placed = 0
    for item in (item for item in reversed(items) if item.text):
        left, top, right, bottom = (round(v) for v in pen.textbbox((0, 0), item.text, font=font))
        place = _place(item.box, (right - left + 4, bottom - top + 4), size, boxes, labels[:placed])
        if place is None:
            continue
        labels[placed] = place
        placed += 1
        pen.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=item.colour)
        pen.text((place[0] + 2 - left, place[1] + 2 - top), item.text, fill=_ink(item.colour), font=font)


def contact_sheet(
    rows: Iterable[tuple[Tensor, Target, Objects]],
    classes: Sequence[str],
    path: str | Path,
    threshold: float = 0.5,
    limit: int = 8,
) -> None:
    """Write a PNG that shows images with ground truth and detections; arguments and errors as of `draw_sheet`.

    Args:
        path: the file to write; its folder is created.
    """
    sheet = draw_sheet(rows, classes, threshold, limit)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, format="PNG", compress_level=1)  # the default takes three times as long


def draw_sheet(
    rows: Iterable[tuple[Tensor, Target, Objects]],
    classes: Sequence[str],
    threshold: float = 0.5,
    limit: int = 8,
) -> Image.Image:
    """Draw each image with its ground truth (left) and its detections (right), two images per row.

    Args:
        rows: for each image, [D, H, W], its ground truth and its detections, boxes in its pixels. A generator
            needs to hold one at a time.
        classes: class names by label.
        threshold: detections with a lower score are not drawn.
        limit: the maximum number of images.

    Raises:
        ValueError: there are no images.
    """
    tiles = []
    for image, target, objects in islice(rows, limit):
        shown = int((objects.scores >= threshold).sum())
        tiles.append(
            (
                (f"ground truth: {len(target)} objects", _fit(draw(image, target, classes))),
                (f"detections: {shown} of score {threshold:g} or more", _fit(draw(image, objects, classes, threshold))),
            )
        )
    if not tiles:
        raise ValueError("a contact sheet needs at least one image")
    font = ImageFont.load_default(16)
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
    return sheet


def _fit(picture: Image.Image) -> Image.Image:
    """Resize a picture so that its longer side is that of a tile."""
    ratio = TILE / max(picture.size)
    size = max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio))
    return picture.resize(size, Image.Resampling.LANCZOS)
