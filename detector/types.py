"""Types that are passed between the parts: `Sample` → `Batch` → `Objects`.

Boxes are float32 xyxy in pixels of the image they belong to, continuous: pixel j covers [j, j+1), so a width is
x2 - x1. Labels are 0..C-1 in the order of the dataset's `classes`; the background is C, the last logit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

Size = tuple[int, int]
"""Height and width, in pixels."""

T = TypeVar("T")


def _apply(value: T, method: str, *args: Any, **kwargs: Any) -> T:
    """Copy `value`, calling `method` on each tensor in it, within dataclasses, lists and dicts."""
    if isinstance(value, Tensor):
        return getattr(value, method)(*args, **kwargs)  # type: ignore[no-any-return]
    if isinstance(value, list):
        return [_apply(v, method, *args, **kwargs) for v in value]  # type: ignore[return-value]
    if isinstance(value, dict):
        return {k: _apply(v, method, *args, **kwargs) for k, v in value.items()}  # type: ignore[return-value]
    if isinstance(value, _Movable):
        changes = {f.name: _apply(getattr(value, f.name), method, *args, **kwargs) for f in fields(value)}
        return replace(value, **changes)
    return value


@dataclass
class _Movable:
    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Copy to another device."""
        return _apply(self, "to", device, non_blocking=non_blocking)

    def pin_memory(self) -> Self:
        """Copy to page-locked memory (called by the loader)."""
        return _apply(self, "pin_memory")


@dataclass
class Masks(_Movable):
    """The masks of the G objects of an image, each held over a window; outside of its window a mask is empty."""

    pixels: Tensor
    """bool [S]: the pixels of all windows"""
    windows: Tensor
    """int64 [G, 4]: x1, y1, x2, y2 in whole pixels, within the image; empty for an empty mask"""
    offsets: Tensor
    """int64 [G]: where in `pixels` each window begins; its rows follow one another"""
    size: Size
    """of the image"""
    known: Tensor = None  # type: ignore[assignment]  # filled in below
    """bool [G]: false where the annotation has no mask: no loss is computed there; by default all true"""

    def __post_init__(self) -> None:
        if self.known is None:
            self.known = torch.ones(len(self.windows), dtype=torch.bool, device=self.windows.device)

    @classmethod
    def from_windows(
        cls, pixels: Sequence[Tensor], corners: Sequence[tuple[int, int]], size: Size, known: Tensor | None = None
    ) -> Masks:
        """Make masks from windows.

        Args:
            pixels: of each object, bool [h, w].
            corners: x1 and y1 of each window, which lies within the image.
            size: height and width of the image.
            known: bool [G], see `Masks.known`; None: all are.
        """
        sides = torch.tensor([tuple(p.shape) for p in pixels], dtype=torch.int64).reshape(-1, 2)
        corner = torch.tensor(list(corners), dtype=torch.int64).reshape(-1, 2)
        lengths = sides.prod(1)
        flat = torch.cat([p.reshape(-1) for p in pixels]) if len(pixels) else torch.zeros(0, dtype=torch.bool)
        windows = torch.cat((corner, corner + sides.flip(1)), 1)
        return cls(flat, windows, lengths.cumsum(0) - lengths, size, known)  # type: ignore[arg-type]  # may be None

    @classmethod
    def from_dense(cls, masks: Iterable[Tensor], size: Size) -> Masks:
        """Make masks from whole images, bool [H, W] each, keeping the smallest window that holds the object."""
        pixels, corners = [], []
        for mask in masks:
            rows, columns = (mask.any(axis).nonzero().flatten() for axis in (1, 0))
            y, x = (slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0, 0) for hit in (rows, columns))
            pixels.append(mask[y, x].clone())  # a view would keep the whole mask
            corners.append((x.start, y.start))
        return cls.from_windows(pixels, corners, size)

    def __len__(self) -> int:
        return len(self.windows)

    def select(self, keep: Tensor) -> Masks:
        """Select objects by `keep`: bool [G], or indices, int64. The pixels are shared, not copied."""
        return replace(self, windows=self.windows[keep], offsets=self.offsets[keep], known=self.known[keep])

    def window(self, index: int) -> Tensor:
        """Return the pixels of one object's window, bool [y2 - y1, x2 - x1], as a view."""
        x1, y1, x2, y2 = self.windows[index].tolist()
        begin = int(self.offsets[index])
        return self.pixels[begin : begin + (y2 - y1) * (x2 - x1)].view(y2 - y1, x2 - x1)

    def dense(self, index: int) -> Tensor:
        """Return one object's mask over the whole image, bool [H, W]."""
        x1, y1, x2, y2 = self.windows[index].tolist()
        mask = torch.zeros(self.size, dtype=torch.bool, device=self.pixels.device)
        mask[y1:y2, x1:x2] = self.window(index)
        return mask


@dataclass
class Target(_Movable):
    """The ground truth of one image; G objects."""

    boxes: Tensor
    """float32 [G, 4]"""
    labels: Tensor
    """int64 [G]; -1 for a region of other classes, which is a crowd, too"""
    crowd: Tensor
    """bool [G]: a region of many objects; ignored in training and at evaluation"""
    difficult: Tensor
    """bool [G]: VOC's flag; ignored at evaluation"""
    masks: Masks | None = None
    """at the size of the image; None if the dataset has none"""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """by name, [G, ...]: annotations that further heads are trained on"""
    seed: int | None = None
    """seeds the random choices of training on this image; None: they are torch's next ones"""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, keep: Tensor) -> Target:
        """Select objects by `keep`: bool [G], or indices, int64."""
        masks = None if self.masks is None else self.masks.select(keep)
        extra = {name: value[keep] for name, value in self.extra.items()}
        flags = self.crowd[keep], self.difficult[keep]
        return Target(self.boxes[keep], self.labels[keep], *flags, masks, extra, self.seed)

    def get(self, name: str) -> Tensor | Masks | None:
        """Look up annotations by name: `masks`, or an entry of `extra`; None if there are none."""
        return self.masks if name == "masks" else self.extra.get(name)


@dataclass
class Sample(_Movable):
    """One image with its ground truth."""

    image: Tensor
    """uint8 [3, H, W], RGB; or float32 in the unit of 8 bits, or of other channels (see `detector.data.image`)"""
    target: Target
    id: int | str
    """the dataset's id of the image"""
    original_size: Size
    """the size of the image on disk; detections are reported in its pixels"""
    proposals: Tensor | None = None
    """float32 [R, 4]: given proposals, for models without an RPN"""

    @property
    def size(self) -> Size:
        """Height and width of `image`."""
        return self.image.shape[-2], self.image.shape[-1]


@dataclass
class Batch(_Movable):
    """B images padded at the right and at the bottom to one size H, W."""

    images: Tensor
    """as those of samples, [B, D, H, W], zero where padded; `collate` stores them channels last, as images are read"""
    sizes: list[Size]
    """each image's size before padding"""
    original_sizes: list[Size]
    ids: list[int | str]
    targets: list[Target]
    proposals: list[Tensor] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class Objects(_Movable):
    """The detections of one image, best first; N objects."""

    boxes: Tensor
    """float32 [N, 4]"""
    scores: Tensor
    """float32 [N] in 0..1"""
    labels: Tensor
    """int64 [N]"""
    masks: Tensor | None = None
    """float32 [N, M, M] in 0..1: the probability of the object over a grid that spans its box.
    `detector.masks.paste` pastes it into the image"""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """by name, [N, ...]: predictions of further heads"""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, keep: Tensor) -> Objects:
        """Select objects by `keep`: bool [N], or indices, int64."""
        masks = None if self.masks is None else self.masks[keep]
        extra = {name: value[keep] for name, value in self.extra.items()}
        return Objects(self.boxes[keep], self.scores[keep], self.labels[keep], masks, extra)

    @staticmethod
    def join(parts: Sequence[Objects]) -> Objects:
        """Concatenate the objects of an image; all parts, at least one, have the same predictions of further heads."""
        masks = [part.masks for part in parts if part.masks is not None]
        return Objects(
            torch.cat([part.boxes for part in parts]),
            torch.cat([part.scores for part in parts]),
            torch.cat([part.labels for part in parts]),
            torch.cat(masks) if masks else None,
            {name: torch.cat([part.extra[name] for part in parts]) for name in parts[0].extra},
        )


class Output(Protocol):
    """Encode the predictions of a further head for JSON files and metrics."""

    name: str
    """such as `mask`: names its file, `predictions/mask.json`, and its metrics, `mask/AP`"""
    key: str
    """such as `segmentation`: its key in COCO's results format"""
    needs: str | None
    """such as `masks`: written and measured where the dataset has these annotations (`has_masks`); None: always"""

    def __call__(self, objects: Objects, size: Size) -> list[Any]:
        """Encode the prediction for each object as JSON-able data; `size` is the original image's (height, width)."""


class DetectionDataset(Protocol):
    """A dataset. Its images and boxes are as on disk; augmentation comes after."""

    classes: Sequence[str]
    """names, by label"""
    category_ids: Sequence[int]
    """the dataset's own category ids, by label; written in results"""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    @property
    def has_masks(self) -> bool:
        """Whether samples carry masks. Entries of `Target.extra` that heads need have a `has_<name>` like it."""

    def ground_truth(self) -> dict[str, Any]:
        """Return the ground truth for evaluation in COCO's format, straight from the annotation files.

        It has `images`, in the order of the samples, `annotations` and `categories`, in original pixels, with the
        dataset's own image and category ids; an annotation may have `ignore: 1` (VOC's difficult).
        """
