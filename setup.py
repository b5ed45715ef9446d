"""Build the wheel: one package, `aligned_rcnn`, of the folders that are packages of their own in a clone.

    detector/public -> aligned_rcnn             the names for Python, and the command `aligned-rcnn`
    detector        -> aligned_rcnn.detector
    ops             -> aligned_rcnn.ops         with the C++ sources, and a compiled library if there is one to bring
    configs         -> aligned_rcnn.configs
    scripts         -> aligned_rcnn.scripts

Files are copied with their imports and what they say to people changed to match (`installed`); names in configurations
stay, and `detector/names.py` finds them. `pip install -e .` changes nothing: it points to the folders of the clone.

With ALIGNED_RCNN_LIBRARY=FILE the wheel brings that CPU library, and is one for Linux on x86-64 (`.ci/wheel`).
"""

from __future__ import annotations

import ast
import os
import re
import runpy
import shutil
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
NAME, PACKAGE = "aligned-rcnn", "aligned_rcnn"
PUBLIC = "detector/public"
FOLDERS = {
    PACKAGE: PUBLIC,
    **{f"{PACKAGE}.{name}": name for name in ("detector", "ops", "configs", "scripts")},
}
"""The folder of the clone that each package is made of."""
DATA = {
    PACKAGE: ["py.typed"],
    f"{PACKAGE}.configs": ["**/*.yaml"],
    f"{PACKAGE}.detector.ablation.report": ["templates/*.j2"],
    f"{PACKAGE}.detector.data.page": ["templates/*.j2"],
    f"{PACKAGE}.detector.evaluation.report": ["templates/*.j2"],
    f"{PACKAGE}.ops": ["csrc/*", "csrc/cuda/*"],
}
COMMANDS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
LIBRARY = os.environ.get("ALIGNED_RCNN_LIBRARY")
GLIBC, GLIBCXX = (2, 28), (3, 4, 24)
"""The newest versions of the C and C++ libraries' symbols that a manylinux_2_28 wheel may use (PEP 600)."""

CHANGES = [
    (r"^(\s*)from detector\.public\b", rf"\1from {PACKAGE}"),
    (r"^(\s*)from (detector|ops)\b(?=[\w.]* import\b)", rf"\1from {PACKAGE}.\2"),
    (r"^(\s*)import (detector|ops)(?= *(?:#.*)?$)", rf"\1from {PACKAGE} import \2"),
    (r"(?<=-m )(detector|ops)\.", rf"{PACKAGE}.\1."),
    (r'pip install -e "\.\[(\{?\w+\}?)\]"', rf'pip install "{NAME}[\1]"'),
    (r"(?:\bpython )?\bscripts/(\w+|\{\w+\}|\{\{ \w+ \}\})\.py\b", rf"{NAME} \1"),
    (rf"(?<![\w/.-])({'|'.join(COMMANDS)})\.py\b", rf"{NAME} \1"),
]
"""Regular expressions, with what stands in place of their matches in an installation."""


def installed(text: str, name: str = "") -> str:
    """Return the text of a file as the wheel has it.

    Args:
        text: of a module, a template or a configuration.
        name: of the file.

    Raises:
        ValueError: a module has an import that is not changed, such as `import detector.models`.
    """
    for pattern, replacement in CHANGES:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    if name.endswith(".py"):
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or "."] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            if left := [each for each in names if each.split(".")[0] in ("detector", "ops", "scripts")]:
                raise ValueError(f"{name}: write `from {left[0]} import ...`, which the wheel can change")
    return text


def packages_in(folder: str) -> list[str]:
    """List the packages in a folder of the clone, itself first, by their names in the clone."""
    files = sorted((ROOT / folder).rglob("__init__.py"))
    return [".".join(path.parent.relative_to(ROOT).parts) for path in files]


def check_library(library: Path) -> None:
    """Check a CPU library that a wheel is to bring.

    Raises:
        ValueError: it is compiled from other sources, or needs newer C and C++ libraries.
    """
    content = library.read_bytes()
    digest = runpy.run_path(str(ROOT / "ops" / "compile.py"))["sources_digest"]()
    if digest.encode() not in content:
        raise ValueError(f"{library} is not compiled from the sources in {ROOT / 'ops' / 'csrc'}")
    for symbol, newest in ((b"GLIBC_", GLIBC), (b"GLIBCXX_", GLIBCXX)):
        found = [tuple(map(int, v.split(b"."))) for v in re.findall(rb"\0" + symbol + rb"(\d[\d.]*)(?=\0)", content)]
        if found and max(found) > newest:
            needed = symbol.decode() + ".".join(map(str, max(found)))
            raise ValueError(f"{library} needs {needed}, newer than manylinux_2_28 has")


class BuildPackage(build_py):
    """Copy the folders into one package, and change the files."""

    def run(self) -> None:
        """Begin anew, so that no file of an earlier build is left in the wheel."""
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib) / PACKAGE, ignore_errors=True)
        super().run()
        if LIBRARY and not self.editable_mode:
            check_library(Path(LIBRARY))
            shutil.copyfile(LIBRARY, Path(self.build_lib) / PACKAGE / "ops" / "cpu.so")

    def copy_file(self, infile: str, outfile: str, *arguments: object, **options: object) -> tuple[str, bool]:
        """Copy a file, changed."""
        done: tuple[str, bool] = super().copy_file(infile, outfile, *arguments, **options)
        copy = Path(outfile)
        if not self.editable_mode and copy.suffix in (".py", ".yaml", ".j2"):
            copy.write_text(installed(copy.read_text(encoding="utf-8"), str(infile)), encoding="utf-8")
        return done


class Wheel(bdist_wheel):
    """Name the wheel by what is in it: any Python, and with a library Linux on x86-64."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags of Python, its ABI and the platform."""
        return ("py3", "none", "manylinux_2_28_x86_64" if LIBRARY else "any")


class Editable(editable_wheel):
    """Install the clone as it is: `detector` and `ops` by their own names, and beside them `aligned_rcnn`."""

    def finalize_options(self) -> None:
        """Replace the wheel's packages by the clone's."""
        self.distribution.packages = [PACKAGE, *packages_in("detector"), *packages_in("ops")]
        self.distribution.package_dir = {PACKAGE: PUBLIC}
        super().finalize_options()


class WithLibrary(Distribution):
    """Put the files of a wheel with a compiled library where the platform's belong."""

    def has_ext_modules(self) -> bool:
        """Return whether the wheel is for one platform."""
        return bool(LIBRARY)


if __name__ == "__main__":
    found = [name for folder in ("detector", "ops") for name in packages_in(folder) if name != PUBLIC.replace("/", ".")]
    setup(
        packages=[PACKAGE, f"{PACKAGE}.configs", f"{PACKAGE}.scripts", *(f"{PACKAGE}.{name}" for name in found)],
        package_dir=FOLDERS,
        package_data=DATA,
        cmdclass={"build_py": BuildPackage, "bdist_wheel": Wheel, "editable_wheel": Editable},
        distclass=WithLibrary,
    )
