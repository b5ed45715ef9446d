"""The comparison with other runtimes on seven kinds of boxes, from the command line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from ops import boxes
from tests.conftest import ROOT


def run(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "ops.boxes", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_kinds_are_what_they_say():
    low, high = ((boxes.all_boxes()[:, i : i + 2] * boxes.SCALE).split(boxes.PER_KIND) for i in (1, 3))
    low, high = (dict(zip(boxes.KINDS, parts, strict=True)) for parts in (low, high))
    size = torch.tensor([boxes.MAP[3], boxes.MAP[2]])
    for kind in boxes.KINDS:
        inside = ((low[kind] >= 0) & (high[kind] <= size)).all(1)
        assert inside.all() == (kind not in ("edge", "large"))
        assert ((high[kind] > low[kind]).all(1) ^ torch.tensor(kind == "empty")).all()
    for kind, part in (("on cells", 0.0), ("halves", 0.5)):
        assert (low[kind] % 1 == part).all()
        assert (high[kind] % 1 == part).all()
    assert ((high["small"] - low["small"]) < 1).all()
    assert ((low["edge"] < 0) | (high["edge"] > size)).all()
    assert ((low["large"] <= 0) & (high["large"] >= size)).all()


def test_an_output_is_compared_by_kind(tmp_path, capsys):
    done = run("write", "arrays", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    map, given = (torch.from_numpy(np.load(tmp_path / "arrays" / f"{name}.npy")) for name in ("map", "boxes"))
    align, pool = str(tmp_path / "align.npy"), str(tmp_path / "pool.npy")
    np.save(align, torchvision.ops.roi_align(map, given, 7, 0.25, 2, True).numpy())
    np.save(pool, torchvision.ops.ps_roi_pool(map, given, 7, 0.25).numpy())
    assert boxes.main(["compare", align, "roi_align", "sampling_ratio=2", "aligned=true"]) == 0
    assert capsys.readouterr().out.count("equal, by at most") == len(boxes.KINDS)
    assert boxes.main(["compare", align, "roi_align", "sampling_ratio=2"]) == 1
    assert "halves    100% differ" in capsys.readouterr().out
    assert boxes.main(["compare", pool, "ps_roi_pool"]) == 0
    assert boxes.main(["compare", pool, "ps_roi_pool", "quantization=rfcn"]) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "missing.npy", "roi_align"], "missing.npy"),
        (["compare", "small.npy", "roi_align"], "roi_align gives [448, 98, 7, 7] of these boxes; found are [1, 2]"),
        (["compare", "small.npy", "roi_ailgn"], "the operator must be one of roi_align, roi_pool, "),
        (["compare", "small.npy", "roi_align", "samples=2"], "unexpected keyword argument 'samples'"),
        (["comp"], "python -m ops.boxes write FOLDER"),
    ],
)
def test_bad_input_is_named(tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    np.save("small.npy", np.zeros((1, 2)))
    assert boxes.main(arguments) == 1
    assert words in capsys.readouterr().err


def test_nan_is_a_difference():
    found = torch.zeros(len(boxes.all_boxes()), 2, 7, 7)
    found[:] = torch.nan
    assert boxes.compare(found, "ps_roi_pool")["inside"] == (float("inf"), 1.0)
