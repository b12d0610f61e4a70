"""The one line of alerts on their way to the sinks, in the order of their detection; and those who follow along.

A batch is acknowledged here, when its alerts are on disk. The line has a bound: past it the reader of the stream waits, and
tracerd buffers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from execray.errors import OperatorError
from policyd.respond import Pending, Responder
from policyd.sinks.base import Alert
from policyd.sinks.fanout import Fanout

MAX_WAITING: Final = 1024  # batches with alerts
_MORE: Final = 16  # of those who found room at once
MAX_FOLLOWERS: Final = 16
FOLLOWER_WAITING: Final = 256  # alerts one follower may be behind
_GROUP: Final = (
    256  # alerts written together when the writer is behind, and acknowledged with all batches that came with them
)


@dataclass(slots=True)
class Item:
    """The alerts of one batch, and what to acknowledge when they are written."""

    pending: Sequence[Pending]
    stream_id: str = ""
    seq: int = -1  # below 0: nothing to acknowledge


class Followers:
    """Everybody who watches alerts as they happen. A slow one loses alerts, which are counted and told; nobody waits for it."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Alert]] = set()
        self._dropped: dict[asyncio.Queue[Alert], int] = {}

    def publish(self, alerts: Sequence[Alert]) -> None:
        """Hands alerts to every follower."""
        for queue in self._queues:
            for alert in alerts:
                try:
                    queue.put_nowait(alert)
                except asyncio.QueueFull:
                    self._dropped[queue] = self._dropped.get(queue, 0) + 1

    async def follow(self, first: Sequence[Alert] = ()) -> AsyncGenerator[object, None]:
        """Yields `first`, then each alert from now on, with `{"dropped": n}` where some were left out.

        Raises OperatorError when too many follow already.
        """
        if len(self._queues) >= MAX_FOLLOWERS:
            raise OperatorError(f"{MAX_FOLLOWERS} readers follow the alerts already", "end one of them")
        queue: asyncio.Queue[Alert] = asyncio.Queue(FOLLOWER_WAITING)
        self._queues.add(queue)
        try:
            for alert in first:
                yield alert
            while True:
                alert = await queue.get()
                if dropped := self._dropped.pop(queue, 0):
                    yield {"dropped": dropped}
                yield alert
        finally:
            self._queues.discard(queue)
            self._dropped.pop(queue, None)

    def __len__(self) -> int:
        return len(self._queues)


class Writer:
    """Finishes alerts one after the other, writes them, and acknowledges."""

    def __init__(
        self, responder: Responder, fanout: Fanout, acknowledge: Callable[[str, int], None], followers: Followers
    ) -> None:
        """acknowledge: called with the stream and seq up to which everything is written."""
        self._responder = responder
        self._fanout = fanout
        self._acknowledge = acknowledge
        self._followers = followers
        self._queue: asyncio.Queue[Item] = asyncio.Queue(MAX_WAITING + _MORE)
        self._moved = asyncio.Event()
        self._newest: Item | None = None  # the last in the queue, where there is one
        self._busy_since: float | None = None
        self.written = 0  # alerts and batches done with

    @property
    def busy_s(self) -> float:
        """How long it has been about what it does now: one alert's outcome, or one write. 0 where it waits for work."""
        return 0.0 if self._busy_since is None else time.monotonic() - self._busy_since

    def _got_on(self) -> None:
        self.written += 1
        self._busy_since = time.monotonic()

    async def put(self, item: Item) -> None:
        """Queues alerts as `offer` does; waits while the line is full."""
        await self.room()
        self.offer(item)

    async def room(self) -> None:
        """Waits while the line is full."""
        while self._queue.qsize() >= MAX_WAITING:
            self._moved.clear()
            await self._moved.wait()

    def offer(self, item: Item) -> bool:
        """Queues the alerts of a batch; returns whether there is room for more. Where there isn't, `room` comes before the next.

        One without alerts is acknowledged at once where nothing is being written, else with the one before it, so that a slow
        disk holds events up only when the line is full of alerts.
        """
        if not item.pending and self._busy_since is None and self._queue.empty():
            self._acknowledge(item.stream_id, item.seq)
            self.written += 1
            return True
        newest = self._newest
        if newest is not None and not item.pending and newest.stream_id == item.stream_id:
            newest.seq = item.seq
            return True
        self._queue.put_nowait(item)
        self._newest = item
        return self._queue.qsize() < MAX_WAITING

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            items = [await self._queue.get()]
            alerts = len(items[0].pending)
            while alerts < _GROUP and not self._queue.empty():
                items.append(self._queue.get_nowait())
                alerts += len(items[-1].pending)
            self._moved.set()
            if items[-1] is self._newest:
                self._newest = None
            self._busy_since = time.monotonic()
            await self._write([pending for item in items for pending in item.pending])
            for stream_id, seq in {item.stream_id: item.seq for item in items if item.seq >= 0}.items():
                self._acknowledge(stream_id, seq)
            for _ in items:
                self._queue.task_done()
            self._got_on()
            self._busy_since = None

    async def drain(self, timeout_s: float) -> None:
        """Waits until all that was queued is written. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            await self._queue.join()

    async def _write(self, pending: Sequence[Pending]) -> None:
        done: list[dict[str, Any]] = []
        for one in pending:
            if done and not one.ready:
                # What is known is not kept waiting for an outcome that isn't.
                await self._deliver(done)
                done = []
            done.append(await self._responder.finish(one))
            self._got_on()
            await asyncio.sleep(0)  # an alert takes a good part of a millisecond to make: events come between two
        if done:
            await self._deliver(done)

    async def _deliver(self, alerts: Sequence[dict[str, Any]]) -> None:
        await self._fanout.write(alerts)
        self._got_on()
        self._followers.publish(alerts)
