import torch
from torch import Tensor, nn

from detector.models.box_head import FullyConnected


def operations(layer: nn.Module, features: Tensor) -> set[str]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        layer(features)
    return {event.key for event in profile.key_averages()}


def test_a_fully_connected_layer_is_flatten_and_linear_without_copies() -> None:
    layer = FullyConnected(channels=6, size=3, width=5)
    linear = nn.Linear(6 * 9, 5)
    linear.load_state_dict({"weight": layer.weight.detach().flatten(1), "bias": layer.bias.detach()})
    features = torch.randn(4, 6, 3, 3)
    expected = linear(features.flatten(1))
    assert "aten::clone" in operations(layer, features)  # as PyTorch copies into another order
    torch.testing.assert_close(layer(features), expected)

    layer.to(memory_format=torch.channels_last)
    features = features.to(memory_format=torch.channels_last)
    assert "aten::clone" not in operations(layer, features)
    result = layer(features)
    torch.testing.assert_close(result, expected)

    result.sum().backward()
    expected.sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(layer.weight.grad.flatten(1), linear.weight.grad)
