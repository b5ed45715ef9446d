"""What the pictures share: their width, their colours, and how they are written."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from detector.visualize import PALETTE, Colour

RGB = tuple[float, float, float]
Line = str | tuple[float, tuple[float, ...]]
"""A style of lines: a name, or (offset, lengths of dashes and gaps)"""

DASHED: Line = (0, (4, 2))
WIDTH = 9.0
"""of a picture, in inches of 100 pixels"""
DPI = 150
"""dots per inch: more than are shown, for fine screens"""


def rgb(colour: Colour) -> RGB:
    """A colour as matplotlib takes it, in 0..1."""
    return colour[0] / 255, colour[1] / 255, colour[2] / 255


BLUE, RED, BLACK, GREY = rgb(PALETTE[4]), rgb(PALETTE[5]), rgb((0, 0, 0)), rgb((115, 115, 115))


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG of at most 256 colours, which is a third of the size; its folder is made."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(buffer) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True)
