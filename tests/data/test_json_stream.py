"""Long lists of JSON files, read piece by piece."""

import json
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
