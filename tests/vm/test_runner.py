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


def said(**changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A guest's results when all is well, with these changed; an empty one is left out."""
    good: dict[str, dict[str, Any]] = {
        "up": {"version": "6.1.0"},
        "objects": {"objects": dict.fromkeys(OBJECTS, ""), "hooks": {}, "error": ""},
        "kernel": {"status": 0, "passed": ["a", "b"], "failed": [], "skipped": []},
        "kill": {"status": 0, "passed": ["k"], "failed": [], "skipped": []},
        "done": {"what": "done"},
    }
    return {what: facts for what, facts in {**good, **changes}.items() if facts}


def outcome(**changes: dict[str, Any]) -> Outcome:
    return Outcome(KERNELS[0], report=Report(said(**changes), 12.0, Path("console.log")))


def test_a_whole_run_passes() -> None:
    good = outcome()
    assert good.passed and not good.failures()
    assert runner.status([good]) == 0
    assert good.cells() == ("6.1.0 (Debian 12)", "4/4", "2/2", "by the enforcer", "12")


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
        {"kernel": {"status": 1, "passed": ["a"], "failed": ["b: wrong"], "skipped": []}},
        {"kernel": {"status": 4, "passed": [], "failed": [], "skipped": []}},
        {"kernel": {}},
        {"kill": {}},
        {"kill": {"status": 1, "passed": [], "failed": ["k: alive"], "skipped": []}},
        {"kill": {"status": 0, "passed": [], "failed": [], "skipped": ["k: no bash"]}},
    ],
)
def test_whatever_is_wrong_or_missing_fails(changes: dict[str, dict[str, Any]]) -> None:
    bad = outcome(**changes)
    assert not bad.passed
    assert runner.status([outcome(), bad]) == 1
    assert "FAILED" in table([bad])


def test_a_kernel_that_was_not_run_is_said_so_and_is_no_pass() -> None:
    absent = Outcome(KERNELS[1], not_run="apt-get update: no such suite")
    assert not absent.passed
    assert runner.status([outcome(), absent]) == 4
    assert runner.status([outcome(done={}), absent]) == 1
    assert table([absent]).count("NOT RUN") == 4 and "no such suite" in table([absent])


def test_skipped_tests_are_listed_with_their_reasons() -> None:
    some = outcome(kernel={"status": 0, "passed": ["a"], "failed": [], "skipped": ["b: needs Linux 6.6"]})
    assert some.passed
    assert some.cells()[2] == "1/1, 1 skipped" and "b: needs Linux 6.6" in table([some])


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
