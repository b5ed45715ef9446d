"""Show detections and precision-recall curves during a training, in TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from torch import Tensor

from detector.data.collate import collate
from detector.data.datamodule import DetectionDataModule
from detector.evaluation.coco import CocoMetric, Curves
from detector.training.task import DetectionTask
from detector.types import Objects, Target
from detector.visualize import draw_sheet

THRESHOLDS = 101
"""Scores 0, 0.01, ..., 1 of a curve: TensorBoard shows a point for each."""


def detect_some(
    task: DetectionTask, data: DetectionDataModule, count: int = 8
) -> Iterator[tuple[Tensor, Target, Objects]]:
    """Detect the objects on images evenly spaced in the validation split; `task` is in evaluation mode then.

    Yields:
        image, ground truth, detections, in the image's own pixels.
    """
    task.eval()
    count = min(count, len(data.val))
    for number in range(count):
        sample = data.val[number * len(data.val) // count]
        batch = collate([data.val_augment(sample, 0)], data.stride)
        with torch.inference_mode():
            found = task.detect(batch.to(task.device))[0].to("cpu")
        yield sample.image, sample.target, found


class Pictures(Callback):
    """Write detections on a few images, and each class's precision-recall curve, to TensorBoard at each validation.

    Args:
        data: with the validation split.
        count: images.
    """

    def __init__(self, data: DetectionDataModule, count: int = 4) -> None:
        self.data, self.count = data, count

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write them, in one process."""
        if trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, DetectionTask)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                self._write(logger, pl_module, trainer)

    def _write(self, logger: TensorBoardLogger, task: DetectionTask, trainer: Trainer) -> None:
        writer, step, classes = logger.experiment, trainer.global_step, self.data.val.classes
        with trainer.precision_plugin.forward_context():
            sheet = draw_sheet(detect_some(task, self.data, self.count), classes)
        writer.add_image("detections", np.asarray(sheet), step, dataformats="HWC")
        for metric in task.metrics:
            if isinstance(metric, CocoMetric):
                for kind, curves in metric.curves.items():
                    for place, name in enumerate(classes):
                        if curves.objects[place]:
                            counts, precision, recall = at_thresholds(curves, place)
                            writer.add_pr_curve_raw(
                                f"{kind}_AP50/{name}", *counts, precision, recall, step, num_thresholds=THRESHOLDS
                            )


def at_thresholds(curves: Curves, place: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Compute what TensorBoard shows of a class's curve, for the detections of at least each of `THRESHOLDS` scores.

    Returns:
        counts: [4, THRESHOLDS]: of true and false positives, true negatives (none are known) and missed objects, as far
            as COCO's interpolated curve tells: it leaves out false positives before the first true one and after the
            last.
        precision, recall: [THRESHOLDS].
    """
    precision, scores = curves.precision[:, place], curves.scores[:, place]
    limits = np.linspace(0, 1, THRESHOLDS)
    reached = (precision > 0)[None] & (scores[None] >= limits[:, None])  # [threshold, recall]
    last = np.where(reached.any(1), reached.shape[1] - 1 - reached[:, ::-1].argmax(1), -1)
    recall = np.where(last < 0, 0.0, last / (len(precision) - 1))
    precise = np.where(last < 0, 1.0, precision[last])
    true = recall * curves.objects[place]
    false = np.where(last < 0, 0.0, true * (1 - precise) / precise)
    return np.stack((true, false, np.zeros_like(true), curves.objects[place] - true)), precise, recall
