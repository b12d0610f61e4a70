"""The machine of the system tests: Debian 12 with systemd, and in it what `make install` puts down, booted once.

`python -m tests.system.machine` makes its disk beforehand. EXECRAY_DISK=made says that this has just been done.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from deploy.said import failed
from tests.vm import guest, image
from tests.vm.guest import Report
from tests.vm.kernels import KERNELS, NotFetched, fetch

#: As the kernels of `make test-vm`, with which it shares all but the disk.
WORK: Final = image.TREE / ".execray" / "vm"
BOOT_TIMEOUT_S: Final = 1500.0
LOCK_TIMEOUT_S: Final = 600.0
#: Debian's own, since the daemons' accounts must be able to run it, and the machine has the same.
PYTHON: Final = "/usr/bin/python3"
INIT: Final = (
    "rw init=/lib/systemd/systemd systemd.unit=multi-user.target systemd.getty_auto=no systemd.show_status=no "
    "systemd.mask=getty@tty1.service systemd.mask=systemd-networkd-wait-online.service"
)
_DISK: Final = "system"
_UNIT: Final = """\
[Unit]
Description=The system tests

[Service]
Type=exec
WorkingDirectory=/{home}
Environment=PYTHONDONTWRITEBYTECODE=1
ExecStart=/{home}/.venv/bin/python -m tests.system.inside{arguments}
ExecStopPost=systemctl poweroff -ff
StandardOutput=file:/dev/ttyS0
StandardError=inherit
"""


def run(arguments: str = "") -> Report:
    """Makes the machine, runs the tests in it and returns what they said. Raises NotFetched.

    arguments: of pytest, to run some of the tests.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / "lock").open("w") as lock:
        _take(lock.fileno())
        kernel = fetch(KERNELS[0], WORK)
        made = WORK / f"{_DISK}.img"
        disk = made if os.environ.get("EXECRAY_DISK") == "made" and made.exists() else _disk(arguments)
        work = WORK / "system"
        work.mkdir(exist_ok=True)
        return guest.boot(kernel, disk, work, BOOT_TIMEOUT_S, _progress, INIT)


def make() -> int:
    """Makes the disk, for all of the tests; returns the exit status."""
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / "lock").open("w") as lock:
        try:
            _take(lock.fileno())
            fetch(KERNELS[0], WORK)
            _disk("")
        except NotFetched as error:  # the tests will say so themselves
            return failed(error)
    return 0


def _disk(arguments: str) -> Path:
    return image.build(WORK, name=_DISK, prepare=lambda root: _prepare(root, arguments))


def _take(lock: int) -> None:
    """Waits for another run to end: two at once would take the processors from each other."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise NotFetched("another run of the machines doesn't end", "wait for it, or end it") from error
            time.sleep(0.5)


def _prepare(root: Path, arguments: str) -> None:
    """Installs ExecRay into the disk as a packager would, and has the tests run at boot."""
    done = subprocess.run(
        [PYTHON, "-m", "deploy.install", "install", "--destdir", root],
        cwd=image.TREE,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        raise NotFetched(f"make install: {done.stderr.strip()[-500:]}", "the machine has nothing to run")
    units = root / "etc" / "systemd" / "system"
    (units / "system-tests.service").write_text(_UNIT.format(home=image.HOME, arguments=arguments and f" {arguments}"))
    wanted = units / "multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    (wanted / "system-tests.service").symlink_to("../system-tests.service")


def _progress(said: dict[str, Any]) -> None:
    if sys.stderr.isatty():
        print(f"  {said}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(make())
