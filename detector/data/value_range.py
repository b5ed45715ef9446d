"""Scale the values of deep images to the unit of 8 bits, by fixed limits or by each image's percentiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

EXACT = 1e-4
"""What scaling to 0..255 in float32 rounds by at most."""


class Bounds(NamedTuple):
    """The values that become 0 and 255: numbers, or percentiles of an image."""

    low: float
    high: float
    percent: bool = False


def parse_range(value: Sequence[Any], channels: int) -> list[Bounds]:
    """Parse the key `range`: [0, 4095], ["1%", "99%"], or a list of one such pair for each channel.

    Raises:
        ValueError: it is neither.
    """
    pairs = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    nested = bool(pairs) and all(isinstance(p, Sequence) and not isinstance(p, str) for p in pairs)
    bounds = [_bounds(p) for p in (pairs if nested else [pairs])]
    if any(b is None for b in bounds) or (nested and len(bounds) != channels):
        raise ValueError(
            "range must be two rising numbers, such as [0,4095], or two rising percentiles, such as [1%,99%], or a "
            f"list of {channels} such pairs, one for each channel, not {value!r}"
        )
    return [b for b in bounds if b is not None]


def _bounds(pair: Sequence[Any]) -> Bounds | None:
    """Parse one pair; None if it is none."""
    percent = all(isinstance(v, str) and v.strip().endswith("%") for v in pair)
    try:
        low, high = (float(v.strip()[:-1]) if percent else float(v) for v in pair)
    except (TypeError, ValueError):
        return None
    ends = (0.0, 100.0) if percent else (-math.inf, math.inf)
    rising = ends[0] <= low < high <= ends[1] and math.isfinite(low) and math.isfinite(high)
    return Bounds(low, high, percent) if rising else None


def propose_range(dtype: np.dtype[Any], low: float, high: float) -> str:
    """Propose a fixed range for values from `low` to `high`: the smallest 0..2^k - 1 that covers whole numbers."""
    if low < 0:
        return f"[{low:g},{high:g}]"
    if dtype.kind == "f":
        return "[0,1]" if high <= 1 else "[0,255]" if high <= 255 else f"[0,{high:g}]"
    return f"[0,{2 ** max(8, int(high).bit_length()) - 1}]"


def measure(pixels: NDArray[Any], bounds: Sequence[Bounds], alpha: bool) -> tuple[Bounds, ...]:
    """Measure an image's percentiles: returns `bounds` as values, which differ also in an image of one value.

    Args:
        pixels, bounds, alpha: as of `scale`; no value is NaN.
    """
    return tuple(
        _values(pixels[..., where], limits) if limits.percent else limits
        for where, limits in _parts(pixels, bounds, alpha)[: len(bounds)]
    )


def scale(pixels: NDArray[Any], bounds: Sequence[Bounds], alpha: bool) -> NDArray[np.float32]:
    """Scale values so that `bounds` become 0 and 255; what lies outside is not clipped.

    Args:
        pixels: [H, W, D].
        bounds: one for all channels together, so that colours keep their balance; or one for each. Values: `measure`
            finds those of percentiles.
        alpha: whether the last channel is alpha, which is scaled by the whole range of its type if `bounds` is one.
    """
    wide = pixels.dtype.itemsize > 4 or (pixels.dtype.kind != "f" and pixels.dtype.itemsize == 4)
    values: NDArray[np.floating[Any]] = pixels.astype(
        np.float64 if wide else np.float32
    )  # float32 holds whole numbers up to 2^24
    for where, limits in _parts(pixels, bounds, alpha):
        part = values[..., where]
        np.subtract(part, limits.low, out=part)
        np.divide(part, (limits.high - limits.low) / 255, out=part)  # exact for [0,65535]
    return values.astype(np.float32, copy=False)


class Beyond(NamedTuple):
    """Values of an image that lie outside of its range."""

    number: int
    low: float
    """the smallest value of the image, in the unit of its file"""
    high: float


def beyond(image: Tensor, bounds: Sequence[Bounds]) -> Beyond | None:
    """Find the values of a scaled image that lie outside of fixed limits; None if none does.

    Args:
        image: as of `scale`, [D, H, W].
        bounds: one for all channels together, or one for each; percentiles always leave some outside, and are passed.
    """
    count, low, high = 0, math.inf, -math.inf
    for channel, values in enumerate(image if image.is_floating_point() else ()):
        limits = bounds[channel if len(bounds) > 1 else 0]
        if limits.percent:
            continue
        count += int(((values < -EXACT) | (values > 255 + EXACT)).sum())
        unit = (limits.high - limits.low) / 255
        low = min(low, limits.low + float(values.min()) * unit)
        high = max(high, limits.low + float(values.max()) * unit)
    return Beyond(count, low, high) if count else None


def _parts(pixels: NDArray[Any], bounds: Sequence[Bounds], alpha: bool) -> list[tuple[slice, Bounds]]:
    """Divide channels [H, W, D] by the bounds that they are scaled by; alpha comes last."""
    depth = pixels.shape[2]
    if len(bounds) > 1:
        return [(slice(d, d + 1), bounds[d]) for d in range(depth)]
    parts = [(slice(0, depth - alpha), bounds[0])]
    if alpha:
        full = 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)
        parts.append((slice(depth - 1, depth), Bounds(0, full)))
    return parts


def _values(pixels: NDArray[Any], percentiles: Bounds) -> Bounds:
    if pixels.dtype == np.float16:
        pixels = pixels.astype(np.float32)  # NumPy interpolates in the type of the values
    low, high = (float(v) for v in np.percentile(pixels, (percentiles.low, percentiles.high)))
    if low == high:
        low, high = float(pixels.min()), float(pixels.max())
    return Bounds(low, high) if low < high else Bounds(low, low + 1)
