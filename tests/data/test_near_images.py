"""Images that look the same are found among many, whatever their contrast, and without a list of all pairs."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from detector.data.check import pictures as looks
from detector.data.check.near import near_clusters
from detector.data.check.pictures import Picture, near_across, near_repeats, picture, similar_groups, thumbnail
from tests.data.check_cases import texture

Pairs = NDArray[np.int64]


def taken(pixels: NDArray) -> Picture:
    return picture(torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1))


def components(count: int, pairs: Pairs) -> list[int]:
    """The lowest number of each one's cluster, by all pairs."""
    of = list(range(count))
    for a, b in pairs.tolist():
        low, high = sorted((of[a], of[b]))
        of = [low if name == high else name for name in of]
    return of


def test_near_images_are_found_among_many_and_flat_ones_are_not() -> None:
    pixels = [torch.from_numpy(texture(seed)).permute(2, 0, 1) for seed in range(60)]
    pixels += [pixels[7] + 1, pixels[7].clone(), torch.full((3, 9, 9), 5, dtype=torch.uint8)]
    pixels += [torch.full((3, 9, 9), 6, dtype=torch.uint8)]
    pictures = [picture(image) for image in pixels]
    assert list(looks.repeats(pictures)) == [(7, 61)]
    groups = similar_groups(pictures)
    assert groups.tolist() == [*range(60), 7, 7, 62, 63]
    assert near_repeats(pictures, groups) == [(7, 60, 2)]
    assert similar_groups(pictures[:1]).tolist() == [0]
    assert similar_groups([]).tolist() == []


@pytest.mark.parametrize("run", [2, 64])
@pytest.mark.parametrize("bits", [0, 3, 6, 7])
def test_clusters_are_those_of_all_pairs(bits: int, run: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.data.check.near.RUN", run)
    monkeypatch.setattr("detector.data.check.near.CELLS", 300)
    generator = np.random.default_rng(bits)
    keys = generator.integers(0, 2**64, 40, dtype=np.uint64)
    flips = [(generator.permutation(64) < generator.integers(0, 9)) for _ in range(600)]
    noise = np.packbits(np.stack(flips), axis=1).view(np.uint64)[:, 0]
    keys = np.concatenate([keys, keys[generator.integers(0, 40, 600)] ^ noise])[generator.permutation(640)]
    kind = generator.integers(0, 3, 640)
    near = np.argwhere(np.triu(np.bitwise_count(keys[:, None] ^ keys[None]) <= bits, 1))
    assert len(near) > 3
    wanted = components(640, near[kind[near[:, 0]] == kind[near[:, 1]]])
    assert near_clusters(keys, bits, lambda a, b: kind[a] == kind[b]).tolist() == wanted
    assert near_clusters(keys, bits, lambda a, b: np.ones(len(a), bool)).tolist() == components(640, near)


def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count the pairs of hashes that are compared."""
    compared = 0

    def count(values: np.ndarray) -> np.ndarray:
        nonlocal compared
        compared += values.size
        return real(values)

    real = np.bitwise_count
    monkeypatch.setattr(np, "bitwise_count", count)
    return lambda: compared


def test_few_pairs_of_many_hashes_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.random.default_rng(0).integers(0, 2**64, 20_000, dtype=np.uint64)
    compared = counted(monkeypatch)
    assert near_clusters(keys, 6, lambda a, b: np.ones(len(a), bool)).tolist() == list(range(20_000))
    assert compared() < 20_000**2 / 2 / 1000


def test_no_hash_is_near_another_in_a_set_of_none_or_one() -> None:
    for count in (0, 1):
        assert near_clusters(np.zeros(count, np.uint64), 6, lambda a, b: a == b).tolist() == [0] * count


def noisy(base: NDArray, sigma: float, seed: int) -> NDArray:
    """Another frame of the same scene."""
    noise = np.random.default_rng(seed).normal(0, sigma, base.shape)
    return (base + noise).round().clip(0, 255).astype(np.uint8)


def test_many_frames_of_a_camera_cost_no_list_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    means = thumbnail(texture(0)) + generator.normal(0, 1.5, (5000, 32, 36))
    means[4990:] = [thumbnail(texture(i)) for i in range(1, 11)]
    pictures = [Picture(bytes(str(i), "ascii"), *looks.stretch(m.clip(0, 255))) for i, m in enumerate(means)]
    compared = counted(monkeypatch)
    tracemalloc.start()
    groups = similar_groups(pictures)
    found = near_repeats(pictures, groups)
    across = near_across(pictures[:2500], pictures[2500:], groups)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert groups.tolist() == [0] * 4990 + list(range(4990, 5000))
    assert found == [(0, i, 4990) for i in range(1, 4990)]
    assert len(across) == 2490
    assert [entry[3] for entry in across] == sorted(entry[3] for entry in across)
    assert compared() < 28 * 5000 * 100  # of 28 * 5000 * 2500
    assert peak < 100 * 2**20


def cells(seed: int, height: int = 256, width: int = 288) -> NDArray[np.float64]:
    """A picture of fluorescence: some bright spots before a dark background."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    picture = np.full((height, width), 6.0)
    for _ in range(10):
        cy, cx, radius = generator.uniform(0, height), generator.uniform(0, width), generator.uniform(3, 9)
        picture += 41 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 2 / radius**2)
    return picture[..., None].clip(0, 47)


@pytest.mark.parametrize("scale", [1.0, 1 / 50, 5.0])
def test_dark_images_are_compared(scale: float) -> None:
    """Images of 8 bits, of 16 bits under a wide range, and bright ones."""
    frames, pictures = [cells(seed) for seed in range(20)], []
    for frame in [*frames, frames[3], frames[5]]:
        pixels = noisy(frame, 1.0, len(pictures)).astype(np.float32) * scale
        pictures.append(taken(pixels.astype(np.uint8) if scale == 1 else pixels))
    assert max(thumbnail(frame).std() for frame in frames) < 6
    groups = similar_groups(pictures)
    assert groups.tolist() == [*range(20), 3, 5]
    assert [entry[:3] for entry in near_across(pictures[:20], pictures[20:], groups)] in (
        [(3, 0, 1), (5, 1, 1)], [(5, 1, 1), (3, 0, 1)]
    )  # fmt: skip


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
def test_noise_is_not_alike(sigma: float) -> None:
    pictures = [taken(noisy(np.full((64, 72, 1), 8.0), sigma, seed)) for seed in range(300)]
    assert similar_groups(pictures).tolist() == list(range(300))


def test_single_spots_in_other_places_are_not_alike() -> None:
    pictures = []
    for place in range(30):
        pixels = np.full((320, 360, 1), 3, np.uint8)
        pixels[place * 10 : place * 10 + 10, 40:60] = 60
        pictures.append(taken(pixels))
    assert similar_groups(pictures).tolist() == list(range(30))
