"""The table of processes: who made whom, what program each runs. Kept from the ring's own order, so it is exact.

Filled by a scan at start and by fork, exec and exit records from then on; /proc is asked only for arguments of processes
from before, and for a process that a lost record left unknown.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from execray.process import NS_PER_TICK, stat_fields

#: Ancestors kept behind a living process. A longer line of dead ones is cut at its far end.
MAX_DEPTH: Final = 256
MAX_CMDLINE_BYTES: Final = 8192


@dataclass(slots=True, eq=False)
class Process:
    """One process as last seen."""

    pid: int
    start_ns: int
    parent: Process | None
    exe: bytes | None
    argv: tuple[bytes, ...] | None
    comm: bytes = b""
    ids: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)  # uid, euid, suid, gid, egid
    cgroup_id: int = 0
    depth: int = 0
    flags: int = 0  # execray.schema.catalog.Flag of exe and argv: how far they are whole


def split_argv(raw: bytes) -> tuple[bytes, ...]:
    """Splits NUL-ended arguments, as the kernel lays them out and /proc/PID/cmdline gives them."""
    return tuple(raw.removesuffix(b"\0").split(b"\0")) if raw else ()


class ProcessTable:
    """Processes by pid, each with its exact start time. Bounded: beyond max_processes new ones replace the oldest."""

    def __init__(self, max_processes: int, proc: Path = Path("/proc")) -> None:
        self._by_pid: dict[int, Process] = {}
        self._max = max_processes
        self._proc = proc
        self.evicted = 0
        self.asked_proc = 0

    def __len__(self) -> int:
        return len(self._by_pid)

    def get(self, pid: int, start_ns: int) -> Process:
        """Returns the process; one that isn't known is looked up in /proc, and known only by its identity if gone."""
        process = self._by_pid.get(pid)
        if process is not None and process.start_ns == start_ns:
            return process
        return self._add(self._from_proc(pid, start_ns))

    def find(self, pid: int) -> Process | None:
        """Returns the living process of that pid, if it is known."""
        return self._by_pid.get(pid)

    def scanned(self, pid: int, start_ns: int, parent: tuple[int, int], exe: bytes | None) -> Process:
        """Adds a process that the scan found; parent is linked later by link(). A process known already stays as it is."""
        known = self._by_pid.get(pid)
        if known is not None and known.start_ns == start_ns:
            return known
        argv = self._cmdline(pid)
        return self._add(Process(pid, start_ns, self._by_pid.get(parent[0]), exe, argv))

    def link(self, pid: int, parent: tuple[int, int]) -> None:
        """Sets the parent of a scanned process, once all are known: a child may have a smaller pid than its parent."""
        child, maker = self._by_pid.get(pid), self._by_pid.get(parent[0])
        if child is not None and maker is not None and maker is not child and maker.start_ns == parent[1]:
            child.parent = maker
            child.depth = maker.depth + 1

    def forked(self, parent: Process, pid: int, start_ns: int) -> Process:
        """Adds a child: it runs its creator's program until it executes another."""
        child = Process(pid, start_ns, parent, parent.exe, parent.argv, parent.comm, parent.ids, parent.cgroup_id)
        child.flags = parent.flags
        child.depth = parent.depth + 1
        if child.depth > MAX_DEPTH:
            self._shorten(child)
        return self._add(child)

    def exited(self, pid: int, start_ns: int) -> None:
        """Forgets a process; its children go on knowing it as their parent."""
        process = self._by_pid.get(pid)
        if process is not None and process.start_ns == start_ns:
            del self._by_pid[pid]

    def _add(self, process: Process) -> Process:
        # Re-inserted at the end, so that the dict's order is age and the first is the oldest.
        self._by_pid.pop(process.pid, None)
        while len(self._by_pid) >= self._max:
            del self._by_pid[next(iter(self._by_pid))]
            self.evicted += 1
        self._by_pid[process.pid] = process
        return process

    @staticmethod
    def _shorten(process: Process) -> None:
        line: list[Process] = []
        at: Process | None = process
        while at is not None and len(line) < MAX_DEPTH // 2:
            line.append(at)
            at = at.parent
        line[-1].parent = None
        for depth, member in enumerate(reversed(line)):
            member.depth = depth

    def _from_proc(self, pid: int, start_ns: int) -> Process:
        """Asks /proc, and believes it only where the start time (in ticks, all that it gives) is that of the record."""
        self.asked_proc += 1
        unknown = Process(pid, start_ns, None, None, None)
        try:
            fields = stat_fields(pid, self._proc)
            exe = os.fsencode((self._proc / str(pid) / "exe").readlink())
            argv = self._cmdline(pid)
            # read again: what lies between two equal start times is one process
            again = stat_fields(pid, self._proc)
        except (OSError, ValueError):
            return unknown
        if int(fields[19]) != start_ns // NS_PER_TICK or fields[19] != again[19]:
            return unknown
        parent = self._by_pid.get(int(fields[1]))
        return Process(
            pid, start_ns, parent, exe.removesuffix(b" (deleted)"), argv, depth=parent.depth + 1 if parent else 0
        )

    def _cmdline(self, pid: int) -> tuple[bytes, ...] | None:
        try:
            with (self._proc / str(pid) / "cmdline").open("rb") as file:
                return split_argv(file.read(MAX_CMDLINE_BYTES))
        except OSError:
            return None
