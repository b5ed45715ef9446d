"""Run the CUDA operators on the host: their sources, compiled against `shim/` instead of CUDA's headers."""

import ctypes
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ops
from ops import compile

SHIM = Path(__file__).resolve().parent / "shim"
CUDA = compile.CSRC / "cuda"
_POOLING = (f"{name}{suffix}" for name in ("average", "ps_average", "maximum") for suffix in ("", "_backward"))
OPERATORS = (*_POOLING, "average_masks", "match", "rank")
ELEMENTS = ("float", "double", "Half", "BFloat16")
BINNING_BYTES = 1024
_FLAGS = [
    f"-DALIGNED_RCNN_BINNING_BYTES={BINNING_BYTES}",
    "-O1",
    "-Wall",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
]


def build(*flags: str) -> Path:
    """Compile the library and return its path; `flags` are added to every command."""
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
    """Register the operators as `torch.ops.aligned_rcnn_host`, with the schemas of `torch.ops.aligned_rcnn`."""
    definitions = torch.library.Library("aligned_rcnn_host", "DEF")
    for name in OPERATORS:
        schema = str(getattr(torch.ops.aligned_rcnn, name).default._schema)
        definitions.define(schema.removeprefix("aligned_rcnn::"))
    path = build()
    torch.ops.load_library(path)
    library = ctypes.CDLL(str(path))
    library.definitions = definitions  # keeps the registration alive as long as the library
    return library


def operator(name: str) -> Callable[..., Any]:
    """Return a CUDA operator that takes CPU tensors."""
    load()
    return getattr(torch.ops.aligned_rcnn_host, name)


@contextmanager
def reversed_threads() -> Iterator[None]:
    """Run the threads of each block in reverse order."""
    load().aligned_rcnn_reverse_threads(1)
    try:
        yield
    finally:
        load().aligned_rcnn_reverse_threads(0)


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Assert bitwise equality; near equality with the portable CPU variant, which does not fuse multiply-adds."""
    assert actual.dtype == expected.dtype
    if "portable" in ops.backend().reason and actual.is_floating_point():
        torch.testing.assert_close(actual, expected)
    else:
        assert torch.equal(actual, expected)


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


def pyramid(channels: int, dtype: torch.dtype, memory_format: str, images: int = 2) -> list[Tensor]:
    """Draw three levels, of scales SCALES, for images of 52 x 68; values are rounded, so that some tie."""
    generator = torch.Generator().manual_seed(channels)
    maps = [torch.randn(images, channels, *shape, generator=generator) for shape in ((13, 17), (7, 9), (1, 1))]
    return [(m * 8).round().to(dtype).contiguous(memory_format=FORMATS[memory_format]) / 8 for m in maps]


SCALES = [0.25, 0.125, 0.0625]


def on_cpu(name: str, features: list[Tensor], *arguments: object) -> tuple[Tensor, ...]:
    """Run the CPU's operator channels last: in NCHW its order of summation is another."""
    # One channel more, so that no map counts as both memory formats.
    last = [torch.cat((f, f[:, :1]), 1).contiguous(memory_format=torch.channels_last) for f in features]
    results = getattr(torch.ops.aligned_rcnn, name)(last, *arguments)
    return tuple(r[:, :-1] for r in (results if isinstance(results, tuple) else (results,)))


def cotangent(output: Tensor) -> Tensor:
    """Draw a fixed random gradient of an output."""
    return torch.randn(output.shape, generator=torch.Generator().manual_seed(3)).to(output.dtype)
