"""Values of images: types of 8 bits and deeper, ranges, and percentiles."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detector.data import image as module
from detector.data import value_range
from detector.data.image import ImageReader
from tests.data.image_cases import DEEP, EIGHT, SIZE, hwc, listed, write, write_png

FORMATS = [
    *((kind, np.uint16, channels) for kind in ("tiff", "deflate", "npy") for channels in (1, 3, 5)),
    *(("png", np.uint16, channels) for channels in (1, 3)),
    *(("pnm", np.uint16, channels) for channels in (1, 3)),
    *(("lzw", np.uint16, channels) for channels in (1, 3)),
    *((kind, np.uint16, channels) for kind in ("planes", "pages", "npy, channels first") for channels in (2, 5)),
    *(("tiff", dtype, 1) for dtype in (np.int16, np.int32, np.uint32, np.float32, np.float64)),
    *(("npy", dtype, 3) for dtype in (np.int16, np.uint32, np.float16, np.float32, np.float64, np.int64)),
]


@pytest.mark.parametrize(("kind", "dtype", "channels"), FORMATS)
def test_deep_images_of_any_format_have_their_range_at_0_to_255(
    tmp_path: Path, kind: str, dtype: Any, channels: int
) -> None:
    path = write(tmp_path / "a", DEEP[..., :channels].astype(dtype), kind)
    image = ImageReader(channels, [0, 4095]).read(path)
    assert image.dtype == torch.float32
    exact = 1e-4 if dtype != np.float16 else 0.1
    assert np.abs(hwc(image) - DEEP[..., :channels] / 4095 * 255).max() < exact
    with pytest.raises(ValueError, match=rf"{path}: 1 of 1 images are not of 8 bits, but {np.dtype(dtype).name}, "):
        ImageReader(channels).read(path)


@pytest.mark.parametrize("kind", ["tiff", "planes", "pages", "npy", "npy, channels first"])
def test_any_number_of_8_bit_bands_stays_as_it_is(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a", EIGHT, kind)
    image = ImageReader(5).read(path)
    assert image.dtype == torch.uint8
    assert np.array_equal(hwc(image), EIGHT)
    with pytest.raises(
        ValueError, match=r"5 channels, and dataset.channels is 3; set dataset.channels=5|\(20, 30, 5\)|\(5, "
    ):
        ImageReader().read(path)


def test_a_range_of_its_own_for_each_channel(tmp_path: Path) -> None:
    path = write(tmp_path / "a", DEEP[..., :2], "tiff")
    image = hwc(ImageReader(2, [[0, 4095], [1000, 3000]]).read(path))
    wanted = np.stack((DEEP[..., 0] / 4095, (DEEP[..., 1] - 1000.0) / 2000), 2) * 255
    assert np.abs(image - wanted).max() < 1e-3


def test_percentiles_are_of_each_image_and_clip_nothing(tmp_path: Path) -> None:
    for scale in (1, 10):
        path = write(tmp_path / "a", DEEP[..., :3] * scale, "tiff")
        image = hwc(ImageReader(3, ["1%", "99%"]).read(path))
        low, high = np.percentile(DEEP[..., :3] * scale, (1, 99))
        assert np.abs(image - (DEEP[..., :3] * scale - low) / (high - low) * 255).max() < 1e-2
        assert image.min() < 0
        assert image.max() > 255
    flat = write(tmp_path / "b", np.full((4, 4, 3), 700, np.uint16), "tiff")
    assert not ImageReader(3, ["1%", "99%"]).read(flat).any()
    Image.fromarray(EIGHT[..., :3]).save(tmp_path / "c.png")
    assert ImageReader(3, ["0%", "100%"]).read(tmp_path / "c.png").dtype == torch.float32


def test_8_bits_and_16_bits_of_the_same_picture_are_equal(tmp_path: Path) -> None:
    Image.fromarray(EIGHT[..., :3]).save(tmp_path / "a.png")
    write_png(tmp_path / "b.png", EIGHT[..., :3].astype(np.uint16) * 257)
    one, other = ImageReader().read(tmp_path / "a.png"), ImageReader(range=[0, 65535]).read(tmp_path / "b.png")
    assert torch.equal(one.float(), other)
    assert torch.equal(ImageReader(range=[0, 255]).read(tmp_path / "a.png"), one)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], "range must be two rising numbers"),
        ([5, 5], "not \\[5, 5\\]"),
        (["1%", 99], "rising percentiles"),
        (["99%", "1%"], "rising"),
        (["1%", "101%"], "rising"),
        ([[0, 1], [0, 1]], "a list of 3 such pairs"),
        ("auto", "'auto'"),
        ([0, float("inf")], "inf"),
    ],
)
def test_bad_ranges_are_named(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageReader(3, value)


@pytest.mark.parametrize("given", [{"channels": 0}, {"channels": 129}, {"max_pixels": 0}, {"exif": "yes"}])
def test_bad_arguments_are_named(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(given))} must be"):
        ImageReader(**given)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "proposed"),
    [
        (np.uint16, 0, 4095, "[0,4095]"),
        (np.uint16, 3, 4096, "[0,8191]"),
        (np.uint16, 0, 65535, "[0,65535]"),
        (np.uint16, 0, 12, "[0,255]"),
        (np.int16, -1024, 3071, "[-1024,3071]"),
        (np.float32, 0.1, 0.9, "[0,1]"),
        (np.float32, 0, 255, "[0,255]"),
        (np.float32, 0, 300.5, "[0,300.5]"),
    ],
)
def test_the_proposed_range_covers_the_values(dtype: Any, low: float, high: float, proposed: str) -> None:
    assert value_range.propose_range(np.dtype(dtype), low, high) == proposed


def test_a_set_of_deep_images_is_refused_with_what_was_found_in_all_of_it(tmp_path: Path) -> None:
    one = write(tmp_path / "a", DEEP[..., :3] // 2, "tiff")
    other = write(tmp_path / "b", DEEP[..., :3], "tiff")
    Image.fromarray(EIGHT[..., :3]).save(tmp_path / "c.png")
    low, high = int((DEEP[..., :3] // 2).min()), int(DEEP[..., :3].max())
    message = rf"a\.tif: 2 of 3 images are not of 8 bits, but uint16, with values from {low} to {high}; .*\[0,4095\]"
    with pytest.raises(ValueError, match=message):
        ImageReader().check(listed(tmp_path / "c.png", one, other))
    with pytest.raises(ValueError, match=r"c\.png: the image has 8 bits, 0 to 255, and dataset.range=\[0, 4095\] is"):
        ImageReader(range=[0, 4095]).check(listed(tmp_path / "c.png", one, other))
    ImageReader(range=["1%", "99%"]).check(listed(tmp_path / "c.png", one, other))


def test_values_outside_of_a_fixed_range_are_kept_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = [write(tmp_path / name, DEEP[..., :3] // part, "tiff") for name, part in (("a", 8), ("b", 1))]
    ImageReader(range=[0, 1023]).check(listed(*paths))
    high = DEEP[..., :3].max()
    assert f"1 of 2 images have values outside of dataset.range=[0, 1023], such as {paths[1]}" in caplog.text
    assert f"to {high}, and are not clipped" in caplog.text
    assert float(ImageReader(range=[0, 1023]).read(paths[1]).max()) == pytest.approx(high / 1023 * 255)
    caplog.clear()
    ImageReader(range=[0, 4095]).check(listed(*paths))
    assert not caplog.records


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    for value in (np.nan, np.inf):
        pixels = np.zeros((*SIZE, 3), np.float32)
        pixels[3, 4, 1] = value
        path = write(tmp_path / "a", pixels, "tiff")
        for reader in (ImageReader(range=[0, 1]), ImageReader()):
            with pytest.raises(ValueError, match=r"a\.tif: some of its values are not finite"):
                reader.check(listed(path))
        with pytest.raises(ValueError, match=r"a\.tif: some of its values are not finite"):
            ImageReader(range=[0, 1]).read(path)


def test_large_sets_are_known_by_their_headers_and_some_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WHOLE", 2)
    paths = [write(tmp_path / f"a{n}", DEEP[..., :3] // (n + 1), "tiff") for n in range(5)]
    high = [int((DEEP[..., :3] // (n + 1)).max()) for n in range(5)]
    plain = tmp_path / "plain.png"
    Image.fromarray(EIGHT[..., :3]).save(plain)
    with pytest.raises(ValueError, match=rf"a0.tif: 5 of 5 images .* to {high[0]};"):
        ImageReader().check(listed(*paths))
    with pytest.raises(ValueError, match=rf"a1.tif: 2 of 4 images .* to {high[1]};"):
        ImageReader().check(listed(plain, paths[1], plain, paths[2]))  # of which the first and third are read
    truncated = paths[1].read_bytes()[:-100]
    paths[1].write_bytes(truncated)
    ImageReader(range=[0, 4095]).check(listed(*paths))  # its pixels are not among the first, fourth, ...
    with pytest.raises(ValueError, match=r"a1\.tif: unreadable image"):
        ImageReader(range=[0, 4095]).read(paths[1])
