"""Check what the operators and the training compute with: compilers, GPUs, the operators' backend, their cache."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from detector.doctor.findings import Finding, error, warning
from detector.doctor.probe import Operators, Project, Torch

GIB = 1 << 30
SLOWER = "without one a slower pure PyTorch implementation runs"


def check_compiler(compiler: str | None, needed: bool = True) -> Finding:
    """Check that there is a C++ compiler, and that it compiles C++20.

    Args:
        compiler: the one that is used; None: there is none.
        needed: whether anything is to be compiled; a wheel may bring the operators for CPUs.
    """
    if not needed:
        return Finding("C++ compiler", f"{compiler or 'none'}; not needed: the operators came compiled")
    if compiler is None:
        chosen = os.environ.get("CXX")
        install = (
            "xcode-select --install" if platform.system() == "Darwin" else "apt install g++ (or conda install gxx)"
        )
        mend = f"unset CXX, which names no program ({chosen})" if chosen else f"{install}; {SLOWER}"
        return warning("C++ compiler", "none", mend)
    command = [compiler, "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
    program = "#include <atomic>\n#include <vector>\nint main() { return std::vector<int>(1)[0]; }\n"
    done = subprocess.run(command, input=program, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        # gcc.gnu.org/projects/cxx-status.html and clang.llvm.org/cxx_status.html: the option is there since 10.
        mend = "install g++ 10 or newer (apt install g++), or set CXX to another compiler"
        return warning("C++ compiler", f"{compiler} does not compile C++20: {lines[0]}", mend)
    return Finding("C++ compiler", compiler)


def find_gpus() -> list[str]:
    """List NVIDIA's GPUs by name without torch: as the driver's program or its files say."""
    if smi := shutil.which("nvidia-smi"):
        command = [smi, "--query-gpu=name", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip().splitlines()
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return [match[1] for file in files if (match := re.search(r"Model:\s*(.+)", file.read_text()))]


def check_gpus(torch: Torch, present: Sequence[str]) -> Finding:
    """Check that torch can use the GPUs.

    Args:
        torch: what it says.
        present: names of the GPUs, found without torch.
    """
    if not torch.gpus:
        if not present:
            return Finding("GPU", "none: training runs on the CPU")
        found = f"{', '.join(present)}; torch {torch.version} sees none"
        if torch.cuda is None:
            return error("GPU", f"{found}: it was built without CUDA", _other_torch("a torch built for CUDA"))
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if hidden is not None and hidden.strip() in ("", "-1"):
            return warning("GPU", f"{found}: CUDA_VISIBLE_DEVICES={hidden!r}", "unset CUDA_VISIBLE_DEVICES to use it")
        driver = f"a driver for CUDA {torch.cuda} (nvidia-smi shows its version), or {_other_torch('an older torch')}"
        mend = f"{driver}; in a container: docker run --gpus all"
        if hidden is not None:
            found += f" (CUDA_VISIBLE_DEVICES={hidden!r})"
        return error("GPU", f"{found}: {torch.failure or 'it gives no reason'}", mend)
    described = [f"{gpu['name']} ({_dotted(gpu)}, {gpu['memory'] / GIB:.0f} GiB)" for gpu in torch.gpus]
    found = f"{', '.join(described)}; torch is built for CUDA {torch.cuda}"
    strange = [gpu["name"] for gpu in torch.gpus if not runs_on(gpu["capability"], torch.architectures)]
    if strange:
        found = f"{found}, for {' '.join(torch.architectures)} only"
        return error("GPU", found, f"{_other_torch('a torch built for ' + ', '.join(strange))}; or trainer=cpu")
    return Finding("GPU", found)


def _dotted(gpu: dict[str, list[int]]) -> str:
    return ".".join(map(str, gpu["capability"]))


def _other_torch(what: str) -> str:
    return f"{what}: choose at https://pytorch.org/get-started/locally, and install torchvision with it"


def runs_on(capability: Sequence[int], architectures: Sequence[str]) -> bool:
    """Tell whether code for `architectures` runs on a GPU.

    Machine code (sm) runs on GPUs of the same major and of no lower minor version, intermediate code (compute) on all
    later ones, and what ends with `a` on that one alone (CUDA C++ Programming Guide, "Binary Compatibility").
    """
    major, minor = capability
    for architecture in architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", architecture)
        if match is None:
            continue
        built = (int(match[2]), int(match[3]))
        exact = built == (major, minor)
        later = built <= (major, minor) and (match[1] == "compute" or built[0] == major)
        if exact or (later and match[4] != "a"):
            return True
    return False


def check_nvcc(operators: Operators, torch: Torch) -> Finding:
    """Check that the operators can be compiled for the GPUs; without a GPU nothing is needed."""
    found = operators.nvcc or "none"
    if not torch.gpus:
        return Finding("nvcc", f"{found}; not needed without a GPU")
    major = str(torch.cuda).partition(".")[0]
    mend = f"install CUDA {major}'s toolkit (developer.nvidia.com/cuda-downloads) and set CUDA_HOME to its folder"
    if operators.nvcc is None:
        return warning("nvcc", found, f"{mend}; {SLOWER} on the GPU")
    if operators.nvcc_fault:
        return warning("nvcc", operators.nvcc_fault, mend)
    return Finding("nvcc", found)


def check_operators(operators: Operators, build: bool = False) -> Finding:
    """Check which implementation of the operators runs.

    Args:
        operators: what they say.
        build: they were to be compiled.
    """
    reason = operators.reason
    if "ALIGNED_RCNN_COMPILE=0" in reason:  # as this program sets it
        known = reason.partition("; ")[0] + "; " if operators.backend == "cpu" else ""
        later = "the first use does it, or python scripts/doctor.py --build"
        if operators.backend == "cpu":
            return Finding("operators", f"{known}not compiled yet for the GPU: {later}")
        if os.environ.get("ALIGNED_RCNN_COMPILE") == "0":
            mend = "unset ALIGNED_RCNN_COMPILE, which forbids it, or run python scripts/doctor.py --build"
            return warning("operators", "not compiled yet", mend)
        return Finding("operators", f"not compiled yet: {later}")
    found = f"{operators.backend}: {reason}"
    if operators.backend == "torch" or "pure PyTorch" in reason:
        mend = "mend the compilers above, then python scripts/doctor.py --build; python -m ops.build shows all messages"
        return (error if build else warning)("operators", found, mend)
    return Finding("operators", found)


def check_processor(torch: Torch, project: Project | None, name: str) -> Finding:
    """Check which instructions torch and the operators use."""
    precision = f"; trainer.precision=auto is {project.precision}" if project else ""
    found = f"{name}, {torch.capability}{precision}"
    if limit := os.environ.get("ATEN_CPU_CAPABILITY"):
        mend = "unset ATEN_CPU_CAPABILITY, which keeps torch and the operators from newer instructions"
        return warning("processor", f"{found}; ATEN_CPU_CAPABILITY={limit}", mend)
    if platform.machine() in ("x86_64", "AMD64") and torch.capability in ("DEFAULT", "NO AVX"):
        mend = "in a virtual machine, let it see the host's processor (QEMU: -cpu host); else training is slow here"
        return warning("processor", f"{found}: no AVX2", mend)
    return Finding("processor", found)


def existing(folder: Path) -> Path:
    """Return the nearest folder or file above that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))


def why_not_writable(folder: Path) -> str:
    """Try to write into a folder, or where it is to be made; returns the error, or an empty text. Nothing is left."""
    try:
        with tempfile.TemporaryFile(dir=existing(folder)):
            return ""
    except OSError as fault:
        return fault.strerror or str(fault)


def check_cache(folder: Path) -> Finding:
    """Check that compiled operators can be kept."""
    fault = why_not_writable(folder)
    if fault:
        mend = "export ALIGNED_RCNN_CACHE=FOLDER, one that can be written; without one the operators run slower"
        return warning("cache", f"{folder}: {fault}", mend)
    libraries = list(folder.glob("*.so"))
    size = sum(path.stat().st_size for path in libraries) / 1e6
    return Finding("cache", f"{folder}: {len(libraries)} libraries, {size:.0f} MB")
