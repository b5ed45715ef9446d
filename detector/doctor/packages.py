"""Check Python and the packages: versions, pairs that do not go together, imports."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from detector.doctor.findings import Finding, error, warning
from detector.names import PARENT, ROOT

PROJECT = "aligned-rcnn"
INSTALL = f"pip install --upgrade {PROJECT}" if PARENT else f"pip install -e {ROOT}"
"""The command that installs this project with what it needs: here, or in this clone."""
OLDEST_PYTHON = (3, 11)
"""As in pyproject.toml, which older ones cannot read."""

TWINS = {
    # "All the packages use the same namespace (cv2)": opencv-python's page on PyPI, which says to install one only.
    "cv2": ("opencv-python-headless", "opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
    # Both bring the folder `albumentations`; 2.5.1 of the second cannot be imported beside the first's albucore.
    "albumentations": ("albumentations", "albumentationsx"),
}
"""By the folder that they all write: the distribution that this project needs, and those that it must not be beside."""

CAUSES = {
    # Seen: pycocotools 2.0.7 under numpy 2.4; numpy.org/doc/stable/user/troubleshooting-importerror.html
    "numpy.dtype size changed": "it was compiled for another numpy: pip install --upgrade --force-reinstall {package}",
    "compiled using NumPy 1.x": "it was compiled for numpy 1: pip install --upgrade --force-reinstall {package}",
    # Seen: torchvision 0.25 beside torch 2.15.
    "torchvision::nms": "torch and torchvision do not fit: {pair}",
    # torchvision/extension.py
    "different CUDA major versions": "torch and torchvision do not fit: {pair}",
    "libGL.so": "this OpenCV needs a screen: pip uninstall -y opencv-python opencv-contrib-python; "
    "pip install --force-reinstall opencv-python-headless",
}
"""By a part of an import's error: the mend."""
PAIR = "pip install --upgrade --force-reinstall torch torchvision (both from one index)"


def check_python(version: Sequence[str] = platform.python_version_tuple()) -> Finding:
    """Check that Python is new enough."""
    found = f"{'.'.join(version)}, {sys.executable}"
    if (int(version[0]), int(version[1])) < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return error("Python", found, f"install Python {oldest} or newer, and the project with it: {INSTALL}")
    return Finding("Python", found)


def check_project(origin: str | None) -> Finding:
    """Check that the scripts find the packages of this project.

    Args:
        origin: the `__init__.py` of the `detector` that they find; None: there is none.
    """
    if origin is None:
        return error("project", f"{ROOT} is not installed", INSTALL)
    if (other := Path(origin).resolve().parents[1]) != ROOT:
        return error("project", f"the scripts of {ROOT} use the packages in {other}", INSTALL)
    return Finding("project", str(ROOT))


def requirements() -> list[str]:
    """Return this project's requirements: those of the checkout, since an installation may be older.

    Raises:
        PackageNotFoundError: there is no pyproject.toml, and the project is not installed.
    """
    file = ROOT / "pyproject.toml"
    if file.exists():
        import tomllib

        return list(tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"])
    return [text for text in distribution(PROJECT).requires or [] if "extra ==" not in text]


def check_packages(required: Sequence[str]) -> Finding:
    """Check the versions of all packages that this project needs, directly or not, by their own metadata.

    Args:
        required: the direct requirements, such as `albumentations==2.0.8`.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    queue = [(PROJECT, Requirement(text)) for text in required]
    direct = {PROJECT, *(canonicalize_name(requirement.name) for _, requirement in queue)}
    seen: set[tuple[str, frozenset[str]]] = set()
    faults, wanted, grave = [], [], False
    for owner, requirement in queue:
        name = canonicalize_name(requirement.name)
        installed = _installed(name)
        if installed is None or not requirement.specifier.contains(installed.version, prereleases=True):
            there = f"{name} {installed.version}" if installed else f"no {name}"
            needed = f"{requirement.name}{requirement.specifier}"
            faults.append(f"{there} ({owner} needs {needed})")
            wanted.append(f"'{needed}'")
            grave = grave or {owner, name} <= direct
        if installed is None or (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        for child in map(Requirement, installed.requires or ()):
            extras = ("", *requirement.extras)
            if child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in extras):
                queue.append((name, child))
    if not faults:
        return Finding("packages", f"{len({name for name, _ in seen})} with the versions that they need of each other")
    tested = f"; or the versions that the tests passed with: pip install -c {ROOT}/constraints.txt -e {ROOT}"
    mend = f"pip install {' '.join(wanted)}" if PARENT else INSTALL + tested
    return (error if grave else warning)("packages", "; ".join(faults), mend)


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def check_twins(twins: Mapping[str, Sequence[str]] = TWINS) -> Finding:
    """Check that no two packages are installed that overwrite each other's files."""
    found, mends = [], []
    for needed, *others in twins.values():
        present = [name for name in others if _installed(name) is not None]
        if present:
            found.append(" and ".join([*([needed] if _installed(needed) else []), *present]))
            needs = next((r for r in requirements() if r.startswith(needed)), needed)
            mends.append(f"pip uninstall -y {' '.join([needed, *present])}; pip install '{needs}'")
    if found:
        return warning("shared files", f"{'; '.join(found)}: installed into one folder", "; ".join(mends))
    return Finding("shared files", "no two packages in one folder")


def check_imports(errors: Mapping[str, str], ended: str = "") -> Finding:
    """Check that the packages can be imported.

    Args:
        errors: by package: empty, or the error, as of `Facts.imports`.
        ended: what ended the process that imported them.
    """
    failed = {package: message for package, message in errors.items() if message}
    if ended:
        failed[ended.partition(":")[0]] = ended.partition(":")[2].strip() or ended
    if not failed:
        return Finding("imports", f"{len(errors)} packages")
    known = {package for package, message in failed.items() if any(part in message for part in CAUSES)}
    first = next(iter(failed))  # others may fail because of it
    mends = [_import_mend(package, message) for package, message in failed.items() if package in {first, *known}]
    found = "; ".join(f"{package}: {message}" for package, message in failed.items())
    return error("imports", found, "; ".join(dict.fromkeys(mends)))


def _import_mend(package: str, message: str) -> str:
    for part, mend in CAUSES.items():
        if part in message:
            return mend.format(package=package, pair=PAIR)
    if package.startswith("import "):
        return f"python -c '{package}' shows it alone"
    return f"pip install --force-reinstall {package}" if "ModuleNotFound" not in message else INSTALL
