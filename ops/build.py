"""`python -m ops.build`: compiles the operators ahead of their first use and prints what was found."""

from __future__ import annotations

import sys

import torch

from ops.compile import BuildError, build, find_compiler
from ops.native import backend


def main() -> int:
    """Builds, prints compiler, library and backend; 0 when the C++ operators are there, else 1."""
    print(f"torch     {torch.__version__}")
    print(f"compiler  {find_compiler() or 'none'}")
    try:
        print(f"library   {build()}")
    except BuildError as error:
        print(error.log, file=sys.stderr)
        print(f"error: {error}", file=sys.stderr)
        return 1
    name, reason = backend()
    print(f"backend   {name}: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
