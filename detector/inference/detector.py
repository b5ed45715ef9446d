"""A trained detector on any image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from detector.config import build
from detector.data.collate import collate
from detector.masks import Paste
from detector.models.folding import fold
from detector.types import Objects, Sample, Target

PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""What matrix products and convolutions are computed in, as Lightning names it."""


class Detector:
    """A checkpoint made ready: images in, objects out.

    Args:
        checkpoint: as written by train.py, or weights of others as `detector.weights.read` names them.
        device: `auto`, or one of torch's names.
        precision: one of `PRECISIONS`; None for that of the training.
        norm_eps: of weights of others, as `detector.config.build.open_checkpoint` takes it.

    Raises:
        FileNotFoundError, ValueError: the checkpoint cannot be read, or the device is not there.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        device: str = "auto",
        precision: str | None = None,
        norm_eps: float | None = None,
    ) -> None:
        trained = build.open_checkpoint(checkpoint, norm_eps)
        config = trained.config
        if build.takes_proposals(config):
            raise ValueError(
                f"checkpoint {str(checkpoint)!r} works on proposals from a file, and these images have none; train it "
                "with proposals=RUN/checkpoints/last.ckpt, whose RPN then is a part of it"
            )
        self.config = config
        self.classes: list[str] = list(config.classes)
        precision = precision or str(config.trainer.precision)
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
        self.dtype = PRECISIONS[precision]
        try:
            self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        except RuntimeError as error:
            raise ValueError(f"device={device!r} is none; take auto, cpu, cuda, cuda:1, ...") from error
        if self.device.type not in ("cpu", "cuda"):
            raise ValueError(
                f"device={device}: the operators run on CPUs and CUDA's GPUs; take device=auto or device=cpu"
            )
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device={device}: there is no GPU that torch can use; take device=cpu")
        try:
            torch.empty(0, device=self.device)
        except RuntimeError as error:
            raise ValueError(f"device={device}: torch cannot use it here; take device=auto or device=cpu") from error
        model = build.build_model(config)
        trained.load(model)
        self.model = fold(model).to(self.device)
        self.paste: Paste = build.instantiate(config.paste)
        self.augment: Callable[[Sample, int], Sample] = build.instantiate(config.dataset.val_augment)
        self.stride = config.backbone.size_divisibility

    @torch.inference_mode()
    def __call__(self, images: Sequence[Tensor]) -> list[Objects]:
        """The objects of images, uint8 [3, H, W] RGB of any sizes, in each one's own pixels."""
        samples = [self.augment(_unlabelled(image, i), 0) for i, image in enumerate(images)]
        with torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext():
            found = self.model(collate(samples, self.stride).to(self.device))
        return [objects.to("cpu") for objects in found]


def _unlabelled(image: Tensor, name: int) -> Sample:
    flags = torch.zeros(0, dtype=torch.bool)
    target = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), flags, flags)
    return Sample(image, target, name, (image.shape[1], image.shape[2]))
