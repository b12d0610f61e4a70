"""Live events for whoever follows them: taken from the stream beside detection, and never at its cost.

A tail may need hooks that no policy needs, so the subscription is what policies and tails want together. What a tail costs is
bounded: the events a second that it gets, those that wait for it, the share of a processor that all tails have, and in the
kernel the part of the ring. Hooks that only tails need are given up as soon as events are lost, or about to be. What is left out
is counted, and told in its place.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from execray.errors import OperatorError, PeerError
from execray.eventfile.writing import lost_record, record_of
from execray.schema.catalog import LOST, Content
from execray.schema.event import Event
from execray.wire.control import encode_item
from execray.wire.frames import Batch
from policyd.engine.evidence import ActorCache, Resolver
from policyd.engine.generation import Needs
from policyd.gate.ways import is_gated
from policyd.tap_filter import TAKEN, Filter, Spec, content_of, open_content_of

MAX_TAPS: Final = 4
MAX_WAITING: Final = 1024  # events of one tail
PER_SECOND: Final = 1000  # events of one tail
SHARE: Final = 0.1  # of the loop's time, for all tails together
BURST_NS: Final = 20_000_000  # of that share
WRITE_NS: Final = 10_000  # what it takes about to write a line to a socket, and to go around the loop for it
FLUSH_S: Final = 1.0  # until a tail is told of drops that no event came after
#: Losses that too many events are the reason of.
_OVERFLOWS: Final = frozenset({"ring", "stream", "oversized"})
_BUFFER_FULL: Final = 0.25  # of tracerd's buffer: policyd is behind

RATE: Final = "too many a second"
SLOW: Final = "the reader is too slow"
BUSY: Final = "detection comes first"

Record = dict[str, Any]


@dataclass(slots=True)
class _Dropped:
    """Events that a tail didn't get, for one reason."""

    count: int = 0
    last_id: int = 0
    since_ns: int = 0
    last_ns: int = 0

    def add(self, count: int, last_id: int, time_ns: int) -> None:
        """Adds events, the last of them with this id and time."""
        if not self.count:
            self.since_ns = time_ns
        self.count += count
        self.last_id, self.last_ns = last_id, time_ns

    def merge(self, later: _Dropped) -> None:
        """Adds what was dropped after it."""
        self.since_ns = self.since_ns if self.count else later.since_ns
        self.count += later.count
        self.last_id, self.last_ns = later.last_id, later.last_ns


@dataclass(slots=True)
class _Tap:
    """One tail. One that is over a bound gets nothing for a while, so that stretches are left out and not every second event."""

    filter: Filter
    content: bool
    ancestors: bool
    waiting: deque[Event | Record] = field(default_factory=deque)
    dropped: dict[str, _Dropped] = field(default_factory=dict)
    second: int = 0
    taken: int = 0  # in this second
    choked: bool = False  # until the reader has caught up by half
    ended: OperatorError | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def refuses(self, second: int, paced: bool) -> str:
        """Returns why it gets no event now, "" when it gets one; that is then taken off the second's share.

        paced: its events wait for their share of the processor, and not for its reader.
        """
        self.choked = len(self.waiting) >= (MAX_WAITING // 2 if self.choked else MAX_WAITING)
        if self.choked:
            return BUSY if paced else SLOW
        if second != self.second:
            self.second, self.taken = second, 0
        if self.taken >= PER_SECOND:
            return RATE
        self.taken += 1
        return ""

    def put(self, *items: Event | Record) -> None:
        """Queues what was dropped before, and events behind it."""
        for why, found in sorted(self.dropped.items(), key=lambda entry: entry[1].last_id):
            self.waiting.append(lost_record(found.last_id, f"tail: {why}", found.count, found.since_ns, found.last_ns))
        self.dropped.clear()
        self.waiting.extend(items)
        self.wake.set()


class Taps:
    """All tails. What the stream brings is offered to them when detection is done with it."""

    def __init__(
        self,
        resubscribe: Callable[[], None],
        log: logging.Logger,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """resubscribe: tells the sensor what is wanted now. clock_ns: measures the tails' share.

        Not the processor's clock: what a busy host takes from us counts too, so that detection has the larger part of the rest.
        """
        self.delivered = 0
        self.dropped: Counter[str] = Counter()
        self.withdrawn = 0  # tails ended because events were lost, or about to be
        self.codes = frozenset[int]()  # the events that some tail wants
        self.content = Content(0)  # which bytes some tail wants
        self._resubscribe = resubscribe
        self._log = log
        self._clock_ns = clock_ns
        self._taps: list[_Tap] = []
        self._actors = ActorCache()
        self._allowance_ns = float(BURST_NS)
        self._filled_ns = clock_ns()
        self._over = False  # the share is used up, and not half full again
        self._unseen = _Dropped()  # meanwhile
        self._gated = False  # whether the kernel drops what policies don't want
        self._refused: int | None = None  # by the kernel, for want of room
        self._last = 0, 0  # id and time of the last event that was offered

    def __len__(self) -> int:
        return len(self._taps)

    def status(self) -> Mapping[str, object]:
        """Returns what `status` shows."""
        counts = {"delivered": self.delivered, "dropped": dict(self.dropped), "withdrawn": self.withdrawn}
        return {"open": len(self), **counts}

    async def follow(self, spec: Spec, *, content: bool, ancestors: bool) -> AsyncGenerator[bytes, None]:
        """Yields the lines of items: records of event files, `lost` ones for what is missing. Raises OperatorError."""
        tap = _Tap(Filter(spec), content, ancestors)
        if len(self._taps) >= MAX_TAPS:
            raise OperatorError(f"{MAX_TAPS} tails follow events already", "end one of them")
        self._settle()  # it is not told of what others missed
        self._change(self._taps.append, tap)
        try:
            while True:
                while tap.waiting:
                    await self._turn()
                    yield self._line(tap, tap.waiting.popleft())
                if tap.ended is not None:
                    raise tap.ended
                self._settle()
                await _woken(tap)
        finally:
            if tap in self._taps:
                self._change(self._taps.remove, tap)

    def offer(self, batch: Batch, needs: Needs, *, losses: bool) -> None:
        """Gives every tail what it wants of a batch. needs: of the policies. losses: whether some row tells of one."""
        if not self._taps or not batch.events:
            return
        began_ns = self._refill()
        self._last = batch.first_id + len(batch.events) - 1, batch.events[-1][1]
        lost = [at for at, row in enumerate(batch.events) if row[0] == LOST and len(row) >= 5] if losses else []
        self._over = self._allowance_ns <= (BURST_NS / 2 if self._over else 0)
        if self._over:
            self._pass_over(batch, lost)
        else:
            self._settle()
            resolver = Resolver(batch, self._actors)
            for tap in self._taps:
                self._take(tap, batch, lost, resolver, began_ns // 1_000_000_000)
        self._allowance_ns -= self._clock_ns() - began_ns
        if any(batch.events[position][2] in _OVERFLOWS for position in lost):
            self._withdraw(needs, "events were lost")

    def heartbeat(self, stats: Mapping[str, Any], needs: Needs) -> None:
        """Looks what the kernel refused, and whether policyd is behind: then tails give up what only they need."""
        match stats.get("gate"):
            case {"mode": mode, "refused": int(refused)}:
                self._gated = mode == "on"
                self._refuse(refused)
        match stats.get("buffer"):
            case {"bytes": int(used), "max": int(most)} if used > most * _BUFFER_FULL:
                self._withdraw(needs, "events come faster than policyd takes them")

    async def _turn(self) -> None:
        """Lets everybody else go first before each record, and waits while the tails' share is used up."""
        self._refill()
        await asyncio.sleep(max(0.0, -self._allowance_ns / SHARE / 1e9))

    def _refill(self) -> int:
        now_ns = self._clock_ns()
        self._allowance_ns = min(BURST_NS, self._allowance_ns + (now_ns - self._filled_ns) * SHARE)
        self._filled_ns = now_ns
        return now_ns

    def _take(self, tap: _Tap, batch: Batch, lost: list[int], resolver: Resolver, second: int) -> None:
        try:
            wanted = tap.filter.wanted(batch)
            for position in sorted(wanted + lost) if lost else wanted:
                if batch.events[position][0] == LOST:
                    self._tell_loss(tap, batch, position)
                elif why := tap.refuses(second, self._allowance_ns <= 0):
                    self._drop(tap, why, 1, batch, position)
                else:
                    tap.put(resolver.event(position))
        except (PeerError, IndexError, TypeError):
            return  # a row that isn't what the catalogue says: the engine has refused it, and counted

    def _pass_over(self, batch: Batch, lost: list[int]) -> None:
        """Counts all events of a batch as dropped: nobody looked how many of them some tail wanted."""
        start = 0
        for position in (*lost, len(batch.events)):
            if position > start:
                self._unseen.add(position - start, batch.first_id + position - 1, batch.events[position - 1][1])
            if position < len(batch.events):
                self._settle()
                for tap in self._taps:
                    self._tell_loss(tap, batch, position)
            start = position + 1

    def _settle(self) -> None:
        """Writes what was passed over down for each tail."""
        unseen = self._unseen
        if unseen.count:
            self._unseen = _Dropped()
            for tap in self._taps:
                self.dropped[BUSY] += unseen.count
                tap.dropped.setdefault(BUSY, _Dropped()).merge(unseen)

    def _tell_loss(self, tap: _Tap, batch: Batch, position: int) -> None:
        _, time_ns, where, count, since_ns = batch.events[position][:5]
        if len(tap.waiting) < 2 * MAX_WAITING:
            tap.put(lost_record(batch.first_id + position, where, count, since_ns, time_ns))
        else:
            self._drop(tap, SLOW, max(1, count), batch, position)

    def _drop(self, tap: _Tap, why: str, count: int, batch: Batch, last: int) -> None:
        self.dropped[why] += count
        tap.dropped.setdefault(why, _Dropped()).add(count, batch.first_id + last, batch.events[last][1])

    def _withdraw(self, needs: Needs, why: str) -> None:
        """Ends the tails that need more of the sensor than policies do."""
        greedy = [tap for tap in self._taps if self._is_greedy(tap, needs)]
        if greedy:
            self._log.warning("tails ended", extra={"kv": {"count": len(greedy), "reason": why}})
        for tap in greedy:
            hint = "narrow it with --type, or follow only what policies need"
            tap.ended = OperatorError(f"this tail was ended, for detection comes first: {why}", hint)
            tap.put()
            self.withdrawn += 1
            self._change(self._taps.remove, tap)

    def _is_greedy(self, tap: _Tap, needs: Needs) -> bool:
        """Whether more is sent for it than for policies: of what the gate tests, they want a few only."""
        codes = tap.filter.spec.codes
        beside = any(map(is_gated, codes)) if self._gated else codes - needs.codes
        return bool(beside or (tap.content and content_of(tap.filter.spec.codes) & ~needs.content))

    def _refuse(self, refused: int) -> None:
        """Tells tails what the kernel had no room for; refused: by its count since tracerd began."""
        before, self._refused = self._refused, refused
        if before is None or refused <= before:  # it was so when we came; or another tracerd has begun
            return
        for tap in self._taps:
            if any(map(is_gated, tap.filter.spec.codes)):
                self.dropped[BUSY] += refused - before
                tap.dropped.setdefault(BUSY, _Dropped()).add(refused - before, *self._last)
                tap.wake.set()

    def _change(self, change: Callable[[_Tap], None], tap: _Tap) -> None:
        before = self.codes, self.content
        change(tap)
        self.codes = frozenset[int]().union(*(tap.filter.spec.codes for tap in self._taps))
        secret = frozenset[int]().union(*(tap.filter.spec.codes for tap in self._taps if tap.content))
        self.content = content_of(secret) | open_content_of(self.codes)
        if (self.codes, self.content) != before:
            self._resubscribe()

    def _line(self, tap: _Tap, item: Event | Record) -> bytes:
        began_ns = self._clock_ns()
        if isinstance(item, dict):
            record = item
        else:
            record = record_of(item, ancestors=tap.ancestors)
            self.delivered += 1
            if not tap.content:
                for name in TAKEN:  # some policy or other tail asked for it, this one did not
                    record.pop(name, None)
        line = encode_item(record)
        self._allowance_ns -= self._clock_ns() - began_ns + WRITE_NS
        return line


async def _woken(tap: _Tap) -> None:
    """Waits until there is something for the tail; for a while only, where all there is are drops."""
    tap.wake.clear()
    try:
        async with asyncio.timeout(FLUSH_S if tap.dropped else None):
            await tap.wake.wait()
    except TimeoutError:
        tap.put()
