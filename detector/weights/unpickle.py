"""Read pickled NumPy arrays without executing code in the file.

A pickle is a program that names functions and calls them. Here each allowed name resolves to an inert record of this
module, all others are refused: not even NumPy runs. Arrays are built afterwards, from checked records.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CODES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1")
"""Allowed dtypes, as NumPy writes them in pickles."""


class _DType:
    """Record a pickled `numpy.dtype`."""

    code: str = ""
    order: str = "|"

    def __init__(self, code: Any = None, *_: Any) -> None:
        if code not in CODES:
            raise ValueError(f"an array of dtype {code!r} is not supported, only {', '.join(CODES)}")
        self.code = code

    def __setstate__(self, state: Sequence[Any]) -> None:
        order, parts = state[1], state[2:5]
        if order not in ("<", ">", "=", "|") or any(part is not None for part in parts):
            raise ValueError(f"an array of dtype {self.code} with the state {state!r} is not supported")
        self.order = order


class Array:
    """Record a pickled array: shape, dtype, memory order and bytes."""

    def __init__(self, *_: Any) -> None:
        self.parts: tuple[Any, ...] = ()  # shape, dtype, whether in Fortran order, bytes

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.parts = tuple(state)[-4:]  # since NumPy 1.0 the version of the format precedes them

    def tensor(self) -> Tensor:
        """Return a copy of the array, with its shape and dtype.

        Raises:
            ValueError: the record is malformed: parts are missing, or shape and number of bytes disagree.
        """
        shape, kind, fortran, raw = self.parts if len(self.parts) == 4 else (None, None, False, b"")
        if isinstance(raw, str):  # Python 2 pickled bytes as text
            raw = raw.encode("latin1")
        if not isinstance(kind, _DType) or not isinstance(raw, bytes | bytearray) or not isinstance(shape, tuple):
            raise ValueError("malformed array: it lacks its dtype, shape or bytes")
        if not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError(f"malformed array of shape {shape}")
        dtype = np.dtype(kind.order + kind.code)
        if len(raw) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"malformed array of shape {shape}: {len(raw)} bytes of {dtype}")
        array: NDArray[Any] = np.ndarray(shape, dtype, raw, order="F" if fortran else "C")
        return torch.from_numpy(np.array(array, dtype.newbyteorder("="), order="C"))


class _Buffer(Array):
    """Record an array pickled with protocol 5."""

    def __init__(self, raw: Any = None, kind: Any = None, shape: Any = None, order: Any = "C", *_: Any) -> None:
        self.parts = (shape, kind, order == "F", raw)


class _Scalar(Array):
    """Record a pickled NumPy scalar."""

    def __init__(self, kind: Any = None, raw: Any = None, *_: Any) -> None:
        self.parts = ((), kind, False, raw)


class _Bytes(bytes):
    """Bytes in protocols before 3, which encode them as text."""

    def __new__(cls, text: Any = "", encoding: Any = "latin1", *_: Any) -> _Bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise ValueError(f"bytes encoded as {encoding!r} are not supported, only latin1")
        return super().__new__(cls, text.encode("latin1"))

    def __setstate__(self, state: Any) -> None:
        raise ValueError("bytes with a state are not supported")


class _Dict(dict[Any, Any]):
    """An ordered dictionary; attributes beside its items, such as a state dict's `_metadata`, are dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


_MULTIARRAY: dict[str, type] = {"_reconstruct": Array, "scalar": _Scalar}
_NUMERIC: dict[str, type] = {"_frombuffer": _Buffer}
_BUILTINS: dict[str, type] = {t.__name__: t for t in (dict, list, tuple, set, frozenset)} | {"bytes": _Bytes}
ALLOWED: dict[str, dict[str, type]] = {
    "numpy": {"ndarray": Array, "dtype": _DType},
    "numpy.core.multiarray": _MULTIARRAY,
    "numpy._core.multiarray": _MULTIARRAY,
    "numpy.core.numeric": _NUMERIC,
    "numpy._core.numeric": _NUMERIC,
    "_codecs": {"encode": _Bytes},
    "collections": {"OrderedDict": _Dict},
    "builtins": _BUILTINS,
    "__builtin__": _BUILTINS,
}
"""The names that a pickle may use, and the inert records that replace them."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """Return the inert record for a name in the pickle; pickle calls this before it uses the name."""
        found = ALLOWED.get(module, {}).get(name)
        if found is None:
            raise ValueError(
                f"it asks for {module}.{name}, which is no part of an array or a container; it is refused, and none "
                "of its code was run"
            )
        return found


def read_pickle(path: Path) -> Any:
    """Read a pickle of containers, numbers, strings and arrays.

    Returns:
        its content, with an `Array` for each array.

    Raises:
        ValueError: the file ends early, is no pickle, or asks for anything else.
    """
    with path.open("rb") as file:
        try:
            return _Unpickler(file).load()
        except Exception as error:  # a damaged or hostile file raises a dozen kinds
            cause = str(error) or type(error).__name__
            raise ValueError(f"weights {str(path)!r}: not readable as a pickle of arrays: {cause}") from error
