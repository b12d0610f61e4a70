"""`make test-vm`: ExecRay on other kernels, one virtual machine after the other, and a table at the end.

Exit status: 0 all passed; 1 something failed; 2 usage; 4 nothing failed, but a kernel was NOT RUN.
"""

from __future__ import annotations

import argparse
import fcntl
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from execray.errors import OperatorError
from tests.vm import guest, image
from tests.vm.kernels import KERNELS, Image, Kernel, NotFetched, fetch
from tests.vm.outcome import Outcome, table

WORK: Final = Path(".execray/vm")
GUEST_TIMEOUT_S: Final = 5400.0


def main() -> None:
    """Runs the kernels asked for and exits with what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description=__doc__)
    names = [kernel.name for kernel in KERNELS]
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=f"which of {', '.join(names)}; default: all")
    parser.add_argument("--timeout", type=float, default=GUEST_TIMEOUT_S, metavar="S", help="the longest for one, in s")
    parser.add_argument("--script", type=Path, metavar="FILE", help="Python to run in the guests instead of the tests")
    parser.add_argument(
        "--only", action="append", default=[], metavar="ARG", help="an argument of pytest: a part of the kernel tests"
    )
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
        outcomes = run(chosen, arguments.timeout, arguments.script, arguments.only)
    if arguments.script:
        return
    print("\n" + table(outcomes, arguments.only))
    sys.exit(status(outcomes))


def run(kernels: list[Kernel], timeout_s: float, script: Path | None, only: list[str]) -> list[Outcome]:
    """Fetches the kernels, makes a disk for them, and runs one after the other."""
    work, absent, found = WORK.resolve(), {}, {}
    for kernel in kernels:
        (work / kernel.name).mkdir(exist_ok=True)
        try:
            note(f"{kernel.name}: fetching")
            found[kernel] = fetch(kernel, work)
        except NotFetched as error:
            absent[kernel] = error.message
            note(f"{kernel.name}: NOT RUN: {error.message}")
    try:
        note("making the disk")
        disk = image.build(work, script, only=only, prepare=partial(image.add_modules, found.values()))
    except OperatorError as error:
        return [Outcome(kernel, not_run=error.message) for kernel in kernels]
    return [
        run_one(kernel, found[kernel], disk, timeout_s, part=bool(only))
        if kernel in found
        else Outcome(kernel, not_run=absent[kernel])
        for kernel in kernels
    ]


def run_one(kernel: Kernel, found: Image, disk: Path, timeout_s: float, *, part: bool) -> Outcome:
    """Runs everything on a kernel, or a part."""
    work = WORK.resolve() / kernel.name
    try:
        note(f"{kernel.name}: booting {found.version}; console in {WORK / kernel.name / 'console.log'}")
        report = guest.boot(found, disk, work, timeout_s, lambda said: note_of(kernel, said))
    except NotFetched as error:
        note(f"{kernel.name}: NOT RUN: {error.message}")
        return Outcome(kernel, not_run=error.message)
    outcome = Outcome(kernel, report=report, part=part)
    if not report.complete or "script" in report.said:
        words = report.console.read_text(encoding="utf-8", errors="replace").splitlines()[-40:]
        print("\n".join(f"    {line}" for line in words))
    return outcome


def note_of(kernel: Kernel, said: dict[str, Any]) -> None:
    """Prints what a guest said, where it is worth a line."""
    if line := progress(said):
        note(f"{kernel.name}: {line}")


def progress(said: dict[str, Any]) -> str:
    """One result as a line, or nothing where it is only one of many that went well."""
    match said["what"]:
        case "up":
            return f"Linux {said['version']} is up"
        case "objects":
            refused = ", ".join(name for name, why in said["objects"].items() if why) or said["error"] or "none"
            # Linux >= 5.16 says how much of its million the verifier used
            most = max(said.get("verified", {}).values(), default=0) or "an unknown number of"
            return f"objects {', '.join(said['objects'])}; refused: {refused}; at most {most} instructions verified"
        case "kernel" | "kill":
            return f"{said['what']} tests took {said['seconds']} s"
        case other if "outcome" in said:
            return "" if said["outcome"] == "passed" else f"{said['outcome']}: {other}"
        case other:
            return f"{other}: {said['count']}" if "count" in said else str(other)


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
