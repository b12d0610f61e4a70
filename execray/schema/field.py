"""What the event catalogue says of one field, and the flags that say how far an event's values are whole."""

from __future__ import annotations

import enum

from execray.schema.kinds import Kind
from execray.schema.records import compared


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
    PATH_UNRESOLVED = 1 << 9  # a path put together from a directory and the caller's name: symlinks in it not resolved
    PATH_TORN = 1 << 10  # something was renamed while a path was built: it may be one that never was
    PATH_DETACHED = 1 << 11  # a path that begins at a mount in nobody's tree (unmounted, or not yet mounted)
    DELETED = 1 << 12  # the file, or the directory where its name begins, had no name any more
    IO_URING = 1 << 13  # an operation of an io_uring: what `fd` there was is unknown
    GATE_DROP = 1 << 14  # the gate is only watched (`tracerd.gate: shadow`): it would have dropped this event
    KILLED = 1 << 15  # the kernel killed the process in this call; killer_of() says for which policy


class Content(enum.IntFlag):
    """Bytes that are taken along only where somebody names them. The numbers are `enum er_content` of event.h."""

    WRITE = 1 << 0  # what is written
    READ = 1 << 1
    ENV = 1 << 2  # environments
    SPELLING = 1 << 3  # of a file whose path is known, how the caller wrote it


NO_CONTENT = Content(0)
NO_FLAG = Flag(0)
#: Above the flags of an event that KILLED stands the policy's number, as in execray.gate.inline.tag_of.
KILLER_SHIFT = 16
#: A path that was built with one of these may be another than it seems.
PATH_UNSURE = Flag.PATH_TRUNCATED | Flag.PATH_TORN | Flag.PATH_DETACHED


@compared(frozen=True, slots=True)
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
    words: tuple[str, ...] = ()  # of text: all that it may hold; empty: anything
    taken: Content = NO_CONTENT  # a secret: it is there only where it was asked for, and shown to nobody else
    asked: Content = (
        NO_CONTENT  # no secret: it is there where it was asked for, by whomever, or where `path` is missing
    )
    optional: bool = False  # not every process (or event) has it, so that a missing one is known to be missing
