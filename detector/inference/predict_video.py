"""Detect objects in the frames of videos."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack

from rich.console import Console
from rich.progress import track
from torch import Tensor

from detector.inference.inputs import Input
from detector.inference.saving import JsonList, Table, draw_found, rows_text
from detector.inference.tiles import detect_tiles, regions_of
from detector.inference.video import Video, VideoWriter, open_video
from detector.inference.work import Work, reading
from detector.types import Objects

OF_VIDEOS = ("images", "csv")
"""The formats of `save=` that are written of videos."""


def detect_video(work: Work, given: Input, console: Console) -> None:
    """Detect the objects in the frames of a video: write them to `NAME.json`, and draw them in `NAME.mp4`.

    Raises:
        Unreadable: it cannot be read.
        ValueError: the detector reads images that no frame is.
    """
    if getattr(work.reader, "channels", 3) != 3 or getattr(work.reader, "range", None) is not None:
        raise ValueError(f"{given.path}: frames are RGB of 8 bits, and the detector reads other images")
    with ExitStack() as files:
        with reading():
            video = files.enter_context(open_video(given.path))
        _detect_frames(work, given, video, console)


def _detect_frames(work: Work, given: Input, video: Video, console: Console) -> None:
    name = f"{given.stem}.mp4"
    draft = work.folder.draft(name) if "images" in work.savers else None
    writer = None if draft is None else VideoWriter(draft, video.rate)
    table = work.savers.get("csv")
    frames: JsonList | None = None
    number = 0
    for some in _batches(track(video.frames, given.name, video.count or None, console=console), work.batch):
        for image, objects in zip(some, _of_frames(work, some), strict=True):
            size = image.shape[1], image.shape[2]
            if frames is None:
                head = {"video": given.name, "width": size[1], "height": size[0], "frames_per_second": video.rate}
                begin = json.dumps(head, ensure_ascii=False)[:-1] + ', "frames": ['
                frames = JsonList(work.folder, f"{given.stem}.json", begin, "]}")
            found = work.found(given.name, given.stem, size, objects)
            frames.add(rows_text(found.rows))
            if isinstance(table, Table):
                table.add_rows(given.name, number, found.rows)
            if writer is not None:
                writer.add(draw_found(image, 1, found, work.detector.classes))
            number += 1
    assert frames is not None  # `open_video` has read a frame
    frames.close()
    work.frames += number
    if writer is not None and draft is not None:
        writer.close()
        work.folder.finish(name, draft)


def _of_frames(work: Work, frames: Sequence[Tensor]) -> list[Objects]:
    if work.tiling is None:
        return work.detect(frames)
    return [
        detect_tiles(regions_of(frame), (frame.shape[1], frame.shape[2]), work.tiling, work.detect, work.batch)
        for frame in frames
    ]


def _batches(frames: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Yield lists of so many frames; the last may be shorter."""
    some: list[Tensor] = []
    for frame in frames:
        some.append(frame)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some
