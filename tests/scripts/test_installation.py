"""The wheel, built and installed without network: commands in an empty folder, and the names for Python."""

import os
import platform
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.compile import build
from tests.conftest import ROOT
from tests.scripts.conftest import SMALL

pytestmark = pytest.mark.slow(minutes=2)

BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
SAME = """
import hashlib, sys, torch
ops = __import__(sys.argv[1], fromlist=["ops"])
assert ops.backend().name == "cpu", ops.backend()
generator = torch.Generator().manual_seed(0)
boxes = torch.cat([torch.zeros(60, 1), 50 * torch.rand(60, 2, generator=generator)], 1)
boxes = torch.cat([boxes, boxes[:, 1:] + 60 * torch.rand(60, 2, generator=generator)], 1)
digest = hashlib.sha256()
for dtype in (torch.float32, torch.bfloat16):
    features = torch.randn(1, 98, 30, 34, generator=generator).to(dtype).requires_grad_()
    for operator in (ops.roi_align, ops.roi_pool, ops.ps_roi_align, ops.roi_warp, ops.crop_and_resize):
        pooled = operator(features, boxes, 7, 0.25)
        (gradient,) = torch.autograd.grad(pooled.float().square().sum(), features)
        for each in (pooled.detach(), gradient):
            digest.update(each.float().contiguous().numpy().tobytes())
others = {name.split(".")[0] for name in sys.modules} & {"detector", "ops"}
assert others <= {sys.argv[1]}, others  # an installation has no modules under names that others own
print(ops.backend().reason, digest.hexdigest())
"""
BOTH = """
import sys
sys.path.insert(0, sys.argv[1])
import torch, ops, aligned_rcnn.ops
assert ops is not aligned_rcnn.ops
assert ops.backend() == aligned_rcnn.ops.backend() and ops.backend().name == "cpu", ops.backend()
features, boxes = torch.rand(1, 3, 9, 9, requires_grad=True), torch.tensor([[0, 1.0, 2, 7, 6]])
pooled = [each.roi_align(features, boxes, 3) for each in (ops, aligned_rcnn.ops)]
assert torch.equal(*pooled)
(pooled[0] + pooled[1]).sum().backward()
"""
NOTEBOOK = """
import sys
from aligned_rcnn import Detector, __version__, evaluate
run = evaluate({"checkpoint": "run/checkpoints/last.ckpt", "workers": 0, "hydra.run.dir": "again"})
objects = Detector(run.folder.parent / "run/checkpoints/last.ckpt")(sys.argv[1])
print(__version__, run.metrics["env/version"], run.metrics["box/AR100"], len(objects.boxes))
"""


def build_wheel(folder: Path, **environment: str) -> Path:
    """Build a wheel from a copy of the clone's files, so that nothing is written into the clone."""
    return run_build("build_wheel", copy_sources(folder / "source"), folder, **environment)


def copy_sources(source: Path) -> Path:
    """Copy the files of the clone that are needed to build."""
    for name in ("detector", "ops", "configs", "scripts"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    return source


def run_build(what: str, source: Path, folder: Path, **environment: str) -> Path:
    """Call a function of setuptools that builds a file from a folder of sources; returns the file."""
    command = [sys.executable, "-c", BUILD, what, str(folder)]
    done = subprocess.run(
        command, cwd=source, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


class Installation:
    """A folder into which the wheel is installed, and one with nothing in it where commands are run."""

    def __init__(self, wheel: Path, folder: Path) -> None:
        self.site, self.empty = folder / "site", folder / "empty"
        self.empty.mkdir()
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(self.site)]
        subprocess.run([*pip, str(wheel)], check=True)

    def run(self, *command: str, **environment: str) -> str:
        """Run a command of the installation, or `python`; returns its output."""
        program = sys.executable if command[0] == "python" else str(self.site / "bin" / command[0])
        options = {"cwd": self.empty, "env": os.environ | {"PYTHONPATH": str(self.site)} | environment}
        done = subprocess.run([program, *command[1:]], **options, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    return Installation(wheel, tmp_path_factory.mktemp("installation"))


def test_one_package_is_installed(wheel: Path, installation: Installation) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    installed = {path.name for path in installation.site.iterdir()} - {"bin"}
    assert {name.partition("-")[0] for name in installed} == {"aligned_rcnn"}
    assert len(installed) == 2  # the package and its metadata
    package = installation.site / "aligned_rcnn"
    configs = {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml")}
    assert {str(path.relative_to(package)) for path in package.rglob("*.yaml")} == configs
    sources = {path.name for path in (ROOT / "ops" / "csrc").rglob("*.*")}
    assert {path.name for path in (package / "ops" / "csrc").rglob("*.*")} == sources
    templates = {path.name for path in ROOT.joinpath("detector").rglob("*.j2")}
    assert {path.name for path in package.rglob("*.j2")} == templates


def test_the_source_archive_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    source = copy_sources(tmp_path / "source")
    (source / "tests").mkdir()
    (source / "tests" / "test_one.py").write_text("import tests.conftest")
    archive = run_build("build_sdist", source, tmp_path)
    with tarfile.open(archive) as files:
        files.extractall(tmp_path, filter="data")
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    assert not (unpacked / "tests").exists()  # which need files beside them
    again = run_build("build_wheel", unpacked, tmp_path)
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(again) as theirs:
        assert {name: ours.read(name) for name in ours.namelist()} == {n: theirs.read(n) for n in theirs.namelist()}


def test_the_first_command_in_an_empty_folder(installation: Installation) -> None:
    shown = installation.run("aligned-rcnn")
    assert [line.split()[0] for line in shown.splitlines()[3:]] == sorted(
        p.stem for p in (ROOT / "scripts").glob("*.py")
    )
    assert "usage: aligned-rcnn train [group=choice ...]" in installation.run("aligned-rcnn", "train", "--help")
    installation.run("aligned-rcnn", "train", "pooler=roipool", "hydra.run.dir=run", *SMALL)
    assert (installation.empty / "run" / "command.txt").read_text().startswith("aligned-rcnn train pooler=roipool ")
    assert {path.name for path in installation.empty.iterdir()} == {"run", "data"}
    assert "aligned_rcnn" not in (installation.empty / "run" / "config.yaml").read_text()
    image = next((installation.empty / "data").rglob("*.png"))
    words = installation.run("python", "-c", NOTEBOOK, str(image)).splitlines()[-1].split()
    assert words[0] == words[1]
    # A checkpoint of an installation in a clone, and the other way round.
    evaluate = ["checkpoint=run/checkpoints/last.ckpt", "workers=0"]
    command = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), *evaluate, "hydra.run.dir=clone"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=installation.empty, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert (installation.empty / "clone" / "predictions" / "box.json").read_bytes() == (
        installation.empty / "again" / "predictions" / "box.json"
    ).read_bytes()


def test_a_clone_s_checkpoint_in_an_installation(installation: Installation, run: object, tmp_path: Path) -> None:
    folder = run.folder  # type: ignore[attr-defined]
    arguments = [f"checkpoint={folder}/checkpoints/last.ckpt", f"data_dir={folder.parent}/data", "workers=0"]
    installation.run("aligned-rcnn", "evaluate", *arguments, f"hydra.run.dir={tmp_path}/found")
    theirs, ours = (path / "predictions" / "mask.json" for path in (folder, tmp_path / "found"))
    assert theirs.read_bytes() == ours.read_bytes()


@pytest.mark.skipif((sys.platform, platform.machine()) != ("linux", "x86_64"), reason="such wheels have no library")
def test_the_library_of_a_wheel_needs_no_compiler_and_computes_the_same(tmp_path: Path) -> None:
    compiled = tmp_path / "cpu.so"
    runpy.run_path(str(ROOT / "ops" / "compile.py"))["build_for_wheels"](compiled)
    wheel = build_wheel(tmp_path / "built", ALIGNED_RCNN_LIBRARY=str(compiled))
    assert wheel.name.endswith("-py3-none-manylinux_2_28_x86_64.whl")
    with zipfile.ZipFile(wheel) as files:
        assert "aligned_rcnn/ops/cpu.so" in files.namelist()
    installation = Installation(wheel, tmp_path)
    without = {"PATH": "/nowhere", "CXX": "/nowhere/g++", "ALIGNED_RCNN_CACHE": str(tmp_path / "cache")}
    shown: set[str] = set()
    for variant in ("default", "avx2", "avx512"):
        environment = {"ATEN_CPU_CAPABILITY": variant}
        code = [sys.executable, "-c", SAME, "ops"]
        options = {"cwd": tmp_path, "env": os.environ | environment | {"PYTHONPATH": str(ROOT)}, "text": True}
        ours = subprocess.run(code, **options, check=True, stdout=subprocess.PIPE).stdout
        theirs = installation.run("python", "-c", SAME, "aligned_rcnn.ops", **environment, **without)
        assert ours == theirs
        shown.add(theirs.partition(" variant")[0])
    assert len(shown) > 1
    assert not (tmp_path / "cache").exists()


def test_a_clone_and_an_installation_in_one_process_share_the_operators(installation: Installation) -> None:
    build()
    installation.run("python", "-W", "error::UserWarning", "-c", BOTH, str(ROOT))
