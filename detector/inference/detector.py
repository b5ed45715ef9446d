"""Detect objects in images with a trained detector."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self, overload

import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from detector.config.build import build_model, instantiate, takes_proposals
from detector.config.resolve import PRECISIONS, Resolved, resolve
from detector.data.image import ImageReader
from detector.inference.detect import Detect, TestTimeAugmentation
from detector.inference.given_images import GivenImage, as_tensor, as_tensors, is_one
from detector.inference.joining import Join
from detector.inference.tiles import Tiling, detect_tiles, regions_of
from detector.models.folding import fold
from detector.models.rcnn import RCNN
from detector.types import Objects, Sample
from detector.visualize import draw


class Detector:
    """Detect objects in images with a trained model.

        detector = Detector("RUN/checkpoints/best.ckpt")
        objects = detector("photo.jpg")
        detector.draw("photo.jpg", objects).save("drawn.png")

    Args:
        checkpoint: a checkpoint of this project, or a source for `detector.weights.read_weights`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        precision: `32-true`, `64-true`, `bf16-mixed` or `16-mixed`; None: the precision of the training.
        norm_eps: see `detector.config.trained.open_checkpoint`.
        trust: packages of which the checkpoint may build parts.
        detections: the most of an image, or of a window; None: as in training.
        test_time_augmentation: None, or such as `{"flip": True, "scales": [0.8, 1, 1.25]}`: images are also detected in
            flipped from left to right and resized, and what is found is joined by NMS.
        pre_nms_topk: boxes of each level that the RPN keeps before NMS; None: as in training.
        post_nms_topk: proposals of an image or window that it keeps: more find more where objects are crowded.
        nms_thresh: IoU with a better detection of its class from which on one is dropped; None: as in training.

    Attributes:
        classes: names by label.
        detections: the most of an image, or of a window.
        reader: reads image files as in training.

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
        test_time_augmentation: Mapping[str, Any] | TestTimeAugmentation | None = None,
        pre_nms_topk: int | None = None,
        post_nms_topk: int | None = None,
        nms_thresh: float | None = None,
    ) -> None:
        test_time = TestTimeAugmentation.parse(test_time_augmentation)
        settings = {
            "checkpoint": str(checkpoint),
            "device": str(device),
            "precision": precision,
            "norm_eps": norm_eps,
            "trust": list(trust),
            "detections": detections,
            "pre_nms_topk": pre_nms_topk,
            "post_nms_topk": post_nms_topk,
            "nms_thresh": nms_thresh,
        }
        self._load(resolve(OmegaConf.create(settings), splits=()), device, str(checkpoint), test_time)

    @classmethod
    def of(cls, resolved: Resolved, device: str, checkpoint: str) -> Self:
        """Build the detector of a configuration that was resolved with a `checkpoint`."""
        detector = cls.__new__(cls)
        detector._load(resolved, device, checkpoint)
        return detector

    @classmethod
    def around(cls, model: RCNN, config: DictConfig) -> Self:
        """Build the detector, on the CPU, of a model and of the final configuration that it was built from."""
        detector = cls.__new__(cls)
        detector._place(model, config, torch.device("cpu"))
        return detector

    def _load(
        self, resolved: Resolved, device: str, checkpoint: str, test_time: TestTimeAugmentation | None = None
    ) -> None:
        config, trained = resolved.config, resolved.trained
        assert trained is not None
        if takes_proposals(config.model):
            raise ValueError(
                f"checkpoint {checkpoint!r} takes proposals from a file, and these images have none; train it with "
                "proposals=RUN/checkpoints/last.ckpt, which makes that run's RPN a part of it"
            )
        usable = usable_device(device)
        model = build_model(config)
        trained.load(model)
        self._place(model, config, usable, test_time)

    def _place(
        self, model: RCNN, config: DictConfig, device: torch.device, test_time: TestTimeAugmentation | None = None
    ) -> None:
        self.classes: list[str] = list(config.classes)
        self.dtype, self.device = PRECISIONS[config.trainer.precision], device
        self.model = fold(model.double() if config.trainer.precision == "64-true" else model).to(self.device)
        node = config.dataset.get("reader")  # a dataset of the user's own may have none
        self.reader: ImageReader = ImageReader() if node is None else instantiate(node)
        self.augment: Callable[[Sample, int], Sample] = instantiate(config.dataset.val_augment)
        self.size_divisibility: int = config.backbone.size_divisibility
        self.detections = int(config.dataset.get("detections") or 100)
        self._detect = Detect(
            self.model, self.augment, self.size_divisibility, test_time, self.detections, self._context
        )

    def _context(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext()

    @overload
    def __call__(self, images: GivenImage) -> Objects: ...  # type: ignore[overload-overlap]  # of str, which is one

    @overload
    def __call__(self, images: Sequence[GivenImage]) -> list[Objects]: ...

    def __call__(self, images: GivenImage | Sequence[GivenImage]) -> Objects | list[Objects]:
        """Detect the objects in one image, or in each of several of any sizes, in pixels of the image.

        Args:
            images: one image or a sequence of images, each

                - a path, read by `self.reader` as in training: upright, if EXIF turns it;
                - a PIL image, upright by its EXIF orientation, too;
                - an array uint8 [H, W, 3] in the order RGB (OpenCV's are BGR: `array[..., ::-1]`), or [H, W], grey;
                - a tensor uint8 [3, H, W], RGB.

                For a detector of other channels than RGB, D of them in place of 3; deep images are tensors of floats in
                0..255, as `self.reader.read` returns them. A tensor of four dimensions is a sequence.

        Returns:
            the detections of the image, best first, on the CPU; for a sequence a list of them. What is given together
            is padded to one size, and computed at once.

        Raises:
            FileNotFoundError, ValueError: a file cannot be read, or an array or tensor has another shape or type.
            TypeError: something is no image.
        """
        if is_one(images):
            return self._found([as_tensor(images, self.reader)])[0]
        return self._found(as_tensors(images, self.reader))

    @torch.inference_mode()
    def _found(self, images: Sequence[Tensor]) -> list[Objects]:
        return [objects.to("cpu") for objects in self._detect(images, self.device)]

    def detect_tiles(
        self,
        image: GivenImage,
        tiles: int = 1024,
        overlap: float = 0.2,
        join: Join = "iou",
        join_thresh: float = 0.5,
        batch: int = 1,
    ) -> Objects:
        """Detect the objects in an image of any size, window by window, and join what several windows find of one.

        Args:
            image: as of a call. Of a path whose format allows, only the windows are read (`ImageReader.regions`).
            tiles, overlap, join, join_thresh: see `Tiling`.
            batch: windows that are computed at once.

        Returns:
            the detections, best first, as many as there are, in pixels of the image.

        Raises:
            FileNotFoundError, ValueError, TypeError: as of a call; or a number is out of range.
        """
        tiling = Tiling(tiles, overlap, join, join_thresh)
        if isinstance(image, str | os.PathLike):
            with self.reader.regions(Path(image)) as regions:
                return detect_tiles(regions.read, regions.size, tiling, self._found, batch)
        pixels = as_tensor(image, self.reader)
        size = pixels.shape[1], pixels.shape[2]
        return detect_tiles(regions_of(pixels), size, tiling, self._found, batch)

    def draw(self, image: GivenImage, objects: Objects, threshold: float = 0.5) -> Image.Image:
        """Draw detections on their image: boxes, masks, class names and scores in %.

        Args:
            image: as of a call.
            objects: the detections in it.
            threshold: those with a lower score are not drawn.

        Returns:
            a picture in RGB; small images are enlarged by a whole number (`detector.visualize.draw`).

        Raises:
            FileNotFoundError, ValueError, TypeError: as of a call.
        """
        return draw(as_tensor(image, self.reader), objects, self.classes, threshold)


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
