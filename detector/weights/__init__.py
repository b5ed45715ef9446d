"""Weights: this project's checkpoints, and detectors of torchvision and Detectron2."""

from __future__ import annotations

from detector.weights.departures import departures
from detector.weights.foreign import PLACEHOLDER, Foreign
from detector.weights.loading import Report, load
from detector.weights.reading import read_weights
from detector.weights.torchvision import NAMES as TORCHVISION

__all__ = ["PLACEHOLDER", "TORCHVISION", "Foreign", "Report", "departures", "load", "read_weights"]
