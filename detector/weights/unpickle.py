"""Pickled arrays, read without running anything that the file asks for.

A pickle is a program: it names functions and has them called. Here each name leads to an inert record of this module,
or to nothing, so that not even numpy runs; the arrays are made afterwards from records that were checked.
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
"""The kinds of numbers that an array may hold, as numpy writes them in pickles."""


class _DType:
    """What `numpy.dtype` would have made."""

    code: str = ""
    order: str = "|"

    def __init__(self, code: Any = None, *_: Any) -> None:
        if code not in CODES:
            raise ValueError(f"an array of {code!r} is not one of numbers ({', '.join(CODES)})")
        self.code = code

    def __setstate__(self, state: Sequence[Any]) -> None:
        order, parts = state[1], state[2:5]
        if order not in ("<", ">", "=", "|") or any(part is not None for part in parts):
            raise ValueError(f"an array of {self.code} with {state!r} is not one of plain numbers")
        self.order = order


class Array:
    """What numpy would have made an array: the bytes with a shape and a kind of numbers."""

    def __init__(self, *_: Any) -> None:
        self.parts: tuple[Any, ...] = ()  # shape, kind, whether in Fortran's order, bytes

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.parts = tuple(state)[-4:]  # before them the version of the format, since numpy 1.0

    def tensor(self) -> Tensor:
        """A copy of the array, in its own shape and kind of numbers.

        Raises:
            ValueError: the record contradicts itself.
        """
        shape, kind, fortran, raw = self.parts if len(self.parts) == 4 else (None, None, False, b"")
        if isinstance(raw, str):  # of a pickle by Python 2, read as latin1
            raw = raw.encode("latin1")
        if not isinstance(kind, _DType) or not isinstance(raw, bytes | bytearray) or not isinstance(shape, tuple):
            raise ValueError("it holds an array without numbers")
        if not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError(f"it holds an array of shape {shape}")
        dtype = np.dtype(kind.order + kind.code)
        if len(raw) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"it holds an array of shape {shape} with {len(raw)} bytes")
        array: NDArray[Any] = np.ndarray(shape, dtype, raw, order="F" if fortran else "C")
        return torch.from_numpy(np.array(array, dtype.newbyteorder("="), order="C"))


class _Buffer(Array):
    """An array in a pickle of protocol 5."""

    def __init__(self, raw: Any = None, kind: Any = None, shape: Any = None, order: Any = "C", *_: Any) -> None:
        self.parts = (shape, kind, order == "F", raw)


class _Scalar(Array):
    """One number of numpy's."""

    def __init__(self, kind: Any = None, raw: Any = None, *_: Any) -> None:
        self.parts = ((), kind, False, raw)


class _Bytes(bytes):
    """Bytes that protocols before 3 write as text."""

    def __new__(cls, text: Any = "", encoding: Any = "latin1", *_: Any) -> _Bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise ValueError(f"text in {encoding!r} stands for no array")
        return super().__new__(cls, text.encode("latin1"))

    def __setstate__(self, state: Any) -> None:
        raise ValueError("bytes have no state")


class _Dict(dict[Any, Any]):
    """An ordered dictionary; what hangs on it beside its items, such as a state dict's versions, is left out."""

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
"""What a pickle may name, and what it gets."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """The inert counterpart of what the pickle names; called for each name before anything is done with it."""
        found = ALLOWED.get(module, {}).get(name)
        if found is None:
            raise ValueError(
                f"it asks for {module}.{name}, which is no part of an array or a container; it is refused and nothing "
                "of it was run"
            )
        return found


def read_pickle(path: Path) -> Any:
    """The plain containers, numbers, strings and `Array`s that a pickle holds.

    Raises:
        ValueError: it ends early, is no pickle, or asks for anything else.
    """
    with path.open("rb") as file:
        try:
            return _Unpickler(file).load()
        except Exception as error:  # a damaged or hostile file raises a dozen kinds
            cause = str(error) or type(error).__name__
            raise ValueError(f"weights {str(path)!r}: not readable as pickled arrays: {cause}") from error
