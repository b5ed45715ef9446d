"""Names of parts: those of configurations and of Python, in a clone and in an installation."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from detector import names
from detector.models.rcnn import RCNN
from detector.weights.trust import check_targets, trust_packages
from tests.conftest import ROOT


@pytest.fixture
def installed(tmp_path: Path) -> ModuleType:
    """`detector/names.py` as it is in an installation."""
    file = tmp_path / "site-packages" / "aligned_rcnn" / "detector" / "names.py"
    file.parent.mkdir(parents=True)
    file.write_text((ROOT / "detector" / "names.py").read_text())
    spec = importlib.util.spec_from_file_location("aligned_rcnn.detector.names", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_clone_has_the_names_of_configurations() -> None:
    for name in ("detector.models.rcnn.RCNN", "ops.roi_align", "torch.nn.Conv2d", "detectors.x", "mypackage.ops.x"):
        assert names.here(name) == names.everywhere(name) == name
    assert names.here("aligned_rcnn.ops.roi_align") == "ops.roi_align"
    assert names.find("detector.models.rcnn.RCNN") is RCNN
    assert names.module_of(RCNN) == "detector.models.rcnn"
    assert ROOT == names.ROOT == names.PLACE


def test_an_installation_has_its_own(installed: ModuleType, tmp_path: Path) -> None:
    for name in ("detector", "detector.models.rcnn.RCNN", "ops.roi_align"):
        assert installed.here(name) == f"aligned_rcnn.{name}"
        assert installed.here(installed.here(name)) == f"aligned_rcnn.{name}"
        assert installed.everywhere(f"aligned_rcnn.{name}") == name
    for name in ("torch.nn.Conv2d", "detectors.x", "mypackage.ops.x", "aligned_rcnn.console"):
        assert installed.here(name) == installed.everywhere(name) == name
    assert tmp_path / "site-packages" == installed.PLACE
    assert tmp_path / "site-packages" / "aligned_rcnn" == installed.ROOT


def test_only_targets_of_nested_nodes_are_changed(installed: ModuleType) -> None:
    node = {
        "_target_": "detector.x.Y",
        "name": "detector.x",
        "parts": [{"_target_": "ops.z", "_partial_": True}, None, 1],
    }
    changed = installed.importable(node)
    assert changed["_target_"] == "aligned_rcnn.detector.x.Y"
    assert changed["parts"] == [{"_target_": "aligned_rcnn.ops.z", "_partial_": True}, None, 1]
    assert changed["name"] == "detector.x"
    assert node["_target_"] == "detector.x.Y"
    assert names.importable(node) == node


def test_configurations_have_one_name_of_a_part() -> None:
    with pytest.raises(ValueError, match=r"m\._target_ = 'aligned_rcnn\.ops\.roi_align': .* call it 'ops\.roi_align'"):
        check_targets({"m": {"_target_": "aligned_rcnn.ops.roi_align"}}, "x.ckpt")
    with pytest.raises(ValueError, match="trust is for packages of your own"):
        trust_packages(["aligned_rcnn"])
