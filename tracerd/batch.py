"""Builds one batch of the stream: events as arrays, with tables for the texts and actors that they share."""

from __future__ import annotations

from typing import Final

from execray.schema.catalog import ACTOR_SLOTS, LOST
from execray.schema.layout import Task
from execray.wire.frames import Batch, Row
from tracerd.processes import Process

#: Where a record's er_task stands but for its end (the thread's id): equal bytes, equal actor.
ACTOR_BYTES: Final = slice(16, 72)
assert [field.name for field in ACTOR_SLOTS] == [
    "proc.id",
    "uid",
    "euid",
    "suid",
    "gid",
    "egid",
    "cgroup.id",
    "comm",
    "exe",
    "argv",
]


class BatchBuilder:
    """Collects events until take() makes a Batch of them. A row's id is the batch's first id and its position."""

    def __init__(self, first_id: int = 1) -> None:
        self._seq = 0
        self._next_id = first_id
        self._reset()

    def _reset(self) -> None:
        self._texts: dict[bytes, int] = {}
        self._actors: list[Row] = []
        self._actor_of: dict[bytes, tuple[int, int]] = {}
        self._parent_of: dict[int, int] = {}
        self._kept: list[Process] = []  # keeps the ids in _parent_of from being reused
        self.events: list[Row] = []
        self.bytes = 0

    def text(self, value: bytes | None) -> int | None:
        """Returns the index of a text in the batch's table."""
        if value is None:
            return None
        index = self._texts.get(value)
        if index is None:
            index = self._texts[value] = len(self._texts)
            self.bytes += len(value)
        return index

    def known_actor(self, key: bytes) -> tuple[int, int] | None:
        """Returns (index, flags) of an actor that this batch has already, by the bytes ACTOR_BYTES of its record."""
        return self._actor_of.get(key)

    def add_actor(self, key: bytes, process: Process, task: Task) -> tuple[int, int]:
        """Adds the actor of a record, with the line of its creators. Returns (index, flags)."""
        process.comm = task.comm.rstrip(b"\0")
        process.ids = (task.uid, task.euid, task.suid, task.gid, task.egid)
        process.cgroup_id = task.cgroup_id
        actor = self._row(process, self._ancestor(process.parent)), process.flags
        self._actor_of[key] = actor
        return actor

    def forget_actors(self) -> None:
        """After an exec or a fork: what a record's bytes say of its actor is no longer all there is to know."""
        self._actor_of.clear()
        self._parent_of.clear()

    def lost(self, where: str, count: int, time_ns: int, since_ns: int) -> None:
        """Marks a gap at this point of the stream."""
        self.events.append((LOST, time_ns, where, count, since_ns))

    def take(self) -> Batch:
        """Returns what was collected, and starts anew."""
        batch = Batch(self._seq, self._next_id, tuple(self._texts), tuple(self._actors), tuple(self.events))
        self._seq += 1
        self._next_id += len(self.events)
        self._reset()
        return batch

    def _ancestor(self, process: Process | None) -> int | None:
        line: list[Process] = []
        while process is not None and id(process) not in self._parent_of:
            line.append(process)
            process = process.parent
        index = self._parent_of[id(process)] if process is not None else None
        for member in reversed(line):
            index = self._row(member, index)
            self._parent_of[id(member)] = index
            self._kept.append(member)
        return index

    def _row(self, process: Process, parent: int | None) -> int:
        text = self.text
        argv = None if process.argv is None else tuple(text(arg) for arg in process.argv)
        self._actors.append(
            (
                parent,
                (process.pid, process.start_ns),
                *process.ids,
                process.cgroup_id,
                text(process.comm),
                text(process.exe),
                argv,
            )
        )
        self.bytes += 64 + (4 * len(argv) if argv else 0)
        return len(self._actors) - 1
