"""Read and load weights: checkpoints of this project, detectors of torchvision and Detectron2."""

from __future__ import annotations

from detector.weights.changed_settings import changed_settings
from detector.weights.conversion import PLACEHOLDER, PretrainedWeights
from detector.weights.loading import LoadReport, load_weights
from detector.weights.reading import read_weights
from detector.weights.torchvision import NAMES as TORCHVISION

__all__ = [
    "PLACEHOLDER",
    "TORCHVISION",
    "LoadReport",
    "PretrainedWeights",
    "changed_settings",
    "load_weights",
    "read_weights",
]
