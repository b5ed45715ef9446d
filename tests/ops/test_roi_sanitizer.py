"""The CPU kernels under AddressSanitizer: no box makes them read or write where they should not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ops
from ops import compile

ROOT = Path(__file__).resolve().parents[2]
COMPILER = Path(__file__).resolve().parent / "sanitize" / "g++"
VARIANTS = {"portable": "portable", "AVX2": "avx2", "AVX-512": "avx512"}
HOSTILE = """
import sys
import torch
sys.path[:0] = ["{root}", "{root}/tests/ops"]
import ops
from match_cases import random_case
from roi_cases import CASES, hostile_boxes
assert ops.backend().name == "cpu", ops.backend()
boxes = hostile_boxes(10_000, seed=3)
levels = torch.randint(-1, 4, (10_000,))
boxes[:2_000, 1:] = boxes[:2_000, 1:] / 8  # these at home on the map
for dtype in (torch.float32, torch.float64, torch.bfloat16):
    for memory_format in (torch.contiguous_format, torch.channels_last):
        sizes = [(9, 21), (1, 6), (5, 1)]
        maps = [torch.rand(2, 36, *size).to(dtype).contiguous(memory_format=memory_format) for size in sizes]
        maps = [map.requires_grad_() for map in maps]
        for align in (False, True):
            for mode in ("avg", "max"):
                for ratio in (-1, 2):
                    scales = [1.0, 0.3, 7.0]
                    ops.multiscale_roi_align(maps, boxes, (3, 2), scales, ratio, align, mode, levels).sum().backward()
        ops.multiscale_roi_pool(maps, boxes, (3, 2), scales, levels=levels).sum().backward()
        ops.multiscale_ps_roi_align(maps, boxes, (3, 2), scales, levels=levels).sum().backward()
        ops.multiscale_ps_roi_pool(maps, boxes, (3, 2), scales, levels=levels).sum().backward()
for dtype in (torch.float32, torch.float64):
    for seed in range(30):
        ops.match_boxes(*random_case(seed, dtype))
        some = boxes[:, 1:].to(dtype), boxes[: 40 * seed, 1:].to(dtype), torch.arange(40 * seed) % 3 == 0
        ops.match_boxes(*some)
        for distance in ("wasserstein", "divergence"):
            ops.rank_boxes(*some, distance, 1 + seed % 16)
for count in (1, 15, 16, 17, 1_000, 10_000):
    for dtype in (torch.float32, torch.float64):
        ops.batched_nms(boxes[:count, 1:].to(dtype), torch.rand(count), torch.arange(count) % 5 - 2, 0.3)
for images, inputs, outputs, *size in ((2, 3, 5, 1, 1), (1, 17, 40, 23, 6), (2, 37, 61, 70, 66), (0, 2, 2, 5, 5)):
    for memory_format in (torch.contiguous_format, torch.channels_last):
        map = torch.rand(images, inputs, *size).contiguous(memory_format=memory_format).requires_grad_()
        filters = torch.rand(outputs, inputs, 3, 3).requires_grad_()
        ops.winograd_conv2d(map, filters, torch.rand(outputs)).sum().backward()
for case in CASES:
    case.run(torch.rand(2, 36, 9, 21), boxes, (3, 2), 1.0)
print("whole")
"""


@pytest.mark.slow(minutes=2)
@pytest.mark.skipif(sys.platform != "linux", reason="the sanitizer is preloaded as on Linux")
def test_ten_thousand_hostile_boxes():
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    asked = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    sanitizer = Path(asked.stdout.strip())
    if not sanitizer.is_absolute():
        pytest.skip("g++ has no AddressSanitizer here")
    variant = ops.backend().reason.split(",")[1].split()[0]
    version = "_".join(str(part) for part in compile.file_identity(compiler)[1:])  # another g++, another library
    environment = {
        **os.environ,
        "CXX": str(COMPILER),
        "CXXFLAGS": f"-fsanitize=address -fno-omit-frame-pointer -DGXX={version} -DRUNS={VARIANTS[variant]}",
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    build = "import runpy; print(runpy.run_path('ops/compile.py')['build']())"
    command = [sys.executable, "-c", build]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert built.returncode == 0, built.stderr
    assert (
        "__asan_report"
        in subprocess.run(["nm", "-D", built.stdout.strip()], capture_output=True, text=True, check=True).stdout
    )
    environment["LD_PRELOAD"] = str(sanitizer)
    command = [sys.executable, "-c", HOSTILE.format(root=ROOT)]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip() == "whole"
    assert "AddressSanitizer" not in run.stderr
