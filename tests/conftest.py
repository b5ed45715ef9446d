"""What several tests share: composed configurations, small models, random batches."""

import atexit
import gc
import os
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import torchvision
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from torch import Tensor

from detector.config import build
from detector.config.resolve import with_classes
from detector.models import vgg
from detector.models.rcnn import RCNN
from detector.training.optim import Muon
from detector.types import Batch, Masks, Target
from tests.composing import copy_quickly, read_once

read_once()
copy_quickly()

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than cores: some tests wait, for a script or for the end of a compilation."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that all processes end at about the same time."""

    def minutes(item: pytest.Item) -> float:
        mark = item.get_closest_marker("slow")
        return mark.kwargs.get("minutes", 0) if mark else 0

    items.sort(key=minutes, reverse=True)


ROOT = Path(__file__).resolve().parents[1]
CLASSES = ["circle", "square", "star", "ring"]

Compose = Callable[..., DictConfig]


@cache
def _composed(name: str, groups: tuple[str, ...]) -> bytes:
    """Compose, and pickle what was composed: a copy by pickle takes a fifth of a deep copy's time."""
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return pickle.dumps(compose(name, overrides=list(groups)))


def _chooses(override: str) -> bool:
    """Whether an override chooses a file of a group, rather than a value."""
    return (ROOT / "configs" / override.partition("=")[0].strip("+~").partition("@")[0]).is_dir()


def compose_config(*overrides: str, name: str = "train") -> DictConfig:
    """Compose as Hydra does: once for each choice of groups, into which the values are set."""
    config = pickle.loads(_composed(name, tuple(filter(_chooses, overrides))))
    values = [override for override in overrides if not _chooses(override)]
    ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(values), config)
    return config


def small_model(*overrides: str, seed: int = 0) -> RCNN:
    """A narrow detector of four classes with random weights."""
    config = compose_config("backbone.channels=32", "backbone.width=64", *overrides)
    torch.manual_seed(seed)
    model = build.build_model(with_classes(config, CLASSES))
    assert isinstance(model, RCNN)
    return model


def confident(model: RCNN) -> RCNN:
    """The model with weights and statistics so large that an untrained one finds things of every class."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if any(part in name for part in ("classify", "regress", "objectness", "proposer.head.deltas")):
                value.normal_(0, 0.1 if "regress" in name or "deltas" in name else 0.5, generator=generator)
        for name, value in model.named_buffers():
            if "running_mean" in name:
                value.normal_(0, 0.1, generator=generator)
            elif "running_var" in name:
                value.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def dense(masks: Masks) -> Tensor:
    """The masks over the whole image, bool [G, H, W]."""
    return (
        torch.stack([masks.dense(i) for i in range(len(masks))]) if len(masks) else torch.zeros(0, *masks.size).bool()
    )


def random_target(size: tuple[int, int], count: int, generator: torch.Generator) -> Target:
    """Rectangles of 10 to 40 pixels with their masks."""
    height, width = size
    side = 10 + 30 * torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (torch.tensor([width, height]) - side)
    boxes = torch.cat((corner, corner + side), 1)
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    edges = boxes.T[:, :, None, None]
    masks = (x > edges[0]) & (x < edges[2]) & (y > edges[1]) & (y < edges[3])
    labels = torch.randint(len(CLASSES), (count,), generator=generator)
    flags = torch.zeros(count, dtype=torch.bool)
    return Target(boxes, labels, flags, flags.clone(), Masks.from_dense(masks, size))


def random_batch(
    *counts: int, size: tuple[int, int] = (128, 160), seed: int = 0, proposals: int | None = None
) -> Batch:
    """Images of noise on which each object is a patch of its class's brightness; `counts` objects each.

    With `proposals`, so many random ones are given with each.
    """
    generator = torch.Generator().manual_seed(seed)
    images, targets = [], []
    for count in counts:
        image = torch.randint(0, 60, (3, *size), generator=generator, dtype=torch.uint8)
        target = random_target(size, count, generator)
        assert target.masks is not None
        for mask, label in zip(dense(target.masks), target.labels.tolist(), strict=True):
            image[:, mask] = 100 + 50 * label
        images.append(image)
        targets.append(target)
    sizes = [size] * len(counts)
    given = None if proposals is None else [random_target(size, proposals, generator).boxes for _ in counts]
    return Batch(torch.stack(images), sizes, sizes, list(range(len(counts))), targets, given)


def pytest_collection_finish() -> None:
    """Leave what the imports made out of later garbage collections, which would look through all of it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    atexit.register(gc.unfreeze)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies of a quarter of the channels, residual stages of one block."""
    stage = torchvision.models.ResNet._make_layer
    narrow = lambda self, block, planes, _, **options: stage(self, block, planes // 4, 1, **options)  # noqa: E731
    monkeypatch.setattr(torchvision.models.ResNet, "_make_layer", narrow)
    monkeypatch.setattr(vgg, "STAGES", [(width // 4, count) for width, count in vgg.STAGES])


def learn(model: RCNN, batch: Batch, rate: float, steps: int) -> list[float]:
    """Train on one batch by Muon, in a one-cycle schedule up to AdamW's `rate`; returns the losses at each step."""
    optimizer = Muon(model.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    history = []
    for step in range(steps):
        torch.manual_seed(step)
        total = torch.stack(list(model.loss(batch).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
        history.append(float(total.detach()))
    return history
