"""Import the packages and ask torch and the operators, in a process that may crash.

`python -m detector.doctor.probe FILE` writes what it learns into FILE as it goes, a JSON object per line, so that what
was learnt before a crash is kept. `probe` starts it and reads the file.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detector.names import PLACE, here

MODULES = {
    "numpy": "numpy",
    "torch": "torch",
    "torchvision": "torchvision",
    "scipy": "scipy.ndimage",
    "matplotlib": "matplotlib.figure",
    "pillow": "PIL.Image",
    "opencv-python-headless": "cv2",
    "albumentations": "albumentations",
    "pycocotools": "pycocotools.mask",
    "hotcoco": "hotcoco",
    "msgspec": "msgspec",
    "tifffile": "tifffile",
    "ninja": "ninja",
    "hydra-core": "hydra",
    "lightning": "lightning.pytorch",
    "tensorboard": "torch.utils.tensorboard",
}
"""A module to import of each package, those first that others are built on."""


@dataclass(frozen=True)
class Torch:
    """What torch says of itself and of the machine."""

    version: str
    cuda: str | None
    """the version of CUDA that it was built for"""
    threads: int
    capability: str
    """the vector instructions that it uses, such as AVX2"""
    gpus: list[dict[str, Any]] = field(default_factory=list)
    """name, capability as [major, minor], and memory in bytes of each"""
    architectures: list[str] = field(default_factory=list)
    """of GPUs, that it was compiled for, such as sm_90 and compute_120"""
    failure: str = ""
    """why CUDA does not start"""


@dataclass(frozen=True)
class Operators:
    """What the operators say of themselves."""

    backend: str
    reason: str
    compiler: str | None
    nvcc: str | None
    nvcc_fault: str
    """why nvcc cannot be used with this torch; empty if it can"""
    cache: str
    """the folder of compiled libraries"""
    prebuilt: bool = False
    """whether they came with the CPU's library"""


@dataclass(frozen=True)
class Project:
    """Settings that follow from the machine."""

    precision: str
    workers: int


@dataclass(frozen=True)
class Facts:
    """What the process has learnt; None and missing keys: it did not come to that, or failed."""

    imports: dict[str, str] = field(default_factory=dict)
    """by package: empty, or the error of importing it"""
    torch: Torch | None = None
    operators: Operators | None = None
    project: Project | None = None
    failures: dict[str, str] = field(default_factory=dict)
    """the errors of the last three"""
    ended: str = ""
    """what the process died of, and when; empty if it came to its end"""


def probe(build: bool = False, seconds: float = 600.0) -> Facts:
    """Start the process and read what it has learnt.

    Args:
        build: compile the operators if they are not compiled yet.
        seconds: how long to wait for it.
    """
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(PLACE), os.environ.get("PYTHONPATH"))))
    environment["ALIGNED_RCNN_COMPILE"] = "1" if build else "0"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "facts"
        file.touch()
        command = [sys.executable, "-m", here("detector.doctor.probe"), str(file)]
        shown = None if build else subprocess.DEVNULL  # a build says that it takes a while
        try:
            code = subprocess.run(
                command, env=environment, stdout=subprocess.DEVNULL, stderr=shown, timeout=seconds, check=False
            ).returncode
            ended = (
                "" if code == 0 else f"Python ended with code {code}" if code > 0 else f"Python died of signal {-code}"
            )
        except subprocess.TimeoutExpired:
            ended = f"no answer in {seconds:.0f} s"
        return parse(file.read_text().splitlines(), ended)


def parse(lines: list[str], ended: str = "") -> Facts:
    """Convert the lines of the file to facts; `ended` says what the process died of, if it did."""
    kinds: dict[str, Callable[..., Any]] = {"torch": Torch, "operators": Operators, "project": Project}
    imports, failures, begun = {}, {}, ""
    found: dict[str, Any] = {}
    for line in lines:
        entry = json.loads(line)
        what, name = entry["what"], entry["name"]
        if what == "begin":
            begun = name
        elif what == "import":
            imports[name] = entry["error"]
        elif "error" in entry:
            failures[name] = entry["error"]
        else:
            found[name] = kinds[name](**entry["facts"])
    return Facts(imports, failures=failures, ended=f"{begun}: {ended}" if ended and begun else ended, **found)


def _torch() -> dict[str, Any]:
    import torch

    failure = ""
    gpus = []
    if torch.version.cuda is not None:
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
            for i in range(torch.cuda.device_count()):
                properties = torch.cuda.get_device_properties(i)
                capability = [properties.major, properties.minor]
                gpus.append({"name": properties.name, "capability": capability, "memory": properties.total_memory})
        except (RuntimeError, AssertionError) as error:
            failure = _first_line(error)
    return {
        "version": str(torch.__version__),
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": gpus,
        "architectures": torch.cuda.get_arch_list(),
        "failure": failure,
    }


def _operators() -> dict[str, Any]:
    import torch

    import ops
    from ops.compile import PREBUILT, BuildError, cache_folder, find_compiler
    from ops.compile_cuda import check_versions, find_nvcc

    nvcc, fault = find_nvcc(), ""
    if nvcc is not None and torch.version.cuda is not None:
        try:
            check_versions(nvcc)
        except (BuildError, OSError) as error:
            fault = str(error)
    name, reason = ops.backend()
    paths = {"compiler": find_compiler(), "nvcc": nvcc, "nvcc_fault": fault, "cache": str(cache_folder())}
    return {"backend": name, "reason": reason, "prebuilt": PREBUILT.is_file(), **paths}


def _project() -> dict[str, Any]:
    from detector.config.resolve import AUTO, resolve_precision
    from detector.data.stream import default_workers

    return {"precision": resolve_precision(AUTO, AUTO), "workers": default_workers()}


def _first_line(error: BaseException) -> str:
    """Sum up an error in a line, by its last cause: numpy's C code wraps others' errors."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def main(file: Path) -> None:
    """Write all facts into a file."""
    with file.open("w") as output:

        def write(what: str, name: str, **entry: Any) -> None:
            print(json.dumps({"what": what, "name": name, **entry}), file=output, flush=True)

        for package, module in MODULES.items():
            write("begin", f"import {module}")
            try:
                importlib.import_module(module)
                write("import", package, error="")
            except Exception as error:  # packages raise whatever they like
                write("import", package, error=_first_line(error))
        for name, ask in (("torch", _torch), ("operators", _operators), ("project", _project)):
            write("begin", name)
            try:
                write("facts", name, facts=ask())
            except Exception as error:
                write("facts", name, error=_first_line(error))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]))
