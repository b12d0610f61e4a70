"""`make test-vm`: ExecRay on other kernels, one virtual machine after the other, and a table at the end.

Exit status: 0 all passed; 1 something failed; 2 usage; 4 nothing failed, but a kernel was NOT RUN.
"""

from __future__ import annotations

import argparse
import fcntl
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from execray.errors import OperatorError
from tests.vm import guest, image
from tests.vm.kernels import KERNELS, Kernel, NotFetched, fetch
from tests.vm.outcome import Outcome, table

WORK: Final = Path(".execray/vm")
GUEST_TIMEOUT_S: Final = 1800.0


def main() -> None:
    """Runs the kernels asked for and exits with what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description=__doc__)
    names = [kernel.name for kernel in KERNELS]
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=f"which of {', '.join(names)}; default: all")
    parser.add_argument("--timeout", type=float, default=GUEST_TIMEOUT_S, metavar="S", help="the longest for one, in s")
    parser.add_argument("--script", type=Path, metavar="FILE", help="Python to run in the guests instead of the tests")
    arguments = parser.parse_args()
    if unknown := set(arguments.kernels) - set(names):
        parser.error(f"no kernel {', '.join(sorted(unknown))}: there are {', '.join(names)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that no machine is left running
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("error: another run is going on here: one machine at a time", file=sys.stderr)
            sys.exit(1)
        chosen = [kernel for kernel in KERNELS if not arguments.kernels or kernel.name in arguments.kernels]
        outcomes = run(chosen, arguments.timeout, arguments.script)
    if arguments.script:
        return
    print("\n" + table(outcomes))
    sys.exit(status(outcomes))


def run(kernels: list[Kernel], timeout_s: float, script: Path | None) -> list[Outcome]:
    """Runs one kernel after the other."""
    try:
        note("making the disk")
        disk = image.build(WORK.resolve(), script)
    except OperatorError as error:
        return [Outcome(kernel, not_run=error.message) for kernel in kernels]
    return [run_one(kernel, disk, timeout_s) for kernel in kernels]


def run_one(kernel: Kernel, disk: Path, timeout_s: float) -> Outcome:
    """Fetches a kernel and runs everything on it."""
    work = WORK.resolve() / kernel.name
    work.mkdir(exist_ok=True)
    try:
        note(f"{kernel.name}: fetching")
        found = fetch(kernel, WORK.resolve())
        note(f"{kernel.name}: booting {found.version}; console in {WORK / kernel.name / 'console.log'}")
        report = guest.boot(found, disk, work, timeout_s, lambda said: note(f"{kernel.name}: {progress(said)}"))
    except NotFetched as error:
        note(f"{kernel.name}: NOT RUN: {error.message}")
        return Outcome(kernel, not_run=error.message)
    outcome = Outcome(kernel, report=report)
    if not report.complete or "script" in report.said:
        words = report.console.read_text(encoding="utf-8", errors="replace").splitlines()[-40:]
        print("\n".join(f"    {line}" for line in words))
    return outcome


def progress(said: dict[str, Any]) -> str:
    """One result as a line."""
    match said["what"]:
        case "up":
            return f"Linux {said['version']} is up"
        case "objects":
            refused = ", ".join(name for name, why in said["objects"].items() if why) or said["error"] or "none"
            # Linux >= 5.16 says how much of its million the verifier used
            most = max(said.get("verified", {}).values(), default=0) or "an unknown number of"
            return f"objects {', '.join(said['objects'])}; refused: {refused}; at most {most} instructions verified"
        case "kernel" | "kill":
            counts = ", ".join(f"{len(said[key])} {key}" for key in ("passed", "failed", "skipped"))
            return f"{said['what']} tests: {counts} in {said['seconds']} s"
        case other:
            return str(other)


def note(text: str) -> None:
    """Prints a line with the time since the start."""
    print(f"[{time.monotonic() - _STARTED:5.0f} s] {text}", flush=True)


def status(outcomes: list[Outcome]) -> int:
    """The exit status: a failure first, then what wasn't run."""
    if any(not o.passed and not o.not_run for o in outcomes):
        return 1
    return 4 if any(o.not_run for o in outcomes) else 0


_STARTED: Final = time.monotonic()

if __name__ == "__main__":
    main()
