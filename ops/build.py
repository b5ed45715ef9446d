"""Compile the operators ahead of their first use: `python -m ops.build [ARCHITECTURE ...]`.

Architectures are compute capabilities of GPUs, from 8.0 to 12.0, such as `8.0 9.0+PTX` (PTX: later GPUs as well).
Without any, those in `TORCH_CUDA_ARCH_LIST`, or else those of the GPUs present, are built.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from ops.compile import PREBUILT, BuildError, build, find_compiler
from ops.compile_cuda import architecture_flags, build_cuda, default_architectures, find_nvcc
from ops.native import backend


def main(architectures: Sequence[str]) -> int:
    """Build the libraries and print compilers, paths and backend.

    Args:
        architectures: compute capabilities; empty: the default ones.

    Returns:
        0, or 1 if the CPU library cannot be built, or the CUDA library where torch was built for CUDA and there is an
        architecture to build for.
    """
    print(f"torch     {torch.__version__}")
    print(f"compiler  {find_compiler() or 'none'}")
    print(f"nvcc      {find_nvcc() or 'none'}")
    try:
        architecture_flags(architectures)
        print(f"library   {PREBUILT if PREBUILT.is_file() else build()}")
        if architectures or (torch.version.cuda is not None and default_architectures()):
            print(f"cuda      {build_cuda(architectures or None)}")
        else:
            print("cuda      not built: no GPU is present and no architecture was named")
    except (BuildError, ValueError) as error:
        if isinstance(error, BuildError):
            print(error.log, file=sys.stderr)
        print(f"error: {error}", file=sys.stderr)
        return 1
    name, reason = backend()
    print(f"backend   {name}: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
