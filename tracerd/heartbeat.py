"""Signs of life: known calls, made each second by one thread of our own and looked for in the ring, hook by hook.

The thread's id is in the kernel's configuration, so its records carry a flag and leave tracerd never. Every call fails
harmlessly: no descriptor, no such file, no such process, an id that is not one; two only ask (PROBED_BY_SUCCESS in shapes.py).
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from execray.schema.catalog import EVENTS, FIRST_ADDED
from execray.schema.numbers import MAX_NUMBER

_libc = ctypes.CDLL(None, use_errno=True)
_NOBODY: Final = 0x7FFFFFFF  # above any pid
_NO_ID: Final = 0xFFFFFFFF
_ATTACH: Final = 16

#: Event name -> system call number and arguments, where it isn't the event's first call with -1 for each: no descriptor, no
#: address, no option. Called directly: libc's setuid would signal every thread.
_SPECIAL: Final[Mapping[str, tuple[int, ...]]] = {
    "open": (257, -100, -1, 0),
    "create": (257, -100, -1, 0),
    "write": (1, -1, 0, 0),
    "connect": (42, -1, 0, 0),
    "ptrace": (101, _ATTACH, _NOBODY, 0, 0),
    "setuid": (105, _NO_ID),
    "exec": (59, -1, 0, 0),
    "kill": (62, _NOBODY, 0),
    "module_load": (175, -1, 0, -1),
    "syscall": (MAX_NUMBER,),
}
_PROBES: Final[Mapping[str, tuple[int, ...]]] = {
    event.name: _SPECIAL.get(event.name) or (event.system_calls[0].number, *(-1,) * 6)
    for event in EVENTS
    # what a call of a package's does with -1 nobody here knows
    if event.code < FIRST_ADDED and (event.system_calls or event.name in _SPECIAL)
}
_HERE: Final = _PROBES if platform.machine() == "x86_64" else {}
#: Names of the events whose hook can be asked for a sign of life.
PROBED: Final = frozenset(_HERE)


class HeartbeatThread(threading.Thread):
    """Makes the calls that needed() names each interval_s; and a process, when spawn_due() says that none was seen lately."""

    def __init__(self, interval_s: float, needed: Callable[[], frozenset[str]], spawn_due: Callable[[], bool]) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._interval_s = interval_s
        self._needed = needed
        self._spawn_due = spawn_due
        self._end = threading.Event()
        self.started_as = threading.Event()
        self.tid = 0
        self.beats = 0
        self.spawns = True  # whether a process could be made, the last time one was due

    def run(self) -> None:
        """Beats until stop()."""
        self.tid = threading.get_native_id()
        self.started_as.set()
        while not self._end.wait(self._interval_s):
            needed = self._needed()
            for name, call in _HERE.items():
                if name in needed:
                    # -1 as a pointer is no address: EFAULT, after the hook has everything it needs
                    _libc.syscall(*(ctypes.c_long(value) for value in call))
            if self._spawn_due():
                self._spawn()
            self.beats += 1

    def _spawn(self) -> None:
        try:
            pid = os.posix_spawn("/bin/true", ["execray-heartbeat"], {})
            os.waitpid(pid, 0)
            self.spawns = True
        except OSError:
            self.spawns = False  # the hooks then stay without a sign, which is what status shows

    def stop(self) -> None:
        """Ends the thread within an interval."""
        self._end.set()


class Liveness:
    """When each hook was last seen alive."""

    def __init__(self, seen: Mapping[int, int], interval_s: float, quiet_s: float = 5.0) -> None:
        """seen: event code -> CLOCK_BOOTTIME of its last record; the decoder's.

        quiet_s: a hook that needs a process to be made is asked only when none was seen for this long.
        """
        self.quiet_s = quiet_s
        self._seen = seen
        self._interval_s = interval_s

    def last_seen_ms(self, code: int) -> int | None:
        """Returns how long ago the hook gave a record, None for never."""
        last = self._seen.get(code)
        return None if last is None else max(0, (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - last) // 1_000_000)

    def live(self, code: int, *, probed: bool) -> bool:
        """Whether it gave one lately. probed: it is asked each interval, not only in quiet times."""
        age = self.last_seen_ms(code)
        limit_s = 3 * self._interval_s + (0 if probed else self.quiet_s)
        return age is not None and age <= limit_s * 1000


class Pulse:
    """Whether every program in the kernel gave a record since it last was asked, for the service manager."""

    def __init__(self, seen: Mapping[int, int]) -> None:
        """seen: as for Liveness."""
        self._seen = seen
        self._mark_ns = 0

    def missing(self, programs: Mapping[str, frozenset[int]]) -> str:
        """Returns the name of a program that gave none of its events, "" where all did; only then does a new span begin."""
        for name, codes in programs.items():
            if max((self._seen.get(code, 0) for code in codes), default=0) <= self._mark_ns:
                return name
        self._mark_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return ""
