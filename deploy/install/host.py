"""What an installation on the running host asks of it: accounts, folders, systemd. Nothing of this happens with DESTDIR."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from deploy.install.places import ACCOUNTS, GROUP, SERVICES, Places
from execray.errors import OperatorError

_TIMEOUT_S: Final = 120.0


def prepare(places: Places) -> list[str]:
    """Makes accounts and folders, and has systemd read the units. Returns the services that run an older version now.

    Raises OperatorError.
    """
    _run("systemd-sysusers", places.sysusers)
    _run("systemd-tmpfiles", "--create", places.tmpfiles)
    if not _booted():
        return []
    _run("systemctl", "daemon-reload")
    return [service for service in SERVICES if _succeeds("systemctl", "is-active", "--quiet", service)]


def stop() -> None:
    """Stops the daemons and takes them out of the boot. Raises OperatorError."""
    if shutil.which("systemctl") and any(_known(service) for service in SERVICES):
        # The sensor last to go is no matter here; without --now it also works where systemd isn't running.
        _run("systemctl", "disable", *(["--now"] if _booted() else []), *SERVICES)


def forget(*, purge: bool) -> None:
    """Has systemd forget the units; purge: removes the accounts too. Raises OperatorError."""
    if _booted():
        _run("systemctl", "daemon-reload")
        for service in SERVICES:
            _succeeds("systemctl", "reset-failed", service)
    if purge:
        for account in ACCOUNTS:
            if _succeeds("getent", "passwd", account):
                _run("userdel", account)
        if _succeeds("getent", "group", GROUP):
            _run("groupdel", GROUP)


def _booted() -> bool:
    """Whether systemd is this host's init, as sd_booted(3) tells it."""
    return Path("/run/systemd/system").is_dir()


def _known(service: str) -> bool:
    return (
        _succeeds("systemctl", "cat", service)
        if _booted()
        else _succeeds("systemctl", "is-enabled", "--quiet", service)
    )


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=_TIMEOUT_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _run(program: str, *arguments: str | Path) -> None:
    words = " ".join(map(str, (program, *arguments)))
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OperatorError(
            f"{words}: {error}", "systemd's tools are needed; with DESTDIR they are not called"
        ) from error
    if done.returncode:
        said = " / ".join(done.stderr.strip().splitlines()[-3:])
        raise OperatorError(f"{words} failed: {said}", "mend that, and run the same again")
