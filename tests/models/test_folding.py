import pytest
import torch
from torch import nn

from detector.models.backbone import frozen_batch_norm
from detector.models.folding import conv_norm, fold
from tests.conftest import confident, random_batch, small_model


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["frozen", "evaluation", "training", "no statistics", "group"])
def test_a_norm_that_is_always_the_same_goes_into_the_convolution(kind: str, bias: bool) -> None:
    conv = nn.Conv2d(4, 8, 3, stride=2, padding=2, dilation=2, groups=2, bias=bias)
    norms = {"frozen": frozen_batch_norm(8, 1e-3), "group": nn.GroupNorm(2, 8)}
    norm = norms.get(kind, nn.BatchNorm2d(8, track_running_stats=kind != "no statistics")).train(kind == "training")
    for value in norm.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    x = torch.randn(2, 4, 9, 8)
    results = []
    for run in (lambda x: norm(conv(x)), lambda x: conv_norm(conv, norm, x)):
        leaf = x.clone().requires_grad_()
        parameters = [leaf, *conv.parameters(), *norm.parameters()]
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            result = run(leaf)
        results.append((result, *torch.autograd.grad(result.square().sum(), parameters)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    normed = any("norm" in event.key for event in profile.key_averages())
    assert normed is (kind in ("training", "no statistics", "group"))


@pytest.mark.parametrize(
    "choices",
    [
        ["norm=frozen"],
        ["norm=batch", "model=mask_rcnn", "mask_head.norm=${norm}"],
        ["norm=batch", "backbone=resnet18_c4"],
        ["norm=group", "norm.groups=8"],
        ["backbone=extracted_fpn"],
    ],
    ids=lambda choices: " ".join(choices),
)
def test_a_folded_model_finds_the_same_and_the_model_stays_as_it_was(choices: list[str]) -> None:
    sizes = ["backbone.channels=32", "backbone.width=64"]
    if "backbone=resnet18_c4" in choices:
        sizes = ["backbone.width=512", "backbone.channels=256", "backbone.box_size=4"]
    model = confident(small_model(*choices, *sizes))
    batch = random_batch(3, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ready = fold(model)
    with torch.inference_mode():
        expected, found = model(batch), ready(batch)
    assert len(expected[0]) > 5
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a.labels, b.labels)
        torch.testing.assert_close(a.boxes, b.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(a.scores, b.scores, rtol=1e-4, atol=1e-4)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any("BatchNorm" in type(m).__name__ for m in ready.modules())
    assert not any(p.requires_grad for p in ready.parameters())
