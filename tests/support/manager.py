"""A service manager's end of sd_notify, for tests."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.pace import patient

DEADLINE_S: Final = patient(15.0)


class Manager:
    """What a daemon said, in the order it said it."""

    def __init__(self, address: Path, sock: socket.socket) -> None:
        self.address = address
        self.said: list[str] = []
        self._sock = sock

    def environment(self, patience_s: float) -> dict[str, str]:
        """What to start a daemon with."""
        return {"NOTIFY_SOCKET": os.fspath(self.address), "WATCHDOG_USEC": str(int(patience_s * 1e6))}

    def hear(self, timeout_s: float) -> str:
        """Returns the next message. Raises TimeoutError."""
        self._sock.settimeout(timeout_s)
        self.said.append(self._sock.recv(4096).decode())
        return self.said[-1]

    def await_word(self, beginning: str) -> str:
        """Returns the next message that begins so, whatever comes before it. Raises AssertionError."""
        deadline = time.monotonic() + DEADLINE_S
        while (left := deadline - time.monotonic()) > 0:
            try:
                if (word := self.hear(left)).startswith(beginning):
                    return word
            except TimeoutError:
                break
        raise AssertionError(f"no {beginning} within {DEADLINE_S:g} s, but {self.said}")

    def fed_for(self, span_s: float, patience_s: float) -> bool:
        """Whether for so long no two signs of life were further apart than the manager's patience."""
        end = time.monotonic() + span_s
        fed_at = time.monotonic()
        while (now := time.monotonic()) < end and now - fed_at < patience_s:
            try:
                if self.hear(patience_s - (now - fed_at)) == "WATCHDOG=1":
                    fed_at = time.monotonic()
            except TimeoutError:
                return False
        return now - fed_at < patience_s

    def await_silence(self, patience_s: float) -> None:
        """Waits until for so long no sign of life has come: a real manager would restart. Raises AssertionError."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            if not self.fed_for(patience_s, patience_s):
                return
        raise AssertionError(f"fed for {DEADLINE_S:g} s")


@contextmanager
def service_manager(folder: Path) -> Iterator[Manager]:
    """Listens in a folder that is short enough for a socket's path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        address = folder / f"notify-{time.monotonic_ns()}"
        sock.bind(os.fspath(address))
        address.chmod(0o666)
        try:
            yield Manager(address, sock)
        finally:
            address.unlink(missing_ok=True)
