"""Write a page on a dataset, one HTML file with its pictures in it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from detector.data.page import plots
from detector.data.page.numbers import Numbers, class_rows, quantile_rows

LONG_SIDE = 440
"""of the example pictures, in pixels"""


def write_page(
    name: str,
    splits: Mapping[str, Numbers],
    size_bins: Sequence[float],
    notes: Sequence[str],
    examples: Sequence[tuple[str, Image.Image]],
) -> str:
    """Write the page.

    Args:
        name: of the dataset.
        splits: what was measured, by split.
        size_bins: sides in pixels that separate small, medium and large objects.
        notes: sentences above the tables.
        examples: captions and pictures.
    """
    drawn = [plots.distributions(splits, size_bins), plots.class_bars(splits), plots.centre_maps(splits)]
    environment = Environment(
        loader=PackageLoader(__name__.rpartition(".")[0]), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("stats.html.j2").render(
        name=name,
        splits=list(splits),
        size_bins=[f"{side:g}" for side in size_bins],
        notes=notes,
        quantiles=quantile_rows(splits),
        classes=class_rows(splits, size_bins),
        plots=[_uri(svg, "svg+xml") for svg in drawn],
        examples=[(caption, _uri(_jpeg(picture), "jpeg")) for caption, picture in examples],
    )


def _jpeg(picture: Image.Image) -> bytes:
    small = picture.copy()
    small.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=88)
    return file.getvalue()


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
