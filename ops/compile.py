"""Compile the C++ operators on first use and cache the library.

The library's name in the cache folder is a hash of everything that decides its content: sources, flags, compiler and
torch. It is built in a temporary folder under a file lock and moved into place when complete, so that an interrupted
build is never loaded, and processes that start together build once.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# torch is imported where it is needed: setup.py runs this file without.

CSRC = Path(__file__).resolve().parent / "csrc"
PREBUILT = CSRC.with_name("cpu.so")
"""The CPU library of a wheel that brings one (CONTRIBUTING.md); for torch 2.10 and newer, all variants in it."""
TARGET_VERSION = "0x020a000000000000"
"""The oldest torch that can load the library, by the stable ABI: 2.10."""

COMPILE = "ALIGNED_RCNN_COMPILE"
"""Environment variable; 0 loads what is in the cache folder and compiles nothing."""

_NO_COMPILER = "no C++ compiler was found (looked for CXX, g++, c++, clang++)"

_COMMON = ["-std=c++20", "-fPIC", "-fvisibility=hidden", "-DNDEBUG", f"-DTORCH_TARGET_VERSION={TARGET_VERSION}"]
# Coordinates must be equal on every processor, so multiply-adds are fused in the kernels only.
_HOST = ["-O2", "-ffp-contract=off"]
_KERNEL = ["-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-w"]
_EXACT = ["-ffp-contract=off"]
_KERNELS: tuple[tuple[str, list[str]], ...] = (
    ("kernels", []),
    ("match_kernels", _EXACT),
    ("rank_kernels", _EXACT),
    ("winograd_kernels", []),
)
"""The sources that are compiled once per variant, with further flags."""
_VARIANTS = {
    "portable": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma", "-mf16c"],
}


class BuildError(RuntimeError):
    """Raised when the operators cannot be compiled: the message is one line, `log` the compiler's output."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


def cache_folder() -> Path:
    """Return the folder of compiled libraries: `ALIGNED_RCNN_CACHE`, or `aligned_rcnn` in the user's cache folder."""
    if chosen := os.environ.get("ALIGNED_RCNN_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aligned_rcnn"


def find_compiler() -> str | None:
    """Find the C++ compiler: `CXX` if set, else g++, c++ or clang++ on the PATH; None if there is none."""
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "c++", "clang++"]
    return next((path for name in candidates if (path := shutil.which(name))), None)


def _objects() -> list[tuple[str, str, list[str]]]:
    """List the objects to compile: (object, source, flags)."""
    variants = _VARIANTS if platform.machine() in ("x86_64", "AMD64") else {"portable": []}
    kernels = [
        (f"{source}_{name}.o", f"{source}.cpp", [*_KERNEL, *rounding, f"-DVARIANT={name}", *flags])
        for source, rounding in _KERNELS
        for name, flags in variants.items()
    ]
    hosts = ["cpu_average", "cpu_boxes", "cpu_convolution", "cpu_masks", "cpu_maximum", "cpu_rank", "variants"]
    library = ("library.o", "library.cpp", [*_HOST, f'-DSOURCES="{sources_digest()}"'])
    return [*((f"{name}.o", f"{name}.cpp", _HOST) for name in hosts), library, *kernels]


def sources_digest() -> str:
    """Return 20 hexadecimal digits of the SHA-256 of the CPU's sources, by which a library says what it is made of."""
    digest = hashlib.sha256()
    _add_files(digest, _sources())
    return digest.hexdigest()[:20]


def _sources() -> list[Path]:
    return sorted(path for path in CSRC.iterdir() if path.is_file())


def _add_files(digest: hashlib._Hash, sources: Iterable[Path]) -> None:
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")


def torch_folder(name: str) -> str:
    """Return a folder of the installed torch: "include" or "lib"."""
    import torch

    return str(Path(torch.__file__).parent / name)


def file_identity(path: str) -> tuple[str, int, int]:
    """Identify a compiler by path, size and modification time, so that another version means another library."""
    resolved = Path(path).resolve()
    status = resolved.stat()
    return str(resolved), status.st_size, status.st_mtime_ns


def library_name(prefix: str, parts: object, sources: Iterable[Path]) -> Path:
    """Return the path of a library in the cache folder, named by the hash of everything that decides its content.

    Args:
        prefix: "cpu" or "cuda".
        parts: commands, flags and compilers; hashed by their `repr`.
        sources: the files to hash.
    """
    import torch

    digest = hashlib.sha256(repr((parts, torch.__version__, platform.machine())).encode())
    _add_files(digest, sorted(sources))
    return cache_folder() / f"{prefix}-{digest.hexdigest()[:20]}.so"


def ninja_file(library: Path, objects: Sequence[tuple[str, Path, list[str]]], link: list[str]) -> str:
    """Write the build.ninja that compiles and links a library.

    Args:
        library: the file to build.
        objects: (name, source, command) of each object; the command without input and output.
        link: the command that links them, likewise.
    """
    lines = [
        "rule compile\n  command = $call -c $in -o $out",
        f"rule link\n  command = {shlex.join(link[:1])} $in -o $out {shlex.join(link[1:])}",
    ]
    for target, source, command in objects:
        escaped = str(source).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")
        lines.append(f"build {target}: compile {escaped}\n  call = {shlex.join(command)}")
    lines.append(f"build {library.name}: link {' '.join(target for target, _, _ in objects)}")
    return "\n".join(lines) + "\n"


def library_path(compiler: str) -> Path:
    """Return the path of the CPU library for the present sources, flags and versions, built or not."""
    return library_name("cpu", (_COMMON, _objects(), _extra_flags(), file_identity(compiler)), _sources())


def host_command(compiler: str) -> list[str]:
    """Return the command that compiles host code against torch's headers, with the flags in `CXXFLAGS`."""
    return [compiler, *_COMMON, "-isystem", torch_folder("include"), *_extra_flags()]


def _extra_flags() -> list[str]:
    return shlex.split(os.environ.get("CXXFLAGS", ""))


def _ninja_file(compiler: str, library: Path, for_wheels: bool = False) -> str:
    command = host_command(compiler)
    listed = [*_objects(), ("glibc.o", "glibc.cpp", _HOST)] if for_wheels else _objects()
    objects = [(target, CSRC / source, [*command, *flags]) for target, source, flags in listed]
    link = [compiler, "-shared", "-L" + torch_folder("lib"), "-ltorch_cpu", "-ltorch", *_extra_flags()]
    return ninja_file(library, objects, [*link, "-s", "-Wl,--wrap=dlsym"] if for_wheels else link)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl  # exists on POSIX only, as does the build

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released by the system however the process ends
        yield


def build() -> Path:
    """Compile the CPU library unless it is cached, and return its path.

    Raises:
        BuildError: there is no compiler, it fails, or the cache folder cannot be written.
    """
    if sys.platform == "win32":
        raise BuildError("the C++ operators are built on Linux and macOS only")
    compiler = find_compiler()
    if compiler is None:
        raise BuildError(_NO_COMPILER)
    library = library_path(compiler)
    return compiled(library, _ninja_file(compiler, library), "the CPU (once; well under a minute)")


def build_for_wheels(library: Path) -> None:
    """Compile the CPU library of wheels for Linux on x86-64 (`.ci/wheel`), for glibc 2.28 and newer.

    Args:
        library: the file to write; one that exists is left as it is.

    Raises:
        BuildError: there is no compiler, or it fails, or the file cannot be written.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise BuildError("wheels have a compiled library for Linux on x86-64 only")
    if (compiler := find_compiler()) is None:
        raise BuildError(_NO_COMPILER)
    compiled(library, _ninja_file(compiler, library, for_wheels=True), "wheels")


def compiled(library: Path, instructions: str, purpose: str) -> Path:
    """Build `library` with ninja unless it exists, and return its path.

    Args:
        library: the file to build.
        instructions: the text of build.ninja.
        purpose: what it is built for, shown to the user.

    Raises:
        BuildError: ninja fails, the cache folder cannot be written, or `ALIGNED_RCNN_COMPILE` is 0.
    """
    if library.exists():
        return library
    if os.environ.get(COMPILE) == "0":
        raise BuildError(f"they are not compiled yet, and {COMPILE}=0 forbids it")
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with _locked(library.with_suffix(".lock")):
            if not library.exists():
                _build_locked(library, instructions, purpose)
    except OSError as error:
        raise BuildError(f"cannot write to {library.parent} ({error}); set ALIGNED_RCNN_CACHE to a folder") from error
    return library


def _build_locked(library: Path, instructions: str, purpose: str) -> None:
    for stale in library.parent.glob(
        f"{library.stem}.build-*"
    ):  # left by interrupted builds: this process holds the lock
        shutil.rmtree(stale, ignore_errors=True)
    print(f"Compiling the RoI operators for {purpose} ...", file=sys.stderr, flush=True)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix=f"{library.stem}.build-", dir=library.parent))
    try:
        (folder / "build.ninja").write_text(instructions)
        command = [sys.executable, "-m", "ninja", "-C", str(folder)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            log = result.stdout + result.stderr
            lines = log.strip().splitlines()
            fault = next((line for line in lines if "error" in line.lower()), lines[-1])
            raise BuildError(f"compiling the operators failed: {fault.strip()}", log)
        os.replace(folder / library.name, library)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"Compiled in {time.monotonic() - began:.0f} s into {library}", file=sys.stderr, flush=True)
