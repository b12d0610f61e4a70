"""tracerd.decode: what events of a batch share changes nothing of what they say; records that the layout doesn't admit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execray.schema.catalog import ACTOR_SLOT_OF
from execray.schema.layout import ER_EVENT, EXEC, EXIT, FILE, FORK, HEADER, TASK, Exec, File, Task
from tracerd.batch import BatchBuilder
from tracerd.decode import Decoder
from tracerd.processes import ProcessTable

NOWHERE = Path("/nonexistent")
ROOT = 1000
ARGV = ACTOR_SLOT_OF["argv"]
S_IFREG = 0o100000


def task(pid: int, pgrp: int) -> Task:
    return Task._make((0,) * len(Task._fields))._replace(
        pid=pid, tid=pid, start_ns=pid * 1000, comm=b"c" * 16, session=ROOT, pgrp=pgrp, ns_pid=1, ns_mnt=2
    )


def record(kind: str, who: Task, fixed: Any, values: tuple[int, ...], tail: bytes = b"") -> bytes:
    out = bytearray(fixed.size) + tail
    fixed.pack_into(out, 0, *values)
    HEADER.pack_into(out, 0, len(out), ER_EVENT[f"ER_EVENT_{kind}"], 0, 77)
    TASK.pack_into(out, HEADER.size, *who)
    return bytes(out)


def run(who: Task, program: int) -> bytes:
    path, argv = b"/bin/%d" % program, b"%d\0-x\0" % program
    r = Exec._make((0,) * len(Exec._fields))._replace(ino=5, path_len=len(path), argv_len=len(argv))
    return record("EXEC", who, EXEC, r, path + argv)


def file(kind: str, who: Task, number: int, raw: bytes = b"n", content: bytes = b"") -> bytes:
    """Some number in each of the fields, so that files differ in one at a time."""
    path, below = (b"/a/b", b"/a/c")[number & 1], (b"", b"/under")[number >> 1 & 1]
    r = File._make((0,) * len(File._fields))._replace(
        ino=(7, 8, 0, 9)[number >> 2 & 3],
        generation=number >> 4 & 1,
        i_mode=S_IFREG,
        own_len=(len(path), 2)[number >> 5 & 1],
        path_len=len(path),
        below_len=len(below),
        raw_len=len(raw),
        content_len=len(content),
        ret=number,
    )
    return record(kind, who, FILE, r, path + below + raw + content)


class Story:
    """What some processes do, as records."""

    def __init__(self) -> None:
        self.living = {ROOT: task(ROOT, ROOT)}
        self.born = ROOT
        self.records: list[bytes] = []

    def tell(self, what: str, at: int, number: int) -> None:
        pids = sorted(self.living)
        who = self.living[pids[at % len(pids)]]
        if what == "fork":
            self.born += 1
            self.living[self.born] = task(self.born, who.pgrp)
            self.records.append(record("FORK", who, FORK, (self.born * 1000, self.born, self.born, 0)))
        elif what == "exec":
            self.records.append(run(who, number))
        elif what == "exit" and who.pid != ROOT:
            del self.living[who.pid]
            self.records.append(record("EXIT", who, EXIT, (number,)))
        elif what == "join":  # another's process group
            self.living[who.pid] = who._replace(pgrp=pids[number % len(pids)])
        elif what in ("open", "write"):
            self.records.append(file(what.upper(), who, number, content=b"x" * (number & 3)))


def decoded(records: list[bytes], batch_size: int) -> list[Any]:
    table, builder = ProcessTable(64, NOWHERE), BatchBuilder()
    table.scanned(ROOT, ROOT * 1000, b"/bin/root")
    decoder, out = Decoder(table, builder, lambda: 0), []
    for number, one in enumerate(records, 1):
        decoder.decode(memoryview(b"before" + one), 6, len(one))
        if number % batch_size == 0 or number == len(records):
            batch = builder.take()
            out += [batch.event(at) for at in range(len(batch.events))]
    assert decoder.refused == 0 and len(out) == len(records)
    return out


def told(events: list[Any]) -> list[Any]:
    """All that anybody can ask of them: of a creator's creator there are no arguments to be had."""
    out = []
    for event in events:
        line: list[Any] = []
        at = event.actor
        while at is not None:
            line.append(at.slots if len(line) < 2 else at.slots[:ARGV] + at.slots[ARGV + 1 :])
            at = at.parent
        out.append((event.type.name, event.tid, event.flags, event.slots, line))
    return out


STEP = st.tuples(
    st.sampled_from(["fork", "exec", "exit", "join", "open", "write"]), st.integers(0, 7), st.integers(0, 63)
)


@settings(deadline=None, max_examples=60)
@given(st.lists(STEP, max_size=30))
def test_events_of_one_batch_say_what_they_would_say_alone(steps: list[tuple[str, int, int]]) -> None:
    story = Story()
    for step in steps:
        story.tell(*step)
    assert told(decoded(story.records, 1000)) == told(decoded(story.records, 1))


def test_a_program_that_its_creator_and_its_group_see_change_is_the_new_one_to_them() -> None:
    story = Story()
    for step in (("fork", 0, 0), ("open", 1, 0), ("exec", 0, 3), ("open", 1, 0)):
        story.tell(*step)
    before, after = (event for event in decoded(story.records, 1000) if event.type.name == "open")
    assert [e.get("parent.exe") for e in (before, after)] == [b"/bin/root", b"/bin/3"]
    assert [e.get("pgrp.leader.exe") for e in (before, after)] == [b"/bin/root", b"/bin/3"]


def test_processes_that_nobody_came_of_cost_one_actor_each_and_their_creator_one() -> None:
    story = Story()
    for number in range(20):
        for step in (("fork", 0, 0), ("exec", 1, number), ("exit", 1, 0)):
            story.tell(*step)
    table, builder = ProcessTable(64, NOWHERE), BatchBuilder()
    table.scanned(ROOT, ROOT * 1000, b"/bin/root")
    decoder = Decoder(table, builder, lambda: 0)
    for one in story.records:
        decoder.decode(memoryview(one), 0, len(one))
    assert len(builder.take().actors) <= 20 + 2  # the creator by itself, and as it is shown with them


@pytest.mark.parametrize("kind", ["OPEN", "WRITE"])
@pytest.mark.parametrize("field", ["path_len", "below_len", "raw_len", "content_len"])
def test_a_record_shorter_than_its_texts_is_refused(kind: str, field: str) -> None:
    r = File._make((0,) * len(File._fields))._replace(ino=1, **{field: 9})
    decoder = Decoder(ProcessTable(8, NOWHERE), BatchBuilder())
    one = record(kind, task(5, 0), FILE, r, b"12345678")
    decoder.decode(memoryview(one), 0, len(one))
    assert (decoder.refused, decoder.decoded) == ((1, 0) if (kind, field) != ("OPEN", "content_len") else (0, 1))
