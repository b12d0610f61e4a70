"""The system as its operator has it in hand: systemctl, execray-ctl, /proc. For units.py, in the machine."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from execray.config import Config
from execray.control_client import ControlClient
from execray.errors import OperatorError

DAEMONS: Final = ("tracerd", "policyd", "enforcer")
CTL: Final = "/usr/local/bin/execray-ctl"
OPERATOR: Final = "alice"  # in the group execray
STRANGER: Final = "mallory"
#: For what takes seconds on a real processor that is not shared.
PATIENCE_S: Final = 240.0


def unit(daemon: str) -> str:
    """The service of a daemon."""
    return f"execray-{daemon}.service"


def run(*command: str, check: bool = True, timeout_s: float = 240.0) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def systemctl(*arguments: str, check: bool = True) -> str:
    """Runs systemctl and returns what it printed. A failure that isn't expected comes with the end of the journal."""
    done = run("systemctl", *arguments, check=False)
    if check and done.returncode:
        journal = run("journalctl", "-n", "30", "-o", "cat", "--no-pager", check=False).stdout
        pytest.fail(f"systemctl {' '.join(arguments)}: {done.returncode}\n{done.stderr}{journal}")
    return done.stdout.strip()


def prop(daemon: str, name: str) -> str:
    """A property of a daemon's service."""
    return systemctl("show", "-P", name, unit(daemon))


def pid(daemon: str) -> int:
    """The main process of a service, 0 for none."""
    return int(prop(daemon, "MainPID"))


def proc_status(number: int) -> dict[str, str]:
    """/proc/PID/status, by its own names."""
    lines = Path(f"/proc/{number}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def ctl(*arguments: str, user: str = OPERATOR) -> subprocess.CompletedProcess[str]:
    """Runs execray-ctl as an account, with the groups it would log in with."""
    return run("runuser", "-u", user, "--", CTL, *arguments, check=False)


def status(daemon: str) -> dict[str, Any]:
    """What a daemon says of itself; nothing while it can't be asked."""
    try:
        with ControlClient(Config().control_socket(daemon), 10.0) as control:
            found: dict[str, Any] = control.call("status")
            return found
    except OperatorError:
        return {}


def green() -> bool:
    """Whether all three are up, know of each other, and every hook that is needed is seen alive."""
    found = {daemon: status(daemon) for daemon in DAEMONS}
    if not all(found.values()) or not found["tracerd"]["subscriber"]:
        return False
    hooks = [hook for hook in found["tracerd"]["hooks"].values() if hook["needed"]]
    # hidden: itself, and the other two as far as they have registered
    return all(hook["live"] for hook in hooks) and len(found["tracerd"]["hidden"]) >= len(DAEMONS)


def eventually(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Waits for a condition, looking several times a second."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"it never came; {evidence()}"
        time.sleep(0.2)


def evidence() -> str:
    """What to look at when something did not come about."""
    journal = run("journalctl", "--no-pager", "-n", "40", "-o", "short-monotonic", check=False).stdout
    return f"load {os.getloadavg()}\n{ctl('status', user='root').stdout}\n{journal}"


def comes_back(daemon: str, before: int) -> None:
    """Waits until another process is the daemon, and everything is well again."""
    eventually(lambda: pid(daemon) not in (0, before) and prop(daemon, "ActiveState") == "active")
    eventually(green)
