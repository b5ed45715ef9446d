"""Malformed arguments raise errors that name the argument and its value."""

import re

import pytest
import torch

import ops

X = torch.rand(2, 4, 8, 8)
B = torch.tensor([[0, 1.0, 1, 5, 5]])
PAIR = [X, torch.rand(2, 4, 4, 4)]


NAMES = ["roi_align", "roi_pool", "roi_warp", "ps_roi_align", "ps_roi_pool", "roi_crop", "crop_and_resize"]
SINGLE = [getattr(ops, name) for name in NAMES]
MULTI = [getattr(ops, f"multiscale_{name}") for name in NAMES]


@pytest.mark.parametrize("pool", SINGLE, ids=lambda pool: pool.__name__)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X[0], B, 2), ValueError, r"input must be \[N, C, H, W\]; got shape \(4, 8, 8\)"),
        ((X.long(), B, 2), TypeError, "input must be float32.*torch.int64"),
        ((X.numpy(), B, 2), TypeError, "input must be a tensor; got ndarray"),
        ((X[:, :, :0], B, 2), ValueError, "input must have between 1 .* cells; got 0 x 8"),
        ((X, B[:, 1:], 2), ValueError, r"boxes must be Tensor\[K, 5\].*got shape \(1, 4\)"),
        ((X, B[0], 2), ValueError, r"boxes must be .*got shape \(5,\)"),
        ((X, [B[:, 2:]], 2), ValueError, r"boxes\[0\] must be Tensor\[L, 4\]; got shape \(1, 3\)"),
        ((X, [B[:, 1:]] * 3, 2), ValueError, "boxes has 3 tensors, but the features hold 2 images"),
        ((X, B.long(), 2), TypeError, "boxes must be of a floating dtype; got torch.int64"),
        ((X, [B[:, 1:].int()], 2), TypeError, r"boxes\[0\] must be of a floating dtype; got torch.int32"),
        ((X, [[0.0, 1, 2, 3]], 2), TypeError, r"boxes\[0\] must be a tensor; got list"),
        ((X, "boxes", 2), TypeError, "boxes must be .*; got str"),
        ((X, B.to("meta"), 2), ValueError, "boxes must be on the features' device, cpu; got meta"),
        ((X, B, 0), ValueError, "output_size must be positive; got 0"),
        ((X, B, (3, -1)), ValueError, r"output_size must be positive; got \(3, -1\)"),
        ((X, B, 2.5), TypeError, "output_size must be .*; got 2.5"),
        ((X, B, (1, 2, 3)), TypeError, r"output_size must be .*; got \(1, 2, 3\)"),
        ((X, B, 2, 0.0), ValueError, "spatial_scale must be positive and finite; got 0.0"),
        ((X, B, 2, -0.5), ValueError, "spatial_scale must be positive and finite; got -0.5"),
        ((X, B, 2, float("nan")), ValueError, "spatial_scale must be positive and finite; got nan"),
        ((X, B, 2, "a"), TypeError, "spatial_scale must be a number; got 'a'"),
    ],
)
def test_single_level(pool, arguments, error, message):
    with pytest.raises(error, match=message):
        pool(*arguments)


@pytest.mark.parametrize("pool", MULTI, ids=lambda pool: pool.__name__)
@pytest.mark.parametrize(
    ("features", "scales", "levels", "error", "message"),
    [
        (PAIR, [0.5], None, ValueError, r"scales must have one entry per level: 2 levels, 1 scales \(\[0.5\]\)"),
        (PAIR, [0.5, -1], None, ValueError, r"scales\[1\] must be positive and finite; got -1"),
        (PAIR, 0.5, None, TypeError, "scales must be a list of numbers, one per level; got 0.5"),
        ([], [], None, ValueError, "features is empty"),
        (X, [0.5], None, TypeError, "features must be a list of tensors, one per level; got Tensor"),
        (
            [X, PAIR[1].double()],
            [1, 0.5],
            None,
            TypeError,
            r"differ in dtype: .*float32, features\[1\] is torch.float64",
        ),
        ([X, PAIR[1].to("meta")], [1, 0.5], None, ValueError, "differ in device: .*cpu.*meta"),
        ([X, PAIR[1][:, :2]], [1, 0.5], None, ValueError, r"differ in N, C: .*\(2, 4\).*\(2, 2\)"),
        ([X, PAIR[1][0]], [1, 0.5], None, ValueError, r"features\[1\] must be \[N, C, H, W\]"),
        (PAIR, [1, 0.5], torch.tensor([0.0]), TypeError, "levels must be of an integer dtype; got torch.float32"),
        (PAIR, [1, 0.5], torch.tensor([True]), TypeError, "levels must be of an integer dtype; got torch.bool"),
        (PAIR, [1, 0.5], torch.tensor([0, 1]), ValueError, r"levels must be Tensor\[1\].*got shape \(2,\)"),
        (PAIR, [1, 0.5], [0], TypeError, "levels must be an integer Tensor.*; got list"),
    ],
)
def test_multiscale(pool, features, scales, levels, error, message):
    with pytest.raises(error, match=message):
        pool(features, B, 2, scales, levels=levels)


def test_position_sensitive_channels():
    for pool in (ops.ps_roi_align, ops.ps_roi_pool):
        with pytest.raises(ValueError, match="channels must be a multiple of output_size's bins, 3 x 2; got 4"):
            pool(X, B, (3, 2))


def test_choices_and_sampling():
    with pytest.raises(ValueError, match=re.escape("mode must be one of 'avg', 'max'; got 'sum'")):
        ops.roi_align(X, B, 2, mode="sum")
    with pytest.raises(ValueError, match=re.escape("quantization must be one of 'round', 'floor'; got 'ceil'")):
        ops.roi_pool(X, B, 2, quantization="ceil")
    for pool, feature, scale in ((ops.ps_roi_pool, X, 1.0), (ops.multiscale_ps_roi_pool, [X], [1.0])):
        with pytest.raises(ValueError, match=re.escape("quantization must be one of 'round', 'rfcn'; got 'floor'")):
            pool(feature, B, 2, scale, quantization="floor")
    with pytest.raises(TypeError, match=r"sampling_ratio must be an int; got 2\.5"):
        ops.roi_align(X, B, 2, sampling_ratio=2.5)
    with pytest.raises(ValueError, match="sampling_ratio must be at most 32768; got 32769"):
        ops.roi_align(X, B, 2, sampling_ratio=32769)
    assert torch.equal(ops.roi_align(X, B, 2, sampling_ratio=0), ops.roi_align(X, B, 2))


def test_assign_levels():
    with pytest.raises(ValueError, match=re.escape("rounding must be one of 'floor', 'round'; got 'up'")):
        ops.assign_levels(B, [1.0], rounding="up")
    with pytest.raises(ValueError, match="canonical_size must be positive and finite; got 0"):
        ops.assign_levels(B, [1.0], canonical_size=0)
    with pytest.raises(ValueError, match="scales is empty"):
        ops.assign_levels(B, [])
    with pytest.raises(TypeError, match="boxes must be of a floating dtype"):
        ops.assign_levels(B.long(), [1.0])
