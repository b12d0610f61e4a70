"""tracerd.batch and tracerd.processes: whatever anybody starts, a batch stays small and the table bounded."""

from __future__ import annotations

from execray.schema.catalog import ACTOR_SLOT_OF, ACTOR_SLOTS, Flag
from execray.wire.frames import MAX_FRAME_BYTES, Batch, Decoder, Frame, encode
from tracerd.batch import MAX_ARGS, BatchBuilder
from tracerd.processes import (
    DEAD_ARGV_BYTES,
    MAX_ARGV_BYTES,
    MAX_DEPTH,
    MAX_TABLE_ARGV_BYTES,
    Process,
    ProcessTable,
)
from tracerd.stream import Retention


def chain(table: ProcessTable, length: int, argv: bytes) -> Process:
    """A line of processes, each made by the one before and running a program of its own with many arguments."""
    process = table.scanned(1, 1, b"/sbin/init")
    for pid in range(2, length + 2):
        process = table.forked(process, pid, pid)
        table.executed(process, b"/opt/%d" % pid, argv, 0)
    return process


def test_a_deep_chain_with_many_arguments_fits_a_frame() -> None:
    table, builder = ProcessTable(65536), BatchBuilder()
    leaf = chain(table, 250, b"\0" * MAX_ARGV_BYTES)
    index, flags = builder.add_actor(b"k", leaf)
    builder.event((3, 5, index, leaf.pid, flags, 0, 0))
    batch = builder.take()
    assert len(encode(batch)) < MAX_FRAME_BYTES // 50
    event = batch.event(0)
    argv = event.get("argv")
    assert isinstance(argv, tuple) and len(argv) == MAX_ARGS
    assert Flag.ARGV_TRUNCATED in event.flags
    assert event.get("parent.exe") == b"/opt/%d" % (leaf.pid - 1)
    assert event.get("parent.argc") == MAX_ARGS
    depth, at = 0, event.actor
    while at.parent is not None:
        depth, at = depth + 1, at.parent
    assert depth == 250


def test_a_deep_chain_with_arguments_of_16_kib_each_fits_a_frame() -> None:
    table, builder = ProcessTable(65536), BatchBuilder()
    process = table.scanned(1, 1, b"/sbin/init")
    for pid in range(2, 252):
        process = table.forked(process, pid, pid)
        table.executed(
            process, b"/opt/%d" % pid, b"".join(b"%d-%d\0" % (pid, n) for n in range(2000))[:MAX_ARGV_BYTES], 0
        )
    index, flags = builder.add_actor(b"k", process)
    builder.event((3, 5, index, process.pid, flags, 0, 0))
    assert len(encode(builder.take())) < MAX_FRAME_BYTES // 4


def test_every_creator_is_sent_with_its_first_arguments_and_the_parent_with_all() -> None:
    table, builder = ProcessTable(64), BatchBuilder()
    leaf = chain(table, 4, b"sh\0" + b"-x\0" * 600)
    for name, process in ((b"leaf", leaf), (b"middle", leaf.parent)):
        assert process is not None
        index, flags = builder.add_actor(name, process)
        builder.event((3, 5, index, process.pid, flags, 0, 0))
    batch = builder.take()
    for position in range(2):
        line, at = [], batch.event(position).actor.parent
        while at is not None and at.parent is not None:
            line.append(at.slots[ACTOR_SLOT_OF["argv"]])
            at = at.parent
        assert all(isinstance(argv, tuple) and argv[:2] == (b"sh", b"-x") for argv in line)
        assert len(line) == 3 - position
        assert batch.event(position).get("parent.argc") == MAX_ARGS


def test_a_grandparent_that_is_a_parent_too_is_sent_with_its_arguments() -> None:
    table, builder = ProcessTable(64), BatchBuilder()
    leaf = chain(table, 3, b"x\0-y\0")
    assert leaf.parent is not None
    for name, process in ((b"leaf", leaf), (b"middle", leaf.parent), (b"leaf2", leaf)):
        index, flags = builder.add_actor(name, process)
        builder.event((3, 5, index, process.pid, flags, 0, 0))
    batch = builder.take()
    for position in range(3):
        assert batch.event(position).get("parent.cmdline") == b"x -y"


def test_what_a_builder_counts_is_no_less_than_what_is_sent() -> None:
    table, builder = ProcessTable(65536), BatchBuilder()
    for pid in range(2, 400):
        process = table.scanned(pid, pid, b"/usr/bin/%d" % pid)
        table.executed(process, b"/usr/bin/%d" % pid, b"a\0b\0c%d\0" % pid, 0)
        index, flags = builder.add_actor(b"%d" % pid, process)
        path = builder.text(b"/very/long/path/%d" % pid * 9)
        builder.event((4, 2**62, index, pid, flags, path, path, 2**31, 0o777, False, path, path, 0))
    counted = builder.bytes
    assert len(encode(builder.take())) <= counted


def test_a_batch_that_is_too_large_all_the_same_is_told_as_lost() -> None:
    kept = Retention(64 << 20)
    events = tuple((3, 7 + n, 0, 1, 0, 0, 0) for n in range(5))
    actor = (None, (1, 1), *[0] * 13, *[None] * (len(ACTOR_SLOTS) - 14))
    kept.add(Batch(0, 1, (b"x" * (MAX_FRAME_BYTES + 1),), (actor,), events))
    kept.add(Batch(1, 6, (b"x",), (actor,), events))
    frames: list[Frame] = []
    while (data := kept.next()) is not None:
        frames += Decoder().feed(data)
    first, second = frames
    assert isinstance(first, Batch) and isinstance(second, Batch)
    assert first.events == ((0, 11, "oversized", 5, 7),)
    assert (first.seq, second.seq, second.events) == (0, 1, events)


def test_the_dead_keep_little_and_all_together_have_a_bound() -> None:
    table = ProcessTable(65536)
    argv = b"a" * MAX_ARGV_BYTES
    mother = table.scanned(1, 1, None)
    child = table.forked(mother, 2, 2)
    table.executed(child, b"/x", argv, 0)
    table.exited(2, 2)
    assert child.argv is not None and len(child.argv) == DEAD_ARGV_BYTES and child.flags & Flag.ARGV_TRUNCATED
    for pid in range(3, 20_000):
        process = table.forked(mother, pid, pid)
        table.executed(process, b"/x", argv, 0)
    kept = sum(len(p.argv or b"") for p in (table.find(pid) for pid in range(3, 20_000)) if p is not None)
    assert kept <= MAX_TABLE_ARGV_BYTES + MAX_ARGV_BYTES + 20_000 * DEAD_ARGV_BYTES


def test_a_line_of_the_dead_is_cut_and_counted() -> None:
    table = ProcessTable(65536)
    process = table.scanned(1, 1, None)
    for pid in range(2, 3 * MAX_DEPTH):
        child = table.forked(process, pid, pid)
        table.exited(process.pid, process.start_ns)
        process = child
    length, at = 0, process
    while at.parent is not None:
        length, at = length + 1, at.parent
    assert length <= MAX_DEPTH
    assert table.lines_cut > 0


def test_beyond_its_bound_the_table_forgets_the_oldest() -> None:
    table = ProcessTable(100)
    for pid in range(1, 301):
        table.scanned(pid, pid, None)
    assert len(table) == 100 and table.evicted == 200
    assert table.find(200) is None and table.find(201) is not None


def test_a_reused_pid_is_another_process() -> None:
    table = ProcessTable(100)
    old = table.scanned(7, 1, b"/old")
    new = table.forked(table.scanned(1, 1, b"/init"), 7, 99)
    assert table.find(7) is new and new is not old
    table.exited(7, 1)  # the old one's end, heard late
    assert table.find(7) is new
