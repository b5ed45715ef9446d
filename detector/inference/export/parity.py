"""Compare the detections of an exported file with those of the detector it was made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from detector.masks import Paste, paste
from detector.types import Objects, Size

BOX_LIMIT = 0.01
"""The largest difference of a box's edge, in pixels of the image."""
SCORE_LIMIT = 1e-4
"""The largest difference of a score."""
MASK_LIMIT = 0.001
"""The largest share of an image's mask pixels that differ."""
NEAR = 1.0
"""Detections of one class are the same object where no edge differs by more pixels than this."""


@dataclass(frozen=True)
class Difference:
    """The difference between two lists of detections of one image."""

    image: str
    size: Size
    expected: int
    """detections of the detector"""
    found: int
    """detections of the file"""
    matched: int
    at_limit: int
    """unmatched ones of a score so near to the lowest one kept that rounding decides"""
    box: float
    """the largest difference of an edge, pixels"""
    score: float
    mask: float
    """the share of mask pixels that differ, of those in either mask; 1 where only one of the two gives masks"""

    @property
    def equal(self) -> bool:
        """Whether all detections are matched and no difference is beyond its limit."""
        unmatched = self.expected + self.found - 2 * self.matched - self.at_limit
        return not unmatched and self.box <= BOX_LIMIT and self.score <= SCORE_LIMIT and self.mask <= MASK_LIMIT


def compare(
    expected: Objects, found: Objects, size: Size, image: str, lowest: float, limit: int, pasting: Paste = paste
) -> Difference:
    """Compare the detections of one image.

    Args:
        expected, found: of the detector and of the file; masks are grids [N, M, M], or pasted, bool [N, H, W].
        size: height and width of the image.
        image: its name.
        lowest: detections up to this score are dropped.
        limit: the most detections of an image.
        pasting: pastes grids.
    """
    pairs = match(expected, found)
    first, second = (torch.tensor([pair[i] for pair in pairs], dtype=torch.int64) for i in (0, 1))
    boxes = (expected.boxes[first].double() - found.boxes[second].double()).abs()
    scores = (expected.scores[first].double() - found.scores[second].double()).abs()
    kept = [lowest, *(float(o.scores[-1]) for o in (expected, found) if len(o) == limit)]
    at_limit = 0
    for objects, index in ((expected, first), (found, second)):
        alone = torch.ones(len(objects), dtype=torch.bool)
        alone[index] = False
        at_limit += int((objects.scores[alone] <= max(kept) + SCORE_LIMIT).sum())
    mask = 0.0
    if (expected.masks is None) != (found.masks is None):
        mask = 1.0
    elif expected.masks is not None:
        mask = _mask_difference(expected.select(first), found.select(second), size, pasting)
    box, score = (float(values.max()) if values.numel() else 0.0 for values in (boxes, scores))
    return Difference(image, size, len(expected), len(found), len(pairs), at_limit, box, score, mask)


def match(expected: Objects, found: Objects) -> list[tuple[int, int]]:
    """Match detections of one class whose edges differ by at most `NEAR`: pairs of indices, the nearest first."""
    if not len(expected) or not len(found):
        return []
    distance = (expected.boxes[:, None].double() - found.boxes[None].double()).abs().amax(2)
    distance = torch.where(expected.labels[:, None] == found.labels[None], distance, torch.inf)
    pairs = (distance <= NEAR).nonzero()
    order = distance[pairs[:, 0], pairs[:, 1]].argsort(stable=True)
    pairs_taken, rows, columns = [], set(), set()
    for row, column in pairs[order].tolist():
        if row not in rows and column not in columns:
            pairs_taken.append((row, column))
            rows.add(row)
            columns.add(column)
    return pairs_taken


def _mask_difference(expected: Objects, found: Objects, size: Size, pasting: Paste) -> float:
    different = covered = 0
    for i in range(len(expected)):
        one, other = (_mask(objects, i, size, pasting) for objects in (expected, found))
        different += int((one ^ other).sum())
        covered += int((one | other).sum())
    return different / covered if covered else 0.0


def _mask(objects: Objects, index: int, size: Size, pasting: Paste) -> Tensor:
    assert objects.masks is not None
    if objects.masks.dtype == torch.bool:
        return objects.masks[index]
    return pasting(objects.masks[index : index + 1], objects.boxes[index : index + 1], size).dense(0)


def table(differences: Iterable[Difference], title: str) -> Table:
    """Make the table of differences, a row for each image and one for all.

    Its columns: detections of the detector (`torch`) and of the file; the matched ones, + unmatched ones at the limit;
    then the largest differences of edges and scores, and the share of mask pixels that differ.
    """
    rows = list(differences)
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    shown.add_column("image", overflow="fold")
    for name in ("size", "torch", "file", "same", "box px", "score", "masks"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(row.image, f"{row.size[1]}x{row.size[0]}", *_cells([row]), style=None if row.equal else "red")
    shown.add_section()
    shown.add_row("all", "", *_cells(rows))
    return shown


def _cells(rows: list[Difference]) -> list[str]:
    expected, found, same, limit = (
        sum(getattr(row, name) for row in rows) for name in ("expected", "found", "matched", "at_limit")
    )
    box, score, mask = (max((getattr(row, name) for row in rows), default=0.0) for name in ("box", "score", "mask"))
    matched = f"{same}+{limit}" if limit else str(same)
    return [str(expected), str(found), matched, f"{box:.1e}", f"{score:.1e}", f"{mask:.2%}"]
