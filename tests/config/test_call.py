"""Scripts' functions called from Python: settings as overrides, results and errors."""

import logging
import re
import sys
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from detector.config.call import as_overrides, call
from detector.config.overrides import parse
from tests.conftest import ROOT


class Pooler(str, Enum):  # noqa: UP042
    """Texts that `str` writes otherwise."""

    ROIPOOL = "roipool"


class Level(IntEnum):
    """Numbers that `repr` writes otherwise."""

    TWO = 2


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, -3, 2.5, 1e-9, float("inf"), "text", "two words", "null", "True", "3", "1e-3", "a,b"),
        *("", "it's", 'a "b"', "x=1", "[0]", "{a: 1}", "C:\\x\\", "#", "é", "inf"),
        *([], [1, "two words", None], {"flip": True, "scales": [0.5, 1]}, {"car": 0.3, "other": "1"}),
        *({"traffic light": 0.3}, {"a:b": {"c,d": 1, " e ": 2, "{f}": 3, "g=h": 4, "i\\j": 5}}),
    ],
    ids=repr,
)
def test_values_come_back_from_hydra_as_they_were(value: Any) -> None:
    (override,) = as_overrides({"a.b": value})
    parsed = parse(override)
    assert parsed is not None
    found = parsed.value()
    plain = OmegaConf.to_container(OmegaConf.create({"found": found}))
    assert isinstance(plain, dict)
    assert plain["found"] == value
    assert type(plain["found"]) is type(value)


def test_paths_tuples_and_nodes_are_plain_values() -> None:
    assert as_overrides({"checkpoint": Path("a b/c.ckpt")}) == ['checkpoint="a b/c.ckpt"']
    assert as_overrides({"size": (1, 2)}) == as_overrides({"size": OmegaConf.create([1, 2])}) == ["size=[1,2]"]
    assert as_overrides({"~logger.tensorboard": None, "+x": 1}) == ["~logger.tensorboard", "+x=1"]


def test_values_of_libraries_are_plain_ones() -> None:
    numbers = {"a": np.float64(0.5), "b": np.int64(3), "c": np.bool_(True), "d": np.float32(0.5)}
    assert as_overrides(numbers) == ["a=0.5", "b=3", "c=true", "d=0.5"]
    assert as_overrides({"a": Pooler.ROIPOOL, "b": [Level.TWO]}) == ["a=roipool", "b=[2]"]


def test_other_values_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"a\.b\[1\]\.c=.*: give a number, a text, a list or a dict, not a set"):
        as_overrides({"a.b": [0, {"c": {1}}]})
    for settings in ({"++hydra.mode": "MULTIRUN"}, {"hydra": {"mode": "MULTIRUN"}}):
        with pytest.raises(ValueError, match=r"^(\+\+)?hydra.*: from Python a run is called alone"):
            as_overrides(settings)
    for wrong in ("pooler=roipool", ["pooler=roipool"], None):
        with pytest.raises(TypeError, match=r"give a dict of settings"):
            as_overrides(wrong)  # type: ignore[arg-type]
    for key in (1, "", "a b", "a=b", "--help", "-m"):
        with pytest.raises(ValueError, match=rf"^{re.escape(repr(key))} is no key"):
            as_overrides({key: 1})  # type: ignore[dict-item]
    for name in ("é", "it's", "", "null", "true", "1e3"):  # Hydra has no form of such a key, or reads another one
        with pytest.raises(ValueError, match=r"^threshold=\{.*\}: Hydra cannot parse a key"):
            as_overrides({"threshold": {name: 0.5}})


def look(config: DictConfig, overrides: list[str], folder: Path, console: object) -> tuple[DictConfig, list[str], Path]:
    return config, overrides, folder


def test_a_function_gets_what_it_gets_from_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["notebook", "--kernel=x"])
    settings = {"pooler": "roipool", "schedule.steps": 7, "data_dir": "my data", "hydra.run.dir": "a run"}
    config, overrides, folder = call("train", look, settings)
    assert (config.pooler.operator._target_, config.schedule.steps) == ("ops.multiscale_roi_pool", 7)
    assert overrides == ["pooler=roipool", "schedule.steps=7", 'data_dir="my data"']
    assert folder == tmp_path / "a run"
    assert sys.argv == ["notebook", "--kernel=x"]
    assert Path.cwd() == tmp_path
    assert not GlobalHydra.instance().is_initialized()


def test_the_caller_s_logging_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, file = logging.getLogger(), logging.FileHandler(tmp_path / "own.log")
    monkeypatch.setattr(log, "handlers", [file])
    monkeypatch.setattr(log, "level", logging.ERROR)
    call("train", look, {"hydra.run.dir": tmp_path / "run"})
    log.error("still here")
    file.close()
    assert (log.handlers, log.level) == ([file], logging.ERROR)
    assert (tmp_path / "own.log").read_text() == "still here\n"


def test_hydra_in_use_by_the_caller_goes_on(tmp_path: Path) -> None:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        call("train", look, {"hydra.run.dir": tmp_path})
        assert compose("train", overrides=["seed=3"]).seed == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooler": "roipol"}, "did you mean roipool"),
        ({"schedule.stepz": 3}, r"did you mean schedule\.steps"),
        ({"trust": ["torch"]}, "trust is for packages of your own"),
    ],
)
def test_a_mistake_is_an_error_with_the_script_s_message(
    settings: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=message):
        call("train", look, {"hydra.run.dir": tmp_path, **settings})
    assert capsys.readouterr().err == ""


def test_errors_of_the_function_keep_their_message(tmp_path: Path) -> None:
    def fail(*arguments: object) -> None:
        raise FileNotFoundError("no such image")

    with pytest.raises(ValueError, match="no such image"):
        call("train", fail, {"hydra.run.dir": tmp_path})
