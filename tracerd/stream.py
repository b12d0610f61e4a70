"""The stream server: numbered batches to one subscriber, kept until it acknowledges them, within a bound.

While the subscriber is away, or slower than the events come, batches wait; past the bound the oldest go, and in their place
comes one LOST row for each kind of loss, with its exact count. The kernel is never slowed by a slow reader.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from execray.errors import PeerError
from execray.gate.encoding import MAX_PLAN_BYTES
from execray.gate.inline import MAX_INLINE_BYTES
from execray.schema.catalog import LOST
from execray.service import Peer, listen_unix, peer_of
from execray.wire.frames import (
    MAX_PATH_BYTES,
    Ack,
    Batch,
    Decoder,
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

HELLO_TIMEOUT_S: Final = 2.0
CLOSE_TIMEOUT_S: Final = 1.0
MAX_CONNECTIONS: Final = 8
_REQUEST_BYTES: Final = (
    MAX_PLAN_BYTES + MAX_PATH_BYTES + MAX_INLINE_BYTES + 64 * 1024
)  # the longest frame a subscriber may send
_CODE: Final = itemgetter(0)


@dataclass(slots=True)
class _Kept:
    """One batch that isn't acknowledged yet."""

    seq: int
    first_id: int
    rows: int
    data: bytes
    time_ns: int
    lost: Counter[str] | None = None  # by the batch's own LOST rows
    sent_s: float = 0.0  # time.monotonic(), once it was sent


def _encoded(batch: Batch, rows: int) -> tuple[bytes, bool]:
    """Returns the batch's frame, and True; for one that is larger than a frame may be, one that says how much was lost."""
    try:
        return encode(batch), True
    except ValueError:
        first, last = batch.events[0][1], batch.events[-1][1]
        return encode(Batch(batch.seq, batch.first_id, (), (), ((LOST, last, "oversized", rows, first),))), False


class Retention:
    """Batches until they are acknowledged: pure bookkeeping, no sockets."""

    #: Dropped batches of which the count is kept one by one; older ones are added up.
    MAX_DROPPED: Final = 4096

    def __init__(self, max_bytes: int) -> None:
        self._kept: deque[_Kept] = deque()
        self._dropped: deque[_Kept] = deque()  # without their data; always older than what is kept
        self.max_bytes = max_bytes
        self._newest = -1
        self.done_seq = -1  # up to here, some subscriber has said that it is done with them
        self._sent_seq = -1
        self._told = -1  # up to here, losses are in _lost
        self._lost = 0
        self.bytes = 0
        self.drops = 0  # batches that their reader never gets, or not as they were

    @property
    def lost(self) -> int:
        """Rows that were dropped before any subscriber had got them."""
        return self._lost + sum(d.rows for d in self._dropped if d.seq > max(self._sent_seq, self._told))

    def add(self, batch: Batch) -> None:
        """Keeps one more batch, dropping the oldest where there is no room."""
        lost: Counter[str] | None = None
        rows = len(batch.events)
        if LOST in map(_CODE, batch.events):
            lost = Counter()
            for row in batch.events:
                if row[0] == LOST:
                    lost[row[2]] += row[3]
                    rows -= 1
        data, whole = _encoded(batch, rows)
        self.drops += not whole
        self._kept.append(_Kept(batch.seq, batch.first_id, rows, data, batch.events[-1][1], lost))
        self.bytes += len(data)
        self._newest = batch.seq
        while self.bytes > self.max_bytes and len(self._kept) > 1:
            self._drop(self._kept.popleft())

    def _drop(self, old: _Kept) -> None:
        self.bytes -= len(old.data)
        old.data = b""
        self.drops += 1
        self._dropped.append(old)
        if len(self._dropped) > self.MAX_DROPPED:
            first, second = self._dropped.popleft(), self._dropped.popleft()
            second.first_id, second.rows = first.first_id, first.rows + second.rows
            second.lost = (first.lost or Counter()) + (second.lost or Counter())
            self._dropped.appendleft(second)

    @property
    def newest(self) -> int:
        """The seq of the last batch added, -1 before the first."""
        return self._newest

    @property
    def sent(self) -> int:
        """The seq of the last batch sent to the subscriber at hand."""
        return self._sent_seq

    def acknowledge(self, seq: int) -> None:
        """Forgets everything up to seq."""
        self.done_seq = max(self.done_seq, seq)
        while self._kept and self._kept[0].seq <= seq:
            self.bytes -= len(self._kept.popleft().data)
        while self._dropped and self._dropped[0].seq <= seq:
            self._dropped.popleft()

    def waiting_s(self) -> float:
        """Returns for how long the oldest batch that was sent waits to be acknowledged; 0: none does."""
        oldest = self._kept[0] if self._kept else None
        return 0.0 if oldest is None or oldest.seq > self._sent_seq else time.monotonic() - oldest.sent_s

    def rewind(self, seq: int) -> None:
        """Everything after seq is to be sent again: a subscriber came (back) that has seen up to there, -1 for nothing."""
        self.acknowledge(seq)
        self._sent_seq = seq

    def next(self) -> bytes | None:
        """Returns the next frame to send, None when all is sent."""
        if self._dropped and self._dropped[-1].seq > self._sent_seq:
            return self._gap([d for d in self._dropped if d.seq > self._sent_seq])
        if not self._kept or self._kept[-1].seq <= self._sent_seq:
            return None
        # seqs have no holes, so the place of the next one is known
        kept = self._kept[max(0, self._sent_seq + 1 - self._kept[0].seq)]
        self._sent_seq = kept.seq
        kept.sent_s = time.monotonic()
        return kept.data

    def _gap(self, dropped: list[_Kept]) -> bytes:
        """One batch in the place of the dropped ones, with a LOST row for each kind of loss."""
        last = dropped[-1]
        lost = sum((d.lost for d in dropped if d.lost), Counter(stream=sum(d.rows for d in dropped)))
        self._lost += sum(d.rows for d in dropped if d.seq > self._told)
        self._sent_seq, self._told = last.seq, max(self._told, last.seq)
        rows = tuple((LOST, last.time_ns, where, count, dropped[0].time_ns) for where, count in sorted(lost.items()))
        return encode(Batch(last.seq, dropped[0].first_id, (), (), rows))


class StreamServer:
    """Accepts the subscriber and feeds it."""

    def __init__(
        self,
        identity: dict[str, Any],
        allowed_uids: frozenset[int],
        max_bytes: int,
        on_subscribe: Callable[[Subscribe, Peer], None],
        on_settle: Callable[[Settle], None],
        on_leave: Callable[[], None],
        log: logging.Logger,
    ) -> None:
        """on_leave: called when the subscriber is gone."""
        self.identity = identity
        self.allowed_uids = allowed_uids | {0, os.geteuid()}
        self.on_subscribe = on_subscribe
        self.on_settle = on_settle
        self.on_leave = on_leave
        self.log = log
        self.retention = Retention(max_bytes)
        self.subscriber: _Connection | None = None
        self.connections: set[_Connection] = set()
        self.subscribed = False  # somebody has, so batches are kept also while it is away
        self.refused_peers = 0
        self.bad_peers = 0
        self._server: asyncio.Server | None = None
        self._path: Path | None = None

    @property
    def listening(self) -> bool:
        """Whether there is a subscriber, and it takes what it is sent."""
        return self.subscriber is not None and not self.subscriber.paused

    async def start(self, path: Path, group: str) -> None:
        """Listens. Raises OperatorError."""
        self._path = path
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Connection(self), sock=listen_unix(path, group))

    def publish(self, batch: Batch) -> None:
        """Sends a batch, now or when there is somebody to take it."""
        if self.subscribed:
            self.retention.add(batch)
            if self.subscriber is not None:
                self.subscriber.pump()

    def heartbeat(self, time_ns: int, stats: dict[str, Any]) -> None:
        """Sends a sign of life to the subscriber."""
        if self.subscriber is not None:
            self.subscriber.send(Heartbeat(time_ns, stats))

    async def close(self) -> None:
        """Ends every connection and removes the socket."""
        for connection in list(self.connections):
            connection.close()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


class _Connection(asyncio.Protocol):
    """One peer: hello, subscribe, then batches one way and acknowledgements the other."""

    def __init__(self, server: StreamServer) -> None:
        self._server = server
        self._decoder = Decoder(_REQUEST_BYTES)
        self._transport: asyncio.Transport | None = None
        self.paused = False
        self._hello: Hello | None = None
        self._taken = 0  # subscriptions
        self._told = 0  # and of how many it knows
        self._peer = Peer(0, 0, 0)
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=1024 * 1024)
        sock: socket.socket = transport.get_extra_info("socket")
        self._peer = peer_of(sock)
        server = self._server
        if self._peer.uid not in server.allowed_uids or len(server.connections) >= MAX_CONNECTIONS:
            server.refused_peers += 1
            server.log.warning("subscriber refused", extra={"kv": {"peer": self._peer.pid, "uid": self._peer.uid}})
            self._fail(f"uid {self._peer.uid} may not subscribe to events")
            return
        server.connections.add(self)
        self.send(Hello("tracerd", {**server.identity, "done": server.retention.done_seq}))
        self._timer = asyncio.get_running_loop().call_later(
            HELLO_TIMEOUT_S, self._fail, "no hello and subscription in time"
        )

    def data_received(self, data: bytes) -> None:
        if self not in self._server.connections:
            return
        try:
            for frame in self._decoder.feed(data):
                self._receive(frame)
        except PeerError as error:
            self._server.bad_peers += 1
            self._server.log.warning(
                "subscriber broke the protocol", extra={"kv": {"peer": self._peer.pid, "reason": error}}
            )
            self._fail(str(error))

    def _receive(self, frame: Frame) -> None:
        server = self._server
        if self._hello is None:
            self._hello = check_hello(frame, "policyd")
            _resume_of(self._hello)
        elif isinstance(frame, Subscribe):
            if server.subscriber not in (None, self):
                raise PeerError("another subscriber is connected")
            if server.subscriber is None:
                server.subscriber = self
                stream, seq = _resume_of(self._hello)
                ours = stream == server.identity["stream_id"]
                if ours and not -1 <= seq <= server.retention.newest:
                    raise PeerError(f"no batch {seq} to resume after")
                server.retention.rewind(seq if ours else -1)
            server.subscribed = True
            if self._timer is not None:
                self._timer.cancel()
            server.on_subscribe(frame, self._peer)
            self._taken += 1
            self.pump()
        elif isinstance(frame, Ack) and server.subscriber is self:
            if frame.seq > server.retention.sent:
                raise PeerError(f"acknowledges batch {frame.seq}, which was not sent")
            server.retention.acknowledge(frame.seq)
            self.pump()
        elif isinstance(frame, Settle) and server.subscriber is self:
            server.on_settle(frame)
        elif isinstance(frame, Error):
            server.log.warning(
                "subscriber reports", extra={"kv": {"peer": self._peer.pid, "reason": frame.message[:200]}}
            )
            self.close()
        else:
            raise PeerError(f"unexpected {type(frame).__name__}")

    def pump(self) -> None:
        """Sends what is due, until the socket's buffer is full."""
        if not self.paused and self._told != self._taken:
            self._told = self._taken
            self.send(Taken(self._taken))
        while not self.paused and self._transport is not None and (data := self._server.retention.next()) is not None:
            self._transport.write(data)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self._server.subscriber is self:
            self.pump()

    def send(self, frame: Frame) -> None:
        """Sends a frame beside the batches; not to a peer that doesn't read."""
        if self._transport is not None and not self.paused:
            self._transport.write(encode(frame))

    def _fail(self, message: str) -> None:
        self.send(Error(message))
        self._leave()
        self.close()

    def _leave(self) -> None:
        """Makes room for another subscriber at once: a peer that doesn't read may take its time to be gone."""
        if self._server.subscriber is self:
            self._server.subscriber = None
            self._server.on_leave()
            self._server.log.warning("subscriber gone", extra={"kv": {"peer": self._peer.pid}})

    def close(self) -> None:
        """Closes once what was written is sent, or after a second."""
        if self._transport is not None:
            self._transport.close()
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._server.connections.discard(self)
        self._transport = None
        self._leave()


def _resume_of(hello: Hello) -> tuple[str, int]:
    match hello.facts.get("resume"):
        case None:
            return "", -1
        case (str(stream), int(seq)):
            return stream, seq
        case _:
            raise PeerError("malformed `resume` in hello")
