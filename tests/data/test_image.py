import importlib.util
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from detector.data import image as module
from detector.data import value_range
from detector.data.image import ImageReader
from detector.data.stored import turned

SIZE = (20, 30)
DEEP = np.random.default_rng(0).integers(0, 4096, (*SIZE, 5), dtype=np.uint16)
EIGHT = (DEEP // 16).astype(np.uint8)


def hwc(image: torch.Tensor) -> NDArray[Any]:
    return image.permute(1, 2, 0).numpy()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path: Path, pixels: NDArray[np.uint16], extra: bytes = b"") -> None:
    """A PNG of 16 bits: grey, grey and alpha, RGB or RGBA, by its channels."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def write(path: Path, pixels: NDArray[Any], kind: str) -> Path:
    """Write [H, W, D] in a format by its word."""
    grey = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    if kind == "png":
        write_png(path := path.with_suffix(".png"), pixels)
    elif kind == "npy":
        np.save(path := path.with_suffix(".npy"), grey)
    elif kind == "npy, channels first":
        np.save(path := path.with_suffix(".npy"), pixels.transpose(2, 0, 1))
    elif kind == "pnm":
        head = b"P%d %d %d 4095\n" % (6 if pixels.shape[2] == 3 else 5, pixels.shape[1], pixels.shape[0])
        (path := path.with_suffix(".pnm")).write_bytes(head + pixels.astype(">u2").tobytes())
    elif kind == "lzw":
        order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(pixels.shape[2], slice(None))
        cv2.imwrite(str(path := path.with_suffix(".tif")), grey if grey.ndim == 2 else pixels[..., order])
    elif kind == "pages":
        tifffile.imwrite(path := path.with_suffix(".tif"), pixels.transpose(2, 0, 1), photometric="minisblack")
    else:
        planar = {"planes": "separate", "tiff": "contig", "deflate": "contig"}[kind]
        tifffile.imwrite(
            path := path.with_suffix(".tif"),
            pixels.transpose(2, 0, 1) if kind == "planes" else grey,
            photometric="rgb" if pixels.shape[2] == 3 else "minisblack",
            planarconfig=planar if pixels.shape[2] > 1 else None,
            compression="zlib" if kind == "deflate" else None,
        )
    return path


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


def listed(*paths: Path, size: tuple[int, int] = SIZE) -> list[module.ListedImage]:
    return [(path, size, Path("set.json")) for path in paths]


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


@pytest.mark.skipif(importlib.util.find_spec("imagecodecs") is not None, reason="imagecodecs reads them")
def test_compressions_that_need_another_package_name_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a", DEEP, "tiff")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags[259].overwrite(5)  # LZW
    for read in (lambda r: r.read(path), lambda r: r.check(listed(path))):
        with pytest.raises(ValueError, match=r"a\.tif: .*LZW.*, to read 5 bands: pip install imagecodecs, or write"):
            read(ImageReader(5, [0, 4095]))
