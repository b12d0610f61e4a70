"""What came of a kernel, and the table of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tests.vm.guest import Report
from tests.vm.kernels import Kernel

OBJECTS: Final = ("proc", "sys", "scan", "counter")
_HEAD: Final = ("kernel", "objects", "kernel tests", "kill", "seconds")


@dataclass(slots=True)
class Outcome:
    """One kernel: not run, and why; or what the guest reported."""

    kernel: Kernel
    not_run: str = ""
    report: Report | None = None

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
        for what in ("kernel", "kill"):
            said = self._said(what)
            out += said.get("failed", [])
            if not said.get("failed") and (said.get("status") != 0 or not said["passed"]):
                out.append(f"{what} tests: pytest ended with status {said.get('status', 'unknown')}")
        out += [f"{name}: the kill may not be skipped" for name in self._said("kill").get("skipped", [])]
        return out

    def skipped(self) -> list[str]:
        """Names the kernel tests that were skipped, each with its reason."""
        found: list[str] = self._said("kernel").get("skipped", [])
        return found

    def cells(self) -> tuple[str, ...]:
        """kernel, objects, kernel tests, kill, seconds."""
        if self.report is None:
            return (f"{self.kernel.name} ({self.kernel.whose})", "NOT RUN", "NOT RUN", "NOT RUN", "-")
        version = self._said("up").get("version", self.kernel.name)
        name = f"{version} ({self.kernel.whose})"
        return (name, self._objects(), self._tests(), self._kill(), f"{self.report.seconds:.0f}")

    def _objects(self) -> str:
        said = self._said("objects")
        if not said:
            return "DIED"
        good = sum(1 for name in OBJECTS if said["objects"].get(name) == "")
        failed = good < len(OBJECTS) or said["hooks"] or said["error"]
        return f"{good}/{len(OBJECTS)}" + (" FAILED" if failed else "")

    def _tests(self) -> str:
        said = self._said("kernel")
        if not said:
            return "DIED"
        total = len(said["passed"]) + len(said["failed"])
        skipped = f", {len(said['skipped'])} skipped" if said["skipped"] else ""
        return f"{len(said['passed'])}/{total}{skipped}" + (" FAILED" if said["status"] else "")

    def _kill(self) -> str:
        said = self._said("kill")
        if not said:
            return "DIED"
        return "by the enforcer" if said["status"] == 0 and said["passed"] and not said["skipped"] else "FAILED"

    def _said(self, what: str) -> dict[str, Any]:
        return self.report.said.get(what, {}) if self.report else {}


def table(outcomes: list[Outcome]) -> str:
    """The outcomes as a table, and below it every failure, skipped test and kernel that was not run."""
    rows = [_HEAD, *(outcome.cells() for outcome in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-|-".join("-" * width for width in widths))
    for outcome in outcomes:
        name = outcome.kernel.name
        lines += [f"{name}: FAILED: {failure}" for failure in outcome.failures()]
        lines += [f"{name}: skipped: {skipped}" for skipped in outcome.skipped()]
        lines += [f"{name}: NOT RUN: {outcome.not_run}"] if outcome.not_run else []
    return "\n".join(lines)
