"""The base of all metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod

from detector.evaluation.collector import Collector


class Metric(ABC):
    """Measure a collector's detections against its ground truth.

    A dataset's configuration lists its metrics as nodes, `metrics: [{_target_: mypackage.MyMetric, threshold: 0.3}]`.
    Each is built once per run, with the run's collector as the argument `collector` and the node's other keys as
    arguments of their own. `results` is called after each pass over the validation images. A metric reads, and does not
    change:

    - `collector.classes`, `collector.category_ids`: the class name and the category id of each label;
    - `collector.size_bins`: the two sides, in pixels, that divide small, medium and large objects;
    - `collector.limit`: the most detections of an image;
    - `collector.images`: the ids of the images to measure, and for each of them
    - `collector.image(id)`: its `height` and `width`;
    - `collector.annotations(id)`: its ground-truth objects in COCO's format (`category_id`, `bbox`, `iscrowd`,
      `ignore`, `segmentation`, and the dataset's own keys);
    - `collector.detections(id)`: `boxes`, `scores`, `labels`, and `shapes` by output name: the encoded predictions of a
      further head, one per detection;
    - `collector.outputs`: those outputs; `collector.output("segmentation")` is the one written under that key, or None.

    In a distributed run every process measures the same merged detections.
    """

    def __init__(self, collector: Collector) -> None:
        self.collector = collector

    @abstractmethod
    def results(self) -> dict[str, float]:
        """Measure the collected detections.

        It is first called before training, with no detections on any image: the names that it returns then are those
        that `schedule.monitor` accepts. So return values (such as 0) also where nothing is detected.

        Returns:
            Values by name, as they are written to `metrics.json`: fractions in 0..1. A name with one `/`, such as
            `box/AP`, is also logged during training and can be `schedule.monitor`; one with more, such as
            `box/AP/<class>`, is not. Metrics without ground-truth objects are omitted.
        """
