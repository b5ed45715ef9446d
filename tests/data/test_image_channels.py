"""Channels of images: grey, alpha, palettes, pages and bands, and files that hold no image."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from detector.data.image import ImageReader
from tests.data.image_cases import DEEP, EIGHT, SIZE, hwc, listed, write, write_png


def test_grey_becomes_rgb_and_equal_channels_become_grey(tmp_path: Path) -> None:
    Image.fromarray(EIGHT[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(EIGHT[..., [0, 0, 0]]).save(tmp_path / "equal.png")
    Image.fromarray(EIGHT[..., :3]).save(tmp_path / "colours.png")
    deep = write(tmp_path / "deep", DEEP[..., :1], "tiff")
    three = hwc(ImageReader(3).read(tmp_path / "grey.png"))
    assert np.array_equal(three, EIGHT[..., [0, 0, 0]])
    for name in ("grey.png", "equal.png"):
        assert np.array_equal(hwc(ImageReader(1).read(tmp_path / name)), EIGHT[..., :1])
    assert np.allclose(hwc(ImageReader(3, [0, 4095]).read(deep)), DEEP[..., [0, 0, 0]] / 4095 * 255)
    for check in (lambda r, p: r.read(p), lambda r, p: r.check(listed(p))):
        with pytest.raises(ValueError, match=r"colours\.png: the image has colours, and dataset.channels is 1; set"):
            check(ImageReader(1), tmp_path / "colours.png")


def test_alpha_is_dropped_or_kept_by_the_channels(tmp_path: Path) -> None:
    rgba = EIGHT[..., :4]
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    Image.fromarray(rgba[..., :3]).save(tmp_path / "rgb.png")
    Image.fromarray(EIGHT[..., :2], "LA").save(tmp_path / "la.png")
    tifffile.imwrite(tmp_path / "rgba.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    for name in ("rgba.png", "rgba.tif"):
        assert np.array_equal(hwc(ImageReader(3).read(tmp_path / name)), rgba[..., :3])
        assert np.array_equal(hwc(ImageReader(4).read(tmp_path / name)), rgba)
    opaque = hwc(ImageReader(4).read(tmp_path / "rgb.png"))
    assert np.array_equal(opaque, np.concatenate((rgba[..., :3], np.full((*SIZE, 1), 255, np.uint8)), 2))
    assert np.array_equal(hwc(ImageReader(2).read(tmp_path / "la.png")), EIGHT[..., :2])
    assert np.array_equal(hwc(ImageReader(1).read(tmp_path / "la.png")), EIGHT[..., :1])
    assert np.array_equal(hwc(ImageReader(4).read(tmp_path / "la.png")), EIGHT[..., [0, 0, 0, 1]])


def test_deep_alpha_has_the_range_of_its_type(tmp_path: Path) -> None:
    pixels = DEEP[..., :4].copy()
    pixels[..., 3] = 65535
    pixels[0, 0, 3] = 257
    write_png(tmp_path / "a.png", pixels)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
    for name in ("a.png", "a.tif"):
        image = hwc(ImageReader(4, [0, 4095]).read(tmp_path / name))
        assert np.allclose(image[..., :3], pixels[..., :3] / 4095 * 255)
        assert image[0, 0, 3] == pytest.approx(1)
        assert (image[1:, :, 3] == 255).all()
        assert ImageReader(3, [0, 4095]).read(tmp_path / name).shape == (3, *SIZE)
        with pytest.raises(ValueError, match=rf"from {pixels[..., :3].min()} to {pixels[..., :3].max()};"):
            ImageReader(4).check(listed(tmp_path / name))
    write_png(tmp_path / "la.png", DEEP[..., :2])
    image = hwc(ImageReader(2, [0, 4095]).read(tmp_path / "la.png"))
    assert np.allclose(image, DEEP[..., :2] / [4095, 65535] * 255, atol=1e-4)


def test_a_fourth_band_that_is_not_said_to_be_alpha_is_not_dropped(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", EIGHT[..., :4], photometric="rgb", extrasamples=["unspecified"])
    assert np.array_equal(hwc(ImageReader(4).read(tmp_path / "a.tif")), EIGHT[..., :4])
    with pytest.raises(ValueError, match=r"4 channels, and dataset.channels is 3; set dataset.channels=4"):
        ImageReader(3).read(tmp_path / "a.tif")


def test_palettes_and_cmyk_give_their_colours(tmp_path: Path) -> None:
    picture = Image.fromarray(EIGHT[..., :3])
    palette = picture.quantize(16)
    palette.save(tmp_path / "p.png")
    palette.save(tmp_path / "t.png", transparency=3)
    picture.convert("CMYK").save(tmp_path / "c.tif")
    colours = np.array(palette.convert("RGB"))
    for name in ("p.png", "t.png"):
        assert np.array_equal(hwc(ImageReader(3).read(tmp_path / name)), colours)
    clear = hwc(ImageReader(4).read(tmp_path / "t.png"))
    assert np.array_equal(clear[..., :3], colours)
    assert np.array_equal(clear[..., 3] == 0, np.array(palette) == 3)
    assert np.array_equal(hwc(ImageReader(3).read(tmp_path / "c.tif")), EIGHT[..., :3])


def test_pages_of_other_sizes_are_thumbnails_and_others_are_bands(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(EIGHT[..., :3], photometric="rgb")
        file.write(EIGHT[::2, ::2, :3], photometric="rgb")
    assert np.array_equal(hwc(ImageReader().read(tmp_path / "a.tif")), EIGHT[..., :3])
    tifffile.imwrite(tmp_path / "b.tif", np.stack((EIGHT[..., :3], EIGHT[..., 2:])), photometric="rgb")
    assert np.array_equal(hwc(ImageReader(6).read(tmp_path / "b.tif")), EIGHT[..., [0, 1, 2, 2, 3, 4]])
    with pytest.raises(ValueError, match=r"b\.tif: the image has 6 channels, and dataset.channels is 3"):
        ImageReader().read(tmp_path / "b.tif")
    with tifffile.TiffWriter(tmp_path / "c.tif") as file:
        file.write(EIGHT[..., :3], photometric="rgb")
        file.write(DEEP[..., 0], photometric="minisblack")
    with pytest.raises(ValueError, match=r"c\.tif: holds images of one size, but of different kinds"):
        ImageReader().read(tmp_path / "c.tif")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((20, 30, 4), r"\(20, 30, 4\) is neither \[height, width, 3\] nor \[3, height, width\]; set dataset.channels"),
        ((3, 30, 3), r"\(3, 30, 3\) can be \[height, width, channels\] or"),
        ((20,), r"not one of shape \(20,\)"),
        ((0, 3, 3), r"not one of shape \(0, 3, 3\)"),
    ],
)
def test_arrays_that_are_no_image_are_refused(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match=rf"a\.npy: .*{message}"):
        ImageReader().read(tmp_path / "a.npy")


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([["x"]]))
    np.save(tmp_path / "b.npy", np.array([[{}]]), allow_pickle=True)
    (tmp_path / "c.npy").write_bytes(b"nothing")
    whole = write(tmp_path / "d", DEEP[..., :3], "tiff").read_bytes()
    (tmp_path / "d.tif").write_bytes(whole[:-1000])
    write_png(tmp_path / "e.png", DEEP[..., :3])
    (tmp_path / "e.png").write_bytes((tmp_path / "e.png").read_bytes()[:200])
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=re.escape(str(path))):
            ImageReader(3, [0, 4095]).check(listed(path))
    with pytest.raises(FileNotFoundError, match=r"f\.png: no such image file"):
        ImageReader().read(tmp_path / "f.png")


@pytest.mark.skipif(importlib.util.find_spec("imagecodecs") is not None, reason="imagecodecs reads them")
def test_compressions_that_need_another_package_name_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a", DEEP, "tiff")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags[259].overwrite(5)  # LZW
    for read in (lambda r: r.read(path), lambda r: r.check(listed(path))):
        with pytest.raises(ValueError, match=r"a\.tif: .*LZW.*, to read 5 bands: pip install imagecodecs, or write"):
            read(ImageReader(5, [0, 4095]))
