"""The recorded hour of ordinary work (tests/data/ordinary) as records of the ring, for what a host's mix costs to decode.

Made back from the events, for the kinds below; the few of others (set*id calls, ptrace) are left out. What repeats in an hour is
left out of the recording too, so there are more files and programs among its events than a host has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from pathlib import Path
from typing import Final, TypeAlias

from execray.eventfile import EventReader, open_events
from execray.schema.event import Event, Value
from execray.schema.layout import (
    CONNECT,
    ER_EVENT,
    EXEC,
    EXIT,
    FILE,
    FORK,
    HEADER,
    PLAIN,
    TASK,
    Connect,
    Exec,
    Exit,
    File,
    Fork,
    Header,
    Plain,
    Task,
)
from execray.schema.records import compared

RECORDING: Final = Path("tests/data/ordinary/work.jsonl.zst")
MOST: Final = 12_000  # more take long to make
_CREATED: Final = 0x100000
_FCHMODAT: Final = 268
_REGULAR: Final = 0o100644
_UNSET: Final = 0xFFFFFFFF
#: The form of a record's own part, with room for what comes before it.
_Body: TypeAlias = tuple[bytes, bytes]


@compared(frozen=True, slots=True)
class _File:
    """A file's identity, and its path in the record's form: the path, what is in its own mount, and what stands before that."""

    dev: int
    ino: int
    generation: int
    path: bytes
    own_len: int
    below: bytes


def records(most: int = MOST) -> list[bytes]:
    """Returns the first records of the hour, in order."""
    return list(islice(_records(), most))


def _records() -> Iterator[bytes]:
    with open_events(RECORDING) as lines:
        for batch in EventReader(lines, RECORDING.name).batches():
            for index in range(len(batch.events)):
                event = batch.event(index)
                make = _MAKERS.get(event.type.name)
                if make is not None:
                    yield _whole(event, *make(event))


def _whole(event: Event, fixed: bytes, tail: bytes) -> bytes:
    record = bytearray(fixed + tail)
    kind = ER_EVENT[f"ER_EVENT_{event.type.name.upper()}"]
    HEADER.pack_into(record, 0, *Header(len(record), kind, int(event.flags), event.time_ns))
    TASK.pack_into(record, HEADER.size, *_task(event))
    return bytes(record)


def _task(event: Event) -> Task:
    pid, start_ns = event.actor.id
    ids = (_number(event, name) for name in ("uid", "euid", "suid", "fsuid", "gid", "egid", "sgid", "fsgid"))
    caps = (_number(event, f"caps.{name}") for name in ("effective", "permitted"))
    leaders = (_pid(event.get(f"{name}.id")) for name in ("session", "pgrp"))
    spaces = (_number(event, f"ns.{name}") for name in ("pid", "mnt", "net", "user"))
    loginuid, comm = event.get("loginuid"), _text(event, "comm")
    return Task._make(
        (
            *(start_ns, _number(event, "cgroup.id"), *caps, comm, pid, *ids),
            *(_UNSET if loginuid is None else loginuid, _number(event, "tty.nr"), *leaders, *spaces, event.tid),
        )
    )


def _number(event: Event, name: str) -> int:
    value = event.get(name)
    return value if isinstance(value, int) else 0


def _text(event: Event, name: str) -> bytes:
    value = event.get(name)
    return value if isinstance(value, bytes) else b""


def _pid(value: Value) -> int:
    return value[0] if isinstance(value, tuple) and isinstance(value[0], int) else 0


def _file(event: Event, path: bytes, fspath: bytes) -> _File:
    ident = _text(event, "file.id")
    if not ident:
        return _File(0, 0, 0, b"", 0, b"")
    major, minor, ino, generation = map(int, ident.split(b":"))
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(reversed(path), reversed(fspath), strict=False))
    own = sum(1 for _ in alike) if fspath else len(path)
    return _File(major << 20 | minor, ino, generation, path, own, fspath[: len(fspath) - own] if fspath else b"")


def _of_file(event: Event, raw: bytes, content: bytes, **numbers: int) -> _Body:
    found = _file(event, _text(event, "path"), _text(event, "fspath"))
    body = File._make((0,) * len(File._fields))._replace(
        ret=_number(event, "ret"),
        raw_len=len(raw),
        content_len=len(content),
        ino=found.ino,
        dev=found.dev,
        generation=found.generation,
        i_mode=_REGULAR,
        path_len=len(found.path),
        own_len=found.own_len,
        below_len=len(found.below),
        **numbers,
    )
    return FILE.pack(*body), found.path + found.below + raw + content


def _open(event: Event) -> _Body:
    created = _CREATED if event.get("created") else 0
    flags, mode = _number(event, "flags"), _number(event, "mode")
    return _of_file(event, _text(event, "rawpath"), b"", open_flags=flags, mode=mode, f_mode=created)


def _write(event: Event) -> _Body:
    return _of_file(event, b"", _text(event, "content"), asked=_number(event, "len"), fd=_number(event, "fd"))


def _exec(event: Event) -> _Body:
    argv = event.get("argv")
    words = b"".join(word + b"\0" for word in argv if isinstance(word, bytes)) if isinstance(argv, tuple) else b""
    exe = _text(event, "exe")
    found, filename, cwd = _file(event, exe, exe), _text(event, "filename"), _text(event, "cwd")
    parent = event.actor.parent.id if event.actor.parent is not None else (0, 0)
    body = Exec._make((0,) * len(Exec._fields))._replace(
        ino=found.ino,
        dev=found.dev,
        generation=found.generation,
        ppid=parent[0],
        parent_start_ns=parent[1],
        ret=_number(event, "ret"),
        argv_len=len(words),
        path_len=len(found.path),
        own_len=found.own_len,
        filename_len=len(filename),
        cwd_len=len(cwd),
        i_mode=_REGULAR,
    )
    return EXEC.pack(*body), found.path + filename + cwd + words


def _fork(event: Event) -> _Body:
    child = event.get("child.id")
    assert isinstance(child, tuple)
    return FORK.pack(*Fork._make((*reversed(child), child[0], 0))), b""


def _exit(event: Event) -> _Body:
    return EXIT.pack(*Exit(_number(event, "exit_code") << 8 | _number(event, "signal"))), b""


def _chmod(event: Event) -> _Body:
    raw = _text(event, "rawpath")
    body = Plain._make((0,) * len(Plain._fields))._replace(
        arg2=_number(event, "mode"), ret=_number(event, "ret"), nr=_FCHMODAT, len0=1, len1=len(raw)
    )
    return PLAIN.pack(*body), b"/" + raw


def _connect(event: Event) -> _Body:
    path = _text(event, "path")
    body = Connect._make((0,) * len(Connect._fields))._replace(
        fd=_number(event, "fd"),
        ret=_number(event, "ret"),
        family=_number(event, "family"),
        dport=_number(event, "dst.port"),
        sport=_number(event, "src.port"),
        path_len=len(path),
        daddr=_text(event, "dst.ip"),
        saddr=_text(event, "src.ip"),
    )
    return CONNECT.pack(*body), path


_MAKERS: Final[dict[str, Callable[[Event], _Body]]] = {
    "open": _open,
    "write": _write,
    "exec": _exec,
    "fork": _fork,
    "exit": _exit,
    "chmod": _chmod,
    "connect": _connect,
}
