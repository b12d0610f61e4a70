"""What `make test-vm` says of kernels that failed, died or were never run: none of them may look like a passed one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from execray.errors import OperatorError
from tests.vm import __main__ as runner
from tests.vm import kernels
from tests.vm.guest import Report
from tests.vm.kernels import KERNELS
from tests.vm.outcome import OBJECTS, Outcome, table


def fared(outcome: str, text: str = "") -> dict[str, Any]:
    return {"outcome": outcome, "seconds": 0.1, "text": text}


def said(**changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A guest's results when all is well, with these changed; an empty one is left out. `a`, `b`, `k`: tests."""
    good: dict[str, dict[str, Any]] = {
        "up": {"version": "6.1.0"},
        "objects": {"objects": dict.fromkeys(OBJECTS, ""), "hooks": {}, "error": ""},
        "kernel tests": {"count": 2},
        "a": fared("passed"),
        "b": fared("passed"),
        "kernel": {"status": 0, "seconds": 2},
        "kill tests": {"count": 1},
        "k": fared("passed"),
        "kill": {"status": 0, "seconds": 1},
        "done": {"what": "done"},
    }
    names = {
        "a": "kernel tests/kernel/test_a.py::a",
        "b": "kernel tests/kernel/test_b.py::b",
        "k": "kill tests/vm/kill.py::k",
    }
    named = {**good, **{what.replace("_", " "): facts for what, facts in changes.items()}}
    return {names.get(what, what): facts for what, facts in named.items() if facts}


def outcome(**changes: dict[str, Any]) -> Outcome:
    return Outcome(KERNELS[0], report=Report(said(**changes), 12.0, Path("console.log")))


def test_a_whole_run_passes() -> None:
    good = outcome()
    assert good.passed and not good.failures()
    assert runner.status([good]) == 0
    assert good.cells() == ("6.1.0 (Debian 12)", "6/6", "2", "0", "0", "0", "by the enforcer", "12")
    assert table([good]).splitlines()[-1] == "all passed: 6.1"


@pytest.mark.parametrize(
    "changes",
    [
        {"done": {}},
        {"up": {}, "objects": {}, "kernel": {}, "kill": {}, "done": {}},
        {"objects": {"objects": {**dict.fromkeys(OBJECTS, ""), "sys": "too large"}, "hooks": {}, "error": ""}},
        {"objects": {"objects": dict.fromkeys(OBJECTS, ""), "hooks": {"open": "refused"}, "error": ""}},
        {"objects": {"objects": {}, "hooks": {}, "error": "no BTF"}},
        {"objects": {"objects": {"proc": "", "sys": "", "counter": ""}, "hooks": {}, "error": ""}},
        {"objects": {}},
        {"b": fared("failed", "E   wrong")},
        {"b": {}},
        {"a": {}, "b": {}, "kernel_tests": {"count": 0}, "kernel": {"status": 5}},
        {"kernel": {"status": 4, "seconds": 1}},
        {"kernel": {}},
        {"kernel_tests": {}, "a": {}, "b": {}},
        {"kill": {}},
        {"k": fared("failed", "E   alive"), "kill": {"status": 1}},
        {"k": fared("skipped", "no bash")},
        {"k": {}},
    ],
)
def test_whatever_is_wrong_or_missing_fails(changes: dict[str, dict[str, Any]]) -> None:
    bad = outcome(**changes)
    assert not bad.passed
    assert runner.status([outcome(), bad]) == 1
    assert "FAILED" in table([bad]) and "all passed" not in table([outcome(), bad])


def test_a_kernel_that_was_not_run_is_said_so_and_is_no_pass() -> None:
    absent = Outcome(KERNELS[1], not_run="apt-get update: no such suite")
    assert not absent.passed
    assert runner.status([outcome(), absent]) == 4
    assert runner.status([outcome(done={}), absent]) == 1
    assert table([absent]).count("NOT RUN") == 8 and "no such suite" in table([absent])


def test_skipped_tests_are_counted_and_listed_by_their_reasons() -> None:
    some = outcome(
        a=fared("skipped", "needs Linux 6.6"), b=fared("skipped", "needs Linux 6.6"), kernel_tests={"count": 3}
    )
    assert some.report is not None
    some.report.said["kernel tests/kernel/test_c.py::c"] = fared("passed")
    assert some.passed
    assert some.cells()[2:6] == ("1", "0", "2", "0")
    assert "6.1: skipped: 2 for: needs Linux 6.6 (test_a.py::a, test_b.py::b)" in table([some])


def test_a_part_is_not_taken_for_the_whole() -> None:
    report = outcome(kill_tests={}, k={}, kill={}).report
    assert not Outcome(KERNELS[0], report=report).passed
    some = Outcome(KERNELS[0], report=report, part=True)
    assert some.passed and some.cells()[6] == "NOT RUN"
    assert table([some], ["tests/kernel/test_a.py"]).endswith("all passed: 6.1 - ONLY A PART: tests/kernel/test_a.py")


def test_what_a_dead_guest_had_run_still_shows() -> None:
    dead = outcome(a=fared("failed", "E   wrong\nE   indeed\ntest_a.py:3"), b={}, kernel={}, kill={}, done={})
    assert dead.cells()[2:7] == ("0", "1 FAILED", "0", "1 DIED", "DIED")
    assert "tests/kernel/test_a.py::a: wrong\n" in table([dead]) and "1 were not run" in table([dead])


def test_mirrors_come_from_both_notations_of_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "SOURCES", tmp_path)
    with pytest.raises(OperatorError, match="no Debian mirror"):
        kernels.mirrors()
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "other.list").write_text("deb https://other.example/apt stable-tools main\n")
    (tmp_path / "sources.list.d" / "debian.sources").write_text(
        "Types: deb\n# of last week\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n"
        "Components: main\n\nEnabled: no\nURIs: http://off.example\nSuites: trixie\nComponents: main\n"
    )
    assert kernels.mirrors() == ("http://mirror.example/debian", "")
    (tmp_path / "sources.list").write_text(
        "# deb http://commented.example bookworm main\n"
        "deb [signed-by=/x] http://first.example/debian bookworm main contrib\n"
        "deb http://first.example/security bookworm-security main\n"
    )
    assert kernels.mirrors() == ("http://first.example/debian", "http://first.example/security")
    lines = kernels.source_list(("trixie", "trixie-security")).splitlines()
    assert [line.split()[-3:] for line in lines] == [
        ["http://first.example/debian", "trixie", "main"],
        ["http://first.example/security", "trixie-security", "main"],
    ]
