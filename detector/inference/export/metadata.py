"""What a file says of itself: classes, thresholds, preprocessing and the project's version, as texts by name."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from detector.inference.detector import Detector
from detector.inference.export.graph import Graph
from detector.models.rcnn import Normalize

PROJECT = "aligned-rcnn"


def project_version() -> str:
    """Return the version of this project: of the installed package, or of the clone that is used without one."""
    try:
        return version(PROJECT)
    except PackageNotFoundError:
        path = Path(__file__).resolve().parents[3] / "pyproject.toml"
        found: str = tomllib.loads(path.read_text(encoding="utf-8"))["project"]["version"]
        return found


def describe(detector: Detector, graph: Graph) -> dict[str, str]:
    """Describe an exported detector; what is no text is JSON."""
    normalize, resizing, select = graph.model.normalize, graph.resizing, getattr(graph.model.heads, "select", None)
    content: dict[str, Any] = {
        "producer": f"{PROJECT} {project_version()}",
        "input": f"image: uint8 [{graph.channels}, height, width]{', RGB' if graph.channels == 3 else ''}, of any size",
        "outputs": graph.names(),
        "boxes": "x1, y1, x2, y2 in pixels of the image",
        "classes": detector.classes,
        "short_size": resizing.short,
        "max_size": resizing.longest,
        "size_divisibility": resizing.divisibility,
    }
    if graph.masks is not None:
        content["masks"] = graph.masks
    if isinstance(normalize, Normalize):
        content |= {"mean": normalize.mean.flatten().tolist(), "std": normalize.std.flatten().tolist()}
    for name in ("score_thresh", "nms_thresh", "topk_per_image"):
        if (value := getattr(select, name, None)) is not None:
            content[name] = value
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in content.items()}
