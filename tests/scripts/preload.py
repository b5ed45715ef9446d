"""Imported by the server that scripts are forked from: what they import, and Hydra's parsers warmed up."""

import atexit
import gc

import torch.utils.tensorboard  # noqa: F401

import detector.config.cli
import detector.config.command_line
import detector.data.shapes
import detector.inference.detector
import detector.models.mask_head
import detector.models.resnet
import detector.models.roi_heads
import detector.training.run  # noqa: F401
from detector.config.resolve import with_classes
from detector.weights.checkpoints import portable_config
from tests.composing import compose_once
from tests.conftest import CLASSES, ROOT, compose_config

compose_once()
for script in (ROOT / "configs").glob("*.yaml"):
    compose_config(name=script.stem)
portable_config(with_classes(compose_config("model=mask_rcnn"), CLASSES))
gc.collect()
gc.freeze()  # so that no fork looks through it all again
atexit.register(gc.unfreeze)
