"""Read the frames of a video, and write a video of drawn frames, by OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

CODEC = "mp4v"
"""MPEG-4, which OpenCV's own FFmpeg writes on every system."""

RATE = 25.0
"""Frames a second of a video that does not say."""


@dataclass(frozen=True)
class Video:
    """A video that has been opened."""

    path: Path
    count: int
    """frames, as its header says; 0: it does not"""
    rate: float
    """frames a second"""
    frames: Iterator[Tensor]
    """uint8 [3, H, W], RGB, turned as the video says, one after the other"""


@contextmanager
def open_video(path: Path) -> Iterator[Video]:
    """Open a video.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: OpenCV cannot read it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such video")
    capture = cv2.VideoCapture(str(path))
    try:
        read, first = capture.read() if capture.isOpened() else (False, None)
        if not read or first is None:
            raise ValueError(f"{path}: OpenCV cannot read a frame of this video; convert it: ffmpeg -i FILE video.mp4")

        def frames() -> Iterator[Tensor]:
            frame: NDArray[Any] | None = first
            while frame is not None:
                yield torch.from_numpy(np.ascontiguousarray(frame[..., ::-1])).permute(2, 0, 1)
                frame = capture.read()[1]  # None at the end

        rate = float(capture.get(cv2.CAP_PROP_FPS))
        count = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        yield Video(path, count, rate if 0 < rate < 1000 else RATE, frames())
    finally:
        capture.release()


class VideoWriter:
    """Write pictures of one size as a video, MPEG-4.

    Args:
        path: the file, `*.mp4`.
        rate: frames a second.

    Raises:
        OSError: OpenCV cannot write it; raised by `add`.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self._writer: cv2.VideoWriter | None = None

    def add(self, picture: Image.Image) -> None:
        """Add a picture in RGB; sides of odd length lose their last row or column, which MPEG-4 cannot hold."""
        width, height = (side // 2 * 2 for side in picture.size)
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*CODEC)
            self._writer = cv2.VideoWriter(str(self.path), code, self.rate, (width, height))
            if not self._writer.isOpened():
                raise OSError(f"{self.path}: OpenCV cannot write a video of {width}x{height} pixels")
        self._writer.write(np.ascontiguousarray(np.asarray(picture)[:height, :width, ::-1]))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()
