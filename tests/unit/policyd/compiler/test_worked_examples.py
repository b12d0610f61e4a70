"""The language's worked examples, in words of our own: each compiles and detects, or what it needs is named as not there yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyd.compiler import compile_source
from policyd.workbench.runner import run_file

FILES = sorted(Path("tests/data/examples").glob("*.test.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.removesuffix(".test.yaml"))
def test_each_detects_what_it_is_about_and_nothing_else(file: Path) -> None:
    result = run_file(file)
    assert result.error == ""
    assert {case.name: case.problems for case in result.cases if case.problems} == {}
    assert [note for case in result.cases for note in case.notes] == []


def test_there_is_one_for_each() -> None:
    assert [file.name[0] for file in FILES] == list("12345678")


#: What the examples have beyond the first release: the place in a policy, and the code it is refused with.
NOT_YET = {
    "3: a file's digest": ("exec {} as run on match { alert; hash run.exe }", "ER0110"),
    "5: refusing the call": ('open { path = "/etc/shadow" } on match { deny }', "ER0110"),
    "6: what must not happen between": ("open {} no exec {} exit {}", "ER0110"),
    "8: in any order": ("unordered { open {} exec {} } exit {}", "ER0110"),
    "8: entropy": ("open { entropy(path) > 7 }", "ER0110"),
    "8: stopping a tree": ("open {} on match { suspend tree }", "ER0110"),
    "8: closing a container off": ("open {} on match { quarantine container }", "ER0110"),
    "8: setting a mark": ("open {} on match { mark session.recon for 1h }", "ER0110"),
    "8: reading a mark": ("exec { $session.recon exists }", "ER0110"),
}


@pytest.mark.parametrize(("body", "code"), NOT_YET.values(), ids=list(NOT_YET))
def test_what_is_not_there_yet_is_refused_by_name(body: str, code: str) -> None:
    compilation = compile_source(f'path "p" within 1m {{ {body} }}', "p.policy")
    assert not compilation.ok
    assert code in {found.code for found in compilation.diagnostics}
