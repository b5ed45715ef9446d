"""The arrows between the parts: who may import whom."""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(p for folder in ("detector", "ops", "scripts") for p in (ROOT / folder).rglob("*.py"))
ROOMS = {
    "models": set(),
    "data": set(),
    "evaluation": set(),
    "weights": {"models", "data"},
    "config": {"models", "data", "evaluation", "weights"},
    "doctor": {"data", "config"},
    "inference": {"models", "data", "weights", "config"},
    "training": {"models", "data", "evaluation", "weights", "config", "inference"},
    "alignment": {"data", "evaluation", "config", "training"},
    "ablation": {"evaluation", "weights", "config", "training"},
    "public": {"config", "inference", "training", "ablation"},
}
"""The rooms of `detector`, from the ground up, and which of those below each may import; all may import loose files."""
LOOSE = {"__init__", "boxes", "convolution", "masks", "matching", "names", "run_lengths", "types", "visualize"}
LIGHTNING = ("detector/training/", "detector/data/datamodule.py")
HYDRA = ("detector/config/",)
ALBUMENTATIONS = ("detector/data/augment.py", "detector/data/extra.py", "detector/data/transforms.py")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def imports(path: Path) -> frozenset[str]:
    """The full names of the modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def uses(path: Path, package: str) -> bool:
    return any(name == package or name.startswith(package + ".") for name in imports(path))


def room(module: str) -> str | None:
    """The room of `detector` that a module or a file lies in; None for loose files and other packages."""
    parts = module.removesuffix(".py").replace("/", ".").split(".")
    return parts[1] if parts[0] == "detector" and len(parts) > 1 and parts[1] in ROOMS else None


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_arrows(path: Path) -> None:
    name = name_of(path)
    assert not uses(path, "scripts")
    if name.startswith("ops/"):
        assert not uses(path, "detector")
        assert not any(
            uses(path, p) for p in ("torchvision", "lightning", "hydra", "omegaconf", "albumentations", "pycocotools")
        )
    elif name.startswith("detector/"):
        own = room(name)
        others = {r for n in imports(path) if (r := room(n)) is not None and r != own}
        assert others <= (set() if own is None else ROOMS[own]), f"{own or 'a loose file'} imports {sorted(others)}"
    if name.startswith("detector/models/"):
        assert not uses(path, "ops"), "the operator is handed in by the configuration"
    if not name.startswith(HYDRA):
        assert not uses(path, "hydra"), f"only {HYDRA} know Hydra"
    if not name.startswith(LIGHTNING):
        assert not uses(path, "lightning"), f"only {LIGHTNING} know Lightning"
        assert not uses(path, "detector.data.datamodule"), (
            "which imports Lightning; batches are made by data/collate.py"
        )
    if name not in ALBUMENTATIONS:
        assert not uses(path, "albumentations")


def test_rooms_lie_above_those_that_they_import() -> None:
    order = list(ROOMS)
    for own, others in ROOMS.items():
        assert all(order.index(other) < order.index(own) for other in others), own


def test_modules_import_each_other_in_no_circle() -> None:
    modules = {name_of(p).removesuffix(".py").removesuffix("/__init__").replace("/", "."): p for p in SOURCES}
    graph = {m: {n for n in imports(p) if n in modules and not m.startswith(f"{n}.")} for m, p in modules.items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " imports ".join([*way[way.index(module) :], module])
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*way, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_the_loose_files_are_few() -> None:
    loose = {p.stem for p in (ROOT / "detector").glob("*.py")}
    assert loose == LOOSE
    assert len(loose - {"__init__"}) <= 8
    folders = {p.name for p in (ROOT / "detector").iterdir() if p.is_dir() and not p.name.startswith("__")}
    assert folders == set(ROOMS)


def test_top_level_is_the_agreed_one() -> None:
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith((".", "__"))}
    allowed = {"detector", "configs", "ops", "scripts", "tests", "data", "findings"}
    allowed |= {"outputs", "multirun", "build", "gpu-report"}  # made by running something
    assert {n for n in folders if not n.endswith(".egg-info")} <= allowed


def test_modules_of_tests_have_names_of_their_own() -> None:
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))  # by which pytest imports them
    assert [name for name, times in names.items() if times > 1] == []
