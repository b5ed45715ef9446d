"""The example image: a house that fills its box exactly, with a tree right beside it."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from detector.alignment.regions import EXAMPLE_BOX, EXAMPLE_SIZE

FINE = 2
"""supersampling along each axis, for smooth edges"""


def draw_house() -> Tensor:
    """Draw a house that touches all four edges of `EXAMPLE_BOX`: uint8 [3, H, W] of `EXAMPLE_SIZE`, RGB."""
    height, width = EXAMPLE_SIZE
    _, top, right, ground = EXAMPLE_BOX
    picture = Image.new("RGB", (width * FINE, height * FINE), "#d6ebf7")
    pen = ImageDraw.Draw(picture)

    def polygon(points: list[tuple[float, float]], fill: str) -> None:
        pen.polygon([(x * FINE, y * FINE) for x, y in points], fill=fill)

    def rectangle(x1: float, y1: float, x2: float, y2: float, fill: str) -> None:
        polygon([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], fill)

    def disc(x: float, y: float, radius: float, fill: str) -> None:
        pen.ellipse([(v + r) * FINE for r in (-radius, radius) for v in (x, y)], fill=fill)

    disc(735, 70, 38, "#f7d774")
    rectangle(0, ground, width, height, "#a9c98b")
    rectangle(732, 430, 752, ground, "#8a6a4f")
    for x, y, radius in ((716, 622, 30), (765, 612, 40), (738, 640, 34), (788, 640, 30)):
        disc(x, y, radius, "#88b06f")
    for x, y, radius in ((742, 395, 52), (728, 470, 48), (758, 480, 48), (742, 540, 54)):
        disc(x, y, radius, "#6f9e63")
    rectangle(500, 70, 570, 280, "#b08a7a")
    rectangle(0, 270, right, ground, "#f3e3c8")
    polygon([(0, 290), (right / 2, top), (right, 290)], "#c9776a")
    for x in (70, 475):
        rectangle(x, 370, x + 120, 490, "#ffffff")
        rectangle(x + 8, 378, x + 56, 482, "#9fc3d9")
        rectangle(x + 64, 378, x + 112, 482, "#9fc3d9")
    rectangle(270, 420, 395, ground, "#8f6a56")
    disc(375, 545, 8, "#f0d58a")
    disc(right / 2, 175, 45, "#ffffff")
    disc(right / 2, 175, 36, "#9fc3d9")
    pixels = np.array(picture.resize((width, height), Image.Resampling.BOX))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
