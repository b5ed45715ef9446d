"""Pickled arrays are read; hostile pickles are refused, and their code is not run."""

import os
import pickle
import pickletools
from collections import OrderedDict
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detector.weights import unpickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
RAN: list[str] = []


def ran(what: str) -> str:
    RAN.append(what)
    return what


class Reduced:
    """An object that pickles as the call of a function."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.parts = (function, arguments, state) if state is not None else (function, arguments)

    def __reduce__(self) -> Any:
        return self.parts


def written(folder: Path, content: Any, protocol: int = 2) -> Path:
    path = folder / "weights.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


@pytest.fixture(autouse=True)
def _nothing_ran() -> Any:
    RAN.clear()
    yield
    assert RAN == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", unpickle.CODES)
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)])
def test_arrays_are_read_as_numpy_reads_them(protocol: int, dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    array = np.arange(1, 1 + np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    found = unpickle.read_pickle(written(tmp_path, {"a": array, "b": [array]}, protocol))
    expected = torch.from_numpy(array.copy())
    for tensor in (found["a"].tensor(), found["b"][0].tensor()):
        assert tensor.dtype == expected.dtype
        assert torch.equal(tensor, expected)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_fortran_order_and_big_endian_arrays_are_read(protocol: int, tmp_path: Path) -> None:
    array = np.arange(6, dtype="f4").reshape(2, 3)
    content = [np.asfortranarray(array), array.astype(">f4"), np.stack((array, array), -1)[..., 0], np.float32(2.5)]
    *found, scalar = unpickle.read_pickle(written(tmp_path, content, protocol))
    assert [torch.equal(a.tensor(), torch.from_numpy(array)) for a in found] == [True, True, True]
    assert scalar.tensor().item() == 2.5


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_containers_are_read_and_state_dict_metadata_is_dropped(protocol: int, tmp_path: Path) -> None:
    state = OrderedDict(a=1, b=(2.5, "text", None, True, {3}, frozenset({4})))
    state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    content = {"model": state, "__author__": "somebody", "bytes": b"\x00\xff"}
    assert unpickle.read_pickle(written(tmp_path, content, protocol)) == content


def test_arrays_pickled_by_python_2_are_read(tmp_path: Path) -> None:
    # What numpy under Python 2 writes in protocol 2: SHORT_BINSTRING, which is read as latin1.
    raw = np.array([1.5, -2.0], "<f4").tobytes()
    code = (
        b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08" + raw + b"tbs."
    )
    assert pickle.loads(code, encoding="latin1")["a"].tolist() == [1.5, -2.0]
    assert unpickle.read_pickle(written(tmp_path, code))["a"].tensor().tolist() == [1.5, -2.0]


HOSTILE = {
    "a command": Reduced(os.system, "exit 3"),
    "a function of this file": Reduced(ran, "called"),
    "eval": Reduced(eval, "1"),
    "a chain of attributes": Reduced(attrgetter("__class__.__base__.__subclasses__"), "text"),
    "getattr": Reduced(getattr, "text", "format"),
    "a partial function": partial(ran, "partial"),
    "a module's import": Reduced(__import__, "os"),
    "torch's loader": Reduced(torch.load, "elsewhere"),
    "a tensor": torch.zeros(2),
    "numpy's loader": Reduced(np.load, "elsewhere"),
    "another codec": Reduced(__import__("codecs").encode, "text", "rot13"),
    "much memory": Reduced(bytearray, 10**12),
    "an array of objects": np.array([Reduced(ran, "in an array")], dtype=object),
    "an array of text": np.array(["text"]),
    "an array of records": np.zeros(2, dtype=[("a", "f4"), ("b", "O")]),
    "an array of references": Reduced(np.dtype, "O"),
    "an array of addresses": Reduced(np.dtype, "V8"),
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_pickles_are_refused_and_not_run(content: Any, protocol: int, tmp_path: Path) -> None:
    path = written(tmp_path, pickletools.optimize(pickle.dumps({"model": content}, protocol)))
    RAN.clear()  # an array of objects is run when it is built above, not when it is pickled
    with pytest.raises(ValueError, match=r"weights\.pkl"):
        unpickle.read_pickle(path)


def test_refusal_names_the_function(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"asks for (posix|nt)\.system.*none of its code was run"):
        unpickle.read_pickle(written(tmp_path, HOSTILE["a command"]))


def array(dtype: Any = "f4", shape: Any = (2,), raw: Any = b"\x00" * 8, fortran: Any = False) -> Reduced:
    """Pickle an array with any state, valid or not."""
    from numpy._core.multiarray import _reconstruct  # type: ignore[attr-defined]

    dtype = np.dtype(dtype) if isinstance(dtype, str) else dtype
    return Reduced(_reconstruct, np.ndarray, (0,), b"b", state=(1, shape, dtype, fortran, raw))


@pytest.mark.parametrize(
    "content",
    [
        array(shape=(3,)),
        array(shape=(-2,)),
        array(shape=(True, 2)),
        array(shape=(2**62, 2**62)),
        array(shape=2),
        array(raw=b"\x00" * 4),
        array(raw=[1.0, 2.0]),
        array(dtype=7),
        Reduced(np.ndarray, (2,)),
    ],
    ids=lambda _: None,  # numbered: an object's own text differs from process to process
)
def test_malformed_arrays_are_refused(content: Any, tmp_path: Path) -> None:
    found = unpickle.read_pickle(written(tmp_path, content))
    with pytest.raises(ValueError, match="array"):
        found.tensor()
    assert unpickle.read_pickle(written(tmp_path, array())).tensor().tolist() == [0.0, 0.0]


def test_pickles_cannot_modify_the_record_classes(tmp_path: Path) -> None:
    """A pickle may set attributes of what it names: the records' classes would then differ for the next file."""
    for name in (b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"c_codecs\nencode\n", b"ccollections\nOrderedDict\n"):
        with pytest.raises(ValueError, match="not readable"):
            unpickle.read_pickle(written(tmp_path, b"\x80\x02" + name + b"N}U\x06tensorK\x01s\x86b."))
    assert unpickle.read_pickle(written(tmp_path, np.ones(2, "f4"))).tensor().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_truncated_files_are_refused(share: float, tmp_path: Path) -> None:
    whole = pickle.dumps({"model": {"a": np.zeros(1000, "f4")}}, 2)
    with pytest.raises(ValueError, match=r"weights\.pkl.*not readable"):
        unpickle.read_pickle(written(tmp_path, whole[: int(share * len(whole))]))


def test_files_that_are_no_pickle_are_refused(tmp_path: Path) -> None:
    for content in (b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04", bytes(64)):
        with pytest.raises(ValueError, match=r"weights\.pkl.*not readable"):
            unpickle.read_pickle(written(tmp_path, content))
