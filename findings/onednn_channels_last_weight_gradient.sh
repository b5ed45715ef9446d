#!/usr/bin/env bash
# torch 2.15.0 on x86 CPUs without AVX-512 (or told so by ONEDNN_MAX_CPU_ISA=AVX2, as here): the weight gradient of a 3×3
# convolution is several times slower in channels_last than in the default layout, while the forward pass and the gradient
# of the input are as fast or faster. PyTorch's documentation recommends channels_last for convolutions on CPUs.
# Seen (one thread of an AMD EPYC, 128 -> 128 channels, 1 × 100 × 168, GFLOP/s):
#   NCHW           forward 85, gradient of the input 74, of the weight 49
#   channels_last  forward 74, gradient of the input 72, of the weight 11
# So a detector that trains in channels_last on such a CPU spends most of its time in the weight gradients of its pyramid.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet numpy==2.3.5 torch==2.15.0
cat > layouts.py <<'PY'
import time

import torch

torch.set_num_threads(1)
CHANNELS, HEIGHT, WIDTH = 128, 100, 168
FLOATING_POINT = 2 * CHANNELS * CHANNELS * 9 * HEIGHT * WIDTH


def rate(call):
    call()
    times = []
    for _ in range(7):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return FLOATING_POINT / min(times) / 1e9


rates = {}
for name, layout in (("NCHW", torch.contiguous_format), ("channels_last", torch.channels_last)):
    image = torch.randn(1, CHANNELS, HEIGHT, WIDTH).to(memory_format=layout)
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3).to(memory_format=layout)
    gradient = torch.randn_like(image)

    def backward(*wanted):
        given = (None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [*wanted, False])
        return torch.ops.aten.convolution_backward(gradient, image, weight, *given)

    forward = rate(lambda: torch.conv2d(image, weight, None, 1, 1))
    rates[name] = forward, rate(lambda: backward(True, False)), rate(lambda: backward(False, True))
    print(f"{name:14} forward {rates[name][0]:.0f}, gradient of the input {rates[name][1]:.0f}, ", end="")
    print(f"of the weight {rates[name][2]:.0f} GFLOP/s")
assert torch.__version__.startswith("2.15.0"), torch.__version__
assert rates["channels_last"][2] < rates["NCHW"][2] / 2
assert rates["channels_last"][1] > rates["NCHW"][1] / 2
PY
ONEDNN_MAX_CPU_ISA=AVX2 venv/bin/python layouts.py
