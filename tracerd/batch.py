"""Builds one batch of the stream: events as arrays, with tables for the texts and actors that they share."""

from __future__ import annotations

from typing import Final

from execray.schema.catalog import ACTOR_SLOT_OF, ACTOR_SLOTS, LOST, Flag
from execray.schema.event import user_id
from execray.schema.layout import HEADER, TASK
from execray.wire.frames import Batch, Row
from tracerd.processes import Process
from tracerd.users import Users

#: Where a record's er_task stands but for its end (the thread's id): equal bytes, equal actor.
ACTOR_AT: Final = HEADER.size
ACTOR_END: Final = HEADER.size + TASK.size - 4
_ARGV_TRUNCATED: Final = int(Flag.ARGV_TRUNCATED)
_ARGV: Final = 1 + ACTOR_SLOT_OF["argv"]
#: The order in which _row() writes them.
_ROW: Final = """proc.id uid euid suid fsuid gid egid sgid fsgid caps.effective caps.permitted cgroup.id comm exe argv cwd
container.id container.privileged session.id session.leader.exe pgrp.id pgrp.leader.exe entry.id entry.exe entry.kind loginuid
user.id user.name tty.nr ns.pid ns.mnt ns.net ns.user ns_pid interactive"""
assert [field.name for field in ACTOR_SLOTS] == _ROW.split()

#: Arguments sent of one process; each is an entry in the batch's table, however short.
MAX_ARGS: Final = 256
#: Bytes of arguments sent of a creator beyond the parent: a line of 256, each with 16 KiB, would not fit a frame.
OLD_ARGV_BYTES: Final = 1024
#: What an event and an actor take at most beside their texts: enough for every row of the catalogue.
_EVENT_BYTES: Final = 160
_ACTOR_BYTES: Final = 256


class BatchBuilder:
    """Collects events until take() makes a Batch of them. A row's id is the batch's first id and its position."""

    def __init__(self, first_id: int = 1, users: Users | None = None) -> None:
        """users: who has which name; None: those of /etc/passwd."""
        self._users = users or Users()
        self._seq = 0
        self._next_id = first_id
        self._reset()

    def _reset(self) -> None:
        self._texts: dict[bytes, int] = {}  # in order of their indexes
        self._actors: list[Row] = []
        self._actor_of: dict[bytes, tuple[int, int]] = {}
        self._user_of: dict[int | None, int | None] = {}  # the texts of users' names
        self._parent_of: dict[int, int] = {}  # by id(process): its row, for those that it made
        self._kept: list[Process] = []  # keeps the ids in _parent_of from being reused
        self._keys_of: dict[Process, list[bytes]] = {}  # in _actor_of
        #: Returns (index, flags) of an actor that this batch has already, by the bytes of its record from ACTOR_AT to ACTOR_END.
        self.known_actor = self._actor_of.get
        #: The texts of files that this batch has already, by the bytes of their records that say all of them.
        self.files: dict[bytes, tuple[int | None, int | None, int | None, bytes | None]] = {}
        self.events: list[Row] = []
        self.bytes = 0

    def text(self, value: bytes | None) -> int | None:
        """Returns the index of a text in the batch's table."""
        if value is None:
            return None
        index = self._texts.get(value)
        if index is None:
            index = self._texts[value] = len(self._texts)
            self.bytes += len(value) + 5
        return index

    def add_actor(self, key: bytes, process: Process) -> tuple[int, int]:
        """Adds the actor of a record, with the line of its creators. Returns (index, flags)."""
        parent = self._ancestor(process.parent)
        argv, cut = self._argv(process)
        row = self._row(process, parent, argv)
        shown = self._parent_of.get(id(process))
        if shown is not None and not _alike(self._actors[shown], row):
            self._forget_all()
            row = (self._ancestor(process.parent), *row[1:])
        index = self._parent_of[id(process)] = self._add(row)
        actor = index, process.flags | cut
        self._kept.append(process)
        self._actor_of[key] = actor
        self._keys_of.setdefault(process, []).append(key)
        return actor

    def event(self, row: Row) -> None:
        """Adds one event."""
        self.events.append(row)
        self.bytes += _EVENT_BYTES

    def forget_actors(self, process: Process) -> None:
        """After an exec: what a record's bytes say of its actor is no longer all there is to know."""
        if process.shown_by_others:
            self._forget_all()
        for key in self._keys_of.pop(process, ()):
            del self._actor_of[key]
        self._parent_of.pop(id(process), None)

    def _forget_all(self) -> None:
        """Somebody in others' lines is no longer what these say: who comes now is added anew, with all of its line."""
        self._actor_of.clear()
        self._keys_of.clear()
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
        """Adds the line of creators. The first has all of its arguments; of older ones come the first, OLD_ARGV_BYTES of them."""
        line: list[Process] = []
        at = process
        while at is not None and id(at) not in self._parent_of:
            line.append(at)
            at = at.parent
        index = self._parent_of[id(at)] if at is not None else None
        for member in reversed(line):
            argv = self._argv(member, None if member is process else OLD_ARGV_BYTES)[0]
            index = self._add(self._row(member, index, argv))
            self._parent_of[id(member)] = index
            self._kept.append(member)
        if process is not None and not line and len(process.argv or b"") > OLD_ARGV_BYTES:
            # maybe known as somebody's grandparent only: once more, with its arguments
            row = self._row(process, self._actors[index or 0][0], self._argv(process)[0])
            if row != self._actors[index or 0]:
                index = self._parent_of[id(process)] = self._add(row)
        return index

    def _argv(self, process: Process, limit: int | None = None) -> tuple[tuple[int | None, ...] | None, int]:
        """Returns the indexes of the arguments in the first `limit` bytes, and the flag where there are more than MAX_ARGS."""
        if process.argv is None:
            return None, 0
        args = process.argv[:limit].removesuffix(b"\0").split(b"\0", MAX_ARGS) if process.argv else []
        cut = _ARGV_TRUNCATED if len(args) > MAX_ARGS else 0
        # By name, not by a local of it: compiled, that is a call of C's, where the local is one of Python's.
        return tuple([self.text(arg) for arg in args[:MAX_ARGS]]), cut

    def _add(self, row: Row) -> int:
        self._actors.append(row)
        argv = row[_ARGV]
        self.bytes += _ACTOR_BYTES + (5 * len(argv) if argv else 0)
        return len(self._actors) - 1

    def _row(self, process: Process, parent: int | None, argv: tuple[int | None, ...] | None) -> Row:
        entry, me = process.entered, (process.pid, process.start_ns)
        user = user_id(process.loginuid, process.ids[0])
        if user not in self._user_of:
            self._user_of[user] = self.text(self._users.name(user))
        exe, leader, head = self.text(process.exe), process.session_leader, process.pgrp_leader
        return (
            parent,
            me,
            *process.ids,
            process.cgroup_id,
            self.text(process.comm),
            exe,
            argv,
            self.text(process.cwd),
            self.text(process.container),
            None if process.container is None else process.privileged,
            process.session,
            exe if process.session == me else self.text(leader.exe) if leader else None,
            process.pgrp,
            exe if process.pgrp == me else self.text(head.exe) if head else None,
            *(
                (None, None, None)
                if entry is None
                else (entry.leader.id, self.text(entry.leader.exe), self.text(entry.kind))
            ),
            process.loginuid,
            user,
            self._user_of[user],
            process.tty_nr,
            *process.namespaces,
            process.ns_nr,
            process.interactive,
        )


def _alike(one: Row, other: Row) -> bool:
    """Whether two rows of a process say the same of it, but for arguments that only one of them has."""
    return one[1:_ARGV] == other[1:_ARGV] and one[_ARGV + 1 :] == other[_ARGV + 1 :]
