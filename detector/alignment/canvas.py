"""Widths, colours and the PNG writer that all figures share."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from detector.visualize import PALETTE, Colour

RGB = tuple[float, float, float]
Line = str | tuple[float, tuple[float, ...]]
"""A line style of matplotlib: a name, or (offset, lengths of dashes and gaps)"""

DASHED: Line = (0, (4, 2))
WIDTH = 9.0
"""width of a figure, in inches of 100 pixels"""
DPI = 150
"""above the 100 dots per inch at which a README shows a figure, for high-resolution screens"""


def rgb(colour: Colour) -> RGB:
    """Convert a colour of 0..255 to matplotlib's 0..1."""
    return colour[0] / 255, colour[1] / 255, colour[2] / 255


BLUE, RED, BLACK, GREY = rgb(PALETTE[4]), rgb(PALETTE[5]), rgb((0, 0, 0)), rgb((115, 115, 115))


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG of at most 256 colours, a third of the size of full colour; creates its folder."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(buffer) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True)
