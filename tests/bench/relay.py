"""What a chain of three idle processes takes to end a fourth: the least that a kill through three daemons can, here and now."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from types import TracebackType
from typing import IO, Final, Self

from tests.support.live import Live

_HAND_ON: Final = "import os\nwhile line := os.read(0, 64): os.write(1, line)"
_KILL: Final = """
import os, signal
while line := os.read(0, 64):
    pidfd = os.pidfd_open(int(line.split()[0]))
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    os.write(1, line)
"""
_VICTIM: Final = """
import os, time
os.write(1, b"%d %d" % (os.getpid(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)))
os.read(0, 1)
"""
_NICENESS: Final = "-10"  # as of the units


class Relay:
    """Three interpreters, each blocked in a read: two hand a line on, the third kills who wrote it, unasked and unchecked."""

    def __enter__(self) -> Self:
        self._links: list[subprocess.Popen[bytes]] = []
        for script in (_HAND_ON, _HAND_ON, _KILL):
            command = ["nice", "-n", _NICENESS, sys.executable, "-I", "-c", script]
            before = self._links[-1].stdout if self._links else subprocess.PIPE
            self._links.append(subprocess.Popen(command, stdin=before, stdout=subprocess.PIPE))
        for link in self._links[:-1]:
            _pipe(link.stdout).close()  # the next link's
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _pipe(self._links[0].stdin).close()  # each ends as the one before it has
        for link in self._links:
            link.wait(10)
        _pipe(self._links[-1].stdout).close()

    def kill(self, witness: Live) -> float:
        """Has one process killed; returns milliseconds from before it writes its line to its exit."""
        first, last = _pipe(self._links[0].stdin), _pipe(self._links[-1].stdout)
        command = [sys.executable, "-I", "-S", "-c", _VICTIM]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=first) as victim:
            assert asleep_until_end(victim, 10) == -signal.SIGKILL
            events = witness.drain()
        began_ns = int(os.read(last.fileno(), 64).split()[1])
        death_ns = next(e.time_ns for e in events if e.type.name == "exit" and e.get("pid") == victim.pid)
        return (death_ns - began_ns) / 1e6


def asleep_until_end(child: subprocess.Popen[bytes], timeout_s: float) -> int:
    """Returns the status of a child that has ended. Popen.wait() looks again and again, on a processor that others may need."""
    pidfd = os.pidfd_open(child.pid)
    try:
        ended, _, _ = select.select([pidfd], [], [], timeout_s)
    finally:
        os.close(pidfd)
    return child.wait(0 if ended else timeout_s)


def _pipe(end: IO[bytes] | None) -> IO[bytes]:
    assert end is not None
    return end
