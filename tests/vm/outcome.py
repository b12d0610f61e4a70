"""What came of a kernel, and the table of all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.vm.guest import Report
from tests.vm.kernels import Kernel

OBJECTS: Final = ("proc", "sys", "uring", "submit", "scan", "counter")
_HEAD: Final = ("kernel", "objects", "passed", "failed", "skipped", "not run", "killed", "seconds")
_TEXT_MAX: Final = 300


@dataclass(slots=True)
class Outcome:
    """One kernel: not run, and why; or what the guest reported."""

    kernel: Kernel
    not_run: str = ""
    report: Report | None = None
    part: bool = False  # of the kernel tests, and no kill

    @property
    def passed(self) -> bool:
        """Whether everything was run and nothing failed."""
        return self.report is not None and not self.failures()

    def failures(self) -> list[str]:
        """Says what failed, one line each."""
        if self.report is None:
            return []
        out = [] if self.report.complete else [f"the guest died, or ran out of time: see {self.report.console}"]
        loaded = self._said("objects")
        fared = loaded.get("objects", {})
        out += [f"{name}.bpf.o: {fared.get(name, 'not loaded')}" for name in OBJECTS if fared.get(name) != ""]
        out += [f"hook {name} is not attached: {why}" for name, why in loaded.get("hooks", {}).items()]
        out += [loaded["error"]] if loaded.get("error") else []
        for suite in ("kernel",) if self.part else ("kernel", "kill"):
            failed = self.tests(suite, "failed")
            out += [f"{name}: {_brief(text)}" for name, text in failed.items()]
            status = self._said(suite).get("status", "unknown")
            if not failed and (status != 0 or not self.tests(suite, "passed")):
                out.append(f"{suite} tests: pytest ended with status {status}")
            if missing := self.missing(suite):
                out.append(f"{suite} tests: {missing} were not run")
        out += [f"{name}: the kill may not be skipped" for name in self.tests("kill", "skipped")]
        return out

    def tests(self, suite: str, outcome: str) -> dict[str, str]:
        """The tests of a suite that fared so, each with what it said."""
        said = self.report.said if self.report else {}
        own = {what.partition(" ")[2]: facts for what, facts in said.items() if what.startswith(f"{suite} tests/")}
        return {name: facts["text"] for name, facts in own.items() if facts["outcome"] == outcome}

    def missing(self, suite: str) -> int:
        """How many of a suite's tests never came to an end."""
        ended = sum(len(self.tests(suite, outcome)) for outcome in ("passed", "failed", "skipped"))
        return max(0, int(self._said(f"{suite} tests").get("count", 0)) - ended)

    def skipped(self) -> list[str]:
        """Each reason for which kernel tests were skipped, with how many and which."""
        reasons = defaultdict(list)
        for name, reason in self.tests("kernel", "skipped").items():
            reasons[reason].append(name.rpartition("/")[2])
        return [f"{len(names)} for: {reason} ({', '.join(names)})" for reason, names in sorted(reasons.items())]

    def cells(self) -> tuple[str, ...]:
        """A row of the table, in the order of its head."""
        if self.report is None:
            return (f"{self.kernel.name} ({self.kernel.whose})", *["NOT RUN"] * 6, "-")
        version = self._said("up").get("version", self.kernel.name)
        name = f"{version} ({self.kernel.whose})"
        return (name, self._objects(), *self._tests(), self._kill(), f"{self.report.seconds:.0f}")

    def _objects(self) -> str:
        said = self._said("objects")
        if not said:
            return "DIED"
        good = sum(1 for name in OBJECTS if said["objects"].get(name) == "")
        failed = good < len(OBJECTS) or said["hooks"] or said["error"]
        return f"{good}/{len(OBJECTS)}" + (" FAILED" if failed else "")

    def _tests(self) -> tuple[str, ...]:
        """passed, failed, skipped, not run."""
        if not self._said("kernel tests"):
            return ("DIED",) * 4
        passed, failed, skipped = (len(self.tests("kernel", outcome)) for outcome in ("passed", "failed", "skipped"))
        missing = self.missing("kernel")
        died = "" if self._said("kernel") else " DIED"
        return (str(passed), f"{failed} FAILED" if failed else "0", str(skipped), f"{missing}{died}")

    def _kill(self) -> str:
        if self.part:
            return "NOT RUN"
        said = self._said("kill")
        if not said:
            return "DIED"
        good = said["status"] == 0 and self.tests("kill", "passed") and not self.tests("kill", "skipped")
        return "by the enforcer" if good else "FAILED"

    def _said(self, what: str) -> dict[str, Any]:
        return self.report.said.get(what, {}) if self.report else {}


def _brief(text: str) -> str:
    """The first line of an error in pytest's own notation, or the last line of any other."""
    lines = text.strip().splitlines() or ["no reason was given"]
    errors = [line[1:].strip() for line in lines if line.startswith("E ")]
    return (errors or lines[-1:])[0][:_TEXT_MAX]


def table(outcomes: list[Outcome], only: Sequence[str] = ()) -> str:
    """The outcomes as a table, and below it every failure, the skipped tests by reason, and the kernels not run.

    only: the part of the kernel tests that was run.
    """
    rows = [_HEAD, *(outcome.cells() for outcome in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-|-".join("-" * width for width in widths))
    for outcome in outcomes:
        name = outcome.kernel.name
        lines += [f"{name}: FAILED: {failure}" for failure in outcome.failures()]
        lines += [f"{name}: skipped: {skipped}" for skipped in outcome.skipped()]
        lines += [f"{name}: NOT RUN: {outcome.not_run}"] if outcome.not_run else []
    lines.append(_sum(outcomes) + (f" - ONLY A PART: {' '.join(only)}" if only else ""))
    return "\n".join(lines)


def _sum(outcomes: list[Outcome]) -> str:
    """The last line: nothing but `all passed` may be read as a pass."""
    bad = [outcome.kernel.name for outcome in outcomes if outcome.report and not outcome.passed]
    absent = [outcome.kernel.name for outcome in outcomes if outcome.not_run]
    words = [f"FAILED: {', '.join(bad)}"] if bad else []
    words += [f"NOT RUN: {', '.join(absent)}"] if absent else []
    return "; ".join(words) or f"all passed: {', '.join(outcome.kernel.name for outcome in outcomes)}"
