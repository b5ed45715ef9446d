"""The CUDA operators on the host: their own sources, compiled against `shim/` in place of CUDA's headers."""

import ctypes
import functools
from pathlib import Path

import torch

import ops  # noqa: F401  (defines the schemas)
from ops import compile

SHIM = Path(__file__).resolve().parent / "shim"
CUDA = compile.CSRC / "cuda"
ELEMENTS = ("float", "double", "Half", "BFloat16")
_FLAGS = ["-O1", "-Wall", "-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off", "-fno-strict-aliasing"]


def build(*flags: str) -> Path:
    """The compiled library; `flags` are added to every command."""
    compiler = compile.find_compiler()
    assert compiler is not None
    command = [*compile.host_command(compiler), *_FLAGS, *flags, "-I", str(SHIM), "-I", str(compile.CSRC)]
    kernels = [*command, "-x", "c++"]
    objects = [
        ("host.o", SHIM / "host.cpp", command),
        ("operators.o", CUDA / "operators.cpp", command),
        ("common.o", CUDA / "common.cu", kernels),
        *((f"{name}.o", CUDA / "kernels.cu", [*kernels, f"-DELEMENT={name}"]) for name in ELEMENTS),
    ]
    link = [compiler, *flags, "-shared", "-L" + compile.torch_folder("lib"), "-ltorch_cpu", "-ltorch"]
    folders = (SHIM, CUDA, compile.CSRC)
    sources = (path for folder in folders for path in folder.iterdir() if path.is_file())
    library = compile.library_name("cuda-on-host", (objects, link, compile.file_identity(compiler)), sources)
    return compile.compiled(library, compile.ninja_file(library, objects, link), "CUDA, to run on the host")


@functools.cache
def load() -> ctypes.CDLL:
    """Registers the operators as `torch.ops.aligned_rcnn_host`, under the schemas of the real ones."""
    definitions = torch.library.Library("aligned_rcnn_host", "DEF")
    for name in ("average",):
        schema = str(getattr(torch.ops.aligned_rcnn, name).default._schema)
        definitions.define(schema.removeprefix("aligned_rcnn::"))
    path = build()
    torch.ops.load_library(path)
    library = ctypes.CDLL(str(path))
    library.definitions = definitions  # lives as long as the library
    return library


def reverse_threads(reverse: bool) -> None:
    """Runs the threads of a block from the last to the first."""
    load().aligned_rcnn_reverse_threads(int(reverse))
