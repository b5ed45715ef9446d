"""`scripts/doctor.py`: verdicts and mends of compilers, GPUs, operators and the machine."""

import shutil
import sys
from pathlib import Path

import pytest

from detector.doctor import machine, operators
from detector.doctor.findings import Finding, Verdict
from detector.doctor.probe import Operators, Project, Torch
from tests.scripts.doctor_cases import ERROR, OK, WARNING, program

GB, MB = 10**9, 10**6
GPU = {"name": "H200", "capability": [9, 0], "memory": 1 << 37}


def torch_says(**changes: object) -> Torch:
    usual = {"version": "2.15.0", "cuda": "13.2", "threads": 2, "capability": "AVX2", "architectures": ["sm_90"]}
    return Torch(**(usual | changes))


def operators_say(**changes: object) -> Operators:
    usual = {"backend": "cpu", "reason": "compiled kernels", "compiler": "g++", "nvcc": None, "nvcc_fault": ""}
    return Operators(**({**usual, "cache": "/cache"} | changes))


# ---- Compilers, GPUs, operators ----


def test_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    assert operators.check_compiler(program(tmp_path / "good", "cat > /dev/null")).verdict is OK
    old = operators.check_compiler(program(tmp_path / "old", "cat > /dev/null; echo 'bad -std=c++20' >&2; exit 1"))
    assert old.verdict is WARNING
    assert "does not compile C++20: bad -std=c++20" in old.found
    none = operators.check_compiler(None)
    assert none.verdict is WARNING
    assert "install" in none.mend
    assert operators.check_compiler(None, needed=False).verdict is OK
    monkeypatch.setenv("CXX", "/nowhere")
    assert "unset CXX, which names no program (/nowhere)" in operators.check_compiler(None).mend


@pytest.mark.parametrize(
    ("torch", "present", "hidden", "verdict", "says"),
    [
        (torch_says(), [], None, OK, "none"),
        (torch_says(cuda=None), [], None, OK, "none"),
        (torch_says(gpus=[GPU]), ["H200"], None, OK, "H200 (9.0, 128 GiB)"),
        (torch_says(cuda=None), ["H200"], None, ERROR, "built without CUDA"),
        (torch_says(), ["H200"], "", WARNING, "CUDA_VISIBLE_DEVICES=''"),
        (torch_says(failure="RuntimeError: driver too old"), ["H200"], None, ERROR, "driver too old"),
        (torch_says(failure="RuntimeError: driver too old"), ["H200"], "0", ERROR, "driver too old"),
        (torch_says(gpus=[GPU], architectures=["sm_80", "sm_100"]), ["H200"], None, ERROR, "for sm_80 sm_100 only"),
    ],
)
def test_gpus(
    torch: Torch, present: list[str], hidden: str | None, verdict: Verdict, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    finding = operators.check_gpus(torch, present)
    assert finding.verdict is verdict
    assert says in finding.found


@pytest.mark.parametrize(
    ("architectures", "runs"),
    [
        (["sm_80"], True),
        (["sm_86"], True),
        (["sm_89"], False),
        (["sm_75", "sm_90"], False),
        (["compute_75"], True),
        (["compute_90"], False),
        (["sm_80a"], False),
        (["sm_86a"], True),
        (["sm_100", "gfx90a"], False),
    ],
)
def test_which_code_runs_on_a_gpu(architectures: list[str], runs: bool) -> None:
    assert operators.runs_on([8, 6], architectures) is runs


def test_gpus_are_found_without_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(operators.shutil, "which", lambda name: program(tmp_path / "smi", "echo H200; echo A100"))
    assert operators.find_gpus() == ["H200", "A100"]
    monkeypatch.setattr(operators.shutil, "which", lambda name: None)
    information = tmp_path / "proc/driver/nvidia/gpus/0000:01/information"
    information.parent.mkdir(parents=True)
    information.write_text("Model: \t\t NVIDIA L4\nIRQ: 1\n")
    monkeypatch.setattr(operators, "Path", lambda path: tmp_path / path.lstrip("/"))
    assert operators.find_gpus() == ["NVIDIA L4"]


@pytest.mark.parametrize(
    ("gpus", "nvcc", "fault", "verdict"),
    [
        ([], None, "", OK),
        ([], "nvcc", "it is of CUDA 12", OK),
        ([GPU], None, "", WARNING),
        ([GPU], "nvcc", "it is of CUDA 12, torch was built for CUDA 13.2", WARNING),
        ([GPU], "nvcc", "", OK),
    ],
)
def test_nvcc(gpus: list[dict[str, object]], nvcc: str | None, fault: str, verdict: Verdict) -> None:
    finding = operators.check_nvcc(operators_say(nvcc=nvcc, nvcc_fault=fault), torch_says(gpus=gpus))
    assert finding.verdict is verdict
    assert verdict is OK or "install CUDA 13's toolkit" in finding.mend
    assert not gpus or fault in finding.found


UNASKED = "they are not compiled yet, and ALIGNED_RCNN_COMPILE=0 forbids it"


@pytest.mark.parametrize(
    ("backend", "reason", "build", "verdict", "says"),
    [
        ("cpu", "compiled kernels, AVX2 variant; there is no GPU", False, OK, "AVX2 variant"),
        ("cuda", "compiled kernels", True, OK, "cuda: compiled kernels"),
        ("torch", UNASKED, False, OK, "not compiled yet: the first use does it, or python scripts/doctor.py --build"),
        ("cpu", f"AVX2; pure PyTorch on the GPU: {UNASKED}", False, OK, "AVX2; not compiled yet for the GPU"),
        ("torch", "no C++ compiler was found", False, WARNING, "no C++ compiler"),
        ("torch", "compiling the operators failed", True, ERROR, "failed"),
        ("cpu", "AVX2; pure PyTorch on the GPU: nvcc was not found", False, WARNING, "nvcc was not found"),
    ],
)
def test_operators(backend: str, reason: str, build: bool, verdict: Verdict, says: str) -> None:
    finding = operators.check_operators(operators_say(backend=backend, reason=reason), build)
    assert finding.verdict is verdict
    assert says in finding.found


def test_compiling_that_the_user_forbids_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNED_RCNN_COMPILE", "0")
    finding = operators.check_operators(operators_say(backend="torch", reason=UNASKED))
    assert finding.verdict is WARNING
    assert "unset ALIGNED_RCNN_COMPILE" in finding.mend


def test_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    monkeypatch.setattr(operators.platform, "machine", lambda: "x86_64")
    fine = operators.check_processor(torch_says(), Project("32-true", 1), "EPYC")
    assert fine == Finding("processor", "EPYC, AVX2; trainer.precision=auto is 32-true")
    assert operators.check_processor(torch_says(capability="DEFAULT"), None, "old").verdict is WARNING
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert "unset ATEN_CPU_CAPABILITY" in operators.check_processor(torch_says(), None, "EPYC").mend


def test_cache(tmp_path: Path) -> None:
    assert operators.check_cache(tmp_path / "not" / "there").found.endswith("there: 0 libraries, 0 MB")
    (tmp_path / "cpu-1.so").write_bytes(b"0" * 1_500_000)
    assert operators.check_cache(tmp_path).found.endswith("1 libraries, 2 MB")
    assert [path.name for path in tmp_path.iterdir()] == ["cpu-1.so"]
    refused = operators.check_cache(tmp_path / "cpu-1.so" / "cache")
    assert refused.verdict is WARNING
    assert "export ALIGNED_RCNN_CACHE=FOLDER" in refused.mend


# ---- The machine ----


@pytest.mark.parametrize(
    ("files", "own", "limits"),
    [
        ({}, "0::/\n", (None, None)),
        ({"memory.max": "max", "cpu.max": "max 100000"}, "0::/\n", (None, None)),
        ({"memory.max": "2000", "cpu.max": "150000 100000"}, "0::/not/shown/in/a/container\n", (2000, 1.5)),
        ({"a/memory.max": "3000", "a/b/memory.max": "4000", "a/b/cpu.max": "50000 100000"}, "0::/a/b\n", (3000, 0.5)),
        (
            {
                "memory/a/memory.limit_in_bytes": "5000",
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "cpu/cpu.cfs_quota_us": "200000",
                "cpu/cpu.cfs_period_us": "100000",
            },
            "4:memory:/a\n2:cpu,cpuacct:/\n0::/\n",
            (5000, 2.0),
        ),
        (
            {
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "cpu/cpu.cfs_quota_us": "-1",
                "cpu/cpu.cfs_period_us": "100000",
            },
            "4:memory:/\n2:cpu:/\n",
            (None, None),
        ),
    ],
)
def test_limits_of_containers(
    files: dict[str, str], own: str, limits: tuple[int | None, float | None], tmp_path: Path
) -> None:
    root = tmp_path / "cgroup"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    (tmp_path / "own").write_text(own)
    (tmp_path / "memory.max").write_text("1\n")  # not of the mount
    assert machine.control_group(root, tmp_path / "own") == machine.Limits(*limits)
    assert machine.control_group(root, tmp_path / "missing") == machine.Limits()


@pytest.mark.parametrize(
    ("visible", "allowed", "quota", "threads", "mend"),
    [
        (4, 4, None, None, ""),
        (8, 4, None, None, ""),
        (4, 4, 4.0, "4", ""),
        (4, 4, None, "1", "unset OMP_NUM_THREADS"),
        (64, 64, 2.0, None, "export OMP_NUM_THREADS=2, and workers=1"),
        (64, 64, 0.5, None, "export OMP_NUM_THREADS=1, and workers=0"),
        (64, 64, 2.0, "2", ""),
        (2, 2, None, "8", "export OMP_NUM_THREADS=2"),
        (2, 2, None, "2,1", ""),
    ],
)
def test_cores(visible: int, allowed: int, quota: float | None, threads: str | None, mend: str) -> None:
    finding = machine.check_cores(visible, allowed, quota, {} if threads is None else {"OMP_NUM_THREADS": threads})
    assert finding.verdict is (WARNING if mend else OK)
    assert finding.mend.startswith(mend)


@pytest.mark.parametrize(
    ("available", "limit", "verdict", "mend"),
    [
        (None, None, OK, ""),
        (20 * GB, None, OK, ""),
        (2 * GB, None, WARNING, "close other programs"),
        (20 * GB, 2 * GB, WARNING, "docker run --memory=8g"),
        (20 * GB, GB // 2, ERROR, "docker run --memory=8g"),
        (GB // 2, 20 * GB, ERROR, "close other programs"),
    ],
)
def test_memory(available: int | None, limit: int | None, verdict: Verdict, mend: str) -> None:
    finding = machine.check_memory(available, limit)
    assert finding.verdict is verdict
    assert finding.mend.startswith(mend)


def test_available_memory(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:      7 kB\n")
    assert machine.available_memory(tmp_path / "meminfo") == 7 * 1024
    assert machine.available_memory(tmp_path / "missing") is None


def free(monkeypatch: pytest.MonkeyPatch, amount: int) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10 * GB, 0, amount))


@pytest.mark.parametrize(("amount", "verdict"), [(GB, OK), (64 * MB, WARNING), (8 * MB, ERROR)])
def test_shared_memory(amount: int, verdict: Verdict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    free(monkeypatch, amount)
    finding = machine.check_shared_memory(tmp_path)
    assert finding.verdict is verdict
    assert verdict is OK or ("--shm-size=2g" in finding.mend and "workers=0" in finding.mend)
    assert machine.check_shared_memory(tmp_path / "missing").verdict is OK


@pytest.mark.parametrize(
    ("limits", "verdict", "mend"),
    [
        (None, OK, ""),
        ((1024, 4096), OK, ""),
        ((sys.maxsize, sys.maxsize), OK, ""),
        ((256, sys.maxsize), WARNING, "ulimit -n 4096"),
        ((256, 2048), WARNING, "ulimit -n 2048"),
        ((256, 512), WARNING, "docker run --ulimit nofile=4096"),
    ],
)
def test_open_files(limits: tuple[int, int] | None, verdict: Verdict, mend: str) -> None:
    finding = machine.check_open_files(limits)
    assert finding.verdict is verdict
    assert finding.mend.startswith(mend)


@pytest.mark.parametrize(("amount", "verdict"), [(3 * GB, OK), (GB, WARNING), (100 * MB, ERROR)])
def test_disk(amount: int, verdict: Verdict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    free(monkeypatch, amount)
    finding = machine.check_disk(tmp_path / "outputs")
    assert finding.verdict is verdict
    assert verdict is OK or "hydra.run.dir=FOLDER" in finding.mend
    (tmp_path / "file").touch()
    assert machine.check_disk(tmp_path / "file" / "outputs").verdict is ERROR
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_this_machine_is_read() -> None:
    visible, allowed = machine.cores()
    assert 1 <= allowed <= visible
    assert machine.processor_name()
    limits = machine.open_files()
    assert limits is not None
    assert 0 < limits[0] <= limits[1]
