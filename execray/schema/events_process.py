"""Events of processes: their life, and what one does to another or to its own rights."""

from __future__ import annotations

from typing import Final

from execray.schema.field import Field, Flag
from execray.schema.kinds import Kind
from execray.schema.row import FILE_ID, RET, EventType

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
            RET,
            Field("target.pid", Kind.INT, "The target's process id.", ("target.tgid",), derived="target.id"),
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
)
