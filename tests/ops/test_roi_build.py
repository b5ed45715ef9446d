"""Compilation on first use: once, never half-built, and with a clear message where it fails."""

import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fresh import module, run

ROOT = Path(__file__).resolve().parents[2]
BUILD = "import runpy; print(runpy.run_path('ops/compile.py')['build']())"
"""Builds without importing the package, since the import would build."""
STUB = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
echo "$2" >> {log}
{then}
echo object > "$2"
"""
VARIANT = """
import torch, torchvision, ops
from ops import reference
assert ops.backend().reason.startswith("compiled kernels, {variant} variant"), ops.backend()
torch.manual_seed(0)
boxes = torch.tensor([[0, 1.5, 2.0, 14.0, 17.5], [1, -3.0, 4.0, 9.0, 30.0]])
for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
    for memory_format in (torch.contiguous_format, torch.channels_last):
        input = torch.randn(2, 83, 20, 22).to(dtype)
        wide = input.to(torch.float64).requires_grad_()
        leaf = input.contiguous(memory_format=memory_format).requires_grad_()
        for mine, theirs in (
            (ops.roi_align(leaf, boxes, 7, 0.9, 2), torchvision.ops.roi_align(wide, boxes.double(), 7, 0.9, 2)),
            (ops.roi_pool(leaf, boxes, 7, 0.9), torchvision.ops.roi_pool(wide, boxes.double(), 7, 0.9)),
        ):
            torch.testing.assert_close(mine, theirs.to(dtype))
            cotangent = torch.randn(mine.shape).to(dtype)
            (gradient,) = torch.autograd.grad(mine, leaf, cotangent)
            (expected,) = torch.autograd.grad(theirs, wide, cotangent.double())
            torch.testing.assert_close(gradient, expected.to(dtype))
        top = ops.roi_align(leaf, boxes, 7, 0.9, 2, mode="max")
        torch.testing.assert_close(top, reference.roi_align(wide, boxes, (7, 7), 0.9, 2, mode="max").to(dtype))
"""


def start(code: str, **environment: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "error", "-c", code]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def stub_compiler(folder: Path, then: str = "") -> tuple[str, Path]:
    """Write a stand-in for the compiler that logs each run and writes a file, to test what happens around it."""
    log, script = folder / "runs", folder / "cxx"
    script.write_text(STUB.format(log=log, then=then))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script), log


def test_nothing_is_compiled_where_the_user_forbids_it(tmp_path):
    compiler, log = stub_compiler(tmp_path)
    cache = {"CXX": compiler, "ALIGNED_RCNN_CACHE": str(tmp_path / "cache")}
    code, _, error = run(BUILD, ALIGNED_RCNN_COMPILE="0", **cache)
    assert code == 1
    assert "BuildError: they are not compiled yet, and ALIGNED_RCNN_COMPILE=0 forbids it" in error
    assert not log.exists()
    assert not (tmp_path / "cache").exists()
    code, library, error = run(BUILD, **cache)
    assert code == 0, error
    assert run(BUILD, ALIGNED_RCNN_COMPILE="0", **cache)[:2] == (0, library)


def test_two_processes_build_once(tmp_path):
    compiler, log = stub_compiler(tmp_path)
    cache = str(tmp_path / "cache")
    both = [start(BUILD, CXX=compiler, ALIGNED_RCNN_CACHE=cache) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    made = log.read_text().splitlines()
    assert len(made) == len(set(made)) > 1
    assert sorted("Compiled in" in error for _, error in outputs) == [False, True]


def test_an_interrupted_build_leaves_nothing_that_is_used(tmp_path):
    compiler, log = stub_compiler(tmp_path, then="test -e $(dirname $0)/slow && sleep 60")
    (tmp_path / "slow").touch()
    cache = tmp_path / "cache"
    process = start(BUILD, CXX=compiler, ALIGNED_RCNN_CACHE=str(cache))
    deadline = time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert log.exists()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not list(cache.glob("*.so"))
    assert len(list(cache.glob("*.build-*"))) == 1
    (tmp_path / "slow").unlink()
    code, output, error = run(BUILD, CXX=compiler, ALIGNED_RCNN_CACHE=str(cache))
    assert code == 0, error
    library = Path(output.strip())
    assert library.read_text() == "object\n"
    assert {path.suffix for path in cache.iterdir()} == {".so", ".lock"}


WITHOUT = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import ops
    from ops import reference
assert [str(w.message) for w in caught if "RoI operators" in str(w.message)] == [str(caught[0].message)]
print(caught[0].message)
import torch
print(ops.backend())
x = torch.rand(1, 3, 8, 8, requires_grad=True)
b = torch.tensor([[0, 1.0, 1, 6, 6]])
torch.testing.assert_close(ops.roi_align(x, b, 3), reference.roi_align(x, b, (3, 3)))
ops.multiscale_roi_pool([x, x], b, 3, [1.0, 0.5]).sum().backward()
assert x.grad.sum() == 27
"""


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"CXX": "/nowhere/g++", "PATH": ""}, "no C++ compiler was found"),
        ({"CXX": "false"}, "compiling the operators failed"),
        ({"ALIGNED_RCNN_CACHE": "/dev/null/cache"}, "cannot write to /dev/null/cache"),
    ],
    ids=["no compiler", "broken compiler", "no cache"],
)
def test_without_a_build_pure_pytorch_runs(environment, message, tmp_path):
    environment = {"ALIGNED_RCNN_CACHE": str(tmp_path), **environment}
    code, output, error = run(WITHOUT, **environment)
    assert code == 0, error
    warning, backend = output.strip().splitlines()
    assert message in warning
    assert "using the slower pure PyTorch ones" in warning
    assert backend.startswith("Backend(name='torch'")
    assert message in backend


def test_a_failing_compiler_is_quoted(tmp_path):
    compiler, _ = stub_compiler(tmp_path, then='echo "cpu.cpp:1: error: no such luck" >&2; exit 1')
    cache = {"CXX": compiler, "ALIGNED_RCNN_CACHE": str(tmp_path / "cache")}
    code, _, error = run(module("ops.build"), warnings="ignore", **cache)
    assert code == 1
    assert error.strip().endswith("error: compiling the operators failed: cpu.cpp:1: error: no such luck")
    assert not list((tmp_path / "cache").glob("*.so"))


def test_building_ahead_reports_what_it_found():
    code, output, error = run(module("ops.build"))
    assert code == 0, error
    found = [line.split()[0] for line in output.splitlines()]
    assert found == ["torch", "compiler", "nvcc", "library", "cuda", "backend"]


def test_a_second_import_is_quick():
    code = "import torch, time; began = time.process_time(); import ops; print(time.process_time() - began)"
    _, output, error = run(code)
    assert float(output) < 1, error


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="there is one variant")
@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
def test_what_the_variants_share_has_no_newer_instructions():
    """Of a function that several objects have, such as a template's, the linker keeps one for all processors."""
    code, output, error = run(BUILD)
    assert code == 0, error
    command = ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", output.strip()]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    wide: dict[str, set[str]] = {"ymm": set(), "zmm": set()}
    function = ""
    for line in listing.splitlines():
        if line.endswith(">:"):
            function = line.split(" ", 1)[1]
        for register, found in wide.items():
            if f"%{register}" in line:
                found.add(function)
    assert len(wide["ymm"]) > 20
    assert len(wide["zmm"]) > 20
    assert [name for name in wide["ymm"] if not re.search("avx2|avx512", name)] == []
    assert [name for name in wide["zmm"] if "avx512" not in name] == []


@pytest.mark.parametrize(("capability", "variant"), [("default", "portable"), ("avx2", "AVX2")])
def test_the_variants_for_other_processors(capability, variant):
    cpuinfo = Path("/proc/cpuinfo")
    if variant == "AVX2" and not (cpuinfo.exists() and "avx2" in cpuinfo.read_text()):
        pytest.skip("this processor has no AVX2")
    code, _, error = run(VARIANT.format(variant=variant), ATEN_CPU_CAPABILITY=capability)
    assert code == 0, error
