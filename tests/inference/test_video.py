"""Videos are read frame by frame, and written."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detector.inference.video import VideoWriter, open_video


def write(path: Path, size: tuple[int, int], count: int = 4, rate: float = 12.5) -> None:
    writer = VideoWriter(path, rate)
    for i in range(count):
        writer.add(Image.new("RGB", size, (250 - 60 * i, 20, 60 * i)))
    writer.close()


def test_frames_are_rgb_and_in_order(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", (65, 48))
    with open_video(tmp_path / "a.mp4") as video:
        assert (video.rate, video.count) == (12.5, 4)
        frames = list(video.frames)
    assert [tuple(frame.shape) for frame in frames] == [(3, 48, 64)] * 4  # an even width
    for i, frame in enumerate(frames):
        assert frame.dtype == torch.uint8
        expected = np.array([250 - 60 * i, 20, 60 * i])
        assert np.abs(frame.float().mean((1, 2)).numpy() - expected).max() < 6


def test_what_is_no_video_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"a\.mp4: OpenCV cannot read a frame"), open_video(tmp_path / "a.mp4"):
        pass
    with pytest.raises(FileNotFoundError, match=r"b\.mp4: no such video"), open_video(tmp_path / "b.mp4"):
        pass
    with pytest.raises(OSError, match="cannot write a video of 64x48"):
        VideoWriter(tmp_path / "none" / "a.mp4", 25).add(Image.new("RGB", (64, 48)))
    capfd.readouterr()  # what FFmpeg says
