"""Sizes of images: the EXIF orientation, the stated size, and the limit on pixels."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps

from detector.data.image import ImageReader
from detector.data.stored import turned
from tests.data.image_cases import DEEP, EIGHT, SIZE, chunk, hwc, listed, write


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_turned_as_pillow_does(orientation: int) -> None:
    picture = Image.fromarray(EIGHT[..., :3])
    picture.getexif()[274] = orientation
    assert np.array_equal(turned(EIGHT[..., :3], orientation), np.array(ImageOps.exif_transpose(picture)))


def write_turned(path: Path, upright: NDArray[Any], orientation: int) -> Path:
    """A file whose pixels stand upright when they are turned by its EXIF orientation."""
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    pixels = np.ascontiguousarray(turned(upright, inverse))
    if pixels.dtype != np.uint8:
        tifffile.imwrite(path, pixels, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    elif path.suffix == ".tif":
        Image.fromarray(pixels).save(path, tiffinfo={274: orientation})
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(pixels).save(path, exif=exif, **({"lossless": True} if path.suffix == ".webp" else {}))
    return path


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "deep.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_stated_size_decides_on_exif(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = DEEP[..., :3] if suffix.startswith("deep") else EIGHT[..., :3]
    path = write_turned(tmp_path / f"a.{suffix}", upright, orientation)
    stored = turned(upright, {6: 8, 8: 6}.get(orientation, orientation))

    def reader(exif: bool | None = None) -> ImageReader:
        return ImageReader(range=[0, 255] if suffix.startswith("deep") else None, exif=exif)

    for exif, size, wanted in (
        (None, None, upright),
        (None, SIZE, upright),
        (True, SIZE, upright),
        (False, stored.shape[:2], stored),
        (None, stored.shape[:2], stored if orientation >= 5 else upright),
    ):
        assert np.array_equal(hwc(reader(exif).read(path, size, Path("set.json"))), wanted), (exif, size)
        if size is not None:
            reader(exif).check(listed(path, size=size))
    assert reader().orientation(path) == orientation
    for exif in (None, True, False):
        with pytest.raises(ValueError, match=rf"{path}: the image is .* but set\.json says 31x20"):
            reader(exif).read(path, (20, 31), Path("set.json"))
    if orientation >= 5:
        words = rf"as it is stored, 30x20 when turned by its EXIF orientation {orientation}, but set\.json says"
        with pytest.raises(ValueError, match=rf"{words} 30x20; .* Leave out dataset.exif=false"):
            reader(False).read(path, SIZE, Path("set.json"))
        with pytest.raises(ValueError, match=rf"{words} 20x30; .* Leave out dataset.exif=true"):
            reader(True).check(listed(path, size=(30, 20)))


def test_orientations_that_no_size_tells_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = [write_turned(tmp_path / f"{o}.png", EIGHT[..., :3], o) for o in (1, 2, 3, 4)]
    sides = [write_turned(tmp_path / f"{o}.png", EIGHT[..., :3], o) for o in (5, 6, 7, 8)]
    square = write_turned(tmp_path / "square.png", EIGHT[:, :20, :3], 6)
    images = [*listed(*paths, *sides), *listed(square, size=(20, 20))]
    ImageReader().check(images)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"4 of 9 images, such as {paths[1]}, are upside down or mirrored" in caplog.text
    caplog.clear()
    for exif in (True, False):
        ImageReader(exif=exif).check([*listed(*paths), *listed(square, size=(20, 20))])
    assert not caplog.records


def test_images_beyond_the_limit_are_refused_with_the_key(tmp_path: Path) -> None:
    Image.fromarray(EIGHT[..., :3]).save(tmp_path / "a.png")
    write(tmp_path / "b", DEEP[..., :3], "tiff")
    write(tmp_path / "c", EIGHT[..., :3], "npy")
    for name in ("a.png", "b.tif", "c.npy"):
        reader = ImageReader(range=["0%", "100%"], max_pixels=599)
        message = rf"{name}: the image has 30x20 = 600 pixels, and max_pixels is 599, .* dataset.max_pixels=600"
        for check in (lambda r, p: r.read(p), lambda r, p: r.check(listed(p))):
            with pytest.raises(ValueError, match=message):
                check(reader, tmp_path / name)
        assert ImageReader(range=["0%", "100%"], max_pixels=600).read(tmp_path / name).shape == (3, *SIZE)
        assert ImageReader(range=["0%", "100%"], max_pixels=None).read(tmp_path / name).shape == (3, *SIZE)


def test_the_guard_is_on_by_default_and_pillows_is_left_alone(tmp_path: Path) -> None:
    """A PNG of 190 megapixels of one colour, of which only the header is read."""
    wide = chunk(b"IHDR", struct.pack(">IIBBBBB", 19000, 10000, 8, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + wide + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ValueError, match=r"19000x10000 = 190000000 pixels, and max_pixels is 178956970, a guard"):
        ImageReader().check(listed(tmp_path / "a.png"))
    with pytest.raises(ValueError, match=r"a\.png: the image is 19000x10000 pixels .*, but set\.json says 30x20"):
        ImageReader(max_pixels=190_000_000).check(listed(tmp_path / "a.png"))
    assert limit == Image.MAX_IMAGE_PIXELS
