"""When the ring is read, with a ring of the test's own: what the kernel does only now and then is done here on purpose."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Iterator
from typing import cast

import pytest

from execray.schema.catalog import EVENT_BY_NAME
from execray.schema.layout import ER_GATHERED, ER_KIND_URGENT
from tracerd.pacing import Pacing
from tracerd.ringbuf import RingReader

OPEN, CHMOD = (EVENT_BY_NAME[name].code for name in ("open", "chmod"))


class Ring:
    """Records by their kinds; None for one that is still being written."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)  # an edge each time that it is written
        self.records: list[int | None] = []
        self.reads = 0
        self.finished: int | None = None  # what a half-written record becomes just after it was looked at
        self.given_back = asyncio.Event()
        self.moved = asyncio.Event()
        self.pacing = Pacing(cast(RingReader, self), 0.05, self.read)

    position = 0
    waiting_bytes = 0

    @property
    def end(self) -> int:
        return len(self.records)

    @property
    def data(self) -> bytes:
        return b"".join(struct.pack("<IHH", 8, kind or 0, 0) for kind in self.records)

    def look_ahead(self) -> Iterator[int | None]:
        for at, kind in enumerate(self.records):
            yield None if kind is None else 8 * at

    def put(self, *kinds: int | None, wakes: bool = True) -> None:
        self.records += kinds
        if wakes:
            os.eventfd_write(self.fd, 1)

    def read(self) -> None:
        self.reads += 1
        taken = 0
        while self.records and self.records[0] is not None:
            del self.records[0]
            taken += 1
        if self.records and self.finished is not None:
            self.records[0], self.finished = self.finished, None
        self.moved.set()
        if taken:
            self.pacing.rest()

    def release(self) -> None:
        self.given_back.set()

    async def next_read(self) -> None:
        """Waits until it is read once more."""
        self.moved.clear()
        async with asyncio.timeout(10):
            await self.moved.wait()

    def close(self) -> None:
        self.pacing.close()
        os.close(self.fd)


@pytest.fixture
async def ring() -> AsyncIterator[Ring]:
    made = Ring()
    yield made
    made.close()


async def test_a_record_that_is_being_written_when_the_rest_is_over_is_read_once_it_is_whole(ring: Ring) -> None:
    ring.put(OPEN)
    await ring.next_read()
    ring.put(None, wakes=False)  # its writer has lost the processor
    await ring.next_read()  # the rest is over, and nothing is there to be taken
    ring.records = [OPEN]
    ring.put()
    await ring.next_read()
    assert not ring.records


async def test_a_record_that_is_finished_just_after_it_was_looked_at_is_read(ring: Ring) -> None:
    ring.put(OPEN)
    await ring.next_read()
    ring.put(None, wakes=False)
    ring.finished = OPEN  # its writer still finds us behind, and wakes nobody
    await ring.next_read()
    await ring.next_read()
    assert not ring.records


async def test_an_urgent_record_behind_others_ends_the_rest(ring: Ring) -> None:
    ring.put(OPEN)
    await ring.next_read()
    before = ring.reads
    ring.put(OPEN)
    ring.put(CHMOD | ER_KIND_URGENT)
    await asyncio.sleep(0)  # one turn of the loop, which a rest outlasts
    await asyncio.sleep(0)
    assert ring.reads == before + 1 and not ring.records


@pytest.mark.parametrize(("waiting_bytes", "read"), [(ER_GATHERED - 1, False), (ER_GATHERED, True)])
async def test_what_has_gathered_is_enough_company(ring: Ring, waiting_bytes: int, read: bool) -> None:
    ring.put(OPEN)
    await ring.next_read()
    before, ring.waiting_bytes = ring.reads, waiting_bytes
    ring.put(OPEN)
    await asyncio.sleep(0)  # one turn of the loop, which a rest outlasts
    await asyncio.sleep(0)
    assert (ring.reads == before + 1) is read


async def test_the_last_record_is_given_back_when_nothing_came_in_the_rest(ring: Ring) -> None:
    ring.put(OPEN)
    await ring.next_read()
    assert not ring.given_back.is_set()  # while it rests the kernel takes it to be behind
    async with asyncio.timeout(10):
        await ring.given_back.wait()


async def test_what_came_as_the_rest_ended_is_an_edge(ring: Ring) -> None:
    ring.put(OPEN)
    await ring.next_read()
    release = ring.release

    def late() -> None:
        """As a record that is submitted before the kernel sees the new position: it wakes nobody."""
        release()
        ring.records.append(OPEN)

    ring.release = late  # type: ignore[method-assign]  # another program's store, between two lines of ours
    await ring.next_read()
    assert not ring.records


async def test_what_nobody_is_woken_for_is_found_by_looking(ring: Ring) -> None:
    ring.pacing.keep_looking(True)
    for _ in range(2):
        ring.put(OPEN | ER_KIND_URGENT, wakes=False)
        await ring.next_read()
        assert not ring.records


async def test_what_nobody_is_woken_for_is_found_after_a_rest_in_which_nothing_came(ring: Ring) -> None:
    ring.pacing.keep_looking(True)
    ring.put(OPEN)
    await ring.next_read()
    async with asyncio.timeout(10):
        await ring.given_back.wait()
    ring.put(OPEN | ER_KIND_URGENT, wakes=False)
    await ring.next_read()
    assert not ring.records


async def test_where_the_kernel_kills_nobody_nobody_looks(ring: Ring) -> None:
    ring.pacing.keep_looking(True)
    ring.pacing.keep_looking(False)
    ring.put(OPEN, wakes=False)
    await asyncio.sleep(0.2)  # not to wait for something: nothing shall happen
    assert ring.records
