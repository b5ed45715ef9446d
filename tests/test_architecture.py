"""The arrows between the parts: who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(p for folder in ("detector", "ops", "scripts") for p in (ROOT / folder).rglob("*.py"))
LIGHTNING = {"detector/callbacks.py", "detector/task.py", "detector/training.py", "detector/data/datamodule.py"}


def imports(path: Path) -> set[str]:
    """The full names of the modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def uses(path: Path, package: str) -> bool:
    return any(name == package or name.startswith(package + ".") for name in imports(path))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    part = "/".join(path.relative_to(ROOT).parts[:2])
    assert not uses(path, "scripts")
    if name.startswith("ops/"):
        assert not uses(path, "detector")
        assert not any(uses(path, p) for p in ("lightning", "hydra", "omegaconf", "albumentations", "pycocotools"))
    if part == "detector/models":
        assert not uses(path, "ops")
        assert not uses(path, "detector.data")
        assert not uses(path, "detector.evaluation")
    if part in ("detector/data", "detector/evaluation"):
        own = part.replace("/", ".")
        inside = {n for n in imports(path) if n.startswith("detector.") and not n.startswith(own)}
        assert all(n.split(".")[1] in ("types", "boxes", "masks") for n in inside), inside
    if name != "detector/build.py" and not name.startswith("scripts/"):
        assert not uses(path, "hydra"), "only build.py and scripts know Hydra"
    if name not in LIGHTNING and not name.startswith("scripts/"):
        assert not uses(path, "lightning"), f"only {LIGHTNING} and scripts know Lightning"
    if name != "detector/data/augment.py":
        assert not uses(path, "albumentations")


def test_top_level_is_the_agreed_one() -> None:
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith((".", "__"))}
    allowed = {"detector", "configs", "ops", "scripts", "tests", "data", "outputs", "multirun", "build"}
    assert {n for n in folders if not n.endswith(".egg-info")} <= allowed
