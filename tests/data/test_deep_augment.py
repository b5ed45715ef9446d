"""Augmentation of images that are not RGB of 8 bits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detector.data.augment import Augment
from detector.data.coco import CocoDataset
from detector.data.collate import collate
from detector.data.colour import jitter
from detector.data.image import ImageReader
from detector.data.shapes import ShapesDataset
from detector.types import Sample, Target
from tests.data.image_cases import write_png

ALL = {"short_sizes": [50, 70], "scale": [0.8, 1.2], "horizontal_flip": 0.5, "vertical_flip": 0.5}
ALL |= {"quarter_turns": True, "crop": 0.6}


def sample(image: torch.Tensor) -> Sample:
    flags = torch.zeros(1, dtype=torch.bool)
    target = Target(torch.tensor([[10.0, 12.0, 40.0, 44.0]]), torch.zeros(1, dtype=torch.int64), flags, flags)
    return Sample(image, target, 1, (image.shape[1], image.shape[2]))


def noise(channels: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (channels, 60, 80), dtype=np.uint8))


@pytest.mark.parametrize("colour", [0.0, 0.4])
def test_16_bits_give_the_samples_of_8(tmp_path: Path, colour: float) -> None:
    shapes = {"image_size": 96, "size_bins": (16, 30), "train": 3, "val": 1}
    plain = ShapesDataset(tmp_path / "shapes", "train", **shapes)
    (tmp_path / "deep").mkdir()
    for path in plain.images.iterdir():
        with Image.open(path) as image:
            write_png(tmp_path / "deep" / path.name, np.array(image).astype(np.uint16) * 16)
    deep = CocoDataset(tmp_path / "deep", plain.annotations.source, reader=ImageReader(range=[0, 4080]))
    augment = Augment(**ALL, colour=colour)
    for index in range(len(plain)):
        for seed in range(8):
            one, other = (augment(dataset[index], seed) for dataset in (plain, deep))
            assert other.image.dtype == torch.float32
            assert torch.equal(one.target.boxes, other.target.boxes)
            assert one.target.masks is not None
            assert other.target.masks is not None
            assert torch.equal(one.target.masks.pixels, other.target.masks.pixels)
            away = (one.image.float() - other.image).abs()
            # Of 8 bits, resizing rounds its weights, too; hue moves in steps of two degrees, each jitter rounds.
            assert away.max() <= (1 if colour == 0 else 20)
            assert away.mean() < (0.3 if colour == 0 else 2)


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 9])
def test_all_channels_move_alike(channels: int) -> None:
    augment = Augment(**ALL)
    for deep in (False, True):
        image = noise(channels).float() * 3 if deep else noise(channels)
        for seed in range(6):
            moved = augment(sample(image), seed)
            assert moved.image.dtype == image.dtype
            assert len(moved.image) == channels
            for d in range(channels):
                alone = augment(sample(image[[d, d, d]]), seed)
                assert torch.equal(alone.target.boxes, moved.target.boxes)
                assert (moved.image[d].float() - alone.image[0].float()).abs().max() <= (0.01 if deep else 1)


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_colour_jitter_of_other_channels_is_brightness_and_contrast(channels: int, dtype: torch.dtype) -> None:
    image = noise(channels).to(dtype)
    augment = Augment(colour=0.4)
    factors = set()
    for seed in range(6):
        moved = augment(sample(image), seed).image.double()
        inside = (moved > 0.5) & (moved < 254.5)
        slope, shift = np.polyfit(image.double()[inside], moved[inside], 1)
        assert (moved - (slope * image.double() + shift))[inside].abs().max() < (1.01 if dtype == torch.uint8 else 1e-3)
        assert 0.36 - 1e-3 <= slope <= 1.96 + 1e-3
        factors.add(round(slope, 3))
    assert len(factors) == 6
    values = np.array([[[0.0], [100.0], [300.0]]], np.float32)
    assert jitter(values, 2.0, 0.5, [3, 1, 2, 0]).ravel() == pytest.approx([133.33, 233.33, 433.33], abs=0.01)


def test_colours_beyond_the_range_stay_beyond() -> None:
    image = noise(3).float()
    image[:, :5], image[:, -5:] = 400, -90
    for seed in range(6):
        moved = Augment(colour=0.3)(sample(image), seed).image
        assert moved[:, :5].min() > 145 + 255 * 0.5
        assert moved[:, -5:].max() < 0
        clipped = Augment(colour=0.3)(sample(image.clamp(0, 255)), seed).image
        assert torch.allclose(moved, clipped + (image - image.clamp(0, 255)), atol=1e-3)


def test_batches_have_the_channels_and_type_of_their_images() -> None:
    batch = collate([sample(noise(5)), sample(noise(5)[:, :40])])
    assert batch.images.shape == (2, 5, 64, 96)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    mixed = collate([sample(noise(3)), sample(noise(3).float() * 2)])
    assert mixed.images.dtype == torch.float32
    assert torch.equal(mixed.images[:, :, :60, :80], torch.stack((noise(3).float(), noise(3).float() * 2)))
    with pytest.raises(ValueError, match="image 1 has 4 channels, and image 1 of its batch 3"):
        collate([sample(noise(3)), sample(noise(4))])
