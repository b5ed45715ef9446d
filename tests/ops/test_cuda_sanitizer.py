"""The CUDA kernels on the host under AddressSanitizer: no box makes them read or write where they should not.

A block's shared memory is of exactly the size that its launch asked for, so that is watched over as well.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = """
import sys
sys.path[:0] = ["{root}", "{root}/tests/ops"]
import cuda_host
cuda_host.build("-fsanitize=address")
"""
HOSTILE = """
import sys
sys.path[:0] = ["{root}", "{root}/tests/ops"]
import functools, torch, cuda_host
from cuda_host import SCALES, cotangent, operator, pyramid
from match_cases import random_case
from ops import ranking
from roi_cases import hostile_boxes, random_boxes

cuda_host.build = functools.partial(cuda_host.build, "-fsanitize=address")
levels = torch.randint(-1, 4, (150,))
for dtype in (torch.float32, torch.float64, torch.bfloat16):
    for channels, memory_format in ((24, "channels_last"), (6, "channels_last"), (6, "nchw")):
        features = pyramid(channels, dtype, memory_format)
        sizes = [size for feature in features for size in feature.shape]
        last = memory_format == "channels_last"
        for boxes in (hostile_boxes(150, seed=3), random_boxes(150, 2, 52, 68)):
            for name, rule in (
                ("average", "align"), ("average", "align_half"), ("ps_average", "warp"), ("ps_average", "ps_pool"),
                ("ps_average", "ps_pool_rfcn"),
                ("maximum", "align_half"), ("maximum", "pool_round"),
            ):
                for ratio in (2, -1):
                    output = operator(name)(features, boxes, levels, SCALES, 3, 2, ratio, rule)
                    pooled, *argmax = output if name == "maximum" else [output]
                    arguments = (cotangent(pooled), *argmax, boxes, levels, sizes, SCALES, ratio, rule, last)
                    operator(name + "_backward")(*arguments)
for seed in range(12):
    operator("match")(*random_case(seed))
boxes = hostile_boxes(600, seed=3)[:, 1:]
operator("match")(boxes, boxes[:300], torch.arange(300) % 3 == 0)
for distance in ranking.DISTANCES:
    arguments = ranking.gaussians(boxes), ranking.gaussians(boxes[:300]), torch.arange(300) % 3 == 0
    operator("rank")(*arguments, distance, 3)
print("whole")
"""


@pytest.mark.slow(minutes=3)
@pytest.mark.skipif(sys.platform != "linux", reason="the sanitizer is preloaded as on Linux")
def test_hostile_boxes(tmp_path):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    libraries = []
    for name in ("libasan.so", "libstdc++.so.6"):  # the latter, as exceptions are watched too
        asked = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
        libraries.append(asked.stdout.strip())
    if not all(Path(library).is_absolute() for library in libraries):
        pytest.skip("g++ has no AddressSanitizer here")
    environment = {
        **os.environ,
        "CXX": compiler,
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",  # threads have stacks of their own
    }
    # Compiled before, since the compiler would run under the preloaded sanitizer as well.
    build = [sys.executable, "-c", BUILD.format(root=ROOT)]
    subprocess.run(build, cwd=ROOT, env={**os.environ, "CXX": compiler}, timeout=600, check=True)
    command = [sys.executable, "-c", HOSTILE.format(root=ROOT)]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip() == "whole"
