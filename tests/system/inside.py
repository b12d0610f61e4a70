"""Run in the machine, as a service of its systemd: runs units.py there, and says how each test fared."""

from __future__ import annotations

import platform
import sys
import time
from typing import Final

import pytest

from tests.vm.say import say

TESTS: Final = "tests/system/units.py"
#: A software processor is about ten times slower than the real one.
TEST_TIMEOUT_S: Final = 600


class Speaker:
    """Tells the host of each test as it ends, so that nothing is lost when the machine dies later."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test is told of once: when it failed or was skipped at any stage, or when it is through."""
        name = report.nodeid.partition("::")[2]
        if report.when == "call" or not report.passed:
            stage = "" if report.when == "call" else f" {report.when}"
            seconds = round(report.duration, 1)
            say(f"test {name}{stage}", outcome=report.outcome, seconds=seconds, text=report.longreprtext[-4000:])


def main() -> None:
    """Runs everything; "done" comes last, and without it the machine has died on the way."""
    say("up", version=platform.release(), seconds=round(time.clock_gettime(time.CLOCK_BOOTTIME), 1))
    options = ["-v", "-p", "no:cacheprovider", "--color=no", "-o", f"timeout={TEST_TIMEOUT_S}", "--maxfail=3"]
    status = pytest.main([*options, *(sys.argv[1:] or [TESTS])], plugins=[Speaker()])
    say("done", status=int(status))


if __name__ == "__main__":
    main()
