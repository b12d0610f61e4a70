"""The table of processes: who made whom, what program each runs. Kept from the ring's own order, so it is exact.

Filled by a scan at start and by fork, exec and exit records from then on; /proc is asked only for arguments of processes
from before, and for a process that a lost record left unknown.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from execray.process import NS_PER_TICK, stat_fields
from execray.schema.catalog import Flag
from execray.schema.event import ProcessId
from execray.schema.layout import ER_FACT
from tracerd import entries
from tracerd.containers import container_in_proc
from tracerd.entries import Entry, Leader

#: Ancestors kept behind a living process. A longer line of dead ones is cut at its far end.
MAX_DEPTH: Final = 256
MAX_ARGV_BYTES: Final = 16384
#: A dead process is only somebody's parent: this much of its arguments is enough.
DEAD_ARGV_BYTES: Final = 512
#: Arguments of all processes together. Past it each new one keeps no more than a dead one: anyone can start processes.
MAX_TABLE_ARGV_BYTES: Final = 64 * 1024 * 1024
#: Cgroups whose container is remembered.
_MAX_CGROUPS: Final = 4096
_UNSET: Final = 0xFFFFFFFF  # (uid_t)-1
_INTERACTIVE: Final = ER_FACT["ER_FACT_INTERACTIVE"]
_HOSTS_USER_NS: Final = 0xEFFFFFFD  # PROC_USER_INIT_INO
#: CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_ADMIN: no runtime leaves them to a container unless told to, and with them the host is
#: open. Not every capability there is: one that is dropped besides, or that a kernel has newly got, keeps nobody in.
_HOSTS_KEYS: Final = 1 << 16 | 1 << 17 | 1 << 21
_NOBODY: Final = (0,) * 10
_NOWHERE: Final = (None,) * 4


class Process:
    """One process as last seen."""

    __slots__ = (
        *("pid", "start_ns", "parent", "exe", "argv", "comm", "ids", "cgroup_id", "depth", "flags", "cwd", "container"),
        *(
            "own_image",
            "loginuid",
            "tty_nr",
            "session",
            "session_leader",
            "pgrp",
            "pgrp_leader",
            "namespaces",
            "entered",
        ),
        *("leading", "shown_by_others", "ns_nr", "interactive", "bounding", "told"),
    )

    def __init__(self, pid: int, start_ns: int, exe: bytes | None, argv: bytes | None, flags: int = 0) -> None:
        """argv: each argument ended by a NUL, as the kernel has them; split only where they are sent."""
        self.pid = pid
        self.start_ns = start_ns
        self.parent: Process | None = None
        self.exe = exe
        self.argv = argv
        self.comm = b""
        #: uid, euid, suid, fsuid, gid, egid, sgid, fsgid, and capabilities, effective and permitted
        self.ids: tuple[int, ...] = _NOBODY
        self.cgroup_id = 0
        self.depth = 0
        self.flags = flags  # execray.schema.catalog.Flag of exe, argv and cwd: how far they are whole
        self.cwd: bytes | None = None  # when it began to run exe
        self.container: bytes | None = None
        self.own_image = False  # it executed exe itself; False: a copy of its creator, by fork
        self.loginuid: int | None = None
        self.tty_nr = 0
        self.session: ProcessId | None = None
        self.session_leader: Leader | None = None  # another process, which may be gone; None: was before ExecRay came
        self.pgrp: ProcessId | None = None
        self.pgrp_leader: Leader | None = None
        self.namespaces: tuple[int | None, ...] = _NOWHERE  # pid, mnt, net, user
        self.entered: Entry | None = None  # what it was born in, or began
        self.leading: Leader | None = None  # itself, as those whom it leads know it
        self.shown_by_others = False  # it has made, or leads, others: what they are told of has its program
        self.ns_nr: int | None = None  # in its own pid namespace
        self.interactive: bool | None = None  # when it began to run exe
        self.bounding: int | None = None  # capabilities within its reach; when it began to run exe
        self.told = False  # a record, or a copy of its creator's, has told what it is; False: nothing but /proc has

    @property
    def privileged(self) -> bool | None:
        """Whether it runs in a container with what makes the host its own within reach; None outside containers."""
        if self.container is None or self.bounding is None:
            return None
        return self.bounding & _HOSTS_KEYS == _HOSTS_KEYS and self.namespaces[3] == _HOSTS_USER_NS

    @property
    def id(self) -> ProcessId:
        """(pid, start_ns)."""
        return self.pid, self.start_ns

    @property
    def entry(self) -> ProcessId | None:
        """The identity of the process below which it does its work."""
        return None if self.entered is None else self.entered.leader.id

    def started(self, ns_nr: int, facts: int, bounding: int) -> None:
        """A record of an exec, or of the scan, tells how its program was started."""
        self.ns_nr, self.interactive, self.bounding = ns_nr, facts & _INTERACTIVE != 0, bounding

    def lead(self) -> Leader:
        """Returns itself as a leader of others."""
        if self.leading is None:
            self.leading = Leader(self.id, self.exe)
        self.shown_by_others = True
        return self.leading


class ProcessTable:
    """Processes by pid, each with its exact start time. Bounded: beyond max_processes new ones replace the oldest."""

    def __init__(self, max_processes: int, proc: Path = Path("/proc")) -> None:
        self._by_pid: dict[int, Process] = {}
        self._max = max_processes
        self._proc = proc
        self._argv_bytes = 0
        self._containers: dict[int, bytes | None] = {}  # by the id of their cgroup (v2), oldest first
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
        argv, flags = self._cmdline(pid)
        return self._add(Process(pid, start_ns, exe, argv, flags))

    def link(self, pid: int, parent: tuple[int, int]) -> None:
        """Sets the parent of a scanned process, once all are known: a child may have a smaller pid than its parent."""
        child, maker = self._by_pid.get(pid), self._by_pid.get(parent[0])
        if child is not None and maker is not None and maker is not child and maker.start_ns == parent[1]:
            self._adopt(child, maker)
            # all that can be told of a program that runs already: its creator runs another
            child.own_image = (child.exe, child.argv) != (maker.exe, maker.argv)

    def settle(self) -> None:
        """Finds the entries of all processes: after a scan, when every parent is known."""
        # a creator is older than what it made, so it comes first
        for process in sorted(self._by_pid.values(), key=lambda one: one.start_ns):
            entries.inherit(process)

    def forked(self, parent: Process, pid: int, start_ns: int, ns_nr: int | None = None) -> Process:
        """Adds a child: it runs its creator's program until it executes another. ns_nr: its pid in its own pid namespace."""
        me = parent.id
        child = Process(pid, start_ns, parent.exe, parent.argv, parent.flags)
        child.comm, child.ids, child.cgroup_id = parent.comm, parent.ids, parent.cgroup_id
        child.cwd, child.container, child.loginuid, child.tty_nr = (
            parent.cwd,
            parent.container,
            parent.loginuid,
            parent.tty_nr,
        )
        child.session, child.pgrp = parent.session, parent.pgrp
        child.session_leader = parent.lead() if parent.session == me else parent.session_leader
        child.pgrp_leader = parent.lead() if parent.pgrp == me else parent.pgrp_leader
        child.namespaces, child.ns_nr, child.told = parent.namespaces, ns_nr, parent.told
        child.interactive, child.bounding = parent.interactive, parent.bounding
        self._adopt(child, parent)
        entries.inherit(child)
        return self._add(child)

    def executed(
        self, process: Process, exe: bytes | None, argv: bytes | None, flags: int, cwd: bytes | None = None
    ) -> None:
        """The process runs another program: what was known of the old one ends here and not at exit."""
        self._argv_bytes -= len(process.argv or b"")
        process.exe, process.argv, process.flags, process.cwd = exe, argv, flags, cwd
        process.own_image = True
        if process.leading is not None:
            process.leading.exe = exe
        self._account(process)

    def contained(self, process: Process, container: bytes | None, cgroup_id: int, by_id: bool) -> None:
        """A record tells the process's container. by_id: its cgroup's id alone decides that (no v1 hierarchy has a say)."""
        if by_id:
            while len(self._containers) >= _MAX_CGROUPS:
                del self._containers[next(iter(self._containers))]
            self._containers[cgroup_id] = container
        process.cgroup_id = cgroup_id
        self._enter(process, container)

    def acted(self, process: Process, task: tuple[Any, ...]) -> None:
        """A record tells what the process is at this moment. task: the fields of layout.Task."""
        # by place: of a named tuple each field is a look-up
        (
            _,
            cgroup_id,
            cap_effective,
            cap_permitted,
            comm,
            _,
            uid,
            euid,
            suid,
            fsuid,
            gid,
            egid,
            sgid,
            fsgid,
            loginuid,
            tty_nr,
            session,
            pgrp,
            ns_pid,
            ns_mnt,
            ns_net,
            ns_user,
            _,
        ) = task
        process.comm = comm.rstrip(b"\0")
        process.ids = (uid, euid, suid, fsuid, gid, egid, sgid, fsgid, cap_effective, cap_permitted)
        process.tty_nr = tty_nr
        process.session, process.session_leader = self._leader(process, session, process.session_leader)
        process.pgrp, process.pgrp_leader = self._leader(process, pgrp, process.pgrp_leader)
        process.namespaces = (ns_pid or None, ns_mnt or None, ns_net or None, ns_user or None)
        login = None if loginuid == _UNSET else loginuid
        if not process.told:
            process.told, process.loginuid, process.cgroup_id = True, login, cgroup_id
            entries.inherit(process)
            return
        if process.loginuid != login:
            process.loginuid = login
            if login is not None:
                entries.log_in(process)
        if process.cgroup_id != cgroup_id:
            self._moved(process, cgroup_id)

    def _leader(self, process: Process, pid: int, known: Leader | None) -> tuple[ProcessId | None, Leader | None]:
        """Returns the identity of a session's or group's leader, and who that is if it is another.

        Nobody else gets a leader's pid while its session or group has members. One that had gone before ExecRay came has the
        start time 0.
        """
        if not pid:
            return None, None
        leader = self._by_pid.get(pid)
        if leader is process:
            return leader.id, None
        if leader is not None:
            return leader.id, leader.lead()
        return (known.id, known) if known is not None and known.id[0] == pid else ((pid, 0), None)

    def _moved(self, process: Process, cgroup_id: int) -> None:
        """Its cgroup is another without an exec: a runtime has put it there, or it went by itself."""
        process.cgroup_id = cgroup_id
        if cgroup_id in self._containers:
            self._enter(process, self._containers[cgroup_id])
            return
        found = self._proc_container(process.pid)
        if found is not None and self._is_alive(process):
            self._enter(process, found or None)

    def _enter(self, process: Process, container: bytes | None) -> None:
        if process.container != container:
            process.container = container
            if container is not None:
                entries.begin(process, entries.CONTAINER)

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
            process.flags |= int(Flag.ARGV_TRUNCATED)

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
        maker.shown_by_others = True
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
        process = unknown = Process(pid, start_ns, None, None)
        try:
            parent_pid = int(stat_fields(pid, self._proc)[1])
        except (OSError, ValueError):
            return unknown
        argv, flags = self._cmdline(pid)
        process = Process(pid, start_ns, self._link(pid, "exe"), argv, flags)
        process.cwd, process.container = self._link(pid, "cwd"), self._proc_container(pid) or None
        process.ns_nr, process.bounding = self._status(pid)
        # what was read while the process lived is its own: its start time is still there
        if not self._is_alive(process):
            return unknown
        parent = self._by_pid.get(parent_pid)
        # a parent is older than its child; a younger one is another process under a pid that was used again
        if parent is not None and parent.start_ns <= start_ns:
            self._adopt(process, parent)
            process.own_image = (process.exe, process.argv) != (parent.exe, parent.argv)
        return process

    def _is_alive(self, process: Process) -> bool:
        try:
            return int(stat_fields(process.pid, self._proc)[19]) == process.start_ns // NS_PER_TICK
        except (OSError, ValueError):
            return False

    def _proc_container(self, pid: int) -> bytes | None:
        """Returns the container by /proc, b"" outside all, None where it can't be read."""
        try:
            return container_in_proc((self._proc / str(pid) / "cgroup").read_bytes()) or b""
        except OSError:
            return None

    def _status(self, pid: int) -> tuple[int | None, int | None]:
        """Returns a process's id in its own pid namespace, and its capability bounding set."""
        try:
            lines = (self._proc / str(pid) / "status").read_bytes().splitlines()
            status = dict(line.split(b":\t", 1) for line in lines if b":\t" in line)
            return int(status[b"NSpid"].split()[-1]), int(status[b"CapBnd"], 16)
        except (OSError, ValueError, KeyError, IndexError):
            return None, None

    def _link(self, pid: int, name: str) -> bytes | None:
        """Returns where a link in /proc/PID points, None for a kernel thread's, or where CAP_SYS_PTRACE would be needed."""
        try:
            return os.fsencode((self._proc / str(pid) / name).readlink()).removesuffix(b" (deleted)")
        except OSError:
            return None

    def _cmdline(self, pid: int) -> tuple[bytes | None, int]:
        """Returns the arguments by /proc, and the flag where there are more of them."""
        try:
            with (self._proc / str(pid) / "cmdline").open("rb") as file:
                argv = file.read(MAX_ARGV_BYTES + 1)
        except OSError:
            return None, 0
        return argv[:MAX_ARGV_BYTES], int(Flag.ARGV_TRUNCATED) if len(argv) > MAX_ARGV_BYTES else 0
