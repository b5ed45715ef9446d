"""`scripts/doctor.py`: verdicts and mends of Python, the project and the packages."""

import importlib.metadata
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from detector.doctor import packages
from detector.doctor.findings import Verdict
from detector.doctor.probe import MODULES
from tests.conftest import ROOT
from tests.scripts.doctor_cases import ERROR, OK, WARNING


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace the installed packages by others, each given as `name==version` with its requirements."""

    def install(**given: list[str]) -> None:
        there = {}
        for text, requires in given.items():
            name, version = text.split("==")
            there[name] = SimpleNamespace(version=version, requires=requires)

        def find(name: str) -> object:
            if name not in there:
                raise importlib.metadata.PackageNotFoundError(name)
            return there[name]

        monkeypatch.setattr(packages, "distribution", find)

    return install


def test_python() -> None:
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert required == ">=" + ".".join(map(str, packages.OLDEST_PYTHON))
    assert packages.check_python(("3", "11", "0")).verdict is OK
    assert packages.check_python(("3", "10", "14")).verdict is ERROR


def test_project() -> None:
    assert packages.check_project(str(ROOT / "detector" / "__init__.py")).verdict is OK
    for origin in (None, "/another/checkout/detector/__init__.py"):
        assert packages.check_project(origin).verdict is ERROR
        assert packages.check_project(origin).mend == f"pip install -e {ROOT}"


def test_the_requirements_are_the_checkout_s_or_else_the_installation_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = packages.requirements()
    assert "albumentations==2.0.8" in here
    monkeypatch.setattr(packages, "ROOT", tmp_path)
    metadata = SimpleNamespace(requires=[*here, 'pytest>=8; extra == "test"'])
    monkeypatch.setattr(packages, "distribution", lambda name: metadata)
    assert packages.requirements() == here


@pytest.mark.parametrize(
    ("there", "verdict", "found"),
    [
        ({"torch==2.15": [], "torchvision==0.29": ["torch>=2.14"]}, OK, "2 with the versions"),
        ({"torch==2.15": []}, ERROR, "no torchvision (aligned-rcnn needs torchvision>=0.25)"),
        ({"torch==2.9": [], "torchvision==0.29": []}, ERROR, "torch 2.9 (aligned-rcnn needs torch>=2.10)"),
        (
            {"torch==2.15": [], "torchvision==0.25": ["torch (==2.10.0)"]},
            ERROR,
            "torch 2.15 (torchvision needs torch==2.10.0)",
        ),
        ({"torch==2.15": ["sympy>=1.13"], "torchvision==0.29": []}, WARNING, "no sympy (torch needs sympy>=1.13)"),
        ({"torch==2.15": ["a; extra == 'b'", "c; python_version < '3'"], "torchvision==0.29": []}, OK, "2 with"),
        ({"torch==2.15.0.dev1+cu132": [], "torchvision==0.29": []}, OK, "2 with"),
    ],
)
def test_versions(installed: Callable[..., None], there: dict[str, list[str]], verdict: Verdict, found: str) -> None:
    installed(**there)
    finding = packages.check_packages(["torch>=2.10", "torchvision>=0.25"])
    assert finding.verdict is verdict
    assert found in finding.found
    assert verdict is OK or f"pip install -e {ROOT}" in finding.mend


def test_an_installation_s_mend_names_the_packages(
    installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "PARENT", "aligned_rcnn.")
    installed(**{"torch==2.15": ["setuptools>=77.0.3"], "torchvision==0.24": [], "setuptools==65": []})
    mend = packages.check_packages(["torch>=2.10", "torchvision>=0.25"]).mend
    assert mend == "pip install 'torchvision>=0.25' 'setuptools>=77.0.3'"


def test_extras_that_are_asked_for_are_followed(installed: Callable[..., None]) -> None:
    installed(
        **{"torch==2.15": ["toolkit[blas]==13"], "toolkit==13": ["cublas==1; extra == 'blas'", "b; extra == 'c'"]}
    )
    assert packages.check_packages(["torch"]).found == "no cublas (toolkit needs cublas==1)"


@pytest.mark.parametrize(
    ("there", "uninstall"),
    [
        ({"opencv-python-headless==5": [], "albumentations==2.0.8": []}, ""),
        (
            {"opencv-python-headless==5": [], "opencv-python==5": []},
            "pip uninstall -y opencv-python-headless opencv-python; pip install 'opencv-python-headless>=4.10.0.84'",
        ),
        (
            {"albumentations==2.0.8": [], "albumentationsx==2.5": []},
            "pip uninstall -y albumentations albumentationsx; pip install 'albumentations==2.0.8'",
        ),
    ],
)
def test_packages_in_one_folder(installed: Callable[..., None], there: dict[str, list[str]], uninstall: str) -> None:
    installed(**there)
    finding = packages.check_twins()
    assert finding.verdict is (WARNING if uninstall else OK)
    assert finding.mend == uninstall


@pytest.mark.parametrize(
    ("package", "message", "mend"),
    [
        ("pycocotools", "ValueError: numpy.dtype size changed, may indicate", "--force-reinstall pycocotools"),
        (
            "torchvision",
            "RuntimeError: operator torchvision::nms does not exist",
            "--force-reinstall torch torchvision",
        ),
        ("opencv-python-headless", "ImportError: libGL.so.1: cannot open", "pip uninstall -y opencv-python"),
        ("msgspec", "ModuleNotFoundError: No module named 'msgspec'", f"pip install -e {ROOT}"),
        ("scipy", "ImportError: something else", "pip install --force-reinstall scipy"),
    ],
)
def test_imports_that_fail(package: str, message: str, mend: str) -> None:
    finding = packages.check_imports({"torch": "", package: message})
    assert finding.verdict is ERROR
    assert finding.found == f"{package}: {message}"
    assert mend in finding.mend


def test_imports() -> None:
    assert packages.check_imports({"torch": ""}).verdict is OK
    crashed = packages.check_imports({"numpy": ""}, "import torch: Python died of signal 11")
    assert crashed.verdict is ERROR
    assert crashed.found == "import torch: Python died of signal 11"
    assert crashed.mend == "python -c 'import torch' shows it alone"


def test_only_the_first_of_imports_that_fail_is_mended_unless_the_cause_is_known() -> None:
    failed = {"torchvision": "RuntimeError: torchvision::nms", "lightning": "AttributeError: partially initialized"}
    assert "lightning" in packages.check_imports(failed).found
    assert "lightning" not in packages.check_imports(failed).mend
    both = {"scipy": "ImportError: a", "pycocotools": "ValueError: numpy.dtype size changed"}
    mend = packages.check_imports(both).mend
    assert "--force-reinstall scipy" in mend
    assert "--force-reinstall pycocotools" in mend


def test_all_packages_are_imported() -> None:
    direct = {requirement.split(">")[0].split("=")[0] for requirement in packages.requirements()}
    assert direct - set(MODULES) == {"jinja2", "rich"}  # pure Python
