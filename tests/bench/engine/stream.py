"""The stream that the engine is measured with: what 2,000 processes do, and here and there a policy's steps."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from execray.schema.catalog import ACTOR_SLOTS, EVENT_BY_NAME, EventType
from execray.schema.kinds import Kind
from execray.wire.frames import Batch, Row
from tests.bench.engine.policies import WHOLE

PROCESSES = 2000
BATCH_EVENTS = 128
_SPACING_NS = 20_000  # 50,000 events a second
_AT_ONCE = 8  # processes that are running: the others wait
_LIFE = 60  # events of a process, on average
NEW_PATHS = 0.1  # of all paths, those never seen before
_BUSY = 0.2  # of all events, opens below /srv/www
_STORIES = 0.0085  # of all events, those at which a process begins to do what a policy describes

_LIBRARIES = [
    f"/usr/lib/x86_64-linux-gnu/lib{name}{n}.so" for name in ("c", "m", "ssl", "crypto", "z") for n in range(40)
]
_FILES = [f"/home/dev/project/src/module{n % 40}/file{n}.c" for n in range(1500)]
_PAGES = [f"/srv/www/html/section{n % 12}/page{n}.html" for n in range(600)]
_LOGS = [f"/var/log/service{n}.log" for n in range(60)] + ["socket:", "pipe:", "/dev/null"]
_PROGRAMS = [f"/usr/bin/tool{n}" for n in range(180)] + [
    "/usr/bin/bash",
    "/usr/bin/sh",
    "/usr/bin/cat",
    "/usr/sbin/nginx",
]


@dataclass(eq=False)
class _Proc:
    """A process. Whatever changes in it changes `image` too."""

    id: tuple[int, int]
    parent: _Proc | None
    values: dict[str, Any]
    left: int  # events until it ends
    image: int = 0


@dataclass
class _Tables:
    """The string and actor tables of one batch."""

    strings: dict[bytes, int] = field(default_factory=dict)
    actors: list[Row] = field(default_factory=list)
    known: dict[tuple[_Proc, int], int] = field(default_factory=dict)

    def value(self, kind: Kind, value: Any) -> Any:
        if value is None:
            return None
        if kind.is_text:
            raw = value.encode() if isinstance(value, str) else value
            return self.strings.setdefault(raw, len(self.strings))
        if kind is Kind.TEXTS:
            return tuple(self.value(Kind.BYTES, item) for item in value)
        return value

    def actor(self, proc: _Proc) -> int:
        index = self.known.get((proc, proc.image))
        if index is None:
            parent = None if proc.parent is None else self.actor(proc.parent)
            slots = (self.value(slot.kind, proc.values.get(slot.name)) for slot in ACTOR_SLOTS[1:])
            index = self.known[proc, proc.image] = len(self.actors)
            self.actors.append((parent, proc.id, *slots))
        return index


class Scene:
    """Makes batches, each going on where the one before ended, so that nothing comes twice."""

    def __init__(self, seed: int = 1, new_paths: float = NEW_PATHS) -> None:
        """new_paths: of all paths, those never seen before."""
        self._rng = random.Random(seed)
        self._new_paths = new_paths
        self._now_ns = 10**12
        self._next_pid = 100
        self._next_path = 0
        self._next_id = 1
        self._seq = 0
        self._tables = _Tables()
        self._rows: list[Row] = []
        init = self._new(None, "/usr/lib/systemd/systemd", 0, 1)
        self._services = [
            self._new(init, f"/opt/server{n}", (0, 33, 1000, 1001, 1002)[n % 5], 2 + n % 6) for n in range(30)
        ]
        self._pool = [self._child(self._rng.choice(self._services)) for _ in range(PROCESSES)]
        self._running = self._rng.sample(self._pool, _AT_ONCE)

    def batches(self, events: int) -> list[Batch]:
        """Returns that many events, or a few more."""
        out: list[Batch] = []
        made = 0
        while made < events:
            while len(self._rows) < BATCH_EVENTS:
                self._burst(self._rng.randrange(_AT_ONCE))
            out.append(self._flush())
            made += len(out[-1].events)
        return out

    def _flush(self) -> Batch:
        self._seq += 1
        tables, rows = self._tables, self._rows
        batch = Batch(self._seq, self._next_id, tuple(tables.strings), tuple(tables.actors), tuple(rows))
        self._next_id += len(rows)
        self._tables, self._rows = _Tables(), []
        return batch

    def _burst(self, slot: int) -> None:
        """Lets one of the running processes do something, and perhaps another take its place."""
        rng, proc = self._rng, self._running[slot]
        if rng.random() < _STORIES:
            for name, values in _story(rng.randrange(WHOLE), proc, rng):
                self._event(name, proc, **values)
        else:
            self._ordinary(proc)
        proc.left -= 1
        if proc.left <= 0:
            self._event("exit", proc, exit_code=0, signal=0)
            at = self._pool.index(proc)
            self._pool[at] = self._born(proc)
            self._running[slot] = self._pool[at]
        elif rng.random() < 0.05 and (other := rng.choice(self._pool)) not in self._running:
            self._running[slot] = other

    def _born(self, before: _Proc) -> _Proc:
        parent = before.parent or before
        child = self._child(parent)
        self._event("fork", parent, child_id=child.id)
        child.image += 1
        self._event("exec", child, filename=child.values["exe"], file_id="8:1:77", ret=0)
        return child

    def _child(self, parent: _Proc) -> _Proc:
        child = self._new(parent, self._rng.choice(_PROGRAMS), parent.values["uid"], parent.values["cgroup.id"])
        child.left = 1 + int(self._rng.expovariate(1 / _LIFE))
        return child

    def _new(self, parent: _Proc | None, exe: str, uid: int, cgroup: int) -> _Proc:
        self._next_pid += 1
        pid = 1 if parent is None else self._next_pid
        name = exe.rsplit("/", 1)[-1]
        ids = dict.fromkeys(("uid", "euid", "suid", "gid", "egid"), uid)
        argv = (name, f"--job={self._next_pid % 50}", "run")
        values = {
            **ids,
            "cgroup.id": cgroup,
            "session.id": (900 + 40 * cgroup + uid % 7, 1),
            "user.id": uid,
            "cwd": "/srv",
        }
        values |= {
            "comm": name[:15],
            "exe": exe,
            "argv": argv,
            "pgrp.id": (pid, self._now_ns),
            "tty.nr": 0,
            "ns.pid": 1,
            "ns.mnt": 2,
        }
        return _Proc((pid, self._now_ns), parent, values, _LIFE)

    def _ordinary(self, proc: _Proc) -> None:
        rng = self._rng
        which = rng.random()
        if which < _BUSY:
            self._open(proc, self._path(_PAGES, "/srv/www/html/new"), os_flags=0)
        elif which < 0.45:
            self._open(proc, self._path(_LIBRARIES if which < 0.3 else _FILES, "/home/dev/project/new"), os_flags=0)
        elif which < 0.52:
            self._open(proc, self._path(_FILES, "/tmp/work/new"), os_flags=0o1101)
        elif which < 0.86:
            length = 1 << rng.randrange(4, 16)
            self._event(
                "write", proc, fd=rng.randrange(3, 40), path=self._path(_LOGS, "/var/tmp/new"), len=length, ret=length
            )
        elif which < 0.96:
            ip = ipaddress.ip_address(f"10.0.{rng.randrange(4)}.{rng.randrange(1, 200)}").packed
            self._event("connect", proc, fd=7, family=2, dst_ip=ip, dst_port=rng.choice((53, 80, 443, 5432)), ret=0)
        else:
            path = self._path(_FILES, "/tmp/work/mode")
            self._event("chmod", proc, path=path, rawpath=path, mode=0o644, ret=0)

    def _open(self, proc: _Proc, path: str, os_flags: int) -> None:
        created = bool(os_flags)
        self._event(
            "open", proc, path=path, rawpath=path, flags=os_flags, mode=0, created=created, file_id="8:1:9", ret=3
        )

    def _path(self, known: list[str], new: str) -> str:
        if self._rng.random() < self._new_paths:
            self._next_path += 1
            return f"{new}{self._next_path:x}"
        return known[min(int(self._rng.paretovariate(0.6)) - 1, len(known) - 1)]

    def _event(self, name: str, proc: _Proc, **slots: Any) -> None:
        kind = EVENT_BY_NAME[name]
        values: list[Any] = [None] * len(kind.slots)
        for key, value in slots.items():
            at = kind.slot_of[_NAMES[kind.code][key]]
            values[at] = self._tables.value(kind.slots[at].kind, value)
        self._now_ns += _SPACING_NS
        self._rows.append((kind.code, self._now_ns, self._tables.actor(proc), proc.id[0], 0, *values))


def _names(kind: EventType) -> dict[str, str]:
    return {slot.name.replace(".", "_"): slot.name for slot in kind.slots}


_NAMES = {kind.code: _names(kind) for kind in EVENT_BY_NAME.values()}


def _story(n: int, proc: _Proc, rng: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields what meets the steps of policy n, or some of them: its shape by n, as tests.bench.engine.policies has them."""
    shape = n % 10
    if shape in _OPENED:
        yield "open", _opening(_OPENED[shape].format(n=n), created=True)
    if shape == 7:
        for number in range(5):
            yield "open", _opening(f"/scan{n}/{number}", created=False)
        for number in range(3):
            yield "write", {"fd": 3, "path": f"/scan{n}/{number}", "len": 10, "ret": 10}
    elif shape in _WRITTEN and rng.random() < 0.8:
        length = (1 << 20) + 64 * n + 1
        yield "write", {"fd": 3, "path": _WRITTEN[shape].format(n=n), "len": length, "ret": length}
    if shape in _PORTS:
        first, of_each = _PORTS[shape]
        ip = ipaddress.ip_address("192.0.2.9").packed
        yield "connect", {"fd": 4, "family": 2, "dst_ip": ip, "dst_port": first + of_each * n, "ret": 0}
    if shape in (8, 9):
        yield "chmod", {"path": "/tmp/x", "rawpath": "x", "mode": 0o755, "ret": 0}


def _opening(path: str, created: bool) -> dict[str, Any]:
    return {"path": path, "rawpath": path, "flags": 0, "mode": 0, "created": created, "ret": 3}


_OPENED = {
    0: "/etc/app{n}.conf",
    1: "/tmp/.stage{n}/x",
    2: "/home/dev/a.key{n}",
    3: "/home/dev/.cred{n}/id1",
    4: "/mnt/share{n}/f",
    5: "/var/vault{n}.db",
    6: "/data/set{n}/f",
}
_WRITTEN = {
    0: "/var/spool/app{n}",
    1: "/tmp/.stage{n}/x",
    2: "/srv/b.out{n}",
    3: "/drop{n}a.zip",
    4: "/any",
    5: "/out{n}",
    6: "/data/set{n}/f",
}
_PORTS = {0: (20_000, 1), 3: (30_000, 1), 4: (40_000, 2), 5: (50_000, 1), 6: (10_000, 1), 7: (15_000, 1)}
