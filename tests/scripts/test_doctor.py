"""`scripts/doctor.py`: findings, the process that may crash, and the script where all is well and where it is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from detector.doctor import findings, packages, run
from detector.doctor.findings import Finding, Verdict
from detector.doctor.probe import Facts, parse, probe
from tests.conftest import ROOT
from tests.scripts.doctor_cases import ERROR, OK, WARNING, program

# ---- Findings ----


def test_what_is_not_ok_has_a_mend() -> None:
    with pytest.raises(ValueError, match="disk: say how to mend it"):
        Finding("disk", "full", ERROR)


def test_only_errors_count_for_the_exit_code() -> None:
    fine, slow, broken = Finding("a", "b"), findings.warning("a", "b", "c"), findings.error("a", "b", "c")
    assert [findings.exit_code(each) for each in ([fine], [fine, slow], [slow, broken, fine])] == [0, 0, 1]


@pytest.mark.parametrize("rich", [True, False])
def test_a_line_per_check_then_the_mends(
    rich: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not rich:  # it may be the package that is missing
        monkeypatch.setitem(sys.modules, "rich.console", None)
    long = "x" * 300 + " [test]"
    findings.print_findings([Finding("Python", "3.11"), findings.warning("memory", long, "pip install -e '.[test]'")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["Python  ok       3.11", f"memory  warning  {long}"]
    assert lines[2:] == [
        "",
        "What to do:",
        "  memory: pip install -e '.[test]'",
        "",
        "2 checks: 1 ok, 1 warning, 0 errors",
    ]


# ---- The process that may crash ----


def test_nothing_else_is_tried_with_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    old = findings.error("Python", "3.8", "install another")
    monkeypatch.setattr(packages, "check_python", lambda: old)
    monkeypatch.setattr(run, "probe", None)
    assert run.diagnose(None) == [old]


def test_what_was_learnt_before_a_crash_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = ['{"what": "begin", "name": "import numpy"}', '{"what": "import", "name": "numpy", "error": ""}']
    lines += ['{"what": "begin", "name": "import torch"}']
    written = "".join(f"echo '{line}' >> $3\n" for line in lines)
    monkeypatch.setattr(sys, "executable", program(tmp_path / "python", f"{written}kill -SEGV $$"))
    assert probe() == Facts({"numpy": ""}, ended="import torch: Python died of signal 11")
    monkeypatch.setattr(sys, "executable", program(tmp_path / "slow", "exec sleep 60"))
    assert probe(seconds=0.1) == Facts(ended="no answer in 0 s")


@pytest.mark.parametrize(("build", "compiles"), [(False, "0"), (True, "1")])
def test_nothing_is_compiled_unasked(
    build: bool, compiles: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ALIGNED_RCNN_COMPILE", "0")
    line = '{\\"what\\": \\"import\\", \\"name\\": \\"x\\", \\"error\\": \\"$ALIGNED_RCNN_COMPILE\\"}'
    monkeypatch.setattr(sys, "executable", program(tmp_path / "python", f'echo "{line}" > $3'))
    assert probe(build).imports == {"x": compiles}


def test_what_could_not_be_asked_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = parse(['{"what": "facts", "name": "torch", "error": "ImportError: no"}'], "died")
    monkeypatch.setattr(run, "probe", lambda build: facts)
    found = {finding.name: finding for finding in run.diagnose(None)}
    assert found["torch"].found == "not checked: ImportError: no"
    assert found["operators"].found == "not checked: died"
    assert {found[name].verdict for name in ("torch", "operators", "project")} <= {OK, WARNING}
    assert "GPU" not in found
    assert "disk" in found


def test_a_check_that_fails_is_a_finding() -> None:
    def fail() -> Finding:
        raise PermissionError("no")

    assert run.guarded("disk", fail).found == "not checked: PermissionError: no"


# ---- The script ----


def doctor(*arguments: str, cwd: Path, **environment: str) -> tuple[int, dict[str, list[str]], str]:
    """Run the script; returns exit code, [verdict, what was found] by check, and all that was printed."""
    command = [sys.executable, str(ROOT / "scripts" / "doctor.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    rows = [line[15:].split(None, 1) for line in done.stdout.splitlines()]
    names = [line[:15].strip() for line in done.stdout.splitlines()]
    assert done.stderr == ""
    return done.returncode, {n: r for n, r in zip(names, rows, strict=True) if r and r[0] in VERDICTS}, done.stdout


VERDICTS = {verdict.value for verdict in Verdict}


def test_the_script_where_all_is_well(tmp_path: Path) -> None:
    code, rows, output = doctor(cwd=tmp_path)
    assert code == 0, output
    assert len(rows) == 16
    for name in ("Python", "project", "packages", "shared files", "imports"):
        assert rows[name][0] == "ok", output
    assert "kernels" in rows["operators"][1] or "not compiled yet" in rows["operators"][1]
    assert list(tmp_path.iterdir()) == []


def test_the_script_without_a_compiler_and_without_a_place_for_runs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = tmp_path / "cache"
    broken = {"CXX": "/nowhere", "PATH": str(tmp_path), "ALIGNED_RCNN_CACHE": str(cache)}
    code, rows, output = doctor("--output", "file/outputs", cwd=tmp_path, **broken)
    assert code == 1, output
    assert rows["C++ compiler"] == ["warning", "none"]
    assert rows["operators"][0] == "warning"
    assert rows["disk"][0] == "error"
    assert "  C++ compiler: unset CXX, which names no program (/nowhere)" in output
    assert not cache.exists()
