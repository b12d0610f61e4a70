"""The real sensor in a test: load it, let a child process do something, look at the events that came out.

Only events of processes that the test started are looked at; everything else on the machine passes by.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from execray.schema.catalog import EVENT_BY_NAME, LOST, NO_CONTENT, Content
from execray.schema.event import Event, value_to_json
from execray.wire.frames import Decoder as FrameDecoder
from execray.wire.frames import encode
from tests.support.pace import patient
from tracerd.batch import BatchBuilder
from tracerd.decode import Decoder
from tracerd.inline import Limits
from tracerd.objects import OBJECT_DIR
from tracerd.processes import Process, ProcessTable
from tracerd.sensor import Sensor

#: What a probing child may use: raw system calls, so that no library chooses another one.
PRELUDE = """
import ctypes, os, sys, socket, struct, time, threading
libc = ctypes.CDLL(None, use_errno=True)
def syscall(*args):
    result = libc.syscall(*[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return -ctypes.get_errno() if result < 0 else result
def buf(raw):
    return ctypes.create_string_buffer(raw)
"""

#: How long a sleeper of ours sleeps, as it is told, in s: a sensor is loaded meanwhile.
NAP = f"{patient(30):g}"

#: An io_uring by its system calls: one operation at a time, waited for.
RING = """
import mmap
class Ring:
    def __init__(self, flags=0):
        params = buf(struct.pack("4I", 0, 0, flags, 0) + bytes(104))
        self.fd = syscall(425, 8, params)
        assert self.fd >= 0, self.fd
        at = struct.unpack_from("20I", params.raw, 40)
        self.flags = flags
        self.sq = mmap.mmap(self.fd, at[6] + 64)
        self.cq = mmap.mmap(self.fd, at[15] + 16 * 64, offset=0x8000000)
        self.sqes = mmap.mmap(self.fd, 64 * 8, offset=0x10000000)
        self.tail, self.array, self.sq_flags = at[1], at[6], at[4]
        self.cq_tail, self.cqes = at[11], at[15]
    def do(self, opcode, fd=-1, off=0, addr=0, length=0, op_flags=0):
        tail, = struct.unpack_from("I", self.sq, self.tail)
        before, = struct.unpack_from("I", self.cq, self.cq_tail)
        keep = [value for value in (off, addr) if not isinstance(value, int)]
        off, addr = (v if isinstance(v, int) else ctypes.addressof(v) for v in (off, addr))
        struct.pack_into("BBHiQQIIQ24x", self.sqes, tail % 8 * 64, opcode, 0, 0, fd, off, addr, length & 0xffffffff, op_flags, 7)
        struct.pack_into("I", self.sq, self.array + tail % 8 * 4, tail % 8)
        struct.pack_into("I", self.sq, self.tail, tail + 1)
        syscall(426, self.fd, 0 if self.flags & 2 else 1, 0, 2 if self.flags & 2 else 0, 0, 0)
        while struct.unpack_from("I", self.cq, self.cq_tail)[0] == before:
            syscall(426, self.fd, 0, 1, 1, 0, 0)
        del keep
        return struct.unpack_from("Qi", self.cq, self.cqes + before % 16 * 16)[1]
"""

#: Records to a batch: a busy machine makes more at once than one frame holds.
_BATCH = 1000


class Live:
    """A sensor of its own: its maps, objects, table and decoder."""

    def __init__(
        self,
        names: Iterable[str],
        *,
        content: bool = False,
        ring_bytes: int = 1 << 24,
        gate: str = "on",
        kills: Limits | None = None,
        objects: Path = OBJECT_DIR,
    ) -> None:
        self.sensor = Sensor(ring_bytes=ring_bytes, gate=gate, kills=kills, object_dir=objects)
        self.table = ProcessTable(65536)
        self.builder = BatchBuilder()
        self.decoder = Decoder(self.table, self.builder)
        self.lost = 0
        self._names = names
        self._content = int(~NO_CONTENT if content else Content.SPELLING)

    def __enter__(self) -> Self:
        self.sensor.start(self.table)
        self.want(self._names)
        return self

    def want(self, names: Iterable[str]) -> None:
        """Attaches the hooks of other events instead."""
        assert not self.sensor.want([EVENT_BY_NAME[name].code for name in names], self._content)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sensor.close()

    def drain(self) -> list[Event]:
        """Returns all events since the last call, taken through the stream's own encoding."""
        ring = self.sensor.ring
        events: list[Event] = []
        count = 0
        while (record := ring.next()) is not None:
            self.decoder.decode(ring.data, *record)
            count += 1
            if not count % _BATCH:
                events += self._taken()
        ring.release()
        assert self.decoder.refused == 0
        return events + self._taken()

    def _taken(self) -> list[Event]:
        batch = self.builder.take()
        (decoded,) = FrameDecoder().feed(encode(batch))
        assert decoded == batch
        return [batch.event(i) for i, row in enumerate(batch.events) if row[0] != LOST]

    def collect(self, pid: int, timeout_s: float = 30.0) -> list[Event]:
        """Returns the events of a process and its descendants up to its exit. Raises TimeoutError."""
        deadline = time.monotonic() + patient(timeout_s)
        ours, found = {pid}, []
        while time.monotonic() < deadline:
            select.select([self.sensor.ring.fd], [], [], 0.1)
            for event in self.drain():
                if event.actor.id[0] not in ours:
                    continue
                found.append(event)
                if event.type.name == "fork":
                    ours.add(_int(event, "child.pid"))
                if event.type.name == "exit" and event.actor.id[0] == pid:
                    return found
        raise TimeoutError(f"no exit of {pid} within {timeout_s} s; {len(found)} events")

    def await_exec(self, pid: int, timeout_s: float = 10.0) -> Process:
        """Returns a child once its exec was seen: Popen comes back a moment before that. Raises TimeoutError."""
        deadline = time.monotonic() + patient(timeout_s)
        while time.monotonic() < deadline:
            seen = [e for e in self.drain() if e.type.name == "exec" and e.actor.id[0] == pid and e.get("ret") == 0]
            process = self.table.find(pid)
            if seen and process is not None:
                return process
            select.select([self.sensor.ring.fd], [], [], 0.1)
        raise TimeoutError(f"no exec of {pid} within {timeout_s} s")

    def run(self, argv: list[str | Path], *, uid: int | None = None, cwd: Path | None = None) -> Run:
        """Runs a program to its end and returns it with its events."""
        self.drain()
        with (
            subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, user=uid, cwd=cwd) as child,
            ThreadPoolExecutor(1) as reader,
        ):
            try:
                said = reader.submit(child.communicate)  # meanwhile: a child whose pipe is full never exits
                events = self.collect(child.pid)
                out, err = said.result(patient(10))
            finally:
                child.kill()
        return Run(child.pid, child.returncode, os.fsdecode(out), os.fsdecode(err), events)

    def python(self, code: str, *args: object, uid: int | None = None) -> Run:
        """Runs Python code (after PRELUDE) and returns it with its events; what it prints is its own account."""
        source = PRELUDE + textwrap.dedent(code)
        run = self.run([sys.executable, "-I", "-S", "-c", source, *map(str, args)], uid=uid)
        assert run.status == 0, run.stderr
        return run


class Run:
    """A finished child with its events."""

    def __init__(self, pid: int, status: int, stdout: str, stderr: str, events: list[Event]) -> None:
        self.pid = pid
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
        self.events = events

    def of(self, name: str, **fields: object) -> list[Event]:
        """Returns the events of one kind whose fields (dots as double underscores) have these values."""
        wanted = {key.replace("__", "."): value for key, value in fields.items()}
        kind = [event for event in self.events if event.type.name == name]
        return [event for event in kind if all(event.get(key) == value for key, value in wanted.items())]

    def one(self, name: str, **fields: object) -> Event:
        """Returns the one event of that kind; more or fewer fail the test."""
        found = self.of(name, **fields)
        assert len(found) == 1, f"{len(found)} {name} events with {fields}: {[e.to_json() for e in self.of(name)]}"
        return found[0]


def shown(event: Event, name: str) -> object:
    """Returns a field as JSON shows it."""
    return value_to_json(event.type.by_name[name], event.get(name))


def _int(event: Event, name: str) -> int:
    value = event.get(name)
    assert isinstance(value, int)
    return value


@contextmanager
def sleeper(uid: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A harmless process of our own to point at."""
    child = subprocess.Popen(["/bin/sleep", NAP], user=uid)
    try:
        yield child
    finally:
        child.kill()
        child.wait()
