"""The subscriber's end of tracerd's event stream: connects, stays connected, never feeds the same batch twice."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from execray.errors import PeerError
from execray.gate.encoding import MAX_PLAN_BYTES
from execray.gate.inline import MAX_INLINE_BYTES
from execray.process import boot_id
from execray.schema.catalog import EVENT_BY_NAME, FIRST_ADDED, LOST
from execray.schema.extension import digests, disagreements
from execray.service import peer_of, write
from execray.version import VERSION
from execray.wire.frames import (
    Ack,
    Batch,
    Error,
    Frame,
    Heartbeat,
    Hello,
    Settle,
    Subscribe,
    Taken,
    check_hello,
    encode,
)
from policyd.confirmation import Confirmation
from policyd.inbox import Inbox

RETRY_S: Final = 0.2
RETRY_REFUSED_S: Final = 0.5
RETRY_MISMATCH_S: Final = 5.0  # another version won't go away by asking again at once
HELLO_TIMEOUT_S: Final = 2.0
MISSED_HEARTBEATS: Final = 3  # until the sensor counts as not live
SILENT_HEARTBEATS: Final = 10  # until the connection is given up
MAX_WATCH_S: Final = 1.0  # between two looks at whether it is silent
#: Acknowledged together: batches, or what came within so many seconds, or bytes. Each is a wake-up of both daemons.
ACK_BATCHES: Final = 16
ACK_WITHIN_S: Final = 0.1
_ACK_BYTES: Final = 64 * 1024
MAX_UNSENT_BYTES: Final = MAX_PLAN_BYTES + MAX_INLINE_BYTES + 256 * 1024


class Mismatch(PeerError):
    """The other end is of another version, boot or user: trying again soon is of no use."""


class Receiver(Protocol):
    """What the stream is for."""

    def subscription(self) -> Subscribe:
        """What is wanted now."""
        ...

    def batch(self, batch: Batch, stream_id: str) -> bool:
        """Takes one batch, in order, each once; returns whether there is room for more. Raises PeerError for a malformed one."""
        ...

    async def room(self) -> None:
        """Waits while too much is on its way."""
        ...

    def heartbeat(self, heartbeat: Heartbeat) -> None:
        """Takes the sensor's clock and statistics."""
        ...


@dataclass(slots=True)
class Position:
    """How far one stream has been read, written and acknowledged."""

    stream_id: str = ""
    fed_seq: int = -1
    written_seq: int = -1  # what tracerd may forget
    next_id: int | None = None  # of the event that should come next; None: can't be known
    #: Who has begun anew since this was last read: `tracerd` another stream, or `policyd`, we ourselves; until the next event.
    restarted: str = ""
    time_ns: int = 0  # the latest event or heartbeat


@dataclass(slots=True)
class StreamStats:
    """Counts since start."""

    connects: int = 0
    batches: int = 0
    events: int = 0
    repeated: int = 0  # batches that came again after a reconnection, not fed again
    gap_events: int = 0  # events missing between two batches without a record of their loss
    peer_errors: int = 0
    restarts: int = 0  # of tracerd, while we lived


@dataclass(slots=True)
class Link:
    """The connection as it is now."""

    connected: bool = False
    error: str = "not yet tried"
    facts: dict[str, Any] = field(default_factory=dict)
    heartbeat_at: float = 0.0  # time.monotonic() of the last heartbeat
    frame_at: float = 0.0  # and of the last frame of any kind
    stats: dict[str, Any] = field(default_factory=dict)  # what the last heartbeat said


class StreamClient:
    """One subscription that outlives tracerd's restarts."""

    def __init__(self, path: Path, receiver: Receiver, heartbeat_s: float, log: logging.Logger) -> None:
        self.stats = StreamStats()
        self.link = Link()
        self.position = Position()
        self.confirmation = Confirmation()
        self._path = path
        self._receiver = receiver
        self._heartbeat_s = heartbeat_s
        self._log = log
        self._inbox: Inbox | None = None
        self._was_live = True
        self._differing: dict[str, str] = {}
        self._told_seq = -1  # up to where tracerd knows of `written_seq`
        self._told_bytes = 0  # read until it was told
        self._ack_timer: asyncio.TimerHandle | None = None
        #: Signs of life, which only grow: frames that were done with, and rounds of the loops that watch and reconnect.
        self.taken = 0
        self.turns = 0

    @property
    def feeding(self) -> bool:
        """Whether what was read waits for room behind it."""
        return self._inbox is not None and self._inbox.held

    @property
    def silent_s(self) -> float:
        """For how long nothing has come, in s. 0 while nothing is read: what came meanwhile nobody knows.

        Not only heartbeats count: tracerd sends none while there are more batches than the socket takes.
        """
        return 0.0 if self.feeding else time.monotonic() - self.link.frame_at

    @property
    def live(self) -> bool:
        """Whether tracerd is connected, and has been heard of lately enough."""
        return self.link.connected and self.silent_s < MISSED_HEARTBEATS * self._heartbeat_s

    @property
    def missing(self) -> dict[int, str]:
        """By code of an added event, why it can't come from the tracerd that is connected."""
        codes = {name: EVENT_BY_NAME[name].code for name in self._differing if name in EVENT_BY_NAME}
        # of an event of ours only the calls may differ, and what comes is read as ever
        return {code: self._differing[name] for name, code in codes.items() if code >= FIRST_ADDED}

    async def run(self) -> None:
        """Stays subscribed until cancelled. Lets bugs through; everything the peer does wrong is counted and survived."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            while True:
                delay_s = await self._attempt()
                self.turns += 1
                await asyncio.sleep(delay_s)

    async def _attempt(self) -> float:
        """Runs one connection to its end; returns how long to wait before the next."""
        try:
            await self._connection()
            self._failed("tracerd closed the connection")
        except PeerError as error:
            self.stats.peer_errors += 1
            self._failed(str(error))
            return RETRY_MISMATCH_S if isinstance(error, Mismatch) else RETRY_REFUSED_S
        except (OSError, TimeoutError) as error:
            self._failed(str(error) or type(error).__name__)
        return RETRY_S

    def resubscribe(self) -> None:
        """Tells tracerd what is wanted now; without a connection, the next one begins with it."""
        if self._send(self._receiver.subscription()):
            self.confirmation.asked()
        else:  # a broken connection may not be read to its end before the batch at hand is done with
            self.confirmation.end()

    def settle(self, generation: int, ends: Mapping[int, int]) -> None:
        """Tells tracerd until when, in ns, what had begun before its plan of that generation counts, by the plan's slots."""
        self._send(Settle(generation, tuple(value for pair in sorted(ends.items()) for value in pair)))

    def acknowledge(self, stream_id: str, seq: int) -> None:
        """Everything up to seq is done with, which tracerd is told soon. Of a stream that is gone, it means nothing."""
        if stream_id != self.position.stream_id or seq <= self.position.written_seq:
            return
        self.position.written_seq = seq
        read = 0 if self._inbox is None else self._inbox.bytes_read
        if seq - self._told_seq >= ACK_BATCHES or read - self._told_bytes >= _ACK_BYTES:
            self._acknowledge()
        elif self._ack_timer is None:
            self._ack_timer = asyncio.get_running_loop().call_later(ACK_WITHIN_S, self._acknowledge_late)

    def _acknowledge_late(self) -> None:
        self._ack_timer = None
        self._acknowledge()

    def _acknowledge(self) -> None:
        seq = self.position.written_seq
        if seq > self._told_seq and self._send(Ack(seq)):
            self._told_seq = seq
            self._told_bytes = 0 if self._inbox is None else self._inbox.bytes_read

    def _end_acknowledging(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        self._acknowledge()

    def _failed(self, reason: str) -> None:
        # Once for each reason: a tracerd that is away for an hour is one line, not 18,000.
        if reason != self.link.error:
            self._log.warning("no event stream", extra={"kv": {"reason": reason, "socket": self._path}})
        self.link.connected = False
        self.link.error = reason

    def _send(self, frame: Frame) -> bool:
        transport = None if self._inbox is None else self._inbox.transport
        if transport is None or transport.is_closing():
            return False
        transport.write(encode(frame))
        if transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._abort()  # it has stopped reading
        return True

    def _abort(self) -> None:
        if self._inbox is not None and self._inbox.transport is not None:
            self._inbox.transport.abort()

    async def _connection(self) -> None:
        inbox = Inbox()
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: inbox, os.fspath(self._path))
        try:
            peer = peer_of(transport.get_extra_info("socket"))
            if peer.uid not in (0, os.geteuid()):
                raise Mismatch(f"the process at {self._path} runs as uid {peer.uid}, not as root")
            write(transport, encode(Hello("policyd", self._facts())))
            await self._greet(inbox)
            self._inbox, self._told_bytes = inbox, 0
            self.confirmation.begin()
            self.resubscribe()
            self._acknowledge()  # what was written since our hello
            await inbox.serve(self._frame, self._room)
        finally:
            self._end_acknowledging()
            self.link.connected = False
            self._inbox = None
            self.confirmation.end()
            await inbox.close()

    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"version": VERSION, "pid": os.getpid(), "extensions": digests()}
        if self.position.stream_id:
            # Not fed_seq: tracerd forgets what we name here, and the alerts of what is fed may not be on disk yet.
            facts["resume"] = [self.position.stream_id, self.position.written_seq]
            self._told_seq = self.position.written_seq
        return facts

    async def _greet(self, inbox: Inbox) -> None:
        """Reads tracerd's hello."""
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            frame = await inbox.first()
        if frame is None:
            raise PeerError("tracerd closed the connection before its hello")
        if isinstance(frame, Error):
            raise PeerError(f"tracerd refused us: {frame.message[:200]}")
        try:
            hello = check_hello(frame, "tracerd")
        except PeerError as error:
            raise Mismatch(str(error)) from error
        stream_id, boot = hello.facts.get("stream_id"), hello.facts.get("boot_id")
        if not isinstance(stream_id, str) or not stream_id:
            raise Mismatch("tracerd's hello names no stream")
        if boot != boot_id():
            raise Mismatch("tracerd's hello is of another boot")
        self._begin(stream_id, hello.facts)

    def _begin(self, stream_id: str, facts: dict[str, Any]) -> None:
        before = self.position
        if stream_id != before.stream_id:
            again = bool(before.stream_id)
            self.stats.restarts += again
            done = facts.get("done")
            # Somebody has read this stream before us, and what that one had begun it has taken along.
            ours = not again and isinstance(done, int) and done >= 0
            restarted = "tracerd" if again else "policyd" if ours else ""
            self.position = Position(stream_id, restarted=restarted, time_ns=before.time_ns)
            self._told_seq = -1
        self.stats.connects += 1
        self._compare(facts.get("extensions"))
        now = time.monotonic()
        self.link = Link(True, "", facts, heartbeat_at=now, frame_at=now)
        self._log.info("event stream connected", extra={"kv": {"stream": stream_id, "tracerd": facts.get("pid")}})

    def _compare(self, theirs: object) -> None:
        """Finds the events that packages add at one end only, or otherwise: tracerd isn't asked for those."""
        found = disagreements(theirs)
        for name, reason in found.items():
            if self._differing.get(name) != reason:
                self._log.error("events differ", extra={"kv": {"of": name, "reason": reason}})
        self._differing = found

    def _frame(self, frame: Frame) -> bool:
        """Takes one frame; returns whether there is room for more."""
        room = True
        match frame:
            case Batch():
                room = self._batch(frame)
            case Heartbeat(time_ns, stats):
                self.link.heartbeat_at = time.monotonic()
                self.link.stats = stats
                self.position.time_ns = max(self.position.time_ns, time_ns)
                self._receiver.heartbeat(frame)
            case Taken(count):
                self.confirmation.taken(count)
            case Error(message):
                raise PeerError(f"tracerd closed the stream: {message[:200]}")
            case _:
                raise PeerError(f"tracerd sent a {type(frame).__name__} frame")
        self.taken += 1
        self.link.frame_at = time.monotonic()
        return room

    async def _room(self) -> None:
        await self._receiver.room()
        self.link.frame_at = time.monotonic()  # from here on it is read again

    def _batch(self, batch: Batch) -> bool:
        at = self.position
        if batch.seq <= at.fed_seq:
            self.stats.repeated += 1
            return True
        hole = self._hole_before(batch)
        # Before it is fed: a batch that breaks the protocol only when it is read would otherwise come back for ever.
        # Its events are then missing from `next_id`, and so reported as lost before the next one.
        at.fed_seq = batch.seq
        if hole is not None:
            self._receiver.batch(hole, at.stream_id)
        room = self._receiver.batch(batch, at.stream_id)
        at.restarted = ""
        # Where tracerd itself dropped batches, one of nothing but LOST rows stands for them, and ids jump after it.
        told = all(row[0] == LOST for row in batch.events)
        at.next_id = None if told else batch.first_id + len(batch.events)
        if batch.events:
            at.time_ns = max(at.time_ns, batch.events[-1][1])
        self.stats.batches += 1
        self.stats.events += len(batch.events)
        return room

    def _hole_before(self, batch: Batch) -> Batch | None:
        """Returns a batch with one LOST record for what lies unseen before this one, if anything does."""
        at = self.position
        if not batch.events or batch.events[0][0] == LOST:
            return None
        first_ns: int = batch.events[0][1]
        if at.restarted:
            # While tracerd was down nobody looked, and what policyd knew is gone: nobody can say how much it was.
            since_ns = at.time_ns or first_ns
            return Batch(-1, 0, (), (), ((LOST, first_ns, f"restart of {at.restarted}", 0, since_ns),))
        missing = 0 if at.next_id is None else batch.first_id - at.next_id
        if missing <= 0:
            return None
        self.stats.gap_events += missing
        return Batch(-1, at.next_id or 0, (), (), ((LOST, first_ns, "stream", missing, at.time_ns),))

    async def _watch(self) -> None:
        """Says when the sensor falls silent and when it speaks again; gives up a connection that stays silent."""
        period_s = min(self._heartbeat_s / 2, MAX_WATCH_S)
        while True:
            began = time.monotonic()
            await asyncio.sleep(period_s)
            self.turns += 1
            # Where we stood still ourselves, stopped or swapped out, what came meanwhile is still to be read.
            if self._inbox is None or time.monotonic() - began > period_s + self._heartbeat_s:
                continue
            age = self.silent_s
            if self.live is not self._was_live:
                self._was_live = self.live
                if self.live:
                    self._log.warning("sensor live again")
                else:
                    self._log.warning("sensor not live", extra={"kv": {"silent_s": f"{age:.1f}"}})
            if age > SILENT_HEARTBEATS * self._heartbeat_s:
                self._abort()  # serve() sees the end, and we reconnect

    def status(self) -> dict[str, object]:
        """Returns the connection, its position and counts, as `status` shows them."""
        link, at = self.link, self.position
        out: dict[str, object] = {"connected": link.connected, "live": self.live}
        if link.connected:
            out |= {"stream_id": at.stream_id, "tracerd_pid": link.facts.get("pid"), "seq": at.fed_seq}
            out |= {"acknowledged": at.written_seq}
            out["heartbeat_age_ms"] = round((time.monotonic() - link.heartbeat_at) * 1000)
        else:
            out["error"] = link.error
        return out | {name: getattr(self.stats, name) for name in self.stats.__slots__}
