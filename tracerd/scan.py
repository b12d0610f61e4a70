"""What was there before the sensor: every process for the table, and every thread's ids for the calls that change them."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from execray.schema import layout
from execray.schema.layout import CREDS, EXEC, HEADER, TASK
from tracerd import bpf
from tracerd.bpf import Map
from tracerd.loader import BpfObject, attach_iterator
from tracerd.processes import ProcessTable
from tracerd.records import container, cut, folder


class Scan:
    """Reads the kernel's own list of tasks, by the iterator of scan.bpf.c. Before start(), and without it, it finds nobody."""

    def __init__(self, creds: Map) -> None:
        """creds: where the kernel keeps what each thread last got."""
        self._creds = creds
        self._link = -1

    def start(self, loaded: BpfObject, table: ProcessTable) -> None:
        """Fills the table with the processes that are there. Raises OSError, LoadError."""
        self._link = attach_iterator(loaded, "er_scan")
        found = []
        for flags, task, r, (exe, cwd, cgroup, v1) in self._threads():
            self._seed(task)
            if task.tid == task.pid:
                process = table.scanned(task.pid, task.start_ns, exe or None)
                process.flags |= flags
                process.cwd = folder(cwd)
                process.container = container(cgroup, v1)
                process.started(r.ns_nr, r.facts, r.cap_bounding)
                found.append((process, task, (r.ppid, r.parent_start_ns)))
        # once all are there: a session's leader, and a parent, may have a larger pid than what belongs to it
        for process, task, parent in found:
            table.acted(process, task)
            table.link(process.pid, parent)
        table.settle()

    def renew_creds(self) -> None:
        """What threads' ids were is known only while set*id calls are followed: after a pause it is learned anew."""
        for key in list(self._creds.keys()):
            self._creds.delete(key)
        if self._link >= 0:
            for _, task, _, _ in self._threads():
                self._seed(task)

    def _threads(self) -> Iterator[tuple[int, layout.Task, layout.Exec, tuple[bytes, ...]]]:
        """Yields the record of every thread there is; a group leader's with its tail: exe, cwd, cgroup, v1 cgroup."""
        raw = memoryview(bpf.read_iterator(self._link))
        at = 0
        while at + EXEC.size <= len(raw):
            header = layout.Header._make(HEADER.unpack_from(raw, at))
            r = layout.Exec._make(EXEC.unpack_from(raw, at))
            task = layout.Task._make(TASK.unpack_from(raw, at + HEADER.size))
            tail = cut(bytes(raw[at : at + header.len]), EXEC.size, r.path_len, r.cwd_len, r.cgroup_len, r.v1_len)
            yield header.flags, task, r, tail
            at += max(header.len, EXEC.size)

    def _seed(self, task: layout.Task) -> None:
        facts = task.start_ns, task.cap_effective, task.cap_permitted, task.uid, task.euid, task.gid, task.egid
        try:
            self._creds.update(struct.pack("<I", task.tid), CREDS.pack(*facts, task.ns_user), bpf.NOEXIST)
        except FileExistsError:
            pass  # the hooks are attached: what they have noted since is newer
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
