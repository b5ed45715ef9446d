"""Write contact sheets: rows of captioned pictures in one file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from detector.visualize import GAP

SIDE = 400
"""The longer side of a picture, in pixels."""

LINE = 24
"""The height of a caption."""

Captioned = tuple[str, Image.Image]


def write_sheet(rows: Iterable[Sequence[Captioned]], path: Path) -> None:
    """Write pictures as a PNG, row below row; the folder of `path` is created.

    Args:
        rows: at least one picture in all. A generator needs to hold one row at a time.
        path: of the PNG.
    """
    font = ImageFont.load_default(15)
    lines = [[(caption, _fit(picture)) for caption, picture in row] for row in rows]
    columns = max(len(line) for line in lines)
    heights = [LINE + max(picture.height for _, picture in line) for line in lines]
    sheet = Image.new("RGB", (GAP + columns * (SIDE + GAP), GAP + sum(heights) + GAP * len(lines)), "white")
    pen = ImageDraw.Draw(sheet)
    y = GAP
    for line, height in zip(lines, heights, strict=True):
        for column, (caption, picture) in enumerate(line):
            x = GAP + column * (SIDE + GAP)
            pen.text((x, y), _shortened(caption, font), fill="black", font=font)
            sheet.paste(picture, (x, y + LINE))
        y += height + GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, format="PNG")


def _shortened(caption: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Cut the beginning of a caption that is wider than a picture."""
    cut = caption
    while font.getlength(cut) > SIDE and len(cut) > 2:
        cut = "…" + cut[2:]
    return cut


def _fit(picture: Image.Image) -> Image.Image:
    ratio = SIDE / max(picture.size)
    size = max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio))
    return picture.resize(size, Image.Resampling.LANCZOS)
