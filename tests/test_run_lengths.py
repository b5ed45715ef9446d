"""Run-length codes of masks over windows, against pycocotools on whole images."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from detector.run_lengths import decode, encode
from detector.types import Masks
from tests.conftest import dense


def draw(kind: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Six masks [6, H, W]: noise, rectangles, empty and full ones, lines across the image, specks."""
    height, width = rng.integers(1, 40, 2)
    masks = np.zeros((6, height, width), np.uint8)
    for number, mask in enumerate(masks):
        if kind == 0:
            mask[:] = rng.random((height, width)) > 0.5
        elif kind == 1:
            (y1, y2), (x1, x2) = (np.sort(rng.integers(0, side + 1, 2)) for side in (height, width))
            mask[y1:y2, x1:x2] = 1
        elif kind == 2:
            mask[:] = number % 2
        elif kind == 3:
            mask[:, rng.integers(0, width)] = 1
            mask[-1] = rng.random(width) > 0.3
        else:
            mask[:] = rng.random((height, width)) > 0.95
    return masks


@pytest.mark.parametrize("kind", range(5))
def test_equal_to_pycocotools(kind: int) -> None:
    rng = np.random.default_rng(kind)
    for _ in range(60):
        masks = draw(kind, rng)
        size = (masks.shape[1], masks.shape[2])
        codes = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0)))
        decoded = decode(codes, size)
        assert torch.equal(dense(decoded), torch.from_numpy(masks).bool())
        assert encode(decoded) == [{"size": list(size), "counts": c["counts"].decode()} for c in codes]
        tight = Masks.from_dense(torch.from_numpy(masks).bool(), size)
        assert torch.equal(decoded.windows, tight.windows)
        assert torch.equal(decoded.pixels, tight.pixels)
        assert encode(tight) == encode(decoded)


def test_a_window_may_be_larger_than_its_object() -> None:
    pixels = torch.zeros(20, 30, dtype=torch.bool)
    pixels[4:9, 7:11] = True
    wide = Masks.from_windows([pixels[2:15, 3:20]], [(3, 2)], (20, 30))
    assert encode(wide) == encode(Masks.from_dense([pixels], (20, 30)))


def test_codes_of_a_million_pixels_take_memory_for_their_windows_only() -> None:
    spot = torch.ones(3, 5, dtype=torch.bool)
    masks = Masks.from_windows([spot] * 40, [(4000 + i, 2990) for i in range(40)], (3000, 5000))
    decoded = decode(encode(masks), (3000, 5000))
    assert decoded.pixels.numel() == 40 * 15
    assert torch.equal(decoded.windows, masks.windows)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("", "not a text"),
        (b"\xff", "not a text"),
        ("\u00e4", "not a text"),
        ("\ud800", "not a text"),
        (None, "not a text"),
        ("P", "not a text"),  # the number goes on, and the text ends
        ("oooooooooo0", "too large"),
        ("5", "do not sum to 2\\*3"),
        ("78", "do not sum to 2\\*3"),
        ("9M", "do not sum to 2\\*3"),  # 9, then -3
    ],
)
def test_broken_codes_are_named(counts: object, message: str) -> None:
    good = encode(Masks.from_dense([torch.ones(2, 3, dtype=torch.bool)], (2, 3)))[0]
    with pytest.raises(ValueError, match=rf"^b: the run lengths are broken \(.*{message}"):
        decode([good, {"counts": counts}, good], (2, 3), ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"^mask 0: "):
        decode([{"counts": counts}], (2, 3))


def test_select_shares_the_pixels() -> None:
    masks = Masks.from_dense(torch.from_numpy(draw(0, np.random.default_rng(3))).bool(), (32, 4))
    assert len(masks) == 6
    chosen = masks.select(torch.tensor([4, 1]))
    assert torch.equal(chosen.dense(0), masks.dense(4))
    assert torch.equal(chosen.dense(1), masks.dense(1))
    assert chosen.pixels is masks.pixels
    kept = masks.select(torch.tensor([False, True, False, False, False, True]))
    assert torch.equal(kept.dense(1), masks.dense(5))
    moved = masks.to("meta")
    assert {t.device.type for t in (moved.pixels, moved.windows, moved.offsets)} == {"meta"}
