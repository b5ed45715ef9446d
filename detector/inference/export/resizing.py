"""Resize images as `detector.data.transforms.Resize` does, in tensor operations that a graph can hold.

OpenCV enlarges 8-bit images in fixed-point arithmetic, with coefficients of 11 bits, and shrinks them by weighted
averages of the pixels that a new one covers. Positions are computed in whole numbers below 2^31, since not every
runtime has 64 bits: enlarged positions are fractions a / d, rounded to float32 as OpenCV rounds them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LARGEST = 1 << 15
"""The longest side of an image, in pixels, for which whole numbers stay below 2^31 and memory is a matter of course."""


def new_size(height: Tensor, width: Tensor, short: int, longest: int | None) -> tuple[Tensor, Tensor]:
    """Compute `detector.data.transforms.resized` of whole numbers, int64 tensors without dimensions."""
    least, most = torch.minimum(height, width), torch.maximum(height, width)
    numerator, denominator = torch.full_like(height, short), least
    if longest is not None:
        beyond = most * short > least * longest
        numerator = torch.where(beyond, longest, numerator)
        denominator = torch.where(beyond, most, denominator)
    new_height, new_width = (_scaled(side, numerator, denominator) for side in (height, width))
    return new_height, new_width


def _scaled(side: Tensor, numerator: Tensor, denominator: Tensor) -> Tensor:
    """Compute max(int(side * (numerator / denominator) + 0.5), 1) as Python does, in float64."""
    double = 2 * side * numerator + denominator
    whole = double // (2 * denominator)
    # Only where the product ends in exactly one half can the rounding of Python's numbers matter.
    half = whole * 2 * denominator == double
    rounded = (side.double() * (numerator.double() / denominator.double()) + 0.5).floor().long()
    return torch.where(half & (rounded < whole), whole - 1, whole).clamp(min=1)


def linear_taps(length: Tensor, new: Tensor, pixels: Tensor, of_rows: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Place the pixels of an enlarged axis between two pixels each, as OpenCV's INTER_LINEAR.

    Args:
        length, new: the axis' pixels before and after, int64 without dimensions.
        pixels: the new pixels to place, int64 [n]; those from `new` on repeat the last one.
        of_rows: whether they are rows. Beyond the edge OpenCV interpolates between a row and itself, which rounds
            otherwise than the row alone, as it takes it of columns.

    Returns:
        the two pixels of each, int64 [n], and their coefficients, float32 whole numbers in 0..2048.
    """
    divisor = 2 * new
    # Position (i + 0.5) * length / new - 0.5 as `whole` + `rest` / `divisor`.
    position = (2 * pixels + 1) * length - new
    before = position < 0  # by less than half a pixel
    position = position.abs() if of_rows else position.clamp(min=0)
    whole = position // divisor
    rest = position - whole * divisor
    # The position's float32: so many steps of a pixel's 2^-(23 - e), e the exponent, rounded half to even.
    octaves = [1 << k for k in range(1, 16)]
    exponent = (whole[:, None] >= torch.tensor(octaves)).sum(1)
    power = torch.tensor([32768, *(32768 >> k for k in range(1, 16))])[exponent]
    first = rest * 256 // divisor
    scaled = (rest * 256 - first * divisor) * power
    second = scaled // divisor
    steps = _half_to_even(first * power + second, scaled - second * divisor, divisor)
    carry = steps == 256 * power
    coefficient = _half_to_even(steps * 8 // power, steps * 8 - steps * 8 // power * power, power)
    # Below 1, float32 has more digits than steps of 2^-23.
    fraction = rest.float() / divisor.float()
    fraction = torch.where(before & (rest > 0), 1 - fraction, fraction)
    below = whole == 0
    high = torch.where(below, (fraction * 2048).round(), torch.where(carry, 0, coefficient).float())
    low = torch.where(below, ((1 - fraction) * 2048).round(), 2048 - high)
    whole = torch.where(carry & ~below, whole + 1, whole)
    begin, end = whole.minimum(length - 1), (whole + 1).minimum(length - 1)
    if of_rows:
        return begin, torch.where(before, 0, end), low, high
    last = whole >= length - 1
    return begin, end, torch.where(last, 2048.0, low), torch.where(last, 0.0, high)


def _half_to_even(quotient: Tensor, rest: Tensor, divisor: Tensor) -> Tensor:
    """Round `quotient` + `rest` / `divisor`, whole numbers with 0 <= rest < divisor, to the nearest; halves to even."""
    up = (2 * rest > divisor) | ((2 * rest == divisor) & (quotient % 2 == 1))
    return quotient + up


def enlarge(image: Tensor, rows: Sequence[Tensor], columns: Sequence[Tensor]) -> Tensor:
    """Interpolate an image uint8 [D, H, W] as OpenCV's INTER_LINEAR: float32 whole numbers [D, h, w].

    Args:
        rows, columns: as of `linear_taps`.
    """
    left, right, of_left, of_right = columns
    # Along the rows of the given image first, which are fewer than those of the new one. Columns are taken by an index,
    # which is written as a transposed gather: of single pixels, as index_select is written, it is slow.
    sums = image[:, :, left].float() * of_left + image[:, :, right].float() * of_right
    shifted = (sums * 2**-4).floor()  # of up to 255 * 2048
    total: Tensor | float = 2.0
    for row, weight in ((rows[0], rows[2]), (rows[1], rows[3])):
        line = shifted.index_select(1, row)
        # floor(line * weight / 2^16): the product has up to 26 bits, and float32 24; the weight is cut in two.
        high = (weight * 2**-6).floor()
        low = weight * 2**-6 - high
        part = line * high[:, None] + (line * low[:, None]).floor()
        total = total + (part * 2**-10).floor()
    assert isinstance(total, Tensor)
    return (total * 2**-2).floor()


def area_taps(length: Tensor, new: Tensor, pixels: Tensor, taps: Tensor, multiple: Tensor) -> tuple[Tensor, Tensor]:
    """Weight the pixels that each pixel of a shrunk axis covers, as OpenCV's INTER_AREA.

    Args:
        length, new, pixels: as of `linear_taps`.
        taps: int64 [t], from 0 on; t is the most pixels that one covers.
        multiple: bool without dimensions, whether both axes are shrunk by whole numbers.

    Returns:
        the pixels, int64 [t, n], and their weights, float32 [t, n]: shares of the new pixel, or, of a multiple, of
        their own, which are 1.
    """
    begin = pixels * length  # in units of 1 / new of a pixel
    pixel = begin // new + taps[:, None]
    covered = ((begin + length).minimum((pixel + 1) * new) - begin.maximum(pixel * new)).clamp(min=0)
    covered = torch.where(covered * 1000 > new, covered, 0)
    return pixel.minimum(length - 1), covered.float() / torch.where(multiple, new, length).float()


def shrink(image: Tensor, rows: Sequence[Tensor], columns: Sequence[Tensor], factor: Tensor, halves: Tensor) -> Tensor:
    """Average an image uint8 [D, H, W] as OpenCV's INTER_AREA: float32 whole numbers [D, h, w].

    Products are summed along the row first, and one after another, so that they are rounded as OpenCV's.

    Args:
        rows, columns: as of `area_taps`.
        factor: float32 without dimensions, of the sums.
        halves: bool without dimensions, whether both sides are halved: OpenCV then rounds halves up, else to even.
    """
    (row, of_row), (column, of_column) = rows, columns
    cells = image.index_select(1, row.flatten())[:, :, column.flatten()]
    cells = cells.reshape(-1, *row.shape, *column.shape).float()  # [D, taps, h, taps, w]
    lines = (cells * of_column).sum(3)
    average = (lines * of_row[..., None]).sum(1) * factor
    return torch.where(halves, (average + 0.5).floor(), average.round())


def area_axes(
    down: tuple[Tensor, Tensor, Tensor], across: tuple[Tensor, Tensor, Tensor]
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor, Tensor]:
    """Compute what `shrink` takes, from an axis' length, new length and new pixels each."""
    (height, new_height, _), (width, new_width, _) = down, across
    multiple = (height % new_height == 0) & (width % new_width == 0)
    halves = (height == 2 * new_height) & (width == 2 * new_width)
    cells = (height // new_height) * (width // new_width)
    factor = torch.where(multiple, 1.0 / cells.clamp(min=1).float(), 1.0)
    rows, columns = (area_taps(*axis, torch.arange(_most(*axis[:2])), multiple) for axis in (down, across))
    return rows, columns, factor, halves


class Resizing(nn.Module):
    """Resize one image to a shorter side, and fill it up to a multiple of the network's stride.

    Args:
        short: the shorter side, in pixels; None: images keep their size.
        longest: the longer side's limit; None: there is none.
        divisibility: the sides of the result are multiples of it.
    """

    def __init__(self, short: int | None, longest: int | None, divisibility: int) -> None:
        super().__init__()
        self.short, self.longest, self.divisibility = short, longest, divisibility

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Resize an image uint8 [D, H, W].

        Returns:
            float32 whole numbers [1, D, H', W'], in which rows and columns beyond the resized image are of no meaning;
            and the resized height and width, int64 without dimensions.
        """
        height, width = (torch.full((), side, dtype=torch.int64) for side in image.shape[1:])
        new_height, new_width = height, width
        if self.short is not None:
            new_height, new_width = new_size(height, width, self.short, self.longest)
        rows, columns = (torch.arange(self._padded(side)) for side in (new_height, new_width))
        if self.short is None:
            resized = image.index_select(1, rows.minimum(height - 1))[:, :, columns.minimum(width - 1)].float()
        else:
            down, across = (height, new_height, rows), (width, new_width, columns)
            linear = (*linear_taps(*down, True), *linear_taps(*across, False))
            of_rows, of_columns, factor, halves = area_axes(down, across)
            # The branches hold no constants, which torch.export cannot decompose within them (torch 2.15).
            resized = torch.cond(
                new_height < height, _shrunk, _enlarged, (image, *linear, *of_rows, *of_columns, factor, halves)
            )
        return resized[None], new_height, new_width

    def _padded(self, side: Tensor) -> int:
        cells = ((side + self.divisibility - 1) // self.divisibility).item()
        assert not isinstance(cells, bool | float)
        torch._check(cells >= 1)
        torch._check(cells <= LARGEST // self.divisibility)
        return cells * self.divisibility


def _most(length: Tensor, new: Tensor) -> int:
    """Compute the most pixels of an axis that one of the new pixels covers."""
    most = ((length + new - 1) // new + 1).item()
    assert not isinstance(most, bool | float)
    torch._check(most >= 2)
    torch._check(most <= LARGEST + 1)
    return most


def _enlarged(image: Tensor, *taps: Tensor) -> Tensor:
    return enlarge(image, taps[:4], taps[4:8])


def _shrunk(image: Tensor, *taps: Tensor) -> Tensor:
    return shrink(image, taps[8:10], taps[10:12], taps[12], taps[13])
