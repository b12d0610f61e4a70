"""Events of processes: their life, and what one does to another or to its own rights."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from execray.schema.field import Content, Field, Flag
from execray.schema.kinds import Kind
from execray.schema.row import CALL, FILE_ID, FSPATH, RET, TARGET_PID, EventType

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
            replace(FILE_ID, aliases=("exe.file.id",)),
            FSPATH,
            Field("prev.exe", Kind.PATH, "The program that the process ran before; the same where the call failed."),
            Field(
                "exe.file.uid",
                Kind.INT,
                "Who owns the program's file. Missing where the call failed, as the next five.",
            ),
            Field("exe.file.mode", Kind.BITS, "Its permission bits.", constants="S_"),
            Field(
                "exe.file.mtime_age",
                Kind.DURATION,
                "How long before its content was changed last; negative where that lies ahead. Whoever owns the file can set it"
                " to any time.",
                spoofable=True,
            ),
            Field(
                "exe.file.ctime_age",
                Kind.DURATION,
                "The same of its content, owner, mode or names: a time that no call sets but to the present.",
            ),
            Field(
                "exe.overlay_upper",
                Kind.BOOL,
                "It lies in the upper layer of an overlay: in a container, what isn't from its image, or was changed since.",
            ),
            Field(
                "interp",
                Kind.BYTES,
                "Of a script, or what binfmt_misc has an interpreter for, that interpreter's name; `exe` is its path. Missing"
                " for other programs. A name of more than 255 bytes is cut.",
                cut_by=Flag.RAWPATH_TRUNCATED,
                optional=True,
            ),
            Field(
                "env",
                Kind.TEXTS,
                "The new program's environment, each entry as `NAME=value`, taken only where a policy names it. It shares 16 KiB"
                " with the arguments, which come first; 256 entries at most.",
                ecs="process.env_vars",
                cut_by=Flag.CONTENT_TRUNCATED,
                spoofable=True,
                taken=Content.ENV,
            ),
            RET,
            Field(
                "exe.suid",
                Kind.BOOL,
                "It has a set-user-id or set-group-id bit, whether that was heeded or not.",
                derived="exe.file.mode",
            ),
            Field("exe.memfd", Kind.BOOL, "The program that runs now has no file: it is a memfd.", derived="exe"),
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
            Field(
                "clone_flags",
                Kind.BITS,
                "What the two share, and what is the child's own, by what the kernel has made: CLONE_VM, _FS, _FILES, _SIGHAND,"
                " _PARENT, and _NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET. Other flags leave nothing to be"
                " seen.",
                constants="CLONE_",
            ),
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
            TARGET_PID,
        ),
        calls=("ptrace 101 26 x32=521",),
        ecs_action="ptrace",
    ),
    EventType(
        9,
        "setuid",
        "A thread changed its user ids, or tried: setuid, setreuid, setresuid; or by setfsuid the one for files, after the call"
        " the actor's `fsuid`.",
        (
            Field("call", Kind.BYTES, "Which call: `setuid`, `setreuid`, `setresuid` or `setfsuid`."),
            Field(
                "new.uid",
                Kind.INT,
                "Real user id after the call; where it failed, the one asked for. Missing for setfsuid, as is `new.euid`.",
            ),
            Field("new.euid", Kind.INT, "Effective user id after the call; where it failed, the one asked for."),
            Field("old.uid", Kind.INT, "Real user id before; missing where it was not on record."),
            Field("old.euid", Kind.INT, "Effective user id before; missing where it was not on record."),
            RET,
        ),
        calls=(
            "setuid 105 23,213",
            "setreuid 113 70,203",
            "setresuid 117 164,208",
            "setfsuid 122 138,215",
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
            TARGET_PID,
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
            Field(
                "caps.old",
                Kind.BITS,
                "The effective ones that it had last got before; missing where that was not on record.",
                constants="CAP_",
            ),
            Field("caps.old_permitted", Kind.BITS, "The same of the permitted ones.", constants="CAP_"),
            RET,
        ),
        calls=("capset 126 185 caps.new:q caps.new_permitted:q caps.old:l caps.old_permitted:l",),
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
            TARGET_PID,
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
        "A thread changed its group ids, or tried. After the call they are the actor's `gid`, `egid` and `fsgid`. By setgroups it"
        " changed those beside them, which no field has.",
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
            "setfsgid 123 139,216 new.gid=none new.egid=none",
            "setgroups 116 81,206 new.gid=none new.egid=none",
        ),
        aliases=("setregid", "setresgid"),
        ecs_category="iam",
        ecs_action="setgid",
    ),
    EventType(
        53,
        "setsid",
        "A process began a session, or put one into a process group, or tried. After the call they are the actor's `session.id`"
        " and `pgrp.id`.",
        (
            CALL,
            Field(
                "target.nr", Kind.INT, "By setpgid: the process as passed, in the caller's pid namespace; 0: itself."
            ),
            Field("pgid", Kind.INT, "By setpgid: the group as passed; 0: one of its own."),
            RET,
        ),
        calls=("setpgid 109 57 target.nr pgid", "setsid 112 66 target.nr=none pgid=none"),
        aliases=("setpgid",),
        ecs_category="session",
        ecs_action="setsid",
    ),
    EventType(
        54,
        "procread",
        "A process read another's memory, or tried: process_vm_readv, or a read of /proc/PID/mem.",
        (
            CALL,
            Field(
                "len", Kind.INT, "Bytes asked to be read; of one that takes several pieces, their number.", ("length",)
            ),
            *_TARGET,
            RET,
            TARGET_PID,
        ),
        calls=(
            "process_vm_readv 310 347 x32=539",
            "read 0 3 fd",
            "readv 19 145 fd x32=515",
            "pread64 17 180 fd",
            "preadv 295 333 fd x32=534",
            "preadv2 327 378 fd x32=546",
        ),
        ecs_action="procread",
    ),
    EventType(
        56,
        "cred_change",
        "A thread has other user or group ids or other capabilities than it last got, although no call, exec or birth gave it"
        " those: what an exploit of the kernel leaves behind. Looked for when a thread asks for its ids or capabilities, makes a"
        " thread or process, or executes a program that gives it none (there not capabilities, which follow from the ids); told"
        " once. A set*id call that was lost looks the same.",
        (
            Field(
                "call",
                Kind.BYTES,
                "Where it was noticed.",
                words=("getuid", "geteuid", "getresuid", "getgid", "getegid", "getresgid", "capget", "exec", "fork"),
            ),
            Field("new.uid", Kind.INT, "Real user id now."),
            Field("new.euid", Kind.INT, "Effective user id now."),
            Field("old.uid", Kind.INT, "Real user id that it last got."),
            Field("old.euid", Kind.INT, "Effective user id that it last got."),
            Field("new.gid", Kind.INT, "The same of group ids."),
            Field("new.egid", Kind.INT, "The same."),
            Field("old.gid", Kind.INT, "The same."),
            Field("old.egid", Kind.INT, "The same."),
            Field("caps.new", Kind.BITS, "The same of capabilities: effective ones now.", constants="CAP_"),
            Field("caps.new_permitted", Kind.BITS, "Permitted ones now.", constants="CAP_"),
            Field("caps.old", Kind.BITS, "Effective ones that it last got.", constants="CAP_"),
            Field("caps.old_permitted", Kind.BITS, "Permitted ones that it last got.", constants="CAP_"),
        ),
        calls=(
            "getuid 102 24,199",
            "geteuid 107 49,201",
            "getresuid 118 165,209",
            "getgid 104 47,200",
            "getegid 108 50,202",
            "getresgid 120 171,211",
            "capget 125 184",
        ),
        points=("tp_btf/sched_process_exec", "tp_btf/sched_process_fork"),
        ecs_category="iam",
        ecs_action="cred_change",
    ),
)
