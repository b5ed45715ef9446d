"""Detections as objects of supervision and FiftyOne: of the packages, or else of their documented attributes."""

import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from detector.inference.conversion import to_fiftyone, to_supervision
from detector.masks import paste
from detector.types import Objects

FOUND = Objects(
    torch.tensor([[2.0, 4.0, 10.0, 12.0], [-1.0, 0.0, 20.0, 8.0]]),
    torch.tensor([0.75, 0.5]),
    torch.tensor([1, 0]),
    torch.stack([torch.ones(28, 28), torch.cat((torch.ones(28, 14), torch.zeros(28, 14)), 1)]),
)
CLASSES = ["cat", "traffic light"]


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for the packages that are not installed, which keep what they are given."""
    for name, parts in (("supervision", ["Detections"]), ("fiftyone", ["Detection", "Detections"])):
        if find_spec(name) is None:
            module = ModuleType(name)
            for part in parts:
                setattr(module, part, SimpleNamespace)
            monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("packages")
def test_supervision() -> None:
    found: Any = to_supervision(FOUND, CLASSES, (16, 24))
    assert found.xyxy.tolist() == [[2, 4, 10, 12], [-1, 0, 20, 8]]
    assert found.confidence.tolist() == [0.75, 0.5]
    assert found.class_id.tolist() == [1, 0]
    assert found.data["class_name"].tolist() == ["traffic light", "cat"]
    assert found.mask.shape == (2, 16, 24)
    assert found.mask[0].sum() == 64
    assert found.mask[0, 4:12, 2:10].all()
    assert found.mask[1, :8, :9].all()
    assert not found.mask[1, :, 11:].any()
    assert to_supervision(FOUND, CLASSES).mask is None
    nothing: Any = to_supervision(FOUND.select(torch.zeros(2, dtype=torch.bool)), CLASSES, (16, 24))
    assert nothing.xyxy.shape == (0, 4)


@pytest.mark.usefixtures("packages")
def test_fiftyone() -> None:
    first, second = to_fiftyone(FOUND, CLASSES, (16, 24)).detections
    assert (first.label, second.label) == ("traffic light", "cat")
    assert first.bounding_box == pytest.approx([2 / 24, 4 / 16, 8 / 24, 8 / 16])
    assert second.bounding_box == pytest.approx([0, 0, 20 / 24, 8 / 16])
    assert (first.confidence, second.confidence) == (0.75, 0.5)
    assert np.array_equal(first.mask, np.ones((8, 8), bool))
    assert second.mask.shape == (8, 20)
    assert second.mask[:, :9].all()
    assert not second.mask[:, 11:].any()


@pytest.mark.usefixtures("packages")
def test_masks_are_those_of_the_pixels_into_which_fiftyone_draws_them() -> None:
    """As its `render_instance_mask` does: corners rounded down, the mask resized to what lies between."""
    height, width = 60, 90
    corners = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) * 30
    boxes = torch.cat((corners, corners + 4 + corners.flip(0) / 2), 1)
    centres = (torch.arange(28) + 0.5) / 14 - 1
    ellipse = ((centres[:, None] ** 2 + centres**2) < 0.8).float().expand(len(boxes), 28, 28)
    objects = Objects(boxes, torch.ones(len(boxes)), torch.zeros(len(boxes), dtype=torch.int64), ellipse)
    pasted = paste(ellipse, boxes, (height, width))
    for i, found in enumerate(to_fiftyone(objects, CLASSES, (height, width)).detections):
        x, y, w, h = found.bounding_box
        left, top, right, bottom = int(width * x), int(height * y), int(width * (x + w)), int(height * (y + h))
        assert found.mask.shape == (bottom - top, right - left)
        assert np.array_equal(found.mask, pasted.dense(i).numpy()[top:bottom, left:right])


def test_packages_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("supervision", "fiftyone"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match="supervision is not installed: pip install supervision"):
        to_supervision(FOUND, CLASSES)
    with pytest.raises(ModuleNotFoundError, match="fiftyone is not installed: pip install fiftyone"):
        to_fiftyone(FOUND, CLASSES, (16, 24))
