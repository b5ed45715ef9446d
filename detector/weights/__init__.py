"""Weights of others in this project's modules: torchvision's, Detectron2's, and those of earlier runs."""

from __future__ import annotations

from detector.weights.departures import departures
from detector.weights.foreign import PLACEHOLDER, Foreign
from detector.weights.loading import Report, load
from detector.weights.reading import read
from detector.weights.torchvision import NAMES as TORCHVISION

__all__ = ["PLACEHOLDER", "TORCHVISION", "Foreign", "Report", "departures", "load", "read"]
