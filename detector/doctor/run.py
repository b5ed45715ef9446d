"""Run all checks."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from detector.doctor import machine, operators, packages
from detector.doctor.findings import Finding, Verdict, exit_code, print_findings, warning
from detector.doctor.probe import Facts, probe


def diagnose(origin: str | None, build: bool = False, folder: Path = Path("outputs")) -> list[Finding]:
    """Check the installation and the machine.

    Args:
        origin: the `__init__.py` of the `detector` that the scripts find; None: there is none.
        build: compile the operators if they are not compiled yet.
        folder: where runs are written.

    Returns:
        a finding per check, in the order to mend them; only the first, if Python is too old for the others.
    """
    python = packages.check_python()
    if python.verdict is not Verdict.OK:
        return [python]
    facts = probe(build)
    limits = machine.control_group()
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("project", lambda: packages.check_project(origin)),
        ("packages", lambda: packages.check_packages(packages.requirements())),
        ("shared files", packages.check_twins),
        ("imports", lambda: packages.check_imports(facts.imports, facts.ended)),
        *_of_facts(facts, build),
        ("cores", lambda: machine.check_cores(*machine.cores(), limits.cores, os.environ)),
        ("memory", lambda: machine.check_memory(machine.available_memory(), limits.memory)),
        ("shared memory", lambda: machine.check_shared_memory(workers=facts.project.workers if facts.project else 2)),
        ("open files", lambda: machine.check_open_files(machine.open_files())),
        ("disk", lambda: machine.check_disk(folder)),
    ]
    return [python, *(guarded(name, check) for name, check in checks)]


def _of_facts(facts: Facts, build: bool) -> list[tuple[str, Callable[[], Finding]]]:
    """List the checks of what torch and the operators say, or that they said nothing."""
    torch, ours = facts.torch, facts.operators
    checks: list[tuple[str, Callable[[], Finding]]] = []
    if torch is not None:
        checks += [
            ("processor", lambda: operators.check_processor(torch, facts.project, machine.processor_name())),
            ("GPU", lambda: operators.check_gpus(torch, operators.find_gpus())),
        ]
    if torch is not None and ours is not None:
        checks += [
            ("C++ compiler", lambda: operators.check_compiler(ours.compiler, not ours.prebuilt or bool(torch.gpus))),
            ("nvcc", lambda: operators.check_nvcc(ours, torch)),
            ("cache", lambda: operators.check_cache(Path(ours.cache))),
            ("operators", lambda: operators.check_operators(ours, build)),
        ]
    missing = [name for name in ("torch", "operators", "project") if getattr(facts, name) is None]
    reasons = {name: facts.failures.get(name, facts.ended) for name in missing}
    return [*checks, *((name, partial(not_checked, name, reason)) for name, reason in reasons.items())]


def not_checked(name: str, reason: str) -> Finding:
    """Return the finding of a check that could not be made."""
    return warning(name, f"not checked: {reason}", "mend the packages above first, then run this again")


def guarded(name: str, check: Callable[[], Finding]) -> Finding:
    """Make a check; one that fails is a finding, too, and does not keep the others from running."""
    try:
        return check()
    except Exception as fault:  # on a broken machine anything may fail
        return not_checked(name, f"{type(fault).__name__}: {fault}")


def main(origin: str | None, build: bool, folder: Path) -> int:
    """Check all and print the findings; returns 1 if one is an error, else 0. The arguments are those of `diagnose`."""
    findings = diagnose(origin, build, folder)
    print_findings(findings)
    return exit_code(findings)
