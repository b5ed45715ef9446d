"""`python -m ops.build [ARCHITECTURE ...]`: compiles the operators ahead of their first use, prints what was found.

Architectures are GPUs' compute capabilities, from 8.0 to 12.0, such as `8.0 9.0+PTX` (PTX: for later GPUs as well);
without any, those of the GPUs present or of `TORCH_CUDA_ARCH_LIST`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from ops.compile import BuildError, build, find_compiler
from ops.compile_cuda import architecture_flags, build_cuda, default_architectures, find_nvcc
from ops.native import backend


def main(architectures: Sequence[str]) -> int:
    """Builds, prints compilers, libraries and backend; 0 when the C++ operators are there, else 1.

    The CUDA library must be there as well where there are architectures and torch was built for CUDA.
    """
    print(f"torch     {torch.__version__}")
    print(f"compiler  {find_compiler() or 'none'}")
    print(f"nvcc      {find_nvcc() or 'none'}")
    try:
        architecture_flags(architectures)
        print(f"library   {build()}")
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
