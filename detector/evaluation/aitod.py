"""Measure AP and AR by the sizes of AI-TOD's tiny objects."""

from __future__ import annotations

from detector.evaluation.accumulate import accumulate
from detector.evaluation.coco import UNBOUNDED, mean
from detector.evaluation.collector import Collector
from detector.evaluation.comparison import LIMITS
from detector.evaluation.metric import Metric

SIZES = {"vt": (0, 8), "t": (8, 16), "s": (16, 32), "m": (32, UNBOUNDED**0.5)}
"""AI-TOD's very tiny, tiny, small and medium objects: two sides in pixels, whose squares bound the area.

The paper writes 2 to 8 for the first and 32 to 64 for the last, the authors' evaluation leaves both open.
"""
MAX_DETS = 1500
"""AI-TOD's most detections of an image and class."""


class AITODMetric(Metric):
    """Measure AP and AR of boxes over IoU 0.5:0.95 by AI-TOD's sizes (Wang et al., ICPR 2020, table 1).

    The metrics are `aitod/AP aitod/AP50 aitod/AP75 aitod/APvt aitod/APt aitod/APs aitod/APm` and AR alike: COCO's, with
    the 1500 best detections of an image and class in place of 100 (as many as the collector keeps, its `limit`, if
    these are fewer), and with other ranges of areas.
    """

    def __init__(self, collector: Collector) -> None:
        super().__init__(collector)

    def results(self) -> dict[str, float]:
        """Measure AP and AR; see `Metric.results`."""
        if not self.collector.images:
            return {}
        areas = {"all": (0.0, UNBOUNDED)} | {name: (low**2, high**2) for name, (low, high) in SIZES.items()}
        most = max(min(self.collector.limit, MAX_DETS), LIMITS[-1])
        found = accumulate(self.collector, "box", areas, [most])
        precision, recall = found.precision[..., 0], found.recall[..., 0]  # [IoU, (recall,) class, area]
        values = {
            "AP": mean(precision[..., 0]),
            "AP50": mean(precision[found.thresholds == 0.5, ..., 0]),
            "AP75": mean(precision[found.thresholds == 0.75, ..., 0]),
            "AR": mean(recall[..., 0]),
        }
        for place, name in enumerate(SIZES, 1):
            values |= {f"AP{name}": mean(precision[..., place]), f"AR{name}": mean(recall[..., place])}
        return {f"aitod/{name}": value for name, value in values.items() if value is not None}
