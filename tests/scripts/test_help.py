"""`--help` of each script answers at once, lists keys that exist, and gives examples that work."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from detector.config.help import CONFIGS, default_and_comment, help_text, read_header
from tests.conftest import ROOT, compose_config
from tests.scripts.conftest import run_script

NAMES = ["train", "evaluate", "predict", "export", "proposals", "data", "ablate", "alignment"]
ACTIONS = ["check", "stats", "show", "convert", "suggest"]
"""of `scripts/data.py`, each with a configuration `data_ACTION.yaml`"""
CONFIGURED = [*NAMES, *(f"data_{action}" for action in ACTIONS)]
HEAVY = ("torch", "lightning", "hydra", "omegaconf", "numpy", "rich", "matplotlib")


@pytest.mark.parametrize("name", [*NAMES, "benchmark", "doctor", *(f"data {action}" for action in ACTIONS)])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_answered_before_anything_heavy_is_imported(name: str, option: str, tmp_path: Path) -> None:
    script, *action = name.split()
    command = [sys.executable, "-X", "importtime", str(ROOT / "scripts" / f"{script}.py"), *action, option]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^usage: python scripts/{' '.join([f'{script}.py', *action])} ", done.stdout, re.M)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "argparse" in imported or "yaml" in imported
    assert imported.isdisjoint(HEAVY)
    assert list(tmp_path.iterdir()) == []


def test_actions_are_listed() -> None:
    assert [line.split()[0] for line in read_header("data").actions if line.split()[0] in ACTIONS] == ACTIONS
    shown = help_text("data")
    assert "Actions, each with its own --help:\n  check    list all that is wrong" in shown
    assert "Actions" not in help_text("train")


@pytest.mark.parametrize("name", CONFIGURED)
def test_the_keys_of_the_help_exist(name: str) -> None:
    head = read_header(name)
    config = compose_config(name=name)
    groups = {folder.name for folder in CONFIGS.iterdir() if folder.is_dir()}
    shown = help_text(name)
    assert 2 <= len(head.keys) <= 10
    for key in head.keys:
        assert f"  {key}=" in shown
        if key in groups:
            continue
        if key.startswith("hydra"):
            assert key in ("hydra.run.dir", "hydra/launcher")
            continue
        parent, _, last = key.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        assert last in list(node)  # DictConfig's own `in` is false for a missing value
        assert default_and_comment(name, key)[1], f"no comment beside {key}"
        if not OmegaConf.is_missing(node, last):
            assert OmegaConf.create(f"value: {default_and_comment(name, key)[0]}").value == node[last]


def test_defaults_and_comments_are_read_from_the_files() -> None:
    assert default_and_comment("train", "schedule.steps") == ("550", "optimiser steps")
    assert default_and_comment("train", "pooler.levels")[0] == "fpn"  # from a file in the defaults list of the pooler's
    assert default_and_comment("predict", "checkpoint")[0] == "???"
    text = help_text("train")
    assert "\n  pooler=roialign " in text
    assert "\n  data_dir=data  " in text
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.parametrize("name", CONFIGURED)
def test_the_examples_compose(name: str, tmp_path: Path) -> None:
    own, _, word = name.partition("_")
    examples = read_header(name).examples
    assert len(examples) == (3 if name == "evaluate" else 2)  # of a checkpoint, of published weights, of predictions
    for example in examples:
        program, script, *arguments = shlex.split(example)
        assert (program, script) == ("python", f"scripts/{own}.py")
        assert not word or arguments[0] == word
        done = run_script(own, *arguments, "--cfg", "job", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("# Choices\n")


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.stem)
def test_each_script_has_help(path: Path) -> None:
    assert path.stem in (*NAMES, "benchmark", "doctor")
