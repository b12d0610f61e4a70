"""Events of processes: their life, and what one does to another or to its own rights."""

from __future__ import annotations

from typing import Final

from execray.schema.field import Field, Flag
from execray.schema.kinds import Kind
from execray.schema.row import CALL, FILE_ID, RET, EventType

_TARGET: Final = (
    Field("target.id", Kind.PROCESS, "Identity of the target's process; missing where there is no such process."),
    Field("target.tid", Kind.INT, "The thread named in the call, in the initial pid namespace."),
    Field("target.uid", Kind.INT, "The target's real user id."),
    Field(
        "target.real_parent.id",
        Kind.PROCESS,
        "The target's real parent (attaching changes `parent`, never this).",
    ),
    Field("target.exe", Kind.PATH, "The target's program."),
)
_TARGET_PID: Final = Field("target.pid", Kind.INT, "The target's process id.", ("target.tgid",), derived="target.id")

PROCESS_EVENTS: Final[tuple[EventType, ...]] = (
    EventType(
        1,
        "exec",
        "A program replaced the process's image. A failed execve is an event too, with its `ret`; `exe` then stays the caller's.",
        (
            Field(
                "filename",
                Kind.BYTES,
                "The path as it was passed to execve.",
                cut_by=Flag.RAWPATH_TRUNCATED,
                spoofable=True,
            ),
            FILE_ID,
            RET,
        ),
        calls=(
            "execve 59 11 x32=520",
            "execveat 322 358 x32=545",
        ),
        points=("tp_btf/sched_process_exec",),
        aliases=("execve",),
        ecs_action="exec",
    ),
    EventType(
        2,
        "fork",
        "A process made another. The actor is the creator, also with CLONE_PARENT.",
        (
            Field("child.id", Kind.PROCESS, "Identity of the new process."),
            Field("child.pid", Kind.INT, "Its pid.", derived="child.id"),
        ),
        points=("tp_btf/sched_process_fork",),
        ecs_action="fork",
    ),
    EventType(
        3,
        "exit",
        "The last thread of a process ended.",
        (
            Field("exit_code", Kind.INT, "Exit status, 0 to 255.", ecs="process.exit_code"),
            Field("signal", Kind.INT, "Signal that ended it, or 0.", constants="SIG"),
        ),
        points=("tp_btf/sched_process_exit",),
        ecs_action="end",
    ),
    EventType(
        8,
        "ptrace",
        "A process used ptrace on another. The target is looked up when the call returns.",
        (
            Field("request", Kind.INT, "The request.", constants="PTRACE_"),
            *_TARGET,
            RET,
            _TARGET_PID,
        ),
        calls=("ptrace 101 26 x32=521",),
        ecs_action="ptrace",
    ),
    EventType(
        9,
        "setuid",
        "A thread changed its user ids, or tried: setuid, setreuid, setresuid.",
        (
            Field("call", Kind.BYTES, "Which call: `setuid`, `setreuid` or `setresuid`."),
            Field("new.uid", Kind.INT, "Real user id after the call; where it failed, the one asked for."),
            Field("new.euid", Kind.INT, "Effective user id after the call; where it failed, the one asked for."),
            Field("old.uid", Kind.INT, "Real user id before; missing where it was not on record."),
            Field("old.euid", Kind.INT, "Effective user id before; missing where it was not on record."),
            RET,
        ),
        calls=(
            "setuid 105 23,213",
            "setreuid 113 70,203",
            "setresuid 117 164,208",
        ),
        aliases=("setreuid", "setresuid"),
        ecs_category="iam",
        ecs_action="setuid",
    ),
    EventType(
        32,
        "procmem",
        "A process wrote into another's memory, or tried: process_vm_writev, or a write to /proc/PID/mem.",
        (
            CALL,
            Field(
                "len",
                Kind.INT,
                "Bytes asked to be written; of one that takes several pieces, their number.",
                ("length",),
            ),
            *_TARGET,
            RET,
            _TARGET_PID,
        ),
        calls=(
            "process_vm_writev 311 348 x32=540",
            "write 1 4 fd",
            "writev 20 146 fd x32=516",
            "pwrite64 18 181 fd",
            "pwritev 296 334 fd x32=535",
            "pwritev2 328 379 fd x32=547",
        ),
        ecs_action="procmem",
    ),
    EventType(
        33,
        "capset",
        "A thread set its capabilities, or tried.",
        (
            Field("caps.new", Kind.BITS, "Its effective capabilities after the call.", constants="CAP_"),
            Field("caps.new_permitted", Kind.BITS, "Its permitted capabilities after the call.", constants="CAP_"),
            RET,
        ),
        calls=("capset 126 185 caps.new:q caps.new_permitted:q",),
        ecs_category="iam",
        ecs_action="capset",
    ),
    EventType(
        37,
        "kill",
        "A process sent a signal to another, to itself, or to a group, or tried.",
        (
            Field("sig", Kind.INT, "The signal; 0 only asks whether it may.", constants="SIG"),
            Field(
                "target.nr", Kind.INT, "The number as passed, in the caller's pid namespace; 0 or less: a group or all."
            ),
            *_TARGET,
            RET,
            _TARGET_PID,
        ),
        calls=(
            "kill 62 37",
            "tkill 200 238",
            "tgkill 234 270",
            "rt_sigqueueinfo 129 178 x32=524",
            "rt_tgsigqueueinfo 297 335 x32=536",
            "pidfd_send_signal 424 424 fd",
        ),
        ecs_action="kill",
    ),
    EventType(
        48,
        "setgid",
        "A thread changed its group ids, or tried. After the call they are the actor's `gid` and `egid`.",
        (
            CALL,
            Field("new.gid", Kind.INT, "The real group id asked for; missing where it stays."),
            Field("new.egid", Kind.INT, "The effective group id asked for; missing where it stays."),
            RET,
        ),
        calls=(
            "setgid 106 214 new.gid:m new.egid=none",
            "setregid 114 204 new.gid:m new.egid:m",
            "setresgid 119 210 new.gid:m new.egid:m",
            "setgid16 - 46 new.gid:h new.egid=none",
            "setregid16 - 71 new.gid:h new.egid:h",
            "setresgid16 - 170 new.gid:h new.egid:h",
        ),
        aliases=("setregid", "setresgid"),
        ecs_category="iam",
        ecs_action="setgid",
    ),
)
