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
from execray.schema.catalog import Flag

#: Ancestors kept behind a living process. A longer line of dead ones is cut at its far end.
MAX_DEPTH: Final = 256
MAX_ARGV_BYTES: Final = 8192
#: A dead process is only somebody's parent: this much of its arguments is enough.
DEAD_ARGV_BYTES: Final = 512
#: Arguments of all processes together. Past it each new one keeps no more than a dead one: anyone can start processes.
MAX_TABLE_ARGV_BYTES: Final = 64 * 1024 * 1024


@dataclass(slots=True, eq=False)
class Process:
    """One process as last seen."""

    pid: int
    start_ns: int
    parent: Process | None
    exe: bytes | None
    argv: bytes | None  # each argument ended by a NUL, as the kernel has them; split only where they are sent
    comm: bytes = b""
    ids: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)  # uid, euid, suid, gid, egid
    cgroup_id: int = 0
    depth: int = 0
    flags: int = 0  # execray.schema.catalog.Flag of exe and argv: how far they are whole


class ProcessTable:
    """Processes by pid, each with its exact start time. Bounded: beyond max_processes new ones replace the oldest."""

    def __init__(self, max_processes: int, proc: Path = Path("/proc")) -> None:
        self._by_pid: dict[int, Process] = {}
        self._max = max_processes
        self._proc = proc
        self._argv_bytes = 0
        self.evicted = 0
        self.asked_proc = 0
        self.lines_cut = 0

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

    def scanned(self, pid: int, start_ns: int, exe: bytes | None) -> Process:
        """Adds a process that the scan found, without its parent: see link(). One that is known already stays as it is."""
        known = self._by_pid.get(pid)
        if known is not None and known.start_ns == start_ns:
            return known
        return self._add(Process(pid, start_ns, None, exe, self._cmdline(pid)))

    def link(self, pid: int, parent: tuple[int, int]) -> None:
        """Sets the parent of a scanned process, once all are known: a child may have a smaller pid than its parent."""
        child, maker = self._by_pid.get(pid), self._by_pid.get(parent[0])
        if child is not None and maker is not None and maker is not child and maker.start_ns == parent[1]:
            self._adopt(child, maker)

    def forked(self, parent: Process, pid: int, start_ns: int) -> Process:
        """Adds a child: it runs its creator's program until it executes another."""
        child = Process(pid, start_ns, None, parent.exe, parent.argv, parent.comm, parent.ids, parent.cgroup_id)
        child.flags = parent.flags
        self._adopt(child, parent)
        return self._add(child)

    def executed(self, process: Process, exe: bytes | None, argv: bytes | None, flags: int) -> None:
        """The process runs another program: what was known of the old one ends here and not at exit."""
        self._argv_bytes -= len(process.argv or b"")
        process.exe, process.argv, process.flags = exe, argv, flags
        self._account(process)

    def parent_seen(self, process: Process, parent: tuple[int, int]) -> None:
        """A record names the parent: taken where none is known."""
        maker = self._by_pid.get(parent[0])
        if process.parent is None and maker is not None and maker is not process and maker.start_ns == parent[1]:
            self._adopt(process, maker)

    def exited(self, pid: int, start_ns: int) -> None:
        """Forgets a process; its children go on knowing it as their parent."""
        process = self._by_pid.get(pid)
        if process is not None and process.start_ns == start_ns:
            self._remove(process)

    def _account(self, process: Process) -> None:
        if process.argv is not None and self._argv_bytes > MAX_TABLE_ARGV_BYTES:
            self._shorten_argv(process)
        self._argv_bytes += len(process.argv or b"")

    @staticmethod
    def _shorten_argv(process: Process) -> None:
        if process.argv is not None and len(process.argv) > DEAD_ARGV_BYTES:
            process.argv = process.argv[:DEAD_ARGV_BYTES]
            process.flags |= Flag.ARGV_TRUNCATED

    def _remove(self, process: Process) -> None:
        del self._by_pid[process.pid]
        self._argv_bytes -= len(process.argv or b"")
        self._shorten_argv(process)

    def _add(self, process: Process) -> Process:
        # Removed first, so that it comes last: the dict's order is age, and the first is the oldest.
        old = self._by_pid.get(process.pid)
        if old is not None:
            self._remove(old)
        while len(self._by_pid) >= self._max:
            self._remove(next(iter(self._by_pid.values())))
            self.evicted += 1
        self._by_pid[process.pid] = process
        self._account(process)
        return process

    def _adopt(self, child: Process, maker: Process) -> None:
        child.parent = maker
        child.depth = maker.depth + 1
        if child.depth > MAX_DEPTH:
            self._cut_line(child)

    def _cut_line(self, process: Process) -> None:
        self.lines_cut += 1
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
        process = Process(pid, start_ns, None, exe.removesuffix(b" (deleted)"), argv)
        parent = self._by_pid.get(int(fields[1]))
        # a parent is older than its child; a younger one is another process under a pid that was used again
        if parent is not None and parent.start_ns <= start_ns:
            self._adopt(process, parent)
        return process

    def _cmdline(self, pid: int) -> bytes | None:
        try:
            with (self._proc / str(pid) / "cmdline").open("rb") as file:
                return file.read(MAX_ARGV_BYTES)
        except OSError:
            return None
