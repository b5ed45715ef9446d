"""Read the masks of VOC: a PNG for an image whose pixels are numbers of objects, and compare them with the boxes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from detector.data.stored import open_image
from detector.types import Masks, Size

log = logging.getLogger(__name__)

VOID = 255
"""The pixels of no object in VOC's PNGs: the borders of objects, and what is too hard to mark."""

NUMBERS = ("1", "P", "L", "I", "I;16")
"""Pillow's modes of images whose pixels are numbers."""

SLACK = 1.0
"""Pixels that a mask may lie out of its box."""


@cache
def colour_map() -> NDArray[np.uint8]:
    """Compute VOC's colours of the numbers 0..255, [256, 3], of which the bits of a number are spread over R, G and B.

    Source: `VOClabelcolormap.m` of VOC's development kit.
    """
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((numbers >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def read_indices(path: Path, size: Size) -> NDArray[np.int32]:
    """Read a PNG of object numbers, also one that has VOC's colours in place of a palette, int32 [H, W].

    Args:
        path: of the PNG.
        size: height and width of the image that it belongs to.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is unreadable, has another size, or other colours.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such mask; set masks to false, or use the lists of ImageSets/Segmentation")
    try:
        with open_image(path, None) as image:  # its size is checked before it is decoded
            shape = image.height, image.width
            if shape == size:
                pixels = np.array(image if image.mode in NUMBERS else image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: unreadable mask ({error})") from error
    if shape != size:
        raise ValueError(f"{path}: the mask's shape is {shape}, its image's {size}")
    return _from_colours(pixels, path) if pixels.ndim == 3 else pixels.astype(np.int32)


def _from_colours(pixels: NDArray[np.uint8], path: Path) -> NDArray[np.int32]:
    shifts = np.array([16, 8, 0])
    known = (colour_map().astype(np.int32) << shifts).sum(1)
    wanted = (pixels.astype(np.int32) << shifts).sum(2)
    order = np.argsort(known)
    found: NDArray[np.int32] = order[np.searchsorted(known[order], wanted).clip(max=255)].astype(np.int32)
    other = known[found] != wanted
    if other.any():
        y, x = np.argwhere(other)[0]
        raise ValueError(
            f"{path}: the colour {tuple(pixels[y, x].tolist())} at ({x}, {y}) is none of VOC's for object numbers; "
            "set masks to false to read boxes only"
        )
    return found


def cut_masks(indices: NDArray[np.int32], instances: Sequence[int]) -> Masks:
    """Cut the masks of an image's objects out of their numbers.

    Args:
        indices: [H, W].
        instances: the number of each object, at least one.
    """
    size = int(indices.shape[0]), int(indices.shape[1])
    places = ndimage.find_objects(indices, max(instances))
    pixels, corners = [], []
    for instance in instances:
        y, x = places[instance - 1] or (slice(0, 0), slice(0, 0))  # none where the object has no pixel
        pixels.append(torch.from_numpy(indices[y, x] == instance))
        corners.append((x.start, y.start))
    return Masks.from_windows(pixels, corners, size)


def outside_their_boxes(masks: Masks, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Find masks of which more than half lies outside of the object's box, bool [G].

    Args:
        masks: of the G objects of an image.
        boxes: x1, y1, x2, y2, [G, 4].
    """
    found = np.zeros(len(masks), bool)
    for i, (x1, y1, _, _) in enumerate(masks.windows.tolist()):
        window = masks.window(i).numpy()
        left, top = np.floor(boxes[i, :2] - SLACK).astype(int) - (x1, y1)
        right, bottom = np.ceil(boxes[i, 2:] + SLACK).astype(int) - (x1, y1)
        inside = window[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)].sum()
        found[i] = 2 * inside < window.sum()
    return found


def check_masks(
    images: int, read: Callable[[int], tuple[Masks, NDArray[np.float64]]], path: Callable[[int], Path]
) -> None:
    """Check that the masks of all images lie in their boxes, as they do unless they are numbered otherwise.

    Args:
        images: how many there are.
        read: the masks and boxes of one.
        path: of the PNG of one, for messages.

    Raises:
        ValueError: at least a tenth of the masks does not; of fewer a warning tells.
    """
    total, wrong, examples = 0, 0, []
    with ThreadPoolExecutor(4) as pool:
        for image, (masks, boxes) in enumerate(pool.map(read, range(images))):
            found = outside_their_boxes(masks, boxes)
            total += len(found)
            wrong += int(found.sum())
            if found.any():
                examples.append((image, int(found.argmax())))
    if not wrong:
        return
    image, which = examples[0]
    sentence = (
        f"{path(image)}: the mask of object {which + 1} lies outside of its box ({wrong} of {total} masks, in "
        f"{len(examples)} of {images} images)"
    )
    if wrong >= total / 10:
        raise ValueError(
            f"{sentence}; the numbers in the PNGs must follow the order of the objects in the XML. Write them in that "
            "order, or set masks to false to read boxes only"
        )
    log.warning("%s; correct the masks or the boxes", sentence)
