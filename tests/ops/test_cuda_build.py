"""The CUDA sources compile, without a GPU."""

from pathlib import Path

import pytest
import torch
from fresh import module, run

from ops import build, compile, compile_cuda

REGISTERED = """
import torch, ops
torch.ops.load_library({library!r})
pooling = (f"{{name}}{{way}}" for name in ("average", "ps_average", "maximum") for way in ("", "_backward"))
names = ["match", "rank", *pooling]
for name in names:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"aligned_rcnn::{{name}}", "CUDA"), name
"""


def why_not() -> str | None:
    """Return why CUDA sources cannot be compiled here, or None."""
    if torch.version.cuda is None:
        return "this torch was built without CUDA"
    return None if compile_cuda.find_nvcc() else "there is no nvcc"


@pytest.mark.slow(minutes=2)
def test_all_sources_compile():
    if reason := why_not():
        pytest.skip(f"the CUDA sources were not compiled: {reason}")
    code, output, error = run(module("ops.build", "9.0+PTX"))
    assert code == 0, error
    (line,) = (line for line in output.splitlines() if line.startswith("cuda"))
    code, _, error = run(REGISTERED.format(library=line.split()[1]))
    assert code == 0, error


@pytest.mark.parametrize("architecture", ["sm_90", "9", "90", "9.0+ptx", "all"])
def test_malformed_architectures_are_refused(architecture, capsys):
    assert build.main([architecture]) == 1
    assert (
        capsys.readouterr().err == f'error: architectures are written as "9.0" or "9.0+PTX"; got \'{architecture}\'\n'
    )


def test_architectures_become_flags():
    flags = ["-gencode", "arch=compute_80,code=sm_80", "-gencode", "arch=compute_120,code=sm_120"]
    assert compile_cuda.architecture_flags(["8.0", "12.0"]) == flags
    ptx = ["-gencode", "arch=compute_120,code=compute_120"]
    assert compile_cuda.architecture_flags(["8.0", "12.0+PTX"]) == [*flags, *ptx]


def test_the_environment_names_the_architectures(monkeypatch):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0;8.6 9.0+PTX")
    assert compile_cuda.default_architectures() == ["8.0", "8.6", "9.0+PTX"]


def test_without_an_architecture(monkeypatch):
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(compile_cuda, "find_nvcc", lambda: "nvcc")
    with pytest.raises(compile.BuildError, match="no GPU is present, and TORCH_CUDA_ARCH_LIST names no architecture"):
        compile_cuda.build_cuda()


def test_without_nvcc(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_HOME", "/nowhere")
    with pytest.raises(compile.BuildError, match="nvcc was not found"):
        compile_cuda.build_cuda(["9.0"])


def test_a_torch_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(compile.BuildError, match="this torch was built without CUDA"):
        compile_cuda.build_cuda(["9.0"])


def test_the_toolkit_is_the_one_that_nvcc_names(tmp_path):
    """The nvcc on the PATH may be a script that calls one elsewhere."""
    wrapper = tmp_path / "bin" / "nvcc"
    wrapper.parent.mkdir()
    wrapper.write_text('#!/bin/sh\necho "#$ _SPACE_= " >&2\necho "#$ TOP=/opt/toolkit/bin/.." >&2\n')
    wrapper.chmod(0o755)
    assert compile_cuda.cuda_home(str(wrapper)) == Path("/opt/toolkit")
    wrapper.write_text("#!/bin/sh\n")
    with pytest.raises(compile.BuildError, match="does not work as CUDA's compiler"):
        compile_cuda.cuda_home(str(wrapper))


def test_another_cuda_than_torchs_is_refused(tmp_path, monkeypatch):
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text('#!/bin/sh\necho "#$ TOP=/opt/toolkit" >&2\necho "Cuda compilation tools, release 11.8"\n')
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(compile.BuildError, match=r"nvcc is of CUDA 11, torch was built for CUDA 13\.0"):
        compile_cuda.build_cuda(["9.0"])


WITHOUT_A_GPU = """
import warnings, torch
from ops import native
torch.cuda.device_count = lambda: 0
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        assert not native.available(torch.device("cuda"))
print(*(warning.message for warning in caught), sep="\\n")
assert native.available(torch.device("cpu"))
"""
TRACED = """
import torch
from ops import native
native.build_cuda = lambda: {library!r}

@torch.compile(fullgraph=True, backend="eager")
def plus(x):
    return x + 2 if native.available(torch.device("cuda")) else x + 1

assert plus(torch.zeros(())) == 2
assert torch._C._dispatch_has_kernel_for_dispatch_key("aligned_rcnn::average", "CUDA")
"""


def test_without_cuda_operators_pure_pytorch_runs():
    code, output, error = run(WITHOUT_A_GPU, TORCH_CUDA_ARCH_LIST="")
    assert code == 0, error
    (warning,) = output.splitlines()
    assert warning.startswith("RoI operators for CUDA: ")
    assert warning.endswith("; using the slower pure PyTorch ones.")


@pytest.mark.slow
def test_the_library_is_loaded_under_the_compiler_too():
    if reason := why_not():
        pytest.skip(f"the CUDA sources were not compiled: {reason}")
    code, _, error = run(TRACED.format(library=str(compile_cuda.build_cuda(["9.0+PTX"]))))
    assert code == 0, error
