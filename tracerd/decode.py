"""Records of the ring to events of the catalogue, in the order of its rows' slots. Refuses what isn't well-formed.

One function per record, no I/O. This is tracerd's hot path: about 4 us an event here, most of it in making the tuple.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from execray.schema import layout
from execray.schema.catalog import EVENT_BY_NAME, Flag
from execray.schema.layout import (
    CONNECT,
    ER_EVENT,
    ER_SETUID_CALL,
    EXEC,
    EXIT,
    FILE,
    FORK,
    HEADER,
    PTRACE,
    SETUID,
    TASK,
)
from tracerd.batch import ACTOR_BYTES, BatchBuilder
from tracerd.processes import Process, ProcessTable

_FMODE_CREATED: Final = 0x100000
_EINTR: Final = 4
_AF_INET: Final = 2
_AF_INET6: Final = 10
_S_IFMT: Final = 0o170000
_NAMELESS: Final = {0o140000: b"socket:[%d]", 0o010000: b"pipe:[%d]"}
_CALLS: Final = {number: name[8:].lower().encode() for name, number in ER_SETUID_CALL.items() if number}

Slots: TypeAlias = tuple[object, ...]


class BadRecord(ValueError):
    """A record that the layout doesn't admit: the objects and this code are not of one build, or memory is damaged."""


def _file_id(dev: int, ino: int) -> bytes | None:
    return b"%d:%d:%d" % (dev >> 20, dev & 0xFFFFF, ino) if ino else None


def _ret(value: int) -> int:
    """Returns a result as the caller will see it: the kernel's own "restart this call" (-512 to -516) is EINTR."""
    return -_EINTR if -516 <= value <= -512 else value


def _path(raw: bytes, i_mode: int, ino: int) -> bytes | None:
    """Returns a walked path. What has no place in any tree gets the name /proc would give it."""
    if raw.startswith(b"/"):
        return raw
    # pipes and sockets have an empty name in the dcache; a memfd has its own, as in `memfd:name`
    form = _NAMELESS.get(i_mode & _S_IFMT)
    if form:
        return form % ino
    return raw or None


class Decoder:
    """Turns records into rows of a BatchBuilder, keeping the process table as they tell."""

    def __init__(self, table: ProcessTable, builder: BatchBuilder) -> None:
        self._table = table
        self._builder = builder
        self.decoded = 0
        self.refused = 0
        self.heartbeats: dict[int, int] = {}  # event code -> time_ns of the last record of that hook, probe or not
        code = {name: EVENT_BY_NAME[name].code for name in EVENT_BY_NAME}
        self._handlers: dict[int, tuple[int, Callable[[memoryview, int], tuple[int, Slots]]]] = {
            code["exec"]: (EXEC.size, self._exec),
            code["fork"]: (FORK.size, self._fork),
            code["exit"]: (EXIT.size, self._exit),
            code["open"]: (FILE.size, self._open),
            code["write"]: (FILE.size, self._write),
            code["chmod"]: (FILE.size, self._chmod),
            code["connect"]: (CONNECT.size, self._connect),
            code["ptrace"]: (PTRACE.size, self._ptrace),
            code["setuid"]: (SETUID.size, self._setuid),
        }

    def decode(self, data: memoryview, offset: int, length: int) -> None:
        """Adds one record's event to the batch. Counts a malformed one in `refused` and leaves it out."""
        try:
            self._decode(data, offset, length)
        except BadRecord:
            self.refused += 1

    def _decode(self, data: memoryview, offset: int, length: int) -> None:
        if length < HEADER.size:
            raise BadRecord("shorter than a header")
        size, code, flags, time_ns = HEADER.unpack_from(data, offset)
        known = self._handlers.get(code)
        if known is None or size != length or length < known[0]:
            raise BadRecord(f"kind {code}, {size} of {length} bytes")
        self.heartbeats[code] = time_ns
        if flags & Flag.HEARTBEAT:
            return
        record = data[offset : offset + length]
        tid, slots = known[1](record, length)
        actor, actor_flags = self._actor(record)
        self._builder.event((code, time_ns, actor, tid, flags | actor_flags, *slots))
        self.decoded += 1
        # After the actor was taken: what ends or begins a process is done by the process as it was before.
        if code in _LIFE:
            self._after(code, record)

    def _actor(self, record: memoryview) -> tuple[int, int]:
        key = bytes(record[ACTOR_BYTES])
        known = self._builder.known_actor(key)
        if known is not None:
            return known
        task = layout.Task._make(TASK.unpack_from(record, HEADER.size))
        return self._builder.add_actor(key, self._table.get(task.pid, task.start_ns), task)

    def _after(self, code: int, record: memoryview) -> None:
        if code == ER_EVENT["ER_EVENT_FORK"]:
            fork = layout.Fork._make(FORK.unpack_from(record))
            self._table.forked(self._table.get(fork.pid, fork.start_ns), fork.child_pid, fork.child_start_ns)
        elif code == ER_EVENT["ER_EVENT_EXIT"]:
            gone = layout.Exit._make(EXIT.unpack_from(record))
            self._table.exited(gone.pid, gone.start_ns)

    def _tail(self, record: memoryview, at: int, *lengths: int) -> list[bytes]:
        if at + sum(lengths) > len(record):
            raise BadRecord("tail longer than the record")
        out = []
        for length in lengths:
            out.append(bytes(record[at : at + length]))
            at += length
        return out

    def _exec(self, record: memoryview, length: int) -> tuple[int, Slots]:
        r = layout.Exec._make(EXEC.unpack_from(record))
        path, filename, argv = self._tail(record, EXEC.size, r.path_len, r.filename_len, r.argv_len)
        if r.ret == 0:
            process = self._table.get(r.pid, r.start_ns)
            self._new_image(process, r, path, argv)
        text = self._builder.text
        return r.tid, (text(filename), text(_file_id(r.dev, r.ino)), _ret(r.ret))

    def _new_image(self, process: Process, r: layout.Exec, path: bytes, argv: bytes) -> None:
        """The process runs another program from here on, so what was known of the old one ends here and not at exit."""
        flags = r.flags & (Flag.PATH_TRUNCATED | Flag.ARGV_TRUNCATED | Flag.UNREADABLE)
        known = None if r.flags & Flag.UNREADABLE else argv
        self._table.executed(process, _path(path, r.i_mode, r.ino), known, flags)
        self._table.parent_seen(process, (r.ppid, r.parent_start_ns))
        self._builder.forget_actors(process)

    def _fork(self, record: memoryview, length: int) -> tuple[int, Slots]:
        r = layout.Fork._make(FORK.unpack_from(record))
        return r.tid, ((r.child_pid, r.child_start_ns),)

    def _exit(self, record: memoryview, length: int) -> tuple[int, Slots]:
        r = layout.Exit._make(EXIT.unpack_from(record))
        return r.tid, (r.code >> 8 & 0xFF, r.code & 0x7F)

    def _file(self, record: memoryview) -> tuple[layout.File, bytes | None, bytes, bytes]:
        r = layout.File._make(FILE.unpack_from(record))
        path, raw, content = self._tail(record, FILE.size, r.path_len, r.raw_len, r.content_len)
        return r, _path(path, r.i_mode, r.ino) if r.ino else None, raw, content

    def _open(self, record: memoryview, length: int) -> tuple[int, Slots]:
        r, path, raw, _ = self._file(record)
        text = self._builder.text
        rawpath = None if r.flags & Flag.UNREADABLE and not raw else text(raw)
        created = bool(r.f_mode & _FMODE_CREATED)
        return r.tid, (text(path), rawpath, r.open_flags, r.mode, created, text(_file_id(r.dev, r.ino)), _ret(r.ret))

    def _write(self, record: memoryview, length: int) -> tuple[int, Slots]:
        r, path, _, content = self._file(record)
        text = self._builder.text
        return r.tid, (r.fd, text(path), text(content) if r.content_len else None, r.asked, _ret(r.ret))

    def _chmod(self, record: memoryview, length: int) -> tuple[int, Slots]:
        r, path, raw, _ = self._file(record)
        text = self._builder.text
        return r.tid, (text(path), text(raw) if r.raw_len else None, r.mode, _ret(r.ret))

    def _connect(self, record: memoryview, length: int) -> tuple[int, Slots]:
        r = layout.Connect._make(CONNECT.unpack_from(record))
        (path,) = self._tail(record, CONNECT.size, r.path_len)
        text = self._builder.text
        size = {_AF_INET: 4, _AF_INET6: 16}.get(r.family)
        if size is None:
            # an abstract address begins with a NUL and may hold more; a path ends at its first
            unix = path if path.startswith(b"\0") else path.split(b"\0")[0]
            return r.tid, (r.fd, r.family, None, None, None, None, text(unix) if r.path_len else None, _ret(r.ret))
        source = (text(r.saddr[:size]), r.sport) if r.sport else (None, None)
        return r.tid, (r.fd, r.family, text(r.daddr[:size]), r.dport, *source, None, _ret(r.ret))

    def _ptrace(self, record: memoryview, length: int) -> tuple[int, Slots]:
        r = layout.Ptrace._make(PTRACE.unpack_from(record))
        if not r.target_pid:
            return r.tid, (r.request, None, None, None, None, None, r.ret)
        target = self._table.get(r.target_pid, r.target_start_ns)
        parent = (r.target_ppid, r.target_parent_start_ns)
        identity = (r.target_pid, r.target_start_ns)
        exe = self._builder.text(target.exe)
        return r.tid, (r.request, identity, r.target_tid, r.target_uid, parent, exe, r.ret)

    def _setuid(self, record: memoryview, length: int) -> tuple[int, Slots]:
        r = layout.Setuid._make(SETUID.unpack_from(record))
        call = _CALLS.get(r.call)
        if call is None:
            raise BadRecord(f"set*id call {r.call}")
        old = (None, None) if r.flags & Flag.OLD_CREDS_UNKNOWN else (r.old_uid, r.old_euid)
        return r.tid, (self._builder.text(call), r.new_uid, r.new_euid, *old, r.ret)


_LIFE: Final = {ER_EVENT["ER_EVENT_FORK"], ER_EVENT["ER_EVENT_EXIT"]}
