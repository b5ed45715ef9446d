"""Read and write files of proposals, with which Fast R-CNN is trained without an RPN.

`*.npz` (NumPy's; nothing in it is executed) holds `ids` [N], the dataset's image ids, all ints or all strings; `counts`
int [N], the number of proposals of each image; `boxes` [K, 4], image after image, x1, y1, x2, y2; and optionally
`scores` [K] and `splits` [N], `train` or `val`.

`*.json` (COCO's results format) is a list of `{"image_id": ..., "bbox": [x, y, width, height], "score": ...}`. `score`
is optional, and so is a `split`; all entries have them, or none. It cannot hold an image without proposals.

Boxes are in pixels of the image on disk. Proposals are sorted by descending score; without scores they stay in the
order of the file. A file without splits is used for both, if image ids are unique over them.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.data.proposals import ImageId, Proposals, WithProposals
from detector.types import DetectionDataset

NEEDED = "model=fast_rcnn has no RPN: it needs proposals=FILE or proposals=RUN/checkpoints/last.ckpt"

BROKEN = (ValueError, TypeError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises for a file that is damaged, or holds pickled objects."""


@dataclass(frozen=True)
class ImageProposals:
    """The R proposals of one image, by descending score, as they are written to a file."""

    split: str
    """`train` or `val`"""
    id: ImageId
    """the dataset's image id"""
    boxes: Tensor
    """float32 [R, 4], in pixels of the image on disk"""
    scores: Tensor
    """float32 [R] in 0..1"""


def check_name(path: str | Path) -> Path:
    """Return the path of a file of proposals; raise ValueError if its name ends otherwise."""
    path = Path(path)
    if path.suffix not in READERS:
        raise ValueError(f"proposals {str(path)!r}: a file of proposals is named *{' or *'.join(READERS)}")
    return path


def read_proposals(path: str | Path, split: str) -> Proposals:
    """Read the proposals for the images of `split`, `train` or `val`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no file of proposals, or a box is not finite or has x2 < x1 or y2 < y1; the message names the
            image.
    """
    path = check_name(path)
    if not path.is_file():
        raise FileNotFoundError(f"proposals {str(path)!r}: no such file; scripts/proposals.py writes one")
    content = READERS[path.suffix](path)
    _check(content, path)
    ordered = _best_first(content)
    mine = np.array([s in (None, split) for s in content.splits], dtype=bool)
    ids = [image for image, chosen in zip(content.ids, mine, strict=True) if chosen]
    rows = {image: row for row, image in enumerate(ids)}
    if len(rows) < len(ids):
        raise ValueError(f"proposals {str(path)!r}: an image is listed twice, for the split {split}")
    ends = np.concatenate(([0], np.cumsum(content.counts[mine])))
    boxes = ordered if mine.all() else ordered[np.repeat(mine, content.counts)]
    return Proposals(rows, torch.from_numpy(ends), torch.from_numpy(np.ascontiguousarray(boxes)))


def attach_proposals(dataset: DetectionDataset, path: str | Path | None, split: str) -> WithProposals:
    """Add the proposals of a file to the samples of a dataset.

    Args:
        dataset: the split's images.
        path: of the file, see `read_proposals`; None raises, with advice.
        split: `train` or `val`.

    Raises:
        ValueError, FileNotFoundError: there is no file, it is malformed, or it lacks images of the dataset.
    """
    if path is None:
        raise ValueError(NEEDED)
    return WithProposals(dataset, read_proposals(path, split), path)


@dataclass(frozen=True)
class _Content:
    splits: list[str | None]
    ids: list[ImageId]
    counts: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32] | None

    def image_of(self, box: int) -> ImageId:
        return self.ids[int(np.searchsorted(np.cumsum(self.counts), box, "right"))]


def _check(content: _Content, path: Path) -> None:
    finite = np.isfinite(content.boxes).all(axis=1)
    if content.scores is not None:
        finite &= np.isfinite(content.scores)
    proper = (content.boxes[:, 2:] >= content.boxes[:, :2]).all(axis=1)
    for good, fault in ((finite, "is not finite"), (proper, "ends before it begins")):
        if not good.all():
            first = int(np.argmin(good))
            raise ValueError(
                f"proposals {str(path)!r}: {np.count_nonzero(~good)} of {len(content.boxes)} boxes, such as "
                f"x1, y1, x2, y2 = {content.boxes[first].tolist()} of image {content.image_of(first)!r}: it {fault}"
            )


def _best_first(content: _Content) -> NDArray[np.float32]:
    if content.scores is None or len(content.scores) < 2:
        return content.boxes
    rising = content.scores[1:] > content.scores[:-1]
    ends = np.cumsum(content.counts)
    rising[ends[(ends > 0) & (ends < len(content.scores))] - 1] = (
        False  # the step from one image's last to the next one's first
    )
    if not rising.any():
        return content.boxes
    image = np.repeat(np.arange(len(content.counts)), content.counts)
    best: NDArray[np.float32] = content.boxes[np.lexsort((-content.scores, image))]
    return best


def _read_npz(path: Path) -> _Content:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            known = {name: file[name] for name in ("ids", "counts", "boxes", "scores", "splits") if name in file}
    except BROKEN as error:
        raise ValueError(f"proposals {str(path)!r}: not an .npz of plain numbers ({error})") from error
    shapes = {"ids": "iuU", "counts": "iu", "boxes": "fiu", "scores": "fiu", "splits": "U"}
    for name, kinds in shapes.items():
        if name in known and known[name].dtype.kind not in kinds:
            raise ValueError(f"proposals {str(path)!r}: `{name}` must not be of type {known[name].dtype}")
    images, total = (len(known[name]) if name in known and known[name].ndim else -1 for name in ("ids", "boxes"))
    expected = {"ids": (images,), "counts": (images,), "boxes": (total, 4), "scores": (total,), "splits": (images,)}
    found = {name: array.shape for name, array in known.items()}
    if not {"ids", "counts", "boxes"} <= found.keys() or any(found[name] != expected[name] for name in found):
        raise ValueError(
            f"proposals {str(path)!r}: it must hold `ids` [N], `counts` [N], `boxes` [K, 4] and optionally `scores` "
            f"[K] and `splits` [N], but holds {found}"
        )
    counts = known["counts"].astype(np.int64)
    if ((counts < 0) | (counts > total)).any() or counts.sum() != total:
        raise ValueError(f"proposals {str(path)!r}: `counts` sum to {counts.sum()}, but there are {total} boxes")
    splits: list[str | None] = known["splits"].tolist() if "splits" in known else [None] * images
    scores = _float32(known["scores"]) if "scores" in known else None
    return _Content(splits, known["ids"].tolist(), counts, _float32(known["boxes"]), scores)


def _float32(numbers: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which is reported later
        return numbers.astype(np.float32, copy=False)


def _read_json(path: Path) -> _Content:
    try:
        content = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"proposals {str(path)!r}: not JSON ({error})") from error
    if not isinstance(content, list) or not content:
        raise ValueError(f"proposals {str(path)!r}: must be a list of entries with `image_id`, `bbox` and `score`")
    keys = [k for k in ("score", "split") if isinstance(content[0], dict) and k in content[0]]
    groups: dict[tuple[str | None, ImageId], list[list[float]]] = {}
    for position, row in enumerate(content):
        known = isinstance(row, dict) and [k for k in ("score", "split") if k in row] == keys
        image, box = (row.get("image_id"), row.get("bbox")) if known else (None, None)
        split = row.get("split") if known else None
        numbers = [*box, row.get("score", 0.0)] if isinstance(box, list) else []
        if (
            len(numbers) != 5
            or not all(isinstance(v, int | float) for v in numbers)
            or not isinstance(image, int | str)
            or not isinstance(split, str | None)
        ):
            raise ValueError(
                f"proposals {str(path)!r}: entry {position} must be an `image_id`, a `bbox` of x, y, width, height"
                f"{''.join(f', a `{k}`' for k in keys)}, as all are, not {str(row)[:120]}"
            )
        groups.setdefault((split, image), []).append(numbers)
    try:
        table = np.array([row for group in groups.values() for row in group], dtype=np.float64)
    except OverflowError as error:
        raise ValueError(f"proposals {str(path)!r}: a number in it is too large") from error
    table[:, 2:4] += table[:, :2]
    counts = np.array([len(group) for group in groups.values()], dtype=np.int64)
    scores = _float32(table[:, 4]) if "score" in keys else None
    return _Content([s for s, _ in groups], [i for _, i in groups], counts, _float32(table[:, :4]), scores)


READERS = {".npz": _read_npz, ".json": _read_json}
"""By the suffix of the file."""


def write_proposals(path: str | Path, images: Sequence[ImageProposals]) -> None:
    """Write a file of proposals, in the format of its suffix; under its final name only when it is complete.

    Raises:
        ValueError: the suffix is unknown, or the format cannot hold the image ids.
    """
    path = check_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        WRITERS[path.suffix](partial, images)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_npz(path: Path, images: Sequence[ImageProposals]) -> None:
    ids = [image.id for image in images]
    if len({isinstance(i, str) for i in ids}) > 1:
        raise ValueError("the dataset's ids are numbers and strings, which an .npz cannot hold; write *.json")
    with path.open("wb") as file:
        np.savez(
            file,
            splits=np.array([image.split for image in images], dtype=np.str_),
            ids=np.array(ids),
            counts=np.array([len(image.boxes) for image in images], dtype=np.int64),
            boxes=torch.cat([image.boxes for image in images]).numpy(),
            scores=torch.cat([image.scores for image in images]).numpy(),
        )


def _entries(images: Sequence[ImageProposals]) -> Iterator[dict[str, Any]]:
    for image in images:
        boxes = image.boxes.double()  # in float64 the difference of two float32 is exact
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), 1)
        for box, score in zip(boxes.tolist(), image.scores.tolist(), strict=True):
            yield {"split": image.split, "image_id": image.id, "bbox": box, "score": score}


def _write_json(path: Path, images: Sequence[ImageProposals]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number, entry in enumerate(_entries(images)):
            file.write(("[" if number == 0 else ",\n") + json.dumps(entry, allow_nan=False))
        file.write("]\n")


WRITERS = {".npz": _write_npz, ".json": _write_json}
