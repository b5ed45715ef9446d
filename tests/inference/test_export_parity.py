"""What counts as the same detections, and what is compared and measured of a file."""

import copy
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console

from detector.inference.export.parity import compare
from detector.inference.export.quantization import measure, outputs_of
from detector.inference.export.runners import Runner
from detector.inference.export.script import check_parity
from detector.masks import MaskOutput, paste
from detector.types import Objects

SIZE = (60, 80)


def detections(count: int = 4) -> Objects:
    generator = torch.Generator().manual_seed(0)
    corner = 30 * torch.rand(count, 2, generator=generator)
    boxes = torch.cat((corner, corner + 10 + 20 * torch.rand(count, 2, generator=generator)), 1)
    scores = torch.tensor([0.9, 0.7, 0.4, 0.06])[:count]
    return Objects(boxes, scores, torch.arange(count) % 2, torch.rand(count, 14, 14, generator=generator))


def runner_of(objects: Objects, **metadata: Any) -> Runner:
    values = [objects.boxes, objects.scores, objects.labels, *([] if objects.masks is None else [objects.masks])]
    outputs = ["boxes", "scores", "labels", "masks"][: len(values)]
    texts = {"outputs": json.dumps(outputs), **{name: json.dumps(value) for name, value in metadata.items()}}
    return Runner("runtime 1.0", "model.onnx", texts, lambda image: values)


@pytest.mark.parametrize(
    ("change", "equal"),
    [
        ({}, True),
        ({"boxes": 0.009}, True),
        ({"boxes": 0.011}, False),
        ({"boxes": 2.0}, False),
        ({"scores": 9e-5}, True),
        ({"scores": 1.1e-4}, False),
        ({"labels": 1}, False),
        ({"masks": 0.5}, False),
    ],
)
def test_limits_of_a_difference(change: dict[str, float], equal: bool) -> None:
    expected = detections() if "masks" in change else replace(detections(), masks=None)
    other = copy.deepcopy(expected)
    for name, by in change.items():
        getattr(other, name)[2] += by
    found = compare(expected, other, SIZE, "a.png", 0.05, 100)
    assert found.equal == equal, found


@pytest.mark.parametrize(("lowest", "limit", "equal"), [(0.0599, 100, True), (0.05, 100, False), (0.05, 4, True)])
def test_a_detection_is_left_out_only_at_the_limit(lowest: float, limit: int, equal: bool) -> None:
    expected = detections()
    found = compare(expected, expected.select(torch.arange(3)), SIZE, "a.png", lowest, limit)
    assert (found.expected, found.found, found.matched, found.at_limit) == (4, 3, 3, int(equal))
    assert found.equal == equal


def test_masks_on_one_side_alone_are_a_difference() -> None:
    expected = detections()
    assert compare(expected, expected, SIZE, "a.png", 0.05, 100).equal
    for pair in ((expected, replace(expected, masks=None)), (replace(expected, masks=None), expected)):
        found = compare(*pair, SIZE, "a.png", 0.05, 100)
        assert found.mask == 1.0
        assert not found.equal


def test_a_file_of_other_classes_is_refused() -> None:
    heads = SimpleNamespace(select=None, outputs=[])
    detector: Any = SimpleNamespace(classes=["a", "b"], model=SimpleNamespace(heads=heads))
    with pytest.raises(ValueError, match=r"model\.onnx has 2 classes \(b, a\) and the checkpoint 2 \(a, b\)"):
        check_parity(detector, runner_of(detections(), classes=["b", "a"]), iter([]), Console(quiet=True))
    check_parity(detector, runner_of(detections(), classes=["a", "b"]), iter([]), Console(quiet=True))


def test_pasted_masks_are_measured_as_they_are() -> None:
    grids = detections()
    assert grids.masks is not None
    codes = MaskOutput()(grids, SIZE)
    pasted = paste(grids.masks, grids.boxes, SIZE)
    whole = replace(grids, masks=torch.stack([pasted.dense(i) for i in range(len(grids))]))
    file = runner_of(whole)
    file = replace(file, metadata={**file.metadata, "masks": "pasted"})
    assert [output(file(torch.zeros(3, *SIZE)), SIZE) for output in outputs_of(file, [MaskOutput()])] == [codes]
    file = replace(runner_of(grids), metadata={**runner_of(grids).metadata, "masks": "grids"})
    assert [output(file(torch.zeros(3, *SIZE)), SIZE) for output in outputs_of(file, [MaskOutput()])] == [codes]


class Deep:
    """A dataset of one image of floats."""

    category_ids = (1,)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return SimpleNamespace(id="deep.tif", image=torch.zeros(3, *SIZE), original_size=SIZE)

    def ground_truth(self) -> dict[str, Any]:
        return {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}


def test_deep_images_are_not_measured() -> None:
    config = OmegaConf.create({"dataset": {"size_bins": [16, 48], "detections": 100, "metrics": []}})
    resolved: Any = SimpleNamespace(config=config, datasets={"val": Deep()})
    with pytest.raises(ValueError, match=r"image deep\.tif is deeper than 8 bits, and exported models take uint8"):
        measure(runner_of(detections()), resolved, [])
