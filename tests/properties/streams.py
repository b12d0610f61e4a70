"""Random streams: a few processes that do few different things, so that steps are met often and partials collide."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from execray.eventfile.writing import lost_record, record_of
from execray.schema.catalog import LOST, Flag
from execray.wire.frames import Batch
from tests.support.playbook import Play, Proc

PATHS = ("/a", "/b", "/c/a", "/c/b")
#: Names that the kernel knows in part, or that are none.
ODD_PATHS = (
    "/c/d/ab",
    "/c/d/x.sh",
    "/d/c/a",
    "/x/a long name of a file",
    "/c" * 40,
    "/",
    "pipe:[7]",
    "socket:[8]",
    "memfd:/c/d/ab",
)
FILE_IDS = ("8:1:1", "8:1:2")
ARGVS = (("a",), ("a", "b"), ("-c", "ab"), ())
ADDRESSES = ("10.0.0.1", "192.0.2.7", "::1")
#: Both sides of what the kernel has one number for, and none.
ODD_ADDRESSES = ("::ffff:10.0.0.1", "2001:db8::1", "2001:db8::2", "2001:db9::", "::5:0:0:0:1", "::a00:1", None)
EXES = ("/bin/a", "/bin/b")
UIDS = (0, 1000)
SESSIONS = ((500, 5), (500, 6))  # their leaders
PORTS = (53, 443)
RETS = (0, -1, 3)
MODES = (0, 1, 3)
OPEN_FLAGS = (0, 1, 2, 3, 0o101, 0o1102, 0o10000000)
COMMS = ("one", "two", "three")
CONTENTS = (b"x", b"yx", b"\nx", b"x\n")
FLAGS = (0, 1, 0o100)
#: Milliseconds from one event to the next: often none, sometimes exactly a window, sometimes back.
PAUSES = (0, 0, 0, 1, 100, 500, 1000, 1000, 2000, 2001)


@dataclass(frozen=True, slots=True)
class Move:
    """One thing that one of the processes does. who counts modulo the processes there are by then."""

    what: str  # an event's name; `orphan`: a process without a creator; `reuse`: a new process with the pid of an old one; `lost`
    who: int = 0
    pause_ms: int = 0
    cut: int = 0
    fields: tuple[tuple[str, Any], ...] = ()


def play(moves: Sequence[Move]) -> Play:
    """Returns the moves as events."""
    stage = Play()
    init = Proc((1, 1), None, stage.process(exe="/sbin/init", uid=0, argv=["init"]).values)
    one, other = SESSIONS
    procs = [
        stage.process(
            init,
            exe=EXES[0],
            uid=0,
            argv=["a"],
            session_id=one,
            entry_id=one,
            loginuid=1000,
            user_id=1000,
            user_name="u",
        ),
        stage.process(
            init, exe=EXES[1], argv=["a", "b"], session_id=one, entry_id=other, container_id="c", user_id=1000
        ),
    ]
    clock_ms = 10_000
    for move in moves:
        clock_ms += move.pause_ms
        at, actor, fields = clock_ms / 1000, procs[move.who % len(procs)], dict(move.fields)
        if "comm" in fields:
            actor.values = {**actor.values, "comm": fields.pop("comm")}
        match move.what:
            case "lost":
                stage.lost(at=at)
            case "fork":
                procs.append(stage.fork(actor, at=at))
            case "orphan":  # whose line is not known to its beginning
                procs.append(stage.process(exe=EXES[0], uid=0))
            case "reuse":
                pid, start_ns = actor.id
                values = {**actor.values, "session.id": other}
                procs.append(Proc((pid, start_ns + len(procs)), actor.parent, values))
            case "exec":
                actor.values = {**actor.values, "exe": fields["exe"], "argv": fields["argv"]}
                stage.event("exec", actor, at=at, cut=Flag(move.cut), filename=fields["exe"], ret=fields["ret"])
            case "exit":
                stage.exit(actor, at=at)
            case name:
                stage.event(name, actor, at=at, cut=Flag(move.cut), **fields)
    return stage


def random_moves(rng: Random, features: frozenset[str], length: int) -> tuple[Move, ...]:
    """Returns a stream with what the features allow."""
    kinds = ["open", "open", "open", "write", "write", "chmod", "connect"]
    kinds = ["connect", "connect", "open"] if "addresses" in features else kinds
    kinds += ["fork"] if "forks" in features else []
    kinds += ["exit"] if "exits" in features else []
    kinds += ["reuse"] if "reuse" in features else []
    kinds += ["orphan"] if "orphans" in features else []
    kinds += ["exec"] if "execs" in features else []
    kinds += ["lost"] if "losses" in features and rng.random() < 0.5 else []
    # A stream dwells on few processes and paths, and changes that only from case to case.
    paths: list[str | None] = [*rng.sample(PATHS, rng.randint(1, 3))]
    if "missing" in features:
        paths.append(None)
    if "kernel" in features:
        paths += rng.sample(ODD_PATHS, 3)
    pauses = (0, 1, 100) if rng.random() < 0.3 else PAUSES
    crowd = rng.randint(1, 5)
    out = []
    for _ in range(length):
        pause = rng.choice(pauses)
        if "late" in features and rng.random() < 0.1:
            pause = -rng.choice((1, 500, 1500))
        cut = 0
        if "cuts" in features and rng.random() < 0.25:
            cut = int(rng.choice((Flag.PATH_TRUNCATED, Flag.ARGV_TRUNCATED, Flag.UNREADABLE)))
        if "kernel" in features and rng.random() < 0.05:
            cut |= int(rng.choice((Flag.PATH_TORN, Flag.PATH_DETACHED)))
        what = rng.choice(kinds)
        fields = _fields(rng, what, paths, features)
        if "kernel" in features and rng.random() < 0.3:
            fields += (("comm", rng.choice(COMMS)),)
        if what in ("open", "write") and rng.random() < 0.15:
            fields += (("file_names", rng.choice((("/a",), ("/c/b", "/b")))),)
        out.append(Move(what, rng.randrange(crowd), pause, cut, fields))
    return tuple(out)


def _fields(
    rng: Random, what: str, paths: Sequence[str | None], features: frozenset[str]
) -> tuple[tuple[str, Any], ...]:
    path, ret = rng.choice(paths), rng.choice(RETS)
    file_id = rng.choice((*FILE_IDS, None) if "missing" in features else FILE_IDS)
    match what:
        case "open":
            created = rng.random() < 0.3
            flags = rng.choice(OPEN_FLAGS if "kernel" in features else FLAGS)
            return (("path", path), ("file_id", file_id), ("flags", flags), ("created", created), ("ret", ret))
        case "write":
            return (("path", path), ("fd", rng.randrange(3)), ("content", rng.choice(CONTENTS)), ("ret", ret))
        case "chmod":
            return (("path", path), ("mode", rng.choice(MODES)), ("ret", ret))
        case "connect":
            addresses = (*ADDRESSES, *ODD_ADDRESSES) if "addresses" in features else ADDRESSES
            return (("dst_ip", rng.choice(addresses)), ("dst_port", rng.choice(PORTS)), ("ret", ret))
        case "exec":
            return (("exe", rng.choice(EXES)), ("argv", rng.choice(ARGVS)), ("ret", 0))
    return ()


def as_json_lines(batch: Batch) -> str:
    """Returns the events of a batch as an event file has them, so that `execray-ctl replay` takes them too."""
    records = []
    for position, row in enumerate(batch.events):
        if row[0] == LOST:
            _, time_ns, where, count, since_ns = row
            records.append(lost_record(batch.first_id + position, where, count, since_ns, time_ns))
        else:
            records.append(record_of(batch.event(position)))
    return "\n".join(json.dumps(record) for record in records)
