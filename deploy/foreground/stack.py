"""The three daemons as children of one program, on private sockets: for `make demo`, `make run` and the end-to-end tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from execray.control_client import ControlClient
from execray.errors import OperatorError

DAEMONS: Final = ("enforcer", "policyd", "tracerd")
READY_TIMEOUT_S: Final = 15.0
STOP_TIMEOUT_S: Final = 5.0


class _Notices(threading.Thread):
    """Reads what a daemon tells its service manager (sd_notify), for as long as it lives."""

    def __init__(self, address: Path) -> None:
        super().__init__(name=address.name, daemon=True)
        self.address = address
        self.ready = threading.Event()
        address.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(os.fspath(address))
        self._socket.settimeout(0.2)
        self._child: subprocess.Popen[bytes] | None = None

    def follow(self, child: subprocess.Popen[bytes]) -> None:
        """Reads until the child has ended."""
        self._child = child
        self.start()

    def run(self) -> None:
        with self._socket:
            while self._child is not None and self._child.returncode is None:
                try:
                    if b"READY=1" in self._socket.recv(4096).split(b"\n"):
                        self.ready.set()
                except TimeoutError:
                    continue


def _command(name: str) -> list[str | Path]:
    """A daemon as it was installed beside the interpreter; as a module where it wasn't."""
    script = Path(sys.executable).with_name(name)
    return [script] if script.exists() else [sys.executable, "-m", f"{name}.cli"]


class Stack:
    """Starts the daemons, and takes them down again with everything they made, whatever happens between.

    work_dir keeps state (alerts, captures, logs) and outlives the stack; sockets lie in a folder of their own below /run,
    since a Unix socket's path must be short.
    """

    def __init__(
        self,
        work_dir: Path,
        settings: dict[str, Any] | None = None,
        *,
        quiet: bool = True,
        ready_timeout_s: float = READY_TIMEOUT_S,
    ) -> None:
        """settings: what differs from the default configuration. quiet: logs go to work_dir/*.log, not to stderr.

        ready_timeout_s: how long each daemon may take to its start.
        """
        self.work_dir = work_dir
        self.runtime_dir = Path(tempfile.mkdtemp(prefix="execray-", dir="/run"))
        self.config = work_dir / "execray.yaml"
        self.order: Sequence[str] = DAEMONS  # in which they are started
        self.environment: dict[str, str] = {}  # what differs from ours
        self._settings = settings or {}
        self._quiet = quiet
        self._ready_timeout_s = ready_timeout_s
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self.work_dir.mkdir(parents=True, exist_ok=True)
        base = {
            "runtime_dir": str(self.runtime_dir),
            "state_dir": str(self.work_dir / "state"),
            # root only: a demo must not open a door to a group that happens to exist
            "group": "",
        }
        self.config.write_text(yaml.safe_dump({**base, **self._settings}), encoding="utf-8")
        self.config.chmod(0o644)  # whatever the umask: what others may write to is refused
        try:
            for name in self.order:
                self.start(name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, name: str) -> None:
        """Starts one daemon and waits until it says that it is ready. Raises OperatorError with its last words."""
        log = self.work_dir / f"{name}.log"
        notices = _Notices(self.runtime_dir / f"{name}.notify")
        with log.open("ab") as stderr:
            # its own process group: Ctrl-C on the terminal goes to us, and we end the daemons in order
            child = self._children[name] = subprocess.Popen(
                [*_command(name), "--config", self.config],
                stdin=subprocess.DEVNULL,
                stderr=stderr if self._quiet else None,
                env={**os.environ, **self.environment, "NOTIFY_SOCKET": os.fspath(notices.address)},
                process_group=0,
            )
        notices.follow(child)
        deadline = time.monotonic() + self._ready_timeout_s
        while not notices.ready.wait(0.1):
            if child.poll() is not None:
                words = log.read_text(errors="replace").strip().splitlines()[-3:]
                raise OperatorError(f"{name} ended with status {child.returncode}: {' / '.join(words)}", f"see {log}")
            if time.monotonic() > deadline:
                raise OperatorError(f"{name} was not ready within {self._ready_timeout_s:g} s", f"see {log}")

    def pid(self, name: str) -> int:
        """Returns a daemon's pid."""
        return self._children[name].pid

    def running(self, name: str) -> bool:
        """Whether a daemon lives."""
        child = self._children.get(name)
        return child is not None and child.poll() is None

    def control(self, name: str, timeout_s: float = 5.0) -> ControlClient:
        """Returns a client of a daemon's control socket."""
        return ControlClient(self.runtime_dir / name / "ctl.sock", timeout_s, group="")

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """Ends one daemon and waits for it; one that doesn't end in time is killed."""
        child = self._children.pop(name, None)
        if child is None:
            return
        if child.poll() is None:
            child.send_signal(number)
        try:
            child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def close(self) -> None:
        """Ends every daemon, the sensor first, and removes the sockets."""
        for name in reversed(DAEMONS):
            self.stop(name)
        shutil.rmtree(self.runtime_dir, ignore_errors=True)
