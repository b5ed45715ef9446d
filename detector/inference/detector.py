"""Detect objects in images with a trained detector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Self

import torch
from omegaconf import OmegaConf
from torch import Tensor

from detector.config.build import build_model, instantiate, takes_proposals
from detector.config.resolve import PRECISIONS, Resolved, resolve
from detector.data.collate import collate
from detector.data.image import ImageReader
from detector.models.folding import fold
from detector.types import Objects, Sample, Target


class Detector:
    """Detect objects in images with a trained model.

    Its `reader` reads image files as in training.

    Args:
        checkpoint: a checkpoint of this project, or a source for `detector.weights.read_weights`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        precision: `32-true`, `64-true`, `bf16-mixed` or `16-mixed`; None: the precision of the training.
        norm_eps: see `detector.config.trained.open_checkpoint`.
        trust: packages of which the checkpoint may build parts.
        detections: the most of an image; None: as in training.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the checkpoint cannot be read, needs proposals, or the device or a number is invalid.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        device: str = "auto",
        precision: str | None = None,
        norm_eps: float | None = None,
        trust: Sequence[str] = (),
        detections: int | None = None,
    ) -> None:
        settings = {
            "checkpoint": str(checkpoint),
            "device": str(device),
            "precision": precision,
            "norm_eps": norm_eps,
            "trust": list(trust),
            "detections": detections,
        }
        self._load(resolve(OmegaConf.create(settings), splits=()), device, str(checkpoint))

    @classmethod
    def of(cls, resolved: Resolved, device: str, checkpoint: str) -> Self:
        """Build the detector of a configuration that was resolved with a `checkpoint`."""
        detector = cls.__new__(cls)
        detector._load(resolved, device, checkpoint)
        return detector

    def _load(self, resolved: Resolved, device: str, checkpoint: str) -> None:
        config, trained = resolved.config, resolved.trained
        assert trained is not None
        if takes_proposals(config.model):
            raise ValueError(
                f"checkpoint {checkpoint!r} takes proposals from a file, and these images have none; train it with "
                "proposals=RUN/checkpoints/last.ckpt, which makes that run's RPN a part of it"
            )
        self.classes: list[str] = list(config.classes)
        self.dtype = PRECISIONS[config.trainer.precision]
        self.device = usable_device(device)
        model = build_model(config)
        trained.load(model)
        self.model = fold(model.double() if config.trainer.precision == "64-true" else model).to(self.device)
        node = config.dataset.get("reader")  # a dataset of the user's own may have none
        self.reader: ImageReader = ImageReader() if node is None else instantiate(node)
        self.augment: Callable[[Sample, int], Sample] = instantiate(config.dataset.val_augment)
        self.size_divisibility: int = config.backbone.size_divisibility

    @torch.inference_mode()
    def __call__(self, images: Sequence[Tensor]) -> list[Objects]:
        """Return the detections in images of any sizes, in pixels of each image.

        Args:
            images: as `self.reader` reads them: uint8 [3, H, W], RGB, unless the training's were others.
        """
        samples = [self.augment(_unlabelled(image, i), 0) for i, image in enumerate(images)]
        with torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext():
            found = self.model(collate(samples, self.size_divisibility).to(self.device))
        return [objects.to("cpu") for objects in found]


def usable_device(name: str) -> torch.device:
    """Return the device of a name; `auto` is a CUDA GPU if there is one, else the CPU.

    Raises:
        ValueError: the device does not exist or cannot be used, or the operators do not run on it.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise ValueError(f"device={name!r} is no device; use auto, cpu, cuda, cuda:1, ...") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device={name}: the operators run on CPUs and CUDA GPUs only; use device=auto or device=cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={name}: torch finds no GPU; use device=cpu")
    try:
        torch.empty(0, device=device)
    except RuntimeError as error:
        raise ValueError(
            f"device={name}: torch cannot use it on this machine; use device=auto or device=cpu"
        ) from error
    return device


def _unlabelled(image: Tensor, name: int) -> Sample:
    flags = torch.zeros(0, dtype=torch.bool)
    target = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), flags, flags)
    return Sample(image, target, name, (image.shape[1], image.shape[2]))
