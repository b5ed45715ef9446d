"""The packages that formats need, which are no requirement of the project."""

from __future__ import annotations

import importlib
from typing import Any

OPTIONAL = {"onnx": "export", "onnxscript": "export", "onnxruntime": "export", "openvino": None}
"""The extra of this project that brings each package; None: the package is installed by itself."""


def package(name: str, purpose: str) -> Any:
    """Import a package that a format needs.

    Args:
        name: of `OPTIONAL`, or a module within such a package.
        purpose: what needs it, such as `output=model.onnx`.

    Raises:
        ValueError: it is not installed; the message gives the command.
    """
    top = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != top:
            raise
        extra = OPTIONAL[top]
        together = " ".join(each for each, other in OPTIONAL.items() if other == extra)  # one alone is of no use
        command = f"pip install {top}" if extra is None else f'pip install {together}, or pip install -e ".[{extra}]"'
        raise ValueError(f"{purpose} needs {top}, which is not installed: {command}") from error
