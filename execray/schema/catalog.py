"""The one table of events: what a policy may name, what the stream carries, what the reference page lists.

Adding an event is one row here, one record in bpf/include/execray/event.h with its handler, and one kernel test.

An event's *slots* are its fields that aren't derived, in the order of the row: that is the order in which a batch carries
them (execray.wire.frames). Derived fields are computed from slots by `execray.schema.derive`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from execray.schema.kinds import Kind

#: Raised with every change of a row's slots or of their meaning; both ends of the stream must agree on it.
CATALOG_VERSION = 2


class Flag(enum.IntFlag):
    """Facts about one event's capture. The numbers are `enum er_flag` of event.h."""

    PATH_TRUNCATED = (
        1 << 0
    )  # a resolved path longer than the buffer or deeper than the walk: `path`/`exe` is cut in front
    ARGV_TRUNCATED = 1 << 1
    CONTENT_TRUNCATED = 1 << 2  # content longer than the capture limit
    RAWPATH_TRUNCATED = 1 << 3
    UNREADABLE = 1 << 4  # the caller's memory could not be read: the value is unknown, not absent
    COMPAT_ABI = 1 << 5  # 32-bit entry point
    HEARTBEAT = 1 << 6  # ExecRay's own liveness probe; never leaves tracerd
    OLD_CREDS_UNKNOWN = 1 << 7  # the ids before a set*id call were not on record
    CWD_TRUNCATED = 1 << 8  # a working directory longer than the buffer or deeper than the walk: `cwd` is cut in front


NO_FLAG = Flag(0)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an event or of its actor, as policies name it."""

    name: str
    kind: Kind
    doc: str
    aliases: tuple[str, ...] = ()
    unit: str = ""
    constants: str = ""  # a family of execray.schema.kinds.CONSTANTS
    ecs: str = ""  # Elastic Common Schema name
    derived: str = ""  # the slot it is computed from; empty: it is a slot itself
    cut_by: Flag = NO_FLAG  # an event with one of these flags holds only part of the value
    spoofable: bool = False  # the watched process can forge it
    optional: bool = False  # of an actor's: not every process has it, so that a missing one is known to be missing


@dataclass(frozen=True)
class EventType:
    """One kind of event."""

    code: int  # `enum er_event` of event.h, and the first element of an event on the stream
    name: str
    doc: str
    hooks: tuple[str, ...]
    fields: tuple[Field, ...]
    aliases: tuple[str, ...] = ()
    fact: bool = True  # seen when it had happened, with its result; False: only an attempt
    ecs_category: str = "process"
    ecs_action: str = ""

    @cached_property
    def slots(self) -> tuple[Field, ...]:
        """The fields a batch carries, in order."""
        return tuple(field for field in self.fields if not field.derived)

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """Own and actor fields by name and alias. Own fields never reuse the name of an actor field."""
        return {name: field for field in (*self.fields, *ACTOR_FIELDS) for name in (field.name, *field.aliases)}

    @cached_property
    def slot_of(self) -> dict[str, int]:
        """Index of each slot by canonical name."""
        return {field.name: index for index, field in enumerate(self.slots)}


_RET = Field("ret", Kind.INT, "Result: a value >= 0, or the negated error number.", constants="E")
_RAWPATH = Field(
    "rawpath",
    Kind.BYTES,
    "The path as the caller wrote it; not resolved. Read when the call returns.",
    cut_by=Flag.RAWPATH_TRUNCATED,
    spoofable=True,
)


def _path(doc: str) -> Field:
    return Field("path", Kind.PATH, doc, ("pathname",), ecs="file.path", cut_by=Flag.PATH_TRUNCATED)


_FILE_ID = Field(
    "file.id", Kind.BYTES, "The kernel's (device, inode) of the file, as `MAJOR:MINOR:INODE`.", ecs="file.inode"
)

#: What every event says of the process that did it, "the actor", as it was at that moment.
ACTOR_FIELDS: tuple[Field, ...] = (
    Field("proc.id", Kind.PROCESS, "Identity of the process: pid and start time.", ecs="process.entity_id"),
    Field("uid", Kind.INT, "Real user id of the acting thread.", ecs="process.real_user.id"),
    Field("euid", Kind.INT, "Effective user id.", ecs="process.user.id"),
    Field("suid", Kind.INT, "Saved user id.", ecs="process.saved_user.id"),
    Field("gid", Kind.INT, "Real group id.", ecs="process.real_group.id"),
    Field("egid", Kind.INT, "Effective group id.", ecs="process.group.id"),
    Field("cgroup.id", Kind.INT, "Id of the process's cgroup (v2 hierarchy)."),
    Field("comm", Kind.BYTES, "The acting thread's name, at most 15 bytes.", ecs="process.thread.name", spoofable=True),
    Field(
        "exe",
        Kind.PATH,
        "Resolved path of the running program.",
        ecs="process.executable",
        cut_by=Flag.PATH_TRUNCATED,
    ),
    Field(
        "argv",
        Kind.TEXTS,
        "Arguments the program was started with.",
        ecs="process.args",
        cut_by=Flag.ARGV_TRUNCATED,
        spoofable=True,
    ),
    Field(
        "cwd",
        Kind.PATH,
        "Working directory when the process began to run its program; a later chdir isn't followed.",
        ecs="process.working_directory",
        cut_by=Flag.CWD_TRUNCATED,
    ),
    Field(
        "container.id",
        Kind.BYTES,
        "The innermost container: the 64 digits that Docker, containerd, Podman or CRI-O gave it, or a systemd-nspawn"
        " machine's name, by the process's cgroup. Missing outside containers.",
        ecs="container.id",
        optional=True,
    ),
    Field(
        "session.id",
        Kind.PROCESS,
        "The session: its leader's identity, also when the leader is gone (start time 0 where it was gone before tracerd"
        " came). Missing for kernel threads.",
        ecs="process.session_leader.entity_id",
        optional=True,
    ),
    Field(
        "pgrp.id",
        Kind.PROCESS,
        "The process group, a shell's job: its leader's identity, as for `session.id`.",
        ecs="process.group_leader.entity_id",
        optional=True,
    ),
    Field(
        "entry.id",
        Kind.PROCESS,
        "The process below which one login, service, cron job or container does its work. It is the nearest in the"
        " creators' line, the process itself included, that is (1) made by the host's init or by systemd, or (2) made by"
        " sshd, dropbear, telnetd, cron, crond, anacron, atd, fcron, inetd or xinetd, or (3) the first with another login"
        " uid than its creator, or (4) the first in another container. setsid and re-parenting change nothing. Programs"
        " count in system folders only; of processes from before tracerd, who adopted one counts as its creator. Missing"
        " for init and kernel threads.",
        ecs="process.entry_leader.entity_id",
        optional=True,
    ),
    Field(
        "loginuid",
        Kind.INT,
        "Login user id: set at login, kept through su and sudo. Missing where unset.",
        optional=True,
    ),
    Field(
        "user.id", Kind.INT, "The user who is behind it: `loginuid`, or where that is missing, `uid`.", ecs="user.id"
    ),
    Field("tty.nr", Kind.INT, "Controlling terminal, as field 7 of /proc/PID/stat; 0 without one."),
    Field("ns.pid", Kind.INT, "Inode number of the pid namespace, as in /proc/PID/ns."),
    Field("ns.mnt", Kind.INT, "The same of the mount namespace."),
    Field("ns.net", Kind.INT, "The same of the network namespace."),
    Field("ns.user", Kind.INT, "The same of the user namespace."),
    Field("tty.present", Kind.BOOL, "Whether there is a controlling terminal.", derived="tty.nr"),
    Field("pid", Kind.INT, "Process id (the kernel's tgid).", ecs="process.pid", derived="proc.id"),
    Field(
        "name", Kind.BYTES, "Last component of `exe`.", ecs="process.name", derived="exe", cut_by=Flag.PATH_TRUNCATED
    ),
    Field("argc", Kind.INT, "Number of arguments.", ecs="process.args_count", derived="argv"),
    Field(
        "cmdline",
        Kind.BYTES,
        "The arguments joined by one space.",
        ecs="process.command_line",
        derived="argv",
        cut_by=Flag.ARGV_TRUNCATED,
        spoofable=True,
    ),
)

ACTOR_SLOTS: tuple[Field, ...] = tuple(field for field in ACTOR_FIELDS if not field.derived)

EVENTS: tuple[EventType, ...] = (
    EventType(
        1,
        "exec",
        "A program replaced the process's image. A failed execve is an event too, with its `ret`; `exe` then stays the caller's.",
        ("tp_btf/sched_process_exec", "tp_btf/sys_exit: execve, execveat (failed calls)"),
        (
            Field(
                "filename",
                Kind.BYTES,
                "The path as it was passed to execve.",
                cut_by=Flag.RAWPATH_TRUNCATED,
                spoofable=True,
            ),
            _FILE_ID,
            _RET,
        ),
        aliases=("execve",),
        ecs_action="exec",
    ),
    EventType(
        2,
        "fork",
        "A process made another. The actor is the creator, also with CLONE_PARENT.",
        ("tp_btf/sched_process_fork",),
        (
            Field("child.id", Kind.PROCESS, "Identity of the new process."),
            Field("child.pid", Kind.INT, "Its pid.", derived="child.id"),
        ),
        ecs_action="fork",
    ),
    EventType(
        3,
        "exit",
        "The last thread of a process ended.",
        ("tp_btf/sched_process_exit",),
        (
            Field("exit_code", Kind.INT, "Exit status, 0 to 255.", ecs="process.exit_code"),
            Field("signal", Kind.INT, "Signal that ended it, or 0.", constants="SIG"),
        ),
        ecs_action="end",
    ),
    EventType(
        4,
        "open",
        "A file was opened, or that was tried: open, openat, openat2, creat, and their 32-bit forms.",
        ("tp_btf/sys_exit: open, openat, openat2, creat",),
        (
            _path("The path that the kernel used, from the mount namespace's root. Missing when the call failed."),
            _RAWPATH,
            Field("flags", Kind.BITS, "Open flags as passed.", constants="O_"),
            Field("mode", Kind.BITS, "Permission bits as passed with O_CREAT.", constants="S_"),
            Field("created", Kind.BOOL, "The call made the file."),
            _FILE_ID,
            _RET,
            Field(
                "access",
                Kind.BITS,
                "READ, WRITE or both, as the flags ask (O_RDONLY is 0, so a bit test on flags can't see it).",
                constants="ACCESS_",
                derived="flags",
            ),
        ),
        aliases=("openat",),
        ecs_category="file",
        ecs_action="open",
    ),
    EventType(
        5,
        "write",
        "Bytes were written to a descriptor: write, writev, pwrite64, pwritev, sendto, sendmsg, and sendfile, splice and "
        "copy_file_range, whose content nobody has in hand; and their 32-bit forms.",
        (
            "tp_btf/sys_exit: write, writev, pwrite64, pwritev, pwritev2, sendto, sendmsg, sendfile, splice, copy_file_range",
        ),
        (
            Field("fd", Kind.INT, "The descriptor."),
            _path("What the descriptor refers to: a path, or `socket:`, `pipe:` and the like."),
            Field(
                "content",
                Kind.BYTES,
                "The first 256 bytes, taken only where a policy names them. Another thread can change them meanwhile.",
                ("buf",),
                cut_by=Flag.CONTENT_TRUNCATED,
                spoofable=True,
            ),
            Field("len", Kind.INT, "Bytes asked to be written.", ("length",), unit="bytes"),
            _RET,
        ),
        ecs_category="file",
        ecs_action="write",
    ),
    EventType(
        6,
        "chmod",
        "A file's permission bits were changed: chmod, fchmod, fchmodat, fchmodat2.",
        ("tp_btf/sys_exit: chmod, fchmod, fchmodat, fchmodat2",),
        (
            _path("The file; known only for fchmod. By name, see `rawpath`."),
            _RAWPATH,
            Field("mode", Kind.BITS, "The new bits.", constants="S_"),
            _RET,
        ),
        ecs_category="file",
        ecs_action="chmod",
    ),
    EventType(
        7,
        "connect",
        "A socket was connected, or that was tried.",
        ("tp_btf/sys_exit: connect, socketcall",),
        (
            Field("fd", Kind.INT, "The socket's descriptor."),
            Field("family", Kind.INT, "Address family.", constants="AF_", ecs="network.type"),
            Field(
                "dst.ip",
                Kind.IP,
                "Destination address; the socket's own record where the call succeeded.",
                ecs="destination.ip",
            ),
            Field("dst.port", Kind.INT, "Destination port.", ecs="destination.port"),
            Field("src.ip", Kind.IP, "Local address, once known.", ecs="source.ip"),
            Field("src.port", Kind.INT, "Local port, once known.", ecs="source.port"),
            Field(
                "path",
                Kind.BYTES,
                "For AF_UNIX: the address as passed; an abstract one begins with a NUL.",
                ("pathname",),
            ),
            _RET,
        ),
        ecs_category="network",
        ecs_action="connection_attempted",
    ),
    EventType(
        8,
        "ptrace",
        "A process used ptrace on another. The target is looked up when the call returns.",
        ("tp_btf/sys_exit: ptrace",),
        (
            Field("request", Kind.INT, "The request.", constants="PTRACE_"),
            Field(
                "target.id", Kind.PROCESS, "Identity of the target's process; missing where there is no such process."
            ),
            Field("target.tid", Kind.INT, "The thread named in the call, in the initial pid namespace."),
            Field("target.uid", Kind.INT, "The target's real user id."),
            Field(
                "target.real_parent.id",
                Kind.PROCESS,
                "The target's real parent (attaching changes `parent`, never this).",
            ),
            Field("target.exe", Kind.PATH, "The target's program."),
            _RET,
            Field("target.pid", Kind.INT, "The target's process id.", ("target.tgid",), derived="target.id"),
        ),
        ecs_action="ptrace",
    ),
    EventType(
        9,
        "setuid",
        "A thread changed its user ids, or tried: setuid, setreuid, setresuid.",
        ("tp_btf/sys_exit: setuid, setreuid, setresuid",),
        (
            Field("call", Kind.BYTES, "Which call: `setuid`, `setreuid` or `setresuid`."),
            Field("new.uid", Kind.INT, "Real user id after the call; where it failed, the one asked for."),
            Field("new.euid", Kind.INT, "Effective user id after the call; where it failed, the one asked for."),
            Field("old.uid", Kind.INT, "Real user id before; missing where it was not on record."),
            Field("old.euid", Kind.INT, "Effective user id before; missing where it was not on record."),
            _RET,
        ),
        aliases=("setreuid", "setresuid"),
        ecs_category="iam",
        ecs_action="setuid",
    ),
)

#: Code 0 on the stream: (0, time_ns, where, count, since_ns). Not an event a policy can name.
LOST = 0

EVENT_BY_NAME: dict[str, EventType] = {name: event for event in EVENTS for name in (event.name, *event.aliases)}
EVENT_BY_CODE: dict[int, EventType] = {event.code: event for event in EVENTS}
ACTOR_SLOT_OF: dict[str, int] = {field.name: index for index, field in enumerate(ACTOR_SLOTS)}
ACTOR_FIELD_BY_NAME: dict[str, Field] = {name: field for field in ACTOR_FIELDS for name in (field.name, *field.aliases)}


def all_fields() -> Iterator[tuple[EventType | None, Field]]:
    """Yields every field: the actor's with None, then each event's own."""
    for field in ACTOR_FIELDS:
        yield None, field
    for event in EVENTS:
        for field in event.fields:
            yield event, field
