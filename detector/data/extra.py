"""Albumentations' transforms by name: which of them can be trained with, and how boxes and masks follow each."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import albumentations as A
import cv2
from pydantic import ValidationError

PACKAGE = "albumentations"

COMPOSITIONS = (A.OneOf, A.SomeOf, A.Sequential, A.RandomOrder)
"""What chooses among transforms, or orders them."""

UNSUITABLE = {
    **dict.fromkeys(("FDA", "HistogramMatching", "PixelDistributionAdaptation"), "it needs reference images"),
    **dict.fromkeys(("OverlayElements", "TextImage"), "it needs something to draw"),
    **dict.fromkeys(("FromFloat", "Normalize", "ToFloat"), "it changes the range of the pixels; the model normalises"),
    **dict.fromkeys(("ToTensor3D", "ToTensorV2"), "images become tensors by themselves"),
    **dict.fromkeys(("ConstrainedCoarseDropout", "MaskDropout"), "it covers objects, which would stay in the labels"),
    "CropNonEmptyMaskIfExists": "it needs one mask of the whole image",
    "Lambda": "it runs code, which a configuration cannot hold",
    "Morphological": "masks and boxes do not follow it",
    "Mosaic": "it needs further images; dataset.mixing.mosaic.p=... has them",
    "ToRGB": "it changes the number of channels",
    "RandomCropNearBBox": "it needs a box to crop around",
    "RandomGridShuffle": "it cuts objects into pieces",
}
"""Transforms that handle neither boxes nor masks, or need what a sample does not have, with the reason."""

WHOLE = frozenset(
    {
        *(
            "D4",
            "HorizontalFlip",
            "LongestMaxSize",
            "Pad",
            "PadIfNeeded",
            "PixelDropout",
            "RandomRotate90",
            "RandomScale",
        ),
        *("Resize", "SmallestMaxSize", "SquareSymmetry", "TimeReverse", "Transpose", "VerticalFlip"),
    }
)
"""Transforms that leave objects whole, and after which the edges of a box are rows and columns again."""

CROPS = frozenset(
    {
        *("AtLeastOneBBoxRandomCrop", "BBoxSafeRandomCrop", "CenterCrop", "Crop", "CropAndPad", "RandomCrop"),
        *("RandomCropFromBorders", "RandomResizedCrop", "RandomSizedBBoxSafeCrop", "RandomSizedCrop"),
    }
)
"""Transforms likewise, but for objects at the edge of the image, which may be cut."""


def is_transform(name: str) -> bool:
    """Return whether `albumentations.NAME` is a transform that can be trained with, or a composition of such."""
    return _reason(name) is None


def _reason(name: str) -> str | None:
    """Return why `albumentations.NAME` cannot be used; None if it can."""
    found = getattr(A, name, None)
    if not isinstance(found, type) or name.startswith("_"):
        return "there is no such class"
    if found in COMPOSITIONS:
        return None
    if name in UNSUITABLE:
        return UNSUITABLE[name]
    if not issubclass(found, A.ImageOnlyTransform | A.DualTransform) or found.__module__.startswith(f"{PACKAGE}.core."):
        return "it is no transform of images"
    return None if _handles_boxes(found) else "it cannot move boxes or masks"


def _handles_boxes(kind: type) -> bool:
    """Return whether a class of transforms leaves all pixels in place, or moves boxes and masks with them."""
    targets = getattr(kind, "_targets", ())
    names = {target.name for target in (targets if isinstance(targets, tuple) else (targets,))}
    return issubclass(kind, A.ImageOnlyTransform) or {"BBOXES", "MASK"} <= names


def check_nodes(nodes: Any, key: str, still: bool = False) -> None:
    """Check the transforms of a configuration before they are built.

    Args:
        nodes: plain data: a list of mappings with a `_target_` and arguments.
        key: of the list, for messages.
        still: whether all pixels must stay where they are, as at validation.

    Raises:
        ValueError: a transform or an argument does not exist, or cannot be used; the message names it and, where there
            is one, the nearest that exists.
    """
    if nodes is None or isinstance(nodes, str | Mapping) or not isinstance(nodes, Sequence):
        raise ValueError(f"{key} must be a list, such as '{key}=[{{_target_: albumentations.GaussNoise, p: 0.3}}]'")
    for number, node in enumerate(nodes):
        _check_node(node, f"{key}[{number}]", still)


def _check_node(node: Any, key: str, still: bool) -> None:
    target = node.get("_target_") if isinstance(node, Mapping) else node
    if not isinstance(node, Mapping) or not isinstance(target, str):
        raise ValueError(f"{key} = {node!r}: write {{_target_: albumentations.NAME, p: 0.5}}, with its arguments")
    package, _, name = target.rpartition(".")
    if package.split(".")[0] not in ("", PACKAGE):
        return  # the user's own
    reason = _reason(name)
    if package != PACKAGE or reason is not None:
        near = _nearest(name, [n for n in dir(A) if is_transform(n)]) if name not in UNSUITABLE else None
        advice = f"; did you mean {PACKAGE}.{near}?" if near else ""
        raise ValueError(f"{key}._target_ = {target!r} cannot be used: {reason or 'its name is short'}{advice}")
    kind = getattr(A, name)
    if still and not issubclass(kind, (A.ImageOnlyTransform, *COMPOSITIONS)):
        raise ValueError(
            f"{key}._target_ = {target!r} moves or covers pixels, which only training may: detections would be "
            "reported elsewhere. Leave it out here, or give it in dataset.train_augment.extra"
        )
    names = [n for n in inspect.signature(kind.__init__).parameters if n != "self"]
    for argument, value in node.items():
        if argument == "_target_":
            continue
        if argument not in names:
            near = _nearest(str(argument), names)
            advice = f"did you mean {near}?" if near else f"it takes {', '.join(names)}"
            raise ValueError(f"{key}: {target} has no argument {argument!r}; {advice}")
        if kind in COMPOSITIONS and argument == "transforms":
            check_nodes(value, f"{key}.transforms", still)
        elif _has_target(value):
            raise ValueError(f"{key}.{argument} must be numbers, words, or lists of them, not {value!r}")
    if kind not in COMPOSITIONS:
        try:
            check_transform(kind(**{k: v for k, v in node.items() if k != "_target_"}))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{key}: {_first(error)}") from error


def _first(error: Exception) -> str:
    """Return the message of an error; of pydantic's, which fills a page, what is wrong with which argument."""
    if not isinstance(error.__cause__, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.__cause__.errors())


def _nearest(name: str, names: Sequence[str]) -> str | None:
    by_lower = {n.lower(): n for n in names}
    near = get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None


def _has_target(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(str(k).startswith("_") or _has_target(v) for k, v in value.items())
    return not isinstance(value, str) and isinstance(value, Sequence) and any(map(_has_target, value))


def check_transform(transform: Any) -> None:
    """Check that boxes and masks can follow a transform.

    Raises:
        ValueError: they cannot; the message names the transform.
    """
    if isinstance(transform, A.BaseCompose):
        if type(transform) not in COMPOSITIONS:
            names = ", ".join(kind.__name__ for kind in COMPOSITIONS)
            raise ValueError(f"{type(transform).__name__} cannot be used; compositions are {names}")
        for part in transform.transforms:
            check_transform(part)
        return
    name = type(transform).__name__
    if not isinstance(transform, A.BasicTransform):
        raise ValueError(f"{transform!r} is no transform of albumentations")
    own = type(transform).__module__.startswith(f"{PACKAGE}.")
    if own and (reason := _reason(name)) is not None:
        raise ValueError(f"{PACKAGE}.{name} cannot be used: {reason}")
    if not _handles_boxes(type(transform)) and hasattr(transform, "_targets"):
        raise ValueError(f"{name} cannot be used: it cannot move boxes or masks")
    if isinstance(transform, A.ImageOnlyTransform):
        return
    for argument, allowed, reason in (
        ("border_mode", (cv2.BORDER_CONSTANT,), "repeated pixels would show objects again, without a box"),
        ("fill_mask", (None, 0), "masks are empty where nothing is known"),
        ("mask_drop_value", (None, 0), "masks are empty where nothing is known"),
        ("mask_interpolation", (cv2.INTER_NEAREST, cv2.INTER_NEAREST_EXACT), "a mask has no values between"),
    ):
        if (value := getattr(transform, argument, allowed[0])) not in allowed:
            raise ValueError(f"{name} cannot be used with {argument}={value!r}: {reason}; leave it out")


def leaves(transform: Any) -> Iterator[Any]:
    """Yield the transforms of a composition, and of those in it; a transform itself."""
    if isinstance(transform, A.BaseCompose):
        for part in transform.transforms:
            yield from leaves(part)
    else:
        yield transform


def stays(transform: Any) -> bool:
    """Return whether a transform leaves all pixels where they are."""
    return all(isinstance(leaf, A.ImageOnlyTransform) for leaf in leaves(transform))


def bends(transform: Any) -> bool:
    """Return whether the edges of a box may be no longer rows and columns after a transform."""
    return not all(stays(leaf) or type(leaf).__name__ in WHOLE | CROPS for leaf in leaves(transform))


def cuts(transform: Any) -> bool:
    """Return whether parts of objects may be missing after a transform."""
    return not all(stays(leaf) or type(leaf).__name__ in WHOLE for leaf in leaves(transform))


def was_applied(transform: Any) -> bool:
    """Return whether a transform was applied in the last call; of a composition, whether it may have been."""
    return isinstance(transform, A.BaseCompose) or bool(transform.params)
