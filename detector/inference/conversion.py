"""Convert detections to the objects of other packages, supervision and FiftyOne, which need not be installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch

from detector.masks import paste
from detector.types import Objects, Size


def to_supervision(objects: Objects, classes: Sequence[str], size: Size | None = None) -> Any:
    """Convert the detections of an image to `supervision.Detections`.

    Args:
        objects: the detections.
        classes: names by label, which become `data["class_name"]`.
        size: height and width of the image, for masks; None: without them. supervision holds masks as bool [N, H, W],
            which is large for many objects on a large image.

    Raises:
        ModuleNotFoundError: supervision is not installed.
    """
    supervision = _package("supervision")
    objects = objects.to("cpu")
    masks = None
    if objects.masks is not None and size is not None:
        pasted = paste(objects.masks, objects.boxes, size)
        masks = np.zeros((len(objects), *size), bool)
        for i, (x1, y1, x2, y2) in enumerate(pasted.windows.tolist()):
            masks[i, y1:y2, x1:x2] = pasted.window(i).numpy()
    labels = objects.labels.numpy()
    return supervision.Detections(
        xyxy=objects.boxes.float().numpy(),
        mask=masks,
        confidence=objects.scores.float().numpy(),
        class_id=labels.astype(int),
        data={"class_name": np.array([classes[label] for label in labels.tolist()], dtype=np.str_)},
    )


def to_fiftyone(objects: Objects, classes: Sequence[str], size: Size) -> Any:
    """Convert the detections of an image to `fiftyone.Detections`.

    Boxes become shares of the image's sides, (x, y, width, height), cut at its edge. A mask becomes that over the whole
    pixels into which FiftyOne draws it, both corners of the box rounded down, so that it is not resized there.

    Args:
        objects: the detections.
        classes: names by label.
        size: height and width of the image.

    Raises:
        ModuleNotFoundError: FiftyOne is not installed.
    """
    fiftyone = _package("fiftyone")
    objects = objects.to("cpu")
    height, width = size
    limits = torch.tensor([width, height, width, height], dtype=torch.float64)
    found = []
    for i, box in enumerate(objects.boxes.double()):
        x1, y1, x2, y2 = torch.minimum(box.clamp(min=0), limits).tolist()
        x, y, w, h = x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height
        mask = None
        if objects.masks is not None:
            left, top = int(width * x), int(height * y)
            right, bottom = max(int(width * (x + w)), left + 1), max(int(height * (y + h)), top + 1)
            moved = box - box.new_tensor([left, top, left, top])
            mask = paste(objects.masks[i : i + 1], moved[None], (bottom - top, right - left)).dense(0).numpy()
        found.append(
            fiftyone.Detection(
                label=classes[int(objects.labels[i])],
                bounding_box=[x, y, w, h],
                confidence=float(objects.scores[i]),
                mask=mask,
            )
        )
    return fiftyone.Detections(detections=found)


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ModuleNotFoundError(f"{name} is not installed: pip install {name}", name=name) from error
