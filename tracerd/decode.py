"""Records of the ring to events of the catalogue, in the order of its rows' slots. Refuses what isn't well-formed.

One function per record, no I/O. This is tracerd's hot path: about 3 us an event here, 6 where each has another file.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Mapping
from struct import Struct
from typing import Final, NamedTuple, TypeAlias

from execray.schema import layout
from execray.schema.catalog import EVENT_BY_CODE, EVENT_BY_NAME, FIRST_ADDED_NUMBER, Flag
from execray.schema.field import KILLER_SHIFT, PATH_UNSURE
from execray.schema.layout import (
    CONNECT,
    CRED_CHANGE,
    ER_EVENT,
    ER_FACT,
    ER_KIND_URGENT,
    ER_SETUID_CALL,
    EXEC,
    EXIT,
    FILE,
    FORK,
    HEADER,
    PLAIN,
    PTRACE,
    SETUID,
    TASK,
)
from tracerd.batch import ACTOR_AT, ACTOR_END, MAX_ARGS, BatchBuilder
from tracerd.names import Names
from tracerd.plain import check, plain_decoders
from tracerd.processes import ProcessTable
from tracerd.records import BadRecord, container, cut, file_id, folder, path_in_filesystem, result, walked_path
from tracerd.shapes import code_of, kernel_number

_FMODE_CREATED: Final = 0x100000
_O_TMPFILE: Final = 0o20000000  # without O_DIRECTORY: makes a file, which the kernel does not count as created
_AF_INET: Final = 2
_AF_INET6: Final = 10
_INBOUND, _OUTBOUND = b"inbound", b"outbound"
_CALLS: Final = {number: name[8:].lower().encode() for name, number in ER_SETUID_CALL.items() if number}
#: Flags that tell of the image, and stay with the process.
_IMAGE: Final = int(PATH_UNSURE | Flag.ARGV_TRUNCATED | Flag.UNREADABLE | Flag.CWD_TRUNCATED)
# as plain numbers: an operation on a Flag makes another Flag, which takes as long as half an event
_HEARTBEAT: Final = int(Flag.HEARTBEAT)
_KILLED: Final = int(Flag.KILLED)
_RARE: Final = _HEARTBEAT | _KILLED
_CONTENT_TRUNCATED: Final = int(Flag.CONTENT_TRUNCATED)
_UNREADABLE: Final = int(Flag.UNREADABLE)
_OLD_CREDS_UNKNOWN: Final = int(Flag.OLD_CREDS_UNKNOWN)
_FORK: Final = ER_EVENT["ER_EVENT_FORK"]
_EXIT: Final = ER_EVENT["ER_EVENT_EXIT"]
#: The header, and the thread's id at the end of er_task.
_HEAD: Final = Struct(f"{HEADER.format}{ACTOR_END - ACTOR_AT}xI")
#: Whose record it is, in er_task: start_ns, cgroup_id, pid.
_WHO: Final = Struct("<QQ32xI")
assert TASK.format.startswith("<QQQQ16sI") and layout.Task._fields[:2] == ("start_ns", "cgroup_id")
_TASK_PID: Final = 5
assert layout.Task._fields[_TASK_PID] == "pid"
#: er_header::time_ns
_TIME: Final = Struct("<Q")
_TIME_AT: Final = 8
assert HEADER.format == "<IHHQ"
_KINDS: Final = ER_KIND_URGENT - 1  # of er_header::kind, what kind of record it is
#: er_header::kind
_KIND: Final = Struct("<H")
_KIND_AT: Final = 4
#: What a record with _KILLED ends with: er_inline_rule::policy
_KILLER: Final = Struct("<I")

Slots: TypeAlias = tuple[object, ...]
#: `path`, `file.id` and `fspath`, as indexes of the batch's texts; and `file.id` itself.
FileSlots: TypeAlias = tuple[int | None, int | None, int | None, bytes | None]

#: The end of er_file, which with the path behind it says all of a file.
_FILE_FIELDS: Final = layout.File._fields.index("ino")
_FILE_AT: Final = FILE.size - struct.calcsize("<QIIIIHHHH")
assert (
    " ".join(list(layout.File._fields)[_FILE_FIELDS:])
    == "ino dev generation i_uid about i_mode path_len own_len below_len"
)

#: er_ptrace.nr -> the call's name
_PROCMEM, _PROCREAD = (
    {call.number: call.name.encode() for call in EVENT_BY_NAME[name].system_calls} for name in ("procmem", "procread")
)
_NOWHERE: Final = (None, None)
#: Of an exec's file: owner, mode, ages by its times, and whether it is in an overlay's upper layer.
_NO_FILE: Final[Slots] = (None,) * 5
_UPPER: Final = ER_FACT["ER_FACT_UPPER"]
#: Events that say that a name is another file's from now on.
_NAMING: Final = frozenset(
    EVENT_BY_NAME[name].code for name in ("rename", "link", "unlink", "symlink", "mount", "umount")
)
_NR_SENDTO: Final = 44
_NR_PIDFD_SEND_SIGNAL: Final = 424


class _Ends(NamedTuple):
    """What a record says of a socket: its own address, the other end's, and for AF_UNIX a name."""

    record: layout.Connect
    family: int | None
    here: tuple[int | None, int | None]
    there: tuple[int | None, int | None]
    path: int | None


class Decoder:
    """Turns records into rows of a BatchBuilder, keeping the process table as they tell."""

    def __init__(
        self,
        table: ProcessTable,
        builder: BatchBuilder,
        wall_offset_ns: Callable[[], int] = lambda: time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    ) -> None:
        """wall_offset_ns: what is to be added to a record's time for that of the wall clock."""
        self._wall_offset_ns = wall_offset_ns
        self._table = table
        self._builder = builder
        self.decoded = 0
        self.refused = 0
        self.heartbeats: dict[int, int] = {}  # event code -> time_ns of the last record of that hook, probe or not
        code = {name: EVENT_BY_NAME[name].code for name in EVENT_BY_NAME}
        self._handlers: dict[int, tuple[int, Callable[[bytes, int], Slots]]] = {
            code["exec"]: (EXEC.size, self._exec),
            code["fork"]: (FORK.size, self._fork),
            code["exit"]: (EXIT.size, self._exit),
            code["open"]: (FILE.size, self._open),
            code["create"]: (FILE.size, self._create),
            code["write"]: (FILE.size, self._write),
            code["read"]: (FILE.size, self._write),
            code["connect"]: (CONNECT.size, self._connect),
            code["bind"]: (CONNECT.size, self._bind),
            code["listen"]: (CONNECT.size, self._listen),
            code["accept"]: (CONNECT.size, self._accept),
            code["sendto"]: (CONNECT.size, self._sendto),
            code["ptrace"]: (PTRACE.size, self._ptrace),
            code["kill"]: (PTRACE.size, self._kill),
            code["procmem"]: (PTRACE.size, self._procmem),
            code["procread"]: (PTRACE.size, self._procread),
            code["setuid"]: (SETUID.size, self._setuid),
            code["cred_change"]: (CRED_CHANGE.size, self._cred_change),
            code["syscall"]: (PLAIN.size, self._syscall),
        }
        plain = plain_decoders(frozenset(EVENT_BY_CODE) - frozenset(self._handlers))
        #: Like the handlers, by what the kernel calls an event.
        self._plain_calls = {kernel_number(code): decoders for code, decoders in plain.items()}
        self._handlers |= dict.fromkeys(self._plain_calls, (PLAIN.size, self._plain))
        self._more_flags = 0  # of the record that was decoded last
        #: What policies call a file, by its identity: replaced as a whole, by another thread.
        self.names: Names = {}
        self._watched: frozenset[bytes] = frozenset()
        self._renamed: Callable[[], None] | None = None

    def watch_names(self, paths: Iterable[bytes], renamed: Callable[[], None]) -> None:
        """Calls `renamed` whenever an event tells that one of the paths was given to, or taken from, a file."""
        self._watched, self._renamed = frozenset(paths), renamed

    def decode(self, data: memoryview, offset: int, length: int) -> None:
        """Adds one record's event to the batch. Counts a malformed one in `refused` and leaves it out."""
        record = data[offset : offset + length].tobytes()  # once: of bytes, a slice is a fourth of a memoryview's
        try:
            if length < _HEAD.size:
                raise BadRecord("shorter than a header")
            size, code, flags, time_ns, tid = _HEAD.unpack_from(record)
            code &= _KINDS
            known = self._handlers.get(code)
            if known is None or size != length or length < known[0]:
                raise BadRecord(f"kind {code}, {size} of {length} bytes")
            if code >= FIRST_ADDED_NUMBER:
                code = code_of(code)
            self.heartbeats[code] = time_ns
            if flags & _RARE:
                if flags & _HEARTBEAT:
                    return
                (killer,) = _KILLER.unpack_from(record, length - _KILLER.size)
                flags |= killer << KILLER_SHIFT
            slots = known[1](record, flags)
        except BadRecord:
            self.refused += 1
            return
        if self._more_flags:
            flags |= self._more_flags
            self._more_flags = 0
        key = record[ACTOR_AT:ACTOR_END]
        actor, actor_flags = self._builder.known_actor(key) or self._new_actor(key, record)
        self._builder.event((code, time_ns, actor, tid, flags | actor_flags, *slots))
        self.decoded += 1
        # After the actor was taken: what ends or begins a process is done by the process as it was before.
        if code == _FORK:
            start_ns, _, pid = _WHO.unpack_from(record, HEADER.size)
            child_start_ns, child_pid, ns_nr, _ = FORK.unpack_from(record)
            self._table.forked(self._table.get(pid, start_ns), child_pid, child_start_ns, ns_nr)
        elif code == _EXIT:
            start_ns, _, pid = _WHO.unpack_from(record, HEADER.size)
            self._table.exited(pid, start_ns)

    def _new_actor(self, key: bytes, record: bytes) -> tuple[int, int]:
        task = TASK.unpack_from(record, HEADER.size)
        process = self._table.get(task[_TASK_PID], task[0])
        self._table.acted(process, task)
        return self._builder.add_actor(key, process)

    def _exec(self, record: bytes, flags: int) -> Slots:
        fields = EXEC.unpack_from(record)
        # by place, without a named tuple and a call for each text: programs are started by the thousand
        ino, parent_start_ns, ppid, dev, ret, argv_len, path_len, filename_len, cwd_len, cgroup_len, v1_len = fields[
            :11
        ]
        i_mode, generation, owner, own_len, below_len, bounding, mtime_ns, ctime_ns, env_len = fields[11:20]
        ns_nr, interp_len, facts = fields[20:]
        below_at = EXEC.size + path_len
        filename_at = below_at + below_len
        interp_at = filename_at + filename_len
        cwd_at = interp_at + interp_len
        cgroup_at = cwd_at + cwd_len
        v1_at = cgroup_at + cgroup_len
        argv_at = v1_at + v1_len
        if argv_at + argv_len + env_len > len(record):
            raise BadRecord("tail longer than the record")
        path, below = record[EXEC.size : below_at], record[below_at:filename_at]
        start_ns, cgroup_id, pid = _WHO.unpack_from(record, HEADER.size)
        process = self._table.get(pid, start_ns)
        builder, previous = self._builder, process.exe
        if ret == 0:
            argv = None if flags & _UNREADABLE else record[argv_at : argv_at + argv_len]
            cwd = folder(record[cwd_at:cgroup_at])
            self._table.executed(process, walked_path(path, i_mode, ino), argv, flags & _IMAGE, cwd)
            process.started(ns_nr, facts, bounding)
            inside = container(record[cgroup_at:v1_at], record[v1_at:argv_at])
            self._table.contained(process, inside, cgroup_id, by_id=not v1_len)
            if process.parent is None:
                self._table.parent_seen(process, (ppid, parent_start_ns))
            builder.forget_actors(process)
        # most that fail have no file: of a program that is sought along PATH, each place where it isn't
        ident = file_id(dev, ino, generation) if ino else None
        fspath = path_in_filesystem(path, own_len, below) if path else None
        file = _NO_FILE
        if ino:
            (time_ns,) = _TIME.unpack_from(record, _TIME_AT)
            now_ns = time_ns + self._wall_offset_ns()
            file = owner, i_mode & 0o7777, now_ns - mtime_ns, now_ns - ctime_ns, facts & _UPPER != 0
        return (
            builder.text(record[filename_at:interp_at]),
            builder.text(ident),
            builder.text(fspath),
            builder.text(previous),
            *file,
            builder.text(record[interp_at:cwd_at]) if interp_len else None,
            self._environment(record[argv_at + argv_len : argv_at + argv_len + env_len], flags),
            result(ret),
        )

    def _environment(self, env: bytes, flags: int) -> tuple[int | None, ...] | None:
        if not env:
            # Arguments that fill all the room: a list that was cut, to nothing, and that is known.
            return () if flags & (_CONTENT_TRUNCATED | _UNREADABLE) == _CONTENT_TRUNCATED else None
        found = env.removesuffix(b"\0").split(b"\0", MAX_ARGS)
        if len(found) > MAX_ARGS:
            self._more_flags = _CONTENT_TRUNCATED
        self._builder.bytes += 5 * len(found)
        return tuple(map(self._builder.text, found[:MAX_ARGS]))

    def _fork(self, record: bytes, flags: int) -> Slots:
        child_start_ns, child_pid, _, clone_flags = FORK.unpack_from(record)
        return ((child_pid, child_start_ns), clone_flags)

    def _exit(self, record: bytes, flags: int) -> Slots:
        (code,) = EXIT.unpack_from(record)
        return (code >> 8 & 0xFF, code & 0x7F)

    def _new_file(self, record: bytes, key: bytes) -> FileSlots:
        """Adds a file to the batch; returns `path`, `file.id` and `fspath`, nothing where the call had no file."""
        ino, dev, generation, _, _, i_mode, path_len, own_len, below_len = FILE.unpack_from(record)[_FILE_FIELDS:]
        slots: FileSlots = (None, None, None, None)
        if ino:
            path, below = cut(record, FILE.size, path_len, below_len)
            builder, ident = self._builder, file_id(dev, ino, generation)
            fspath = path_in_filesystem(path, own_len, below)
            name = builder.text(walked_path(path, i_mode, ino))
            slots = name, builder.text(ident), builder.text(fspath), ident
        self._builder.files[key] = slots
        return slots

    # The two most frequent events: without a named tuple or a call that can be done without, 5 us each became 3.

    def _open(self, record: bytes, flags: int) -> Slots:
        (began_ns, ret, _, open_flags, mode, f_mode, raw_len, _, ino, _, _, owner, about, _, path_len, _, below_len) = (
            FILE.unpack_from(record)
        )
        at = FILE.size + path_len + below_len
        end = at + raw_len
        if end > len(record):
            raise BadRecord("tail longer than the record")
        key = record[_FILE_AT:at]
        path, ident, fspath, known = self._builder.files.get(key) or self._new_file(record, key)
        raw = record[at:end]
        # of a file that is known it is taken along only where somebody asks for it
        rawpath = self._builder.text(raw) if raw or not (ino or flags & _UNREADABLE) else None
        names = self.names.get(known)
        alias = None if names is None else tuple(map(self._builder.text, names))
        created = bool(f_mode & _FMODE_CREATED or (ino and open_flags & _O_TMPFILE))
        owner = owner if ino else None
        target = (about, began_ns) if about else None
        return (path, rawpath, open_flags, mode, created, ident, alias, fspath, owner, target, result(ret))

    def _create(self, record: bytes, flags: int) -> Slots:
        path, rawpath, open_flags, mode, _, *file, _, ret = self._open(record, flags)  # nobody makes files in /proc
        return (path, rawpath, open_flags, mode, *file, ret)

    def _write(self, record: bytes, flags: int) -> Slots:
        fields = FILE.unpack_from(record)
        asked, ret, fd, _, _, _, raw_len, content_len, _, _, _, _, _, _, path_len, _, below_len = fields
        at = FILE.size + path_len + below_len
        begin = at + raw_len
        end = begin + content_len
        if end > len(record):
            raise BadRecord("tail longer than the record")
        key = record[_FILE_AT:at]
        path, ident, fspath, known = self._builder.files.get(key) or self._new_file(record, key)
        content = self._builder.text(record[begin:end]) if content_len else None
        names = self.names.get(known)
        alias = None if names is None else tuple(map(self._builder.text, names))
        return (fd, path, content, asked, ident, alias, fspath, result(ret))

    def _plain(self, record: bytes, flags: int) -> Slots:
        code = _KIND.unpack_from(record, _KIND_AT)[0] & _KINDS
        r = layout.Plain._make(PLAIN.unpack_from(record))
        decoder = check(r.nr, self._plain_calls[code])
        text = self._noted if code in _NAMING and self._watched else self._builder.text
        slots, self._more_flags = decoder.decode(r, record, flags, text)
        if decoder.names_at is not None and (names := self.names.get(file_id(r.dev, r.ino, r.generation))):
            slots[decoder.names_at] = tuple(map(self._builder.text, names))
        return tuple(slots)

    def _noted(self, value: bytes | None) -> int | None:
        if value in self._watched and self._renamed is not None:
            self._renamed()
        return self._builder.text(value)

    def _syscall(self, record: bytes, flags: int) -> Slots:
        r = layout.Plain._make(PLAIN.unpack_from(record))
        arguments = [value - (value >> 63 << 64) for value in (r.arg0, r.arg1, r.arg2, r.arg3, r.arg4, r.arg5)]
        return (r.nr, *arguments, result(r.ret))

    def _ends(self, record: bytes) -> _Ends:
        r = layout.Connect._make(CONNECT.unpack_from(record))
        (path,) = cut(record, CONNECT.size, r.path_len)
        text = self._builder.text
        family = r.family or None  # 0: nothing told of a socket
        size = {_AF_INET: 4, _AF_INET6: 16}.get(r.family)
        if size is None:
            # an abstract address begins with a NUL and may hold more; a path ends at its first
            unix = path if path.startswith(b"\0") else path.split(b"\0")[0]
            return _Ends(r, family, _NOWHERE, _NOWHERE, text(unix) if r.path_len else None)
        here, there = (text(r.saddr[:size]), r.sport), (text(r.daddr[:size]), r.dport)
        return _Ends(r, family, here, there, None)

    def _connect(self, record: bytes, flags: int) -> Slots:
        r, family, here, there, path = self._ends(record)
        source = here if r.sport else _NOWHERE
        if not flags & _UNREADABLE:  # else 0 isn't AF_UNSPEC, which disconnects, but what nobody could read
            family = r.family
        return (r.fd, family, *there, *source, path, self._builder.text(_OUTBOUND), result(r.ret))

    def _bind(self, record: bytes, flags: int) -> Slots:
        r, family, here, there, path = self._ends(record)
        # where it failed, there is only the address that was asked for
        return (r.fd, family, *(here if r.ret == 0 else there), path, result(r.ret))

    def _listen(self, record: bytes, flags: int) -> Slots:
        r, family, here, _, path = self._ends(record)
        backlog = r.amount & 0xFFFFFFFF
        return (r.fd, family, *here, path, backlog - (backlog >> 31 << 32), result(r.ret))

    def _accept(self, record: bytes, flags: int) -> Slots:
        r, family, here, there, path = self._ends(record)
        return (r.fd, family, *there, *here, path, self._builder.text(_INBOUND), result(r.ret))

    def _sendto(self, record: bytes, flags: int) -> Slots:
        r, family, _, there, path = self._ends(record)
        asked = r.amount if r.nr == _NR_SENDTO else None
        return (r.fd, family, *there, path, asked, self._builder.text(_OUTBOUND), result(r.ret))

    def _target(self, r: layout.Ptrace) -> tuple[object, ...]:
        if not r.target_pid:
            return (None, None, None, None, None)
        target = self._table.get(r.target_pid, r.target_start_ns)
        parent = (r.target_ppid, r.target_parent_start_ns)
        exe = self._builder.text(target.exe)
        return ((r.target_pid, r.target_start_ns), r.target_tid, r.target_uid, parent, exe)

    def _ptrace(self, record: bytes, flags: int) -> Slots:
        r = layout.Ptrace._make(PTRACE.unpack_from(record))
        return (r.request, *self._target(r), r.ret)

    def _kill(self, record: bytes, flags: int) -> Slots:
        r = layout.Ptrace._make(PTRACE.unpack_from(record))
        number = None if r.nr == _NR_PIDFD_SEND_SIGNAL else r.target_nr
        return (r.request, number, *self._target(r), r.ret)

    def _procmem(self, record: bytes, flags: int) -> Slots:
        return self._memory(record, _PROCMEM)

    def _procread(self, record: bytes, flags: int) -> Slots:
        return self._memory(record, _PROCREAD)

    def _memory(self, record: bytes, calls: Mapping[int, bytes]) -> Slots:
        r = layout.Ptrace._make(PTRACE.unpack_from(record))
        call = calls.get(r.nr)
        if call is None:
            raise BadRecord(f"call {r.nr} is no way to another's memory")
        return (self._builder.text(call), r.request, *self._target(r), r.ret)

    def _setuid(self, record: bytes, flags: int) -> Slots:
        r = layout.Setuid._make(SETUID.unpack_from(record))
        call = _CALLS.get(r.call)
        if call is None:
            raise BadRecord(f"set*id call {r.call}")
        old = (None, None) if flags & _OLD_CREDS_UNKNOWN else (r.old_uid, r.old_euid)
        new = (None, None) if call == b"setfsuid" else (r.new_uid, r.new_euid)  # which changes neither
        return (self._builder.text(call), *new, *old, r.ret)

    def _cred_change(self, record: bytes, flags: int) -> Slots:
        r = layout.CredChange._make(CRED_CHANGE.unpack_from(record))
        now = layout.Task._make(TASK.unpack_from(record, HEADER.size))
        call = _CALLS.get(r.call)
        if call is None:
            raise BadRecord(f"noticed at {r.call}")
        users = now.uid, now.euid, r.old_uid, r.old_euid
        groups = now.gid, now.egid, r.old_gid, r.old_egid
        caps = now.cap_effective, now.cap_permitted, r.old_cap_effective, r.old_cap_permitted
        return (self._builder.text(call), *users, *groups, *caps)


def is_compiled() -> bool:
    """Whether records are decoded by machine code (deploy/compiled) and not by Python."""
    return not __file__.endswith(".py")
