"""Python processes into which torch is imported and nothing of this project: forks of one, as the import takes long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVER = """
import json, os, signal, sys, warnings
import torch, torchvision
for line in sys.stdin:
    job = json.loads(line)
    process = os.fork()
    if process == 0:
        os.setsid()
        signal.alarm(600)
        for number, path in enumerate((os.devnull, *job["streams"])):
            os.dup2(os.open(path, os.O_RDWR), number)
        os.environ.clear()
        os.environ.update(job["environment"])
        warnings.simplefilter(job["warnings"])
        exec(job["code"], {"__name__": "__main__"})
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


@cache
def _server() -> subprocess.Popen[str]:
    pipe, env = subprocess.PIPE, {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", SERVER]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, text=True)  # ends at the pipe's end


def run(code: str, *, warnings: str = "error", **environment: str) -> tuple[int, str, str]:
    """Run a program in the root of the repository; returns its exit code, output and errors."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        job = {"code": code, "warnings": warnings, "environment": env, "streams": [out.name, err.name]}
        with suppress(BrokenPipeError):  # then there is no answer either
            server.stdin.write(json.dumps(job) + "\n")
            server.stdin.flush()
        return int(server.stdout.readline()), out.read(), err.read()


def module(name: str, *arguments: str) -> str:
    """Write the program of `python -m NAME ARGUMENTS`."""
    return f"import runpy, sys; sys.argv[1:] = {list(arguments)!r}; runpy.run_module({name!r}, run_name='__main__')"
