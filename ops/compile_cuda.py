"""Compile the CUDA operators, as compile.py does those for the CPU.

This needs a torch built for CUDA and nvcc, but no GPU: any machine with the compiler builds for any architectures.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ops.compile import (
    CSRC,
    BuildError,
    compiled,
    file_identity,
    find_compiler,
    host_command,
    library_name,
    ninja_file,
    torch_folder,
)

SOURCES = CSRC / "cuda"
ELEMENTS = ("float", "double", "Half", "BFloat16")
"""The features' element types, by their names in csrc/kernels.h; the kernels are compiled once for each."""

# Only the multiply-adds that the sources name are fused, so that results equal the CPU's.
_KERNELS = ["-std=c++20", "-O3", "-fmad=false", "-DNDEBUG", "-Xcompiler", "-fPIC,-fvisibility=hidden"]
_ARCHITECTURE = re.compile(r"(\d+)\.(\d[af]?)(\+PTX)?")


def find_nvcc() -> str | None:
    """Find nvcc: in `CUDA_HOME` if set, else on the PATH; None if there is none."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which(str(Path(home) / "bin" / "nvcc") if home else "nvcc")


def cuda_home(nvcc: str) -> Path:
    """Ask nvcc for the folder of its toolkit: the nvcc on the PATH may be a wrapper that lies elsewhere.

    Raises:
        BuildError: it does not answer as nvcc does.
    """
    command = [nvcc, "--dryrun", "--compile", "-x", "cu", os.devnull]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    match = re.search(r"^#\$ TOP=(.+)$", result.stderr, re.MULTILINE)
    if match is None:
        raise BuildError(f"{nvcc} does not work as CUDA's compiler", result.stdout + result.stderr)
    return Path(match[1].strip()).resolve()


def default_architectures() -> list[str]:
    """List the architectures to build for: `TORCH_CUDA_ARCH_LIST` if set, else those of the GPUs present."""
    if chosen := os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return chosen.replace(";", " ").replace(",", " ").split()
    capabilities = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
    return [f"{major}.{minor}" for major, minor in sorted(capabilities)]


def architecture_flags(architectures: Sequence[str]) -> list[str]:
    """Convert architectures such as "9.0", or "9.0+PTX" for later GPUs as well, to nvcc's flags.

    Raises:
        ValueError: one is malformed.
    """
    flags = []
    for architecture in architectures:
        match = _ARCHITECTURE.fullmatch(architecture)
        if match is None:
            raise ValueError(f'architectures are written as "9.0" or "9.0+PTX"; got {architecture!r}')
        number = match[1] + match[2]
        flags += ["-gencode", f"arch=compute_{number},code=sm_{number}"]
        if match[3]:
            flags += ["-gencode", f"arch=compute_{number},code=compute_{number}"]
    return flags


def check_versions(nvcc: str) -> None:
    """Check that nvcc is of the CUDA version that torch was built for.

    Raises:
        BuildError: it is of another one.
    """
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"release (\d+)\.(\d+)", version)
    mine, built = match and match[1], str(torch.version.cuda).split(".")[0]
    if mine != built:
        raise BuildError(f"{nvcc} is of CUDA {mine or 'unknown'}, torch was built for CUDA {torch.version.cuda}")


def build_cuda(architectures: Sequence[str] | None = None) -> Path:
    """Compile the CUDA library for `architectures` (None: the default ones) unless it is cached, and return its path.

    Raises:
        BuildError: torch was built without CUDA, a compiler is missing or fails, or there is no architecture.
        ValueError: an architecture is malformed.
    """
    if sys.platform != "linux":
        raise BuildError("the CUDA operators are built on Linux only")
    if torch.version.cuda is None:
        raise BuildError("this torch was built without CUDA")
    nvcc, compiler = find_nvcc(), find_compiler()
    if nvcc is None:
        raise BuildError("nvcc was not found (looked in CUDA_HOME and on the PATH)")
    if compiler is None:
        raise BuildError("no C++ compiler was found")
    chosen = default_architectures() if architectures is None else list(architectures)
    if not chosen:
        raise BuildError("no GPU is present, and TORCH_CUDA_ARCH_LIST names no architecture")
    flags = architecture_flags(chosen)
    home = cuda_home(nvcc)
    check_versions(nvcc)
    host = [*host_command(compiler), "-O2", "-DUSE_CUDA", "-isystem", str(home / "include")]
    kernels = [nvcc, "-ccbin", compiler, *_KERNELS, *flags]
    objects = [
        ("library.o", SOURCES / "library.cpp", host),
        ("operators.o", SOURCES / "operators.cpp", host),
        ("common.o", SOURCES / "common.cu", kernels),
        *((f"{name}.o", SOURCES / "kernels.cu", [*kernels, f"-DELEMENT={name}"]) for name in ELEMENTS),
    ]
    folders = ["-L" + torch_folder("lib"), *(f"-L{home / name}" for name in ("lib64", "lib") if (home / name).is_dir())]
    libraries = ["-ltorch_cpu", "-ltorch_cuda", "-ltorch", "-lcudart_static", "-ldl", "-lrt", "-lpthread"]
    link = [compiler, "-shared", *folders, *libraries]
    sources = (
        path for folder in (SOURCES, CSRC) for path in folder.iterdir() if path.suffix != ".cpp" or folder == SOURCES
    )
    identities = (file_identity(nvcc), file_identity(compiler))
    library = library_name("cuda", (objects, link, identities), (path for path in sources if path.is_file()))
    purpose = f"CUDA, architectures {', '.join(chosen)} (once; about a minute)"
    return compiled(library, ninja_file(library, objects, link), purpose)
