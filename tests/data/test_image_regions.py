"""Regions of images are read as the image is, and where the format allows, without the rest."""

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from detector.data import tiff
from detector.data.image import ImageReader
from detector.data.stored import Refused, decode_by_opencv

REGIONS = [(0, 0, 70, 50), (3, 5, 4, 6), (15, 16, 49, 33), (60, 40, 70, 50)]


def noise(*shape: int, dtype: Any = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 250, shape).astype(dtype)


TIFFS: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
    "rgb": (noise(50, 70, 3), {"photometric": "rgb"}),
    "grey": (noise(50, 70), {}),
    "tiled": (noise(50, 70, 3), {"photometric": "rgb", "tile": (16, 32)}),
    "deflate": (noise(50, 70, 3), {"photometric": "rgb", "compression": "zlib", "rowsperstrip": 7}),
    "deflate_tiled": (noise(50, 70, 3), {"photometric": "rgb", "compression": "zlib", "tile": (16, 16)}),
    "planar": (noise(3, 50, 70), {"photometric": "rgb", "planarconfig": "separate", "tile": (16, 16)}),
    "big_endian": (noise(50, 70, dtype=np.uint16), {"byteorder": ">"}),
    "bands": (noise(50, 70, 5, dtype=np.float32), {"photometric": "minisblack", "planarconfig": "contig"}),
}


@pytest.mark.parametrize("name", TIFFS)
def test_regions_of_a_tiff(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, options = TIFFS[name]
    byteorder = {"byteorder": options["byteorder"]} if "byteorder" in options else {}
    written = {key: value for key, value in options.items() if key != "byteorder"}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, **byteorder, **written)
    reader = ImageReader(channels=5 if name == "bands" else 3, range=None if pixels.dtype == np.uint8 else [0, 255])
    whole = reader.read(path)
    with reader.regions(path) as regions:
        assert (regions.size, regions.partial) == ((50, 70), True)
        for x1, y1, x2, y2 in REGIONS:
            found = regions.read((x1, y1, x2, y2))
            assert found.dtype == whole.dtype
            assert torch.equal(found, whole[:, y1:y2, x1:x2])
    monkeypatch.setattr(tiff, "LARGE_SEGMENT", 20)
    with reader.regions(path) as regions:  # compressed pieces so large would be decoded again and again
        assert regions.partial is (name in ("rgb", "grey", "big_endian", "bands"))
        assert torch.equal(regions.read((3, 5, 60, 49)), whole[:, 5:49, 3:60])


@pytest.mark.parametrize("shape", [(50, 70), (50, 70, 3), (3, 50, 70)])
def test_regions_of_an_array(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", noise(*shape))
    whole = ImageReader().read(tmp_path / "a.npy")
    with ImageReader().regions(tmp_path / "a.npy") as regions:
        assert (regions.size, regions.partial) == ((50, 70), True)
        for x1, y1, x2, y2 in REGIONS:
            assert torch.equal(regions.read((x1, y1, x2, y2)), whole[:, y1:y2, x1:x2])


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_other_files_are_decoded_as_a_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(noise(50, 70, 3)).save(path, exif=exif)
    whole = ImageReader().read(path)
    with ImageReader().regions(path) as regions:
        assert (regions.size, regions.partial) == ((70, 50), False)
        assert torch.equal(regions.read((1, 2, 30, 64)), whole[:, 2:64, 1:30])


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("kind", ["rgb16", "rgba16", "grey16", "alpha", "palette", "cmyk"])
def test_windows_of_what_is_decoded_as_a_whole(tmp_path: Path, kind: str, orientation: int) -> None:
    """Deep and transparent PNGs, palettes and CMYK: each window is what the image is there, of whatever orientation."""
    path = tmp_path / ("a.jpg" if kind == "cmyk" else "a.png")
    exif = Image.Exif()
    exif[274] = orientation
    if kind.endswith("16"):
        bands = {"rgb16": (3,), "rgba16": (4,), "grey16": ()}[kind]
        deep = np.random.default_rng(0).integers(0, 65536, (50, 70, *bands), np.uint16)
        assert cv2.imwrite(str(path), deep)
    else:
        picture = Image.fromarray(noise(50, 70, 4) if kind == "alpha" else noise(50, 70, 3))
        mode = {"alpha": "RGBA", "palette": "P", "cmyk": "CMYK"}[kind]
        picture.convert(mode).save(path, exif=exif)
    reader = ImageReader(range=[0, 65535] if kind.endswith("16") else None)
    whole = reader.read(path)
    with reader.regions(path) as regions:
        assert (regions.size, regions.partial) == (tuple(whole.shape[1:]), False)
        for x1, y1, x2, y2 in [(0, 0, regions.size[1], regions.size[0]), (3, 5, 4, 6), (15, 16, 49, 33)]:
            found = regions.read((x1, y1, x2, y2))
            assert found.dtype == whole.dtype
            assert torch.equal(found, whole[:, y1:y2, x1:x2])


def test_opencv_decodes_in_the_order_rgb(tmp_path: Path) -> None:
    """Of more rows than are turned at once, with alpha and without."""
    for bands, order in ((3, [2, 1, 0]), (4, [2, 1, 0, 3])):
        pixels = noise(600, 5, bands, dtype=np.uint16)
        assert cv2.imwrite(str(tmp_path / "a.png"), pixels[..., order])
        assert np.array_equal(decode_by_opencv(tmp_path / "a.png"), pixels)


@pytest.mark.parametrize("deep", [False, True])
def test_an_image_that_is_decoded_as_a_whole_is_held_once(tmp_path: Path, deep: bool) -> None:
    """As it is stored: neither as Pillow's four bytes a pixel, too, nor as floats."""
    path = tmp_path / "a.png"
    values = noise(900, 1000, 3, dtype=np.uint16 if deep else np.uint8)
    assert cv2.imwrite(str(path), values)
    with ImageReader(range=[0, 65535] if deep else None).regions(path) as regions:
        gc.collect()
        kept = [found for found in gc.get_objects() if isinstance(found, Image.Image) and found.size == (1000, 900)]
        assert kept == []
        tracemalloc.start()
        regions.read((0, 0, 100, 100))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1e6


def test_what_needs_the_whole_image_reads_it(tmp_path: Path) -> None:
    """Percentiles of the image; an orientation; palettes and inverted greys, which Pillow converts."""
    tifffile.imwrite(tmp_path / "deep.tif", noise(50, 70, dtype=np.uint16))
    Image.fromarray(noise(50, 70)).convert("P").save(tmp_path / "palette.tif")
    tifffile.imwrite(tmp_path / "inverted.tif", noise(50, 70), photometric="miniswhite")
    tifffile.imwrite(tmp_path / "turned.tif", noise(50, 70, 3), photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    for name, reader in (
        ("deep", ImageReader(range=["1%", "99%"])),
        ("palette", ImageReader()),
        ("inverted", ImageReader()),
        ("turned", ImageReader()),
    ):
        whole = reader.read(tmp_path / f"{name}.tif")
        with reader.regions(tmp_path / f"{name}.tif") as regions:
            assert not regions.partial
            assert regions.size == tuple(whole.shape[1:])
            assert torch.equal(regions.read((2, 3, 40, 45)), whole[:, 3:45, 2:40])


def test_percentiles_are_of_the_whole_image_and_its_regions_alone_are_scaled(tmp_path: Path) -> None:
    """A deep image is held as it is stored, at half of what it takes as numbers of 32 bits."""
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), noise(1000, 1000, 3, dtype=np.uint16))
    reader = ImageReader(range=["1%", "99%"])
    whole = reader.read(path)
    with reader.regions(path) as regions:
        tracemalloc.start()
        part = regions.read((300, 200, 400, 300))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1e6
        assert torch.equal(part, whole[:, 200:300, 300:400])
    tracemalloc.start()
    with reader.regions(path):
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16e6  # what is stored takes 6e6, and as much to find its percentiles; in 32 bits it takes 12e6


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(50, 70, 3), photometric="rgb", compression="zlib", rowsperstrip=10)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        begin = file.pages[0].dataoffsets[2]  # type: ignore[union-attr]
    content[begin : begin + 40] = b"\0" * 40
    path.write_bytes(content)
    with ImageReader().regions(path) as regions:
        regions.read((0, 0, 70, 20))
        with pytest.raises(Refused, match=r"a\.tif: unreadable image"):
            regions.read((0, 15, 70, 25))
    with pytest.raises(FileNotFoundError, match=r"none\.tif"), ImageReader().regions(tmp_path / "none.tif"):
        pass
