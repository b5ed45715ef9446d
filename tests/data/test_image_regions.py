"""Regions of images are read as the image is, and where the format allows, without the rest."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from detector.data import tiff
from detector.data.image import ImageReader
from detector.data.stored import Refused

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
