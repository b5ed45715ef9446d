"""Images of 8 and of 16 bits, and files of many formats to write them in."""

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
import torch
from numpy.typing import NDArray

from detector.data.image import ListedImage

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


def listed(*paths: Path, size: tuple[int, int] = SIZE) -> list[ListedImage]:
    return [(path, size, Path("set.json")) for path in paths]
