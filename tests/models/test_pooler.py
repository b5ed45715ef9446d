"""Which of the maps a RoI is pooled from."""

from functools import partial

import pytest
import torch
from torch import Tensor

import ops
from detector.config import build
from detector.config.resolve import with_classes
from detector.models.pooler import Pooler
from tests.conftest import CLASSES, compose_config

STRIDES = [4, 8, 16, 32, 64]
BOX = torch.tensor([[8.0, 8.0, 120.0, 120.0]])


def maps() -> list[Tensor]:
    """Of an image of 128 px; each holds its stride."""
    return [torch.full((1, 3, 128 // stride, 128 // stride), float(stride)) for stride in STRIDES]


@pytest.mark.parametrize("strides", [[4], [8], [64], [8, 16], [4, 8, 16, 32]])
def test_rois_are_pooled_from_the_maps_of_their_strides(strides: list[int]) -> None:
    assign = partial(ops.assign_levels, canonical_size=112, canonical_level=3)  # the box's is stride 8
    pooler = Pooler(ops.multiscale_roi_align, assign, 2, strides, of=STRIDES)
    wanted = 8 if 8 in strides else strides[0]
    torch.testing.assert_close(pooler(maps(), [BOX]), torch.full((1, 3, 2, 2), float(wanted)))


def test_a_configured_detector_pools_from_the_map_that_is_asked_for() -> None:
    for model, path in (
        ("mask_rcnn", "heads.box_pooler"),
        ("mask_rcnn", "heads.mask_pooler"),
        ("rfcn", "heads.pooler"),
    ):
        config = compose_config(f"model={model}", "backbone.roi_strides=[16]")
        pooler = build.build_model(with_classes(config, CLASSES)).get_submodule(path)
        assert isinstance(pooler, Pooler)
        assert (pooler.places, pooler.scales) == ([2], [1 / 16])


@pytest.mark.parametrize("strides", [[5], [16, 8], [8, 8], []])
def test_strides_that_no_map_has_are_refused(strides: list[int]) -> None:
    with pytest.raises(
        ValueError, match=r"which must rise and be among \[4, 8, 16, 32, 64\]; set backbone.roi_strides"
    ):
        Pooler(ops.multiscale_roi_align, ops.assign_levels, 2, strides, of=STRIDES)
