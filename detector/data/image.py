"""Image files to tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def read_image(path: Path) -> Tensor:
    """The image at `path`, uint8 [3, H, W] in RGB; its EXIF rotation is ignored, as in the annotations of COCO and VOC.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image, or is cut short; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image file")
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow reports a broken PNG chunk as SyntaxError and a file that is cut short as OSError.
        raise ValueError(f"{path}: unreadable image ({error}); replace the file or remove it from the set") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def check_size(path: Path, image: Tensor, size: tuple[int, int], source: Path) -> None:
    """Raise ValueError unless the image read from `path` has the (height, width) that its annotations state."""
    found = tuple(image.shape[-2:])
    if found != size:
        raise ValueError(
            f"{path}: the image is {found[1]}x{found[0]} pixels (width x height), but {source} says "
            f"{size[1]}x{size[0]}; the boxes would be misplaced. Restore the original image, or annotate this one"
        )
