"""Verdicts, and programs to find, for the tests of `scripts/doctor.py`."""

import stat
from pathlib import Path

from detector.doctor.findings import Verdict

OK, WARNING, ERROR = Verdict.OK, Verdict.WARNING, Verdict.ERROR


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)
