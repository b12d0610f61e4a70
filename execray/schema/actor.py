"""The actor's fields: what every event says of the process that did it, as it was at that moment."""

from __future__ import annotations

from execray.schema.field import PATH_UNSURE, Field, Flag
from execray.schema.kinds import Kind

#: What every event has that is neither the event's own nor its actor's alone.
HEAD_FIELDS: tuple[Field, ...] = (
    Field("tid", Kind.INT, "The acting thread.", ecs="process.thread.id"),
    Field(
        "proc.age",
        Kind.DURATION,
        "How long the process had been there: the event's time less the process's start, which an exec doesn't change. Of"
        " creators (`parent.proc.age`, `ancestor[N].proc.age`) how long ago they began, whether they are still there or not; an"
        " ancestor as an element (`it`) has none.",
    ),
)

ACTOR_FIELDS: tuple[Field, ...] = (
    Field("proc.id", Kind.PROCESS, "Identity of the process: pid and start time.", ecs="process.entity_id"),
    Field("uid", Kind.INT, "Real user id of the acting thread.", ecs="process.real_user.id"),
    Field("euid", Kind.INT, "Effective user id.", ecs="process.user.id"),
    Field("suid", Kind.INT, "Saved user id.", ecs="process.saved_user.id"),
    Field("fsuid", Kind.INT, "User id for file access; of an open by io_uring the one that it was done with."),
    Field("gid", Kind.INT, "Real group id.", ecs="process.real_group.id"),
    Field("egid", Kind.INT, "Effective group id.", ecs="process.group.id"),
    Field("sgid", Kind.INT, "Saved group id.", ecs="process.saved_group.id"),
    Field("fsgid", Kind.INT, "Group id for file access."),
    Field(
        "caps.effective",
        Kind.BITS,
        "Capabilities of the acting thread that count, within its user namespace.",
        constants="CAP_",
        ecs="process.thread.capabilities.effective",
    ),
    Field(
        "caps.permitted",
        Kind.BITS,
        "Capabilities that it may make effective.",
        constants="CAP_",
        ecs="process.thread.capabilities.permitted",
    ),
    Field("cgroup.id", Kind.INT, "Id of the process's cgroup (v2 hierarchy)."),
    Field("comm", Kind.BYTES, "The acting thread's name, at most 15 bytes.", ecs="process.thread.name", spoofable=True),
    Field(
        "exe",
        Kind.PATH,
        "Resolved path of the running program.",
        ecs="process.executable",
        cut_by=PATH_UNSURE,
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
        "container.privileged",
        Kind.BOOL,
        "The program was started with CAP_SYS_ADMIN, CAP_SYS_MODULE and CAP_SYS_RAWIO all within its reach, in the host's user"
        " namespace: what `--privileged` and `--cap-add=ALL` give, also with other capabilities dropped. Told by the capability"
        " bounding set, which nobody can widen again, so of an unprivileged user in such a container, too. Missing outside"
        " containers.",
        optional=True,
    ),
    Field(
        "session.id",
        Kind.PROCESS,
        "The session: its leader's identity, also when the leader is gone (start time 0 where it was gone before tracerd"
        " came). Missing for kernel threads.",
        ("session.leader.id",),
        ecs="process.session_leader.entity_id",
        optional=True,
    ),
    Field(
        "session.leader.exe",
        Kind.PATH,
        "The program that the session's leader runs, or ran at its end. Missing where the leader was gone before"
        " tracerd came.",
        ecs="process.session_leader.executable",
        optional=True,
    ),
    Field(
        "pgrp.id",
        Kind.PROCESS,
        "The process group, a shell's job: its leader's identity, as for `session.id`.",
        ("pgrp.leader.id",),
        ecs="process.group_leader.entity_id",
        optional=True,
    ),
    Field(
        "pgrp.leader.exe",
        Kind.PATH,
        "The same of the process group.",
        ecs="process.group_leader.executable",
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
        "entry.exe",
        Kind.PATH,
        "The program that the entry's process runs, or ran at its end: a service's own, a job's or login's shell or the daemon"
        " that waits for it. Missing as `entry.id` is.",
        ecs="process.entry_leader.executable",
        optional=True,
    ),
    Field(
        "entry.kind",
        Kind.BYTES,
        "What it began with: `container`, by (4); `ssh`, `telnet`, `cron` (at jobs too) or `inetd`, by (2), with all logins below"
        " it by (3); `login`, by (3) elsewhere, as at a console; else `service`. Missing as `entry.id`"
        " is.",
        ecs="process.entry_leader.entry_meta.type",
        words=("container", "ssh", "telnet", "cron", "inetd", "login", "service"),
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
    Field(
        "user.name",
        Kind.BYTES,
        "The name that the host's /etc/passwd has for `user.id`. Missing where it has none: users of other sources (LDAP, sssd,"
        " systemd-homed) have only their number.",
        ecs="user.name",
        optional=True,
    ),
    Field("tty.nr", Kind.INT, "Controlling terminal, as field 7 of /proc/PID/stat; 0 without one."),
    Field("ns.pid", Kind.INT, "Inode number of the pid namespace, as in /proc/PID/ns."),
    Field("ns.mnt", Kind.INT, "The same of the mount namespace."),
    Field("ns.net", Kind.INT, "The same of the network namespace."),
    Field("ns.user", Kind.INT, "The same of the user namespace."),
    Field(
        "ns_pid",
        Kind.INT,
        "The process's id in its own pid namespace, as it knows itself; outside of such namespaces the same as `pid`.",
    ),
    Field(
        "interactive",
        Kind.BOOL,
        "When it began to run its program it had a controlling terminal, which was its standard input and its standard error."
        " Descriptors that it opened or moved later aren't looked at.",
        ecs="process.interactive",
    ),
    Field("tty.present", Kind.BOOL, "Whether there is a controlling terminal.", derived="tty.nr"),
    Field("pid", Kind.INT, "Process id (the kernel's tgid).", ecs="process.pid", derived="proc.id"),
    Field("name", Kind.BYTES, "Last component of `exe`.", ecs="process.name", derived="exe", cut_by=PATH_UNSURE),
    Field(
        "session.leader.pid",
        Kind.INT,
        "Process id of the session's leader.",
        ecs="process.session_leader.pid",
        derived="session.id",
        optional=True,
    ),
    Field(
        "session.leader.name",
        Kind.BYTES,
        "Last component of `session.leader.exe`.",
        ecs="process.session_leader.name",
        derived="session.leader.exe",
        optional=True,
    ),
    Field(
        "pgrp.leader.pid",
        Kind.INT,
        "Process id of the process group's leader: what kill(2) takes for the group.",
        ecs="process.group_leader.pid",
        derived="pgrp.id",
        optional=True,
    ),
    Field(
        "pgrp.leader.name",
        Kind.BYTES,
        "Last component of `pgrp.leader.exe`.",
        ecs="process.group_leader.name",
        derived="pgrp.leader.exe",
        optional=True,
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
