"""The identity of a process: never a bare pid, because pids are reused and ExecRay kills."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Self

from execray.schema.records import compared

# USER_HZ is part of the Linux ABI: 100 on every architecture ExecRay runs on, but sysconf is the one that says so.
CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
NS_PER_TICK = 1_000_000_000 // CLOCK_TICKS_PER_S


@cache
def boot_id() -> str:
    """Returns the kernel's random id of this boot, 36 characters. Raises OSError where /proc isn't mounted."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@compared(frozen=True, slots=True)
class ProcessKey:
    """One process, for as long as this boot lasts.

    pid is the kernel's tgid in the initial pid namespace; start_ns is the group leader's
    `task_struct::start_boottime` (CLOCK_BOOTTIME, nanoseconds).
    """

    pid: int
    start_ns: int
    boot_id: str

    @property
    def start_ticks(self) -> int:
        """The start time as field 22 of /proc/PID/stat gives it, in clock ticks."""
        return self.start_ns // NS_PER_TICK

    def __str__(self) -> str:
        return f"{self.pid}-{self.start_ns}"

    @classmethod
    def parse(cls, text: str, boot: str) -> Self:
        """Reads the form that str() prints. Raises ValueError."""
        pid, _, start = text.partition("-")
        if not (pid.isdecimal() and start.isdecimal()):
            raise ValueError(f"not a process id: {text!r}")
        return cls(int(pid), int(start), boot)


def stat_fields(pid: int, proc: Path = Path("/proc")) -> tuple[str, ...]:
    """Returns the fields of /proc/PID/stat from field 3 (state) on.

    The comm in field 2 may hold spaces and parentheses, so the split starts behind the last ')'.
    Raises FileNotFoundError or ProcessLookupError when the process is gone.
    """
    raw = (proc / str(pid) / "stat").read_bytes()
    return tuple(raw[raw.rindex(b")") + 2 :].decode("ascii").split())


def start_ticks_of(pid: int, proc: Path = Path("/proc")) -> int:
    """Returns when the process started, in clock ticks since boot. Raises like stat_fields."""
    return int(stat_fields(pid, proc)[19])
