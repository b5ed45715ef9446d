"""The resizing within an exported graph is OpenCV's, pixel by pixel."""

import numpy as np
import pytest
import torch
from torch import Tensor

from detector.data.colour import resize
from detector.data.transforms import resized
from detector.inference.export.resizing import Resizing, area_axes, enlarge, linear_taps, new_size, shrink


def image(height: int, width: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randint(0, 256, (channels, height, width), generator=generator, dtype=torch.uint8)


def by_opencv(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(resize(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()), size)).permute(2, 0, 1)


def test_sizes_are_those_of_python() -> None:
    for short, longest in ((800, 1333), (320, 480), (240, None), (7, 9)):
        for height in range(3, 900, 17):
            for width in range(5, 900, 13):
                found = new_size(torch.tensor(height), torch.tensor(width), short, longest)
                assert [int(side) for side in found] == [max(s, 1) for s in resized((height, width), short, longest)]


def by_graph(pixels: Tensor, new: tuple[int, int]) -> Tensor:
    axes = [
        (torch.tensor(length), torch.tensor(side), torch.arange(side))
        for length, side in zip(pixels.shape[1:], new, strict=True)
    ]
    if new[0] >= pixels.shape[1]:
        return enlarge(pixels, linear_taps(*axes[0], True), linear_taps(*axes[1], False))
    return shrink(pixels, *area_axes(*axes))


SIZES = [(97, 301), (64, 64), (100, 75), (333, 500), (30, 41), (480, 640)]


@pytest.mark.parametrize("size", SIZES)
def test_enlarged_images_are_opencvs_to_the_last_bit(size: tuple[int, int]) -> None:
    pixels = image(*size)
    for short in (min(size), min(size) + 1, 128, 333, 480, 800, 2 * min(size)):
        new = resized(size, short, 1333)
        if new[0] >= size[0]:
            assert torch.equal(by_graph(pixels, new), by_opencv(pixels, new).float()), new


@pytest.mark.parametrize("size", SIZES)
def test_shrunk_images_are_opencvs_to_the_last_bit(size: tuple[int, int]) -> None:
    pixels = image(*size)
    for short in (min(size) - 1, min(size) // 2, min(size) // 3, 29):
        new = resized(size, short, None)
        if new[0] < size[0]:
            assert torch.equal(by_graph(pixels, new), by_opencv(pixels, new).float()), new


@pytest.mark.parametrize("factors", [(2, 2), (2, 3), (3, 3), (4, 4), (6, 6), (10, 6)])
def test_images_shrunk_by_whole_numbers_are_opencvs_to_the_last_bit(factors: tuple[int, int]) -> None:
    pixels, new = image(48 * factors[0], 64 * factors[1]), (48, 64)
    assert torch.equal(by_graph(pixels, new), by_opencv(pixels, new).float())


def test_other_channels_than_three() -> None:
    for channels in (1, 2, 4, 6):
        pixels = image(50, 70, channels)
        assert torch.equal(by_graph(pixels, (80, 112)), by_opencv(pixels, (80, 112)).float())


def test_the_rest_of_the_network_s_image_is_a_multiple_of_the_stride() -> None:
    found, height, width = Resizing(None, None, 32)(image(50, 70))
    assert found.shape == (1, 3, 64, 96)
    assert (int(height), int(width)) == (50, 70)
    assert torch.equal(found[0, :, :50, :70], image(50, 70).float())
