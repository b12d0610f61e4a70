"""Where an entry begins: the process below which one login, service, cron job or container does its work.

Told apart by what can't be had without the host's init, a daemon of the system, or root: see `entry.id` in the catalogue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tracerd.processes import Process

#: Programs that begin an entry with each child: one for each login, or job. A daemon's helper processes run it too, as copies
#: made by fork, and begin none.
DAEMONS: Final = frozenset(b"sshd dropbear telnetd in.telnetd cron crond anacron atd fcron inetd xinetd".split())
#: Their children are services, also where the manager is one itself: `systemd --user`.
MANAGERS: Final = frozenset({b"systemd"})
#: Where these are believed to be what they are called.
SYSTEM_FOLDERS: Final = (b"/usr/bin/", b"/usr/sbin/", b"/usr/lib/", b"/usr/libexec/", b"/bin/", b"/sbin/", b"/lib/")
_INIT: Final = 1


def begins_at_fork(creator: Process) -> bool:
    """Whether each child of this process begins an entry."""
    if creator.pid == _INIT:
        return True
    exe = creator.exe or b""
    if not creator.own_image or not exe.startswith(SYSTEM_FOLDERS):
        return False
    name = exe.rsplit(b"/", 1)[-1]
    # sshd executes itself anew for each login: what runs below that is still the one login
    return name in MANAGERS or (name in DAEMONS and creator.entry_by != exe)


def begin(process: Process) -> None:
    """Makes the process an entry of its own."""
    process.entry = process.id
    process.entry_by = process.parent.exe if process.parent is not None else None


def inherit(process: Process) -> None:
    """Gives a process whose facts are known the entry that it began or was born in."""
    creator = process.parent
    if creator is None:
        return
    login = process.loginuid is not None and process.loginuid != creator.loginuid
    inside = process.container is not None and process.container != creator.container
    if login or inside or begins_at_fork(creator):
        begin(process)
    else:
        process.entry, process.entry_by = creator.entry, creator.entry_by
