"""Long lists of JSON files, read piece by piece."""

import json
import math
import random

import pytest

from detector.data import json_stream
from detector.data.json_stream import stream_lists


def lists(path, keys=("a", "b")):
    found: dict = {}
    for key, batch in stream_lists(path, keys):
        found.setdefault(key, []).extend(batch)
    return found


@pytest.mark.parametrize("style", [{}, {"indent": 1}, {"separators": (",", ":")}])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("chunk", "batch"), [(1, 3), (7, 1), (64, 20000), (1 << 22, 2)])
def test_lists_of_any_layout_in_pieces(tmp_path, monkeypatch, style, encoding, chunk, batch):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    monkeypatch.setattr(json_stream, "BATCH", batch)
    draw = random.Random(0)
    data = {
        "info": {"a": [1, 2], "text": '"}],[{'},
        "a": [{"id": i, "x": [draw.uniform(-9, 9), 1e-7 * i], "name": 'µ\\"[' * (i % 3)} for i in range(23)],
        "c": [1, 2.5],
        "b": [1, -20, 3.25e2, "x", None, True, [], {}, {"a": {}}],
        "none": [],
    }
    path = tmp_path / "data.json"
    path.write_text(json.dumps(data, ensure_ascii=False, **style), encoding=encoding)
    assert lists(path) == {"a": data["a"], "b": data["b"]}
    assert lists(path, ["none"]) == {"none": []}
    assert all(len(items) <= batch for _, items in stream_lists(path, ["a", "b"]))


@pytest.mark.parametrize("text", ["[1, 2]", "3", '{"a": 5, "c": [1]}', "{}"])
def test_other_json_has_no_such_lists(tmp_path, text):
    path = tmp_path / "data.json"
    path.write_text(text)
    assert lists(path) == {}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", 0),
        ("no", 0),
        ('{"a": [1, 2', 11),
        ('{"a": [1, 2}', 11),
        ('{"a": [{"b": 1}, {"b": }]}', 23),
        ('{"a": [1,]}', 9),
        ('{"a" [1]}', 5),
        ("{a: [1]}", 1),
        ('{"a": [1]} x', 11),
        ('{"a": [1]', 9),
    ],
)
@pytest.mark.parametrize("chunk", [1, 5, 1 << 22])
def test_broken_json_is_refused_with_the_place(tmp_path, monkeypatch, text, place, chunk):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"^not JSON \(.* at character {place}\)$"):
        lists(path)


def test_other_bytes_are_refused(tmp_path):
    path = tmp_path / "data.json"
    path.write_bytes(b'{"a": ["\xff"]}')
    with pytest.raises(ValueError, match=r"^not JSON \(.*codec"):
        lists(path)


ITEMS = [
    "1e400",
    "NaN",
    "-Infinity",
    '"\\ud800"',
    "-0",
    "-0.0",
    "18446744073709551616",
    "5e-324",
    '{"x": 1, "x": 2}',
    '"\\u00e9"',
]


@pytest.mark.parametrize("value", ITEMS)
@pytest.mark.parametrize("chunk", [300, 1 << 22])
def test_values_are_those_of_the_standard_library(tmp_path, monkeypatch, value, chunk):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    items = [
        f'{{"id": {i}, "x": {value if i % 7 == 5 else i / 3}, "parts": [{{"id": 1}}, {{"id": 2}}]}}' for i in range(60)
    ]
    path = tmp_path / "data.json"
    path.write_text(f'{{"a": [{", ".join(items)}], "b": [{{"id": 1}}, {{"id": 2}}]}}')
    expected = json.loads(path.read_text())
    assert repr(lists(path)) == repr(expected)  # NaN differs from itself, -0.0 does not from 0


def test_most_objects_are_decoded_together(tmp_path, monkeypatch):
    path = tmp_path / "data.json"
    draw = random.Random(0)
    data = [
        {"id": i, "x": [draw.uniform(-1e3, 1e3), draw.random() * 10.0 ** draw.randint(-300, 300)]} for i in range(999)
    ]
    path.write_text(json.dumps({"a": data}))
    single = []
    standard = json_stream._Source.value
    monkeypatch.setattr(json_stream._Source, "value", lambda source: single.append(1) or standard(source))
    assert lists(path) == {"a": data}
    assert len(single) < 5
    assert all(math.isfinite(x) for entry in data for x in entry["x"])


@pytest.mark.parametrize("broken", ["01", "1.", "tru", '"\t"', '"\\x"', "[1 2]", "{1: 2}", "--1"])
def test_broken_values_among_many_are_refused_with_their_place(tmp_path, broken):
    text = '{"a": [' + ", ".join(f'{{"id": {broken if i == 40 else i}}}' for i in range(60)) + "]}"
    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"^not JSON \(.* at character (\d+)\)$") as error:
        lists(path)
    begin = text.index(f'{{"id": {broken}}}')
    assert begin <= int(str(error.value).split()[-1][:-1]) <= begin + 6 + len(broken) + 2
