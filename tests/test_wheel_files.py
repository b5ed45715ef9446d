"""What setup.py makes of the clone's files, for the one package of a wheel."""

import ast
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ops.compile import sources_digest
from tests.conftest import ROOT

SETUP: dict[str, Any] = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")
installed = SETUP["installed"]
FILES = sorted(
    path
    for folder in ("detector", "ops", "scripts", "configs")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".yaml", ".j2")
)


@pytest.mark.parametrize(
    ("clone", "wheel"),
    [
        ("from detector.models.rcnn import RCNN", "from aligned_rcnn.detector.models.rcnn import RCNN"),
        ("    from ops import native, fallback  # why", "    from aligned_rcnn.ops import native, fallback  # why"),
        ("from detector import boxes as box_ops", "from aligned_rcnn.detector import boxes as box_ops"),
        ("import ops", "from aligned_rcnn import ops"),
        ("    import ops  # late", "    from aligned_rcnn import ops  # late"),
        ("from detector.public.runs import Run", "from aligned_rcnn.runs import Run"),
        ("from operator import add\nimport opsx\nfrom detectors import x", None),
        ('TARGET = "detector.models.rcnn.RCNN"', None),
        ('"""Import `ops` from detector, or detector.models."""', None),
        ("# Usage: python scripts/train.py [key=value ...]", "# Usage: aligned-rcnn train [key=value ...]"),
        ('f"python scripts/{script}.py"', 'f"aligned-rcnn {script}"'),
        ('"scripts/data.py check finds them"', '"aligned-rcnn data check finds them"'),
        ('"found by evaluate.py report=true"', '"found by aligned-rcnn evaluate report=true"'),
        ('"detector/training/evaluate.py", "mydata.py", "my-data.py", "data.pyi"', None),
        ("f'pip install -e \".[{extra}]\"'", "f'pip install \"aligned-rcnn[{extra}]\"'"),
        ('"run python -m ops.build"', '"run python -m aligned_rcnn.ops.build"'),
        ("<code>python scripts/{{ script }}.py x</code>", "<code>aligned-rcnn {{ script }} x</code>"),
    ],
)
def test_imports_and_words_are_changed_and_names_stay(clone: str, wheel: str | None) -> None:
    assert installed(clone) == (clone if wheel is None else wheel)
    assert installed(installed(clone)) == installed(clone)


@pytest.mark.parametrize(
    "line", ["import detector.models.rcnn", "import ops as o", "import sys, ops", "import ops, sys"]
)
def test_an_import_that_is_not_changed_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"x\.py: write `from (detector|ops)"):
        installed(f"{line}\n", "x.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_speaks_of_the_clone(path: Path) -> None:
    text = installed(path.read_text(), path.name)
    assert not re.search(r"scripts/\w+\.py|-m (ops|detector)\b|pip install -e \"?\.", text)
    assert not re.search(rf"(?<!/)\b({'|'.join(SETUP['COMMANDS'])})\.py\b", text)
    assert path.suffix != ".py" or len(ast.parse(text).body) == len(ast.parse(path.read_text()).body)


def test_all_packages_and_no_others_are_found() -> None:
    for folder in ("detector", "ops"):
        folders = {path.parent for path in (ROOT / folder).rglob("*.py")}
        assert {".".join(path.relative_to(ROOT).parts) for path in folders} == set(SETUP["packages_in"](folder))


def test_a_library_of_other_sources_or_of_a_newer_system_is_refused(tmp_path: Path) -> None:
    library = tmp_path / "cpu.so"
    digest = sources_digest().encode()
    library.write_bytes(b"\0GLIBC_2.3\0GLIBC_2.28\0GLIBCXX_3.4.24\0" + digest)
    SETUP["check_library"](library)
    library.write_bytes(b"\0GLIBC_2.28\0GLIBC_2.34\0" + digest)
    with pytest.raises(ValueError, match=r"needs GLIBC_2\.34, newer than manylinux_2_28"):
        SETUP["check_library"](library)
    library.write_bytes(b"\0GLIBCXX_3.4.30\0" + digest)
    with pytest.raises(ValueError, match=r"needs GLIBCXX_3\.4\.30"):
        SETUP["check_library"](library)
    library.write_bytes(digest[1:])
    with pytest.raises(ValueError, match="is not compiled from the sources"):
        SETUP["check_library"](library)


def test_versions_that_must_not_be_installed_are_excluded() -> None:
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert "lightning>=2.6.6" in needed  # 2.6.2 and 2.6.3 were compromised (GHSA-qqmf-gpg7-g8gw)
    assert {"numpy", "opencv-python-headless"} <= {re.split("[=>]", name)[0] for name in needed}
