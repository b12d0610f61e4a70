"""The line of alerts: what is acknowledged when, and who waits for a disk that is slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from policyd.respond import Pending
from policyd.writer import MAX_WAITING, Followers, Item, Writer


class Disk:
    """Takes alerts while it is `free`."""

    def __init__(self) -> None:
        self.asked, self.free = asyncio.Event(), asyncio.Event()
        self.written: list[Any] = []

    async def write(self, alerts: Sequence[Any]) -> None:
        self.asked.set()
        await self.free.wait()
        self.written += alerts


class Responder:
    """Makes of each pending alert what it was given as."""

    async def finish(self, pending: Pending) -> dict[str, Any]:
        return pending.build({})


def alert(number: int) -> Pending:
    return Pending(lambda _action: {"n": number})


class Line:
    """A writer, its disk, and what it has acknowledged."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.acknowledged: list[tuple[str, int]] = []
        self.writer = Writer(
            cast(Any, Responder()),
            cast(Any, self.disk),
            lambda stream, seq: self.acknowledged.append((stream, seq)),
            Followers(),
        )


@asynccontextmanager
async def running() -> AsyncIterator[Line]:
    line = Line()
    task = asyncio.create_task(line.writer.run())
    try:
        yield line
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_batches_without_alerts_wait_for_no_disk_and_are_acknowledged_behind_those_with_some() -> None:
    async with running() as line, asyncio.timeout(10):
        await line.writer.put(Item([alert(1)], "s", 0))
        for seq in range(1, 3 * MAX_WAITING):
            await line.writer.put(Item([], "s", seq))
        await line.writer.put(Item([alert(2)], "s", 3 * MAX_WAITING))
        assert line.acknowledged == []
        line.disk.free.set()
        await line.writer.drain(5)
    assert line.disk.written == [{"n": 1}, {"n": 2}]
    assert line.acknowledged[-1] == ("s", 3 * MAX_WAITING)
    assert line.acknowledged == sorted(line.acknowledged)


async def test_a_line_full_of_alerts_makes_the_next_batch_wait() -> None:
    async with running() as line, asyncio.timeout(10):
        puts = asyncio.create_task(_put_alerts(line, 2 * MAX_WAITING))
        done, _ = await asyncio.wait({puts}, timeout=0.1)
        assert not done
        line.disk.free.set()
        await puts
        await line.writer.drain(5)
    assert len(line.disk.written) == 2 * MAX_WAITING
    assert line.acknowledged[-1] == ("s", 2 * MAX_WAITING - 1)


async def _put_alerts(line: Line, count: int) -> None:
    for seq in range(count):
        await line.writer.put(Item([alert(seq)], "s", seq))


async def test_a_batch_without_alerts_is_acknowledged_at_once_where_nothing_is_being_written() -> None:
    async with running() as line, asyncio.timeout(10):
        await line.writer.put(Item([], "s", 0))
        assert line.acknowledged == [("s", 0)]
        await line.writer.put(Item([alert(1)], "s", 1))
        await line.disk.asked.wait()
        await line.writer.put(Item([], "s", 2))  # behind an alert that is under way
        assert line.acknowledged == [("s", 0)]
        line.disk.free.set()
        await line.writer.drain(5)
    assert line.acknowledged == [("s", 0), ("s", 1), ("s", 2)]


async def test_a_batch_of_another_stream_is_acknowledged_by_itself() -> None:
    async with running() as line, asyncio.timeout(10):
        line.disk.free.set()
        await line.writer.put(Item([alert(0)], "before", 6))
        await line.writer.put(Item([], "before", 7))
        await line.writer.put(Item([], "after", 0))
        await line.writer.put(Item([alert(1)]))  # a loss that was summed up: of no batch
        await line.writer.put(Item([], "after", 1))
        await line.writer.drain(5)
    assert line.acknowledged == [("before", 7), ("after", 1)]


async def test_other_work_goes_on_between_two_alerts() -> None:
    async with running() as line, asyncio.timeout(10):
        line.disk.free.set()
        turns: list[int] = []

        def turn() -> None:
            turns.append(line.writer.written)
            if len(turns) < 30:
                asyncio.get_running_loop().call_soon(turn)

        await line.writer.put(Item([alert(number) for number in range(20)], "s", 0))
        turn()
        await line.writer.drain(5)
    assert len(set(turns)) > 10
