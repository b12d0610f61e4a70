"""The three units under a real systemd: boots the machine once, and says for each test of units.py how it fared there.

Without the machine nothing passes: a mirror that can't be reached is an error here, not a reason to skip.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from tests.system import machine
from tests.vm.guest import Report

UNITS = Path(__file__).with_name("units.py")
TESTS = [
    node.name
    for node in ast.parse(UNITS.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
]

pytestmark = [
    pytest.mark.timeout(2700),  # the machine with all its tests, and the first time a Debian to be fetched for it
    pytest.mark.skipif(
        os.geteuid() != 0 and os.environ.get("EXECRAY_REQUIRE_KERNEL") != "1", reason="needs root, to make a disk"
    ),
]


@pytest.fixture(scope="module")
def report() -> Report:
    return machine.run()


@pytest.mark.parametrize("name", TESTS)
def test_in_the_machine(report: Report, name: str) -> None:
    said = {what: facts for what, facts in report.said.items() if what.startswith((f"test {name}[", f"test {name} "))}
    said |= {what: facts for what, facts in report.said.items() if what == f"test {name}"}
    failed = [f"{what}\n{facts['text']}" for what, facts in said.items() if facts["outcome"] != "passed"]
    assert not failed, "\n".join(failed)
    assert said, f"it was not run; the machine's console is {report.console}:\n{tail(report.console)}"


def test_the_machine_came_to_its_end(report: Report) -> None:
    assert report.complete and report.said["done"]["status"] == 0, tail(report.console)


def tail(console: Path) -> str:
    return "\n".join(console.read_text(encoding="utf-8", errors="replace").splitlines()[-40:])
