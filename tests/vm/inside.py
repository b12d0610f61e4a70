"""Runs in the guest: loads every object, runs the kernel tests, lets the daemons kill. Says each result as a line of JSON.

The console (ttyS0) shows what happens; the results go to the second serial port, which the host reads as a file.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from execray.errors import OperatorError
from execray.schema.catalog import EVENTS
from tests.vm.say import say
from tracerd.processes import ProcessTable
from tracerd.sensor import Sensor

TREE: Final = Path(__file__).resolve().parents[2]
#: All but those of the daemon: what these see of the kernel is the same on each.
KERNEL_TESTS: Final = tuple(
    str(file.relative_to(TREE))
    for file in sorted((TREE / "tests/kernel").glob("test_*.py"))
    if file.name not in ("test_tracerd.py", "test_pacing.py")
)
KILL_TEST: Final = "tests/vm/kill.py"
#: A software processor is about ten times slower than the real one: so much longer may everything take.
PACE: Final = 10
TEST_TIMEOUT_S: Final = 60


def objects() -> None:
    """Loads and attaches everything that is shipped, through the sensor, and says how each object and hook fared."""
    try:
        sensor = Sensor(counter=True)
    except OperatorError as error:
        say("objects", objects={}, hooks={}, error=error.message)
        return
    error_message = ""
    try:
        sensor.start(ProcessTable(65536))
        error_message = "; ".join(sensor.want([event.code for event in EVENTS], True))
    except OperatorError as error:
        error_message = error.message
    found = sensor.doctor()
    say(
        "objects",
        objects={report["object"].removesuffix(".bpf.o"): report["refused"] for report in found},
        hooks={name: hook["refused"] for name, hook in sensor.hooks().items() if not hook["attached"]},
        verified={p["name"]: p["verified_instructions"] for report in found for p in report["programs"]},
        error=error_message,
    )
    sensor.close()


def tests(suite: str, names: list[str]) -> None:
    """Runs tests, each of which says itself what came of it (telling.py), and says how pytest ended."""
    command = [sys.executable, "-m", "pytest", "-v", "-ra", "-p", "no:cacheprovider", "-p", "tests.vm.telling"]
    # the disk is small, and some tests make filesystems: only what failed is kept
    command += ["-o", "tmp_path_retention_policy=failed"]
    command += ["-o", f"timeout={TEST_TIMEOUT_S * PACE:g}", "--color=no", *names]
    environment = {
        **os.environ,
        "EXECRAY_REQUIRE_KERNEL": "1",
        "EXECRAY_BUILT": str(TREE / "built"),  # image.py
        "EXECRAY_PACE": str(PACE),
        "EXECRAY_SUITE": suite,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    started = time.monotonic()
    done = subprocess.run(command, cwd=TREE, env=environment, check=False)
    say(suite, status=done.returncode, seconds=round(time.monotonic() - started))


def main() -> None:
    """Everything in turn; "done" comes last, and without it the guest has died on the way."""
    os.environ["TERM"] = "dumb"
    say("up", version=platform.release())
    if (TREE / "script.py").exists():
        done = subprocess.run([sys.executable, TREE / "script.py"], check=False)
        say("script", status=done.returncode)
    else:
        objects()
        only = (TREE / "only").read_text(encoding="utf-8").splitlines()  # image.py
        tests("kernel", only or list(KERNEL_TESTS))
        if not only:
            tests("kill", [KILL_TEST])
    say("done")


if __name__ == "__main__":
    main()
