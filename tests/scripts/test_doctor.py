"""`scripts/doctor.py`: each check's verdicts and mends, and the script where all is well and where something is not."""

import importlib.metadata
import os
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from detector.doctor import findings, machine, operators, packages, run
from detector.doctor.findings import Finding, Verdict
from detector.doctor.probe import MODULES, Facts, Operators, Project, Torch, parse, probe
from tests.conftest import ROOT

OK, WARNING, ERROR = Verdict.OK, Verdict.WARNING, Verdict.ERROR
GB, MB = 10**9, 10**6
GPU = {"name": "H200", "capability": [9, 0], "memory": 1 << 37}


def torch_says(**changes: object) -> Torch:
    usual = {"version": "2.15.0", "cuda": "13.2", "threads": 2, "capability": "AVX2", "architectures": ["sm_90"]}
    return Torch(**(usual | changes))


def operators_say(**changes: object) -> Operators:
    usual = {"backend": "cpu", "reason": "compiled kernels", "compiler": "g++", "nvcc": None, "nvcc_fault": ""}
    return Operators(**({**usual, "cache": "/cache"} | changes))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace the installed packages by others, each given as `name==version` with its requirements."""

    def install(**given: list[str]) -> None:
        there = {}
        for text, requires in given.items():
            name, version = text.split("==")
            there[name] = SimpleNamespace(version=version, requires=requires)

        def find(name: str) -> object:
            if name not in there:
                raise importlib.metadata.PackageNotFoundError(name)
            return there[name]

        monkeypatch.setattr(packages, "distribution", find)

    return install


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


# ---- Findings ----


def test_what_is_not_ok_has_a_mend() -> None:
    with pytest.raises(ValueError, match="disk: say how to mend it"):
        Finding("disk", "full", ERROR)


def test_only_errors_count_for_the_exit_code() -> None:
    fine, slow, broken = Finding("a", "b"), findings.warning("a", "b", "c"), findings.error("a", "b", "c")
    assert [findings.exit_code(each) for each in ([fine], [fine, slow], [slow, broken, fine])] == [0, 0, 1]


@pytest.mark.parametrize("rich", [True, False])
def test_a_line_per_check_then_the_mends(
    rich: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not rich:  # it may be the package that is missing
        monkeypatch.setitem(sys.modules, "rich.console", None)
    long = "x" * 300 + " [test]"
    findings.print_findings([Finding("Python", "3.11"), findings.warning("memory", long, "pip install -e '.[test]'")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["Python  ok       3.11", f"memory  warning  {long}"]
    assert lines[2:] == [
        "",
        "What to do:",
        "  memory: pip install -e '.[test]'",
        "",
        "2 checks: 1 ok, 1 warning, 0 errors",
    ]


# ---- Packages ----


def test_python() -> None:
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert required == ">=" + ".".join(map(str, packages.OLDEST_PYTHON))
    assert packages.check_python(("3", "11", "0")).verdict is OK
    assert packages.check_python(("3", "10", "14")).verdict is ERROR


def test_nothing_else_is_tried_with_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    old = findings.error("Python", "3.8", "install another")
    monkeypatch.setattr(packages, "check_python", lambda: old)
    monkeypatch.setattr(run, "probe", None)
    assert run.diagnose(None) == [old]


def test_project() -> None:
    assert packages.check_project(str(ROOT / "detector" / "__init__.py")).verdict is OK
    for origin in (None, "/another/checkout/detector/__init__.py"):
        assert packages.check_project(origin).verdict is ERROR
        assert packages.check_project(origin).mend == f"pip install -e {ROOT}"


def test_the_requirements_are_the_checkout_s_or_else_the_installation_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = packages.requirements()
    assert "albumentations==2.0.8" in here
    monkeypatch.setattr(packages, "ROOT", tmp_path)
    metadata = SimpleNamespace(requires=[*here, 'pytest>=8; extra == "test"'])
    monkeypatch.setattr(packages, "distribution", lambda name: metadata)
    assert packages.requirements() == here


@pytest.mark.parametrize(
    ("there", "verdict", "found"),
    [
        ({"torch==2.15": [], "torchvision==0.29": ["torch>=2.14"]}, OK, "2 with the versions"),
        ({"torch==2.15": []}, ERROR, "no torchvision (aligned-rcnn needs torchvision>=0.25)"),
        ({"torch==2.9": [], "torchvision==0.29": []}, ERROR, "torch 2.9 (aligned-rcnn needs torch>=2.10)"),
        (
            {"torch==2.15": [], "torchvision==0.25": ["torch (==2.10.0)"]},
            ERROR,
            "torch 2.15 (torchvision needs torch==2.10.0)",
        ),
        ({"torch==2.15": ["sympy>=1.13"], "torchvision==0.29": []}, WARNING, "no sympy (torch needs sympy>=1.13)"),
        ({"torch==2.15": ["a; extra == 'b'", "c; python_version < '3'"], "torchvision==0.29": []}, OK, "2 with"),
        ({"torch==2.15.0.dev1+cu132": [], "torchvision==0.29": []}, OK, "2 with"),
    ],
)
def test_versions(installed: Callable[..., None], there: dict[str, list[str]], verdict: Verdict, found: str) -> None:
    installed(**there)
    finding = packages.check_packages(["torch>=2.10", "torchvision>=0.25"])
    assert finding.verdict is verdict
    assert found in finding.found
    assert verdict is OK or f"pip install -e {ROOT}" in finding.mend


def test_extras_that_are_asked_for_are_followed(installed: Callable[..., None]) -> None:
    installed(
        **{"torch==2.15": ["toolkit[blas]==13"], "toolkit==13": ["cublas==1; extra == 'blas'", "b; extra == 'c'"]}
    )
    assert packages.check_packages(["torch"]).found == "no cublas (toolkit needs cublas==1)"


@pytest.mark.parametrize(
    ("there", "uninstall"),
    [
        ({"opencv-python-headless==5": [], "albumentations==2.0.8": []}, ""),
        (
            {"opencv-python-headless==5": [], "opencv-python==5": []},
            "pip uninstall -y opencv-python-headless opencv-python; pip install 'opencv-python-headless'",
        ),
        (
            {"albumentations==2.0.8": [], "albumentationsx==2.5": []},
            "pip uninstall -y albumentations albumentationsx; pip install 'albumentations==2.0.8'",
        ),
    ],
)
def test_packages_in_one_folder(installed: Callable[..., None], there: dict[str, list[str]], uninstall: str) -> None:
    installed(**there)
    finding = packages.check_twins()
    assert finding.verdict is (WARNING if uninstall else OK)
    assert finding.mend == uninstall


@pytest.mark.parametrize(
    ("package", "message", "mend"),
    [
        ("pycocotools", "ValueError: numpy.dtype size changed, may indicate", "--force-reinstall pycocotools"),
        (
            "torchvision",
            "RuntimeError: operator torchvision::nms does not exist",
            "--force-reinstall torch torchvision",
        ),
        ("opencv-python-headless", "ImportError: libGL.so.1: cannot open", "pip uninstall -y opencv-python"),
        ("msgspec", "ModuleNotFoundError: No module named 'msgspec'", f"pip install -e {ROOT}"),
        ("scipy", "ImportError: something else", "pip install --force-reinstall scipy"),
    ],
)
def test_imports_that_fail(package: str, message: str, mend: str) -> None:
    finding = packages.check_imports({"torch": "", package: message})
    assert finding.verdict is ERROR
    assert finding.found == f"{package}: {message}"
    assert mend in finding.mend


def test_imports() -> None:
    assert packages.check_imports({"torch": ""}).verdict is OK
    crashed = packages.check_imports({"numpy": ""}, "import torch: Python died of signal 11")
    assert crashed.verdict is ERROR
    assert crashed.found == "import torch: Python died of signal 11"
    assert crashed.mend == "python -c 'import torch' shows it alone"


def test_only_the_first_of_imports_that_fail_is_mended_unless_the_cause_is_known() -> None:
    failed = {"torchvision": "RuntimeError: torchvision::nms", "lightning": "AttributeError: partially initialized"}
    assert "lightning" in packages.check_imports(failed).found
    assert "lightning" not in packages.check_imports(failed).mend
    both = {"scipy": "ImportError: a", "pycocotools": "ValueError: numpy.dtype size changed"}
    mend = packages.check_imports(both).mend
    assert "--force-reinstall scipy" in mend
    assert "--force-reinstall pycocotools" in mend


def test_all_packages_are_imported() -> None:
    direct = {requirement.split(">")[0].split("=")[0] for requirement in packages.requirements()}
    assert direct - set(MODULES) == {"jinja2", "rich"}  # pure Python


# ---- The process that may crash ----


def test_what_was_learnt_before_a_crash_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = ['{"what": "begin", "name": "import numpy"}', '{"what": "import", "name": "numpy", "error": ""}']
    lines += ['{"what": "begin", "name": "import torch"}']
    written = "".join(f"echo '{line}' >> $3\n" for line in lines)
    monkeypatch.setattr(sys, "executable", program(tmp_path / "python", f"{written}kill -SEGV $$"))
    assert probe() == Facts({"numpy": ""}, ended="import torch: Python died of signal 11")
    monkeypatch.setattr(sys, "executable", program(tmp_path / "slow", "exec sleep 60"))
    assert probe(seconds=0.1) == Facts(ended="no answer in 0 s")


@pytest.mark.parametrize(("build", "compiles"), [(False, "0"), (True, "1")])
def test_nothing_is_compiled_unasked(
    build: bool, compiles: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ALIGNED_RCNN_COMPILE", "0")
    line = '{\\"what\\": \\"import\\", \\"name\\": \\"x\\", \\"error\\": \\"$ALIGNED_RCNN_COMPILE\\"}'
    monkeypatch.setattr(sys, "executable", program(tmp_path / "python", f'echo "{line}" > $3'))
    assert probe(build).imports == {"x": compiles}


def test_what_could_not_be_asked_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = parse(['{"what": "facts", "name": "torch", "error": "ImportError: no"}'], "died")
    monkeypatch.setattr(run, "probe", lambda build: facts)
    found = {finding.name: finding for finding in run.diagnose(None)}
    assert found["torch"].found == "not checked: ImportError: no"
    assert found["operators"].found == "not checked: died"
    assert {found[name].verdict for name in ("torch", "operators", "project")} <= {OK, WARNING}
    assert "GPU" not in found
    assert "disk" in found


def test_a_check_that_fails_is_a_finding() -> None:
    def fail() -> Finding:
        raise PermissionError("no")

    assert run.guarded("disk", fail).found == "not checked: PermissionError: no"


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


# ---- The script ----


def doctor(*arguments: str, cwd: Path, **environment: str) -> tuple[int, dict[str, list[str]], str]:
    """Run the script; returns exit code, [verdict, what was found] by check, and all that was printed."""
    command = [sys.executable, str(ROOT / "scripts" / "doctor.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    rows = [line[15:].split(None, 1) for line in done.stdout.splitlines()]
    names = [line[:15].strip() for line in done.stdout.splitlines()]
    assert done.stderr == ""
    return done.returncode, {n: r for n, r in zip(names, rows, strict=True) if r and r[0] in VERDICTS}, done.stdout


VERDICTS = {verdict.value for verdict in Verdict}


def test_the_script_where_all_is_well(tmp_path: Path) -> None:
    code, rows, output = doctor(cwd=tmp_path)
    assert code == 0, output
    assert len(rows) == 16
    for name in ("Python", "project", "packages", "shared files", "imports"):
        assert rows[name][0] == "ok", output
    assert "kernels" in rows["operators"][1] or "not compiled yet" in rows["operators"][1]
    assert list(tmp_path.iterdir()) == []


def test_the_script_without_a_compiler_and_without_a_place_for_runs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = tmp_path / "cache"
    broken = {"CXX": "/nowhere", "PATH": str(tmp_path), "ALIGNED_RCNN_CACHE": str(cache)}
    code, rows, output = doctor("--output", "file/outputs", cwd=tmp_path, **broken)
    assert code == 1, output
    assert rows["C++ compiler"] == ["warning", "none"]
    assert rows["operators"][0] == "warning"
    assert rows["disk"][0] == "error"
    assert "  C++ compiler: unset CXX, which names no program (/nowhere)" in output
    assert not cache.exists()
