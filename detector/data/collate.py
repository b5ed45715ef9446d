"""Collate samples into padded batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from detector.types import Batch, Sample


def collate(samples: Sequence[Sample], stride: int = 32) -> Batch:
    """Pad samples with zeros at the right and at the bottom to one size and stack them.

    That size is the largest height and the largest width, each rounded up to a multiple of `stride`. If images of some
    samples are floats, those of 8 bits become floats, too, in the same unit.

    Raises:
        ValueError: some samples have proposals, and others have none; or they have other channels than the first.
    """
    channels, dtype = samples[0].image.shape[0], samples[0].image.dtype
    for sample in samples:
        dtype = torch.promote_types(dtype, sample.image.dtype)
        if sample.image.shape[0] != channels:
            raise ValueError(
                f"image {sample.id} has {sample.image.shape[0]} channels, and image {samples[0].id} of its batch "
                f"{channels}; all images of a dataset must have equally many"
            )
    height = _round_up(max(s.size[0] for s in samples), stride)
    width = _round_up(max(s.size[1] for s in samples), stride)
    images = torch.zeros((len(samples), height, width, channels), dtype=dtype).permute(0, 3, 1, 2)  # as the files are
    for image, sample in zip(images, samples, strict=True):
        h, w = sample.size
        image[:, :h, :w] = sample.image
    proposals = [s.proposals for s in samples if s.proposals is not None]
    if proposals and len(proposals) < len(samples):
        raise ValueError(f"{len(proposals)} of the {len(samples)} samples of a batch have proposals; all must, or none")
    return Batch(
        images,
        [s.size for s in samples],
        [s.original_size for s in samples],
        [s.id for s in samples],
        [s.target for s in samples],
        proposals or None,
    )


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


class Collate:
    """Call `collate` with a fixed stride; a class, so that it can be pickled for the loader's workers."""

    def __init__(self, stride: int) -> None:
        self.stride = stride

    def __call__(self, samples: list[Sample]) -> Batch:
        """Collate a list of samples; see `collate`."""
        return collate(samples, self.stride)
