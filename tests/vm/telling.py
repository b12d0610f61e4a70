"""A plugin of pytest, in the guest: says how many tests there are, and of each, as it ends, what came of it.

So nothing is lost when the machine dies later, and what was never run shows. EXECRAY_SUITE names the tests that are run.
"""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests.vm.say import say

SUITE: Final = os.environ["EXECRAY_SUITE"]
_TEXT_MAX: Final = 4000


def pytest_collection_finish(session: pytest.Session) -> None:
    """All tests are known."""
    say(f"{SUITE} tests", count=len(session.items))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test is told of when it failed or was skipped at any stage, or when it is through."""
    if report.when != "call" and report.passed:
        return
    stage = "" if report.when == "call" or report.skipped else f" {report.when}"
    say(
        f"{SUITE} {report.nodeid}{stage}",
        outcome=report.outcome,
        seconds=round(report.duration, 1),
        text=_reason(report)[-_TEXT_MAX:],
    )


def _reason(report: pytest.TestReport) -> str:
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return report.longreprtext
