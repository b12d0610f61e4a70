"""Where an entry begins: the process below which one login, service, cron job or container does its work.

Told apart by what can't be had without the host's init, a daemon of the system, or root: see `entry.id` in the catalogue.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from execray.schema.event import ProcessId
    from tracerd.processes import Process

#: The words of `entry.kind`.
SSH, TELNET, LOGIN, CRON, INETD, SERVICE, CONTAINER = b"ssh telnet login cron inetd service container".split()
#: Programs that begin an entry with each child: one for each login, or job. A daemon's helper processes run it too, as copies
#: made by fork, and begin none.
DAEMONS: Final = {
    **dict.fromkeys((b"sshd", b"dropbear"), SSH),
    **dict.fromkeys((b"telnetd", b"in.telnetd"), TELNET),
    **dict.fromkeys((b"cron", b"crond", b"anacron", b"atd", b"fcron"), CRON),
    **dict.fromkeys((b"inetd", b"xinetd"), INETD),
}
#: Their children are services, also where the manager is one itself: `systemd --user`.
MANAGERS: Final = frozenset({b"systemd"})
#: Where these are believed to be what they are called.
SYSTEM_FOLDERS: Final = (b"/usr/bin/", b"/usr/sbin/", b"/usr/lib/", b"/usr/libexec/", b"/bin/", b"/sbin/", b"/lib/")
_INIT: Final = 1
#: What stays what it is when a login uid is set in it: that is part of such a login, or job.
_SETS_LOGIN: Final = frozenset({SSH, TELNET, CRON, INETD})


class Leader:
    """Who leads a session, a process group or an entry. Not the process itself: its members must not keep its line alive."""

    __slots__ = ("exe", "id")

    def __init__(self, ident: ProcessId, exe: bytes | None) -> None:
        self.id = ident
        self.exe = exe  # what it runs, or ran at its end


class Entry:
    """One entry, shared by all that are in it."""

    __slots__ = ("by", "kind", "leader")

    def __init__(self, leader: Leader, kind: bytes, by: bytes | None) -> None:
        self.leader: Final = leader
        self.kind: Final = kind
        self.by: Final = by  # the program whose child began it


def kind_of_child(creator: Process) -> bytes | None:
    """Returns the kind of entry that each child of this process begins; None where they begin none."""
    if creator.pid == _INIT:
        return SERVICE
    if not creator.own_image or creator.exe is None:
        return None
    kind = _kind_by_program(creator.exe)
    # sshd executes itself anew for each login: what runs below that is still the one login
    again = kind is not SERVICE and creator.entered is not None and creator.entered.by == creator.exe
    return None if again else kind


@lru_cache(maxsize=1024)
def _kind_by_program(exe: bytes) -> bytes | None:
    if not exe.startswith(SYSTEM_FOLDERS):
        return None
    name = exe.rsplit(b"/", 1)[-1]
    return SERVICE if name in MANAGERS else DAEMONS.get(name)


def begin(process: Process, kind: bytes) -> None:
    """Makes the process an entry of its own."""
    process.entered = Entry(process.lead(), kind, process.parent.exe if process.parent is not None else None)


def log_in(process: Process) -> None:
    """The process got another login uid than its creator has: a login begins, or goes on."""
    known = process.entered.kind if process.entered is not None else LOGIN
    begin(process, known if known in _SETS_LOGIN else LOGIN)


def inherit(process: Process) -> None:
    """Gives a process whose facts are known the entry that it began or was born in."""
    creator = process.parent
    if creator is None:
        return
    process.entered = creator.entered
    if process.container is not None and process.container != creator.container:
        begin(process, CONTAINER)
        return
    if (kind := kind_of_child(creator)) is not None:
        begin(process, kind)
    if process.loginuid is not None and process.loginuid != creator.loginuid:
        log_in(process)
