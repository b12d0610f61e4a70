"""Orders about processes that the test itself started."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from execray.killer import boottime_ns
from execray.process import NS_PER_TICK, ProcessKey, boot_id, start_ticks_of
from execray.wire.orders import Action, CaptureSpec, Mode, Order

_NUMBERS = itertools.count(1)
NOBODY = 65534


def key_of(pid: int) -> ProcessKey:
    """The identity of a process that runs now. /proc has ticks only, and in ticks it is compared."""
    return ProcessKey(pid, start_ticks_of(pid) * NS_PER_TICK, boot_id())


def make_order(
    process: ProcessKey,
    *,
    order_id: str = "",
    action: Action = Action.KILL,
    policy: str = "test",
    mode: Mode = Mode.ENFORCE,
    issued_ns: int | None = None,
    exe: str = "",
    capture: CaptureSpec | None = None,
) -> Order:
    """An order issued now in enforce mode, under an id of its own, unless told otherwise."""
    return Order(
        order_id=order_id or f"order-{next(_NUMBERS)}",
        action=action if capture is None else Action.CAPTURE,
        process=process,
        policy=policy,
        alert_id="alert-1",
        mode=mode,
        issued_ns=boottime_ns() if issued_ns is None else issued_ns,
        exe=exe,
        capture=capture,
    )


@contextlib.contextmanager
def victim(exe: str = "/bin/sleep", *args: str, uid: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that sleeps until it is killed, reaped at the end. With uid it runs under that account."""
    process = subprocess.Popen([exe, *(args or ("60",))], user=uid, group=uid, extra_groups=[] if uid else None)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


@contextlib.contextmanager
def python_victim(code: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A Python program that has printed its first line, which comes with it."""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().decode().strip()
        finally:
            process.kill()


def died_of_sigkill(process: subprocess.Popen[bytes]) -> bool:
    """Waits for the end of a child that is expected to be dead by now."""
    return process.wait(5) == -9


@contextlib.contextmanager
def runtime_dir() -> Iterator[Path]:
    """A folder short enough for socket paths, which every account may enter."""
    with tempfile.TemporaryDirectory(prefix="er", dir="/run" if os.access("/run", os.W_OK) else None) as name:
        Path(name).chmod(0o755)
        yield Path(name)


def copy_of_sleep(folder: Path, name: str = "sleeper") -> str:
    """A program of the test's own, by its resolved path: the kernel names it in /proc/PID/exe."""
    target = folder.resolve() / name
    shutil.copy("/bin/sleep", target)
    return os.fspath(target)
