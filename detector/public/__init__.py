"""Train and use two-stage detectors: what this project shows Python, as the package `aligned_rcnn`.

    from aligned_rcnn import Detector, train

    run = train({"dataset": "custom", "dataset.train.annotations": "train.json", ...})
    objects = Detector(run.checkpoint)("photo.jpg")

Names are imported when they are first used, since torch and Lightning take seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from detector.names import here

if TYPE_CHECKING:
    from detector.inference.detector import Detector
    from detector.public.runs import Run, ablate, evaluate, train

__all__ = ["Detector", "Run", "ablate", "evaluate", "train"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("aligned-rcnn")
    if name in ("detector", "ops"):  # they lie in this package, or in a clone beside it
        return importlib.import_module(here(name))
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = here("detector.inference.detector") if name == "Detector" else f"{__name__}.runs"
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__", "detector", "ops"]
