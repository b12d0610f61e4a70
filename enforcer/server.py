"""The order socket: takes orders from policyd's account and root only, and answers every one."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeAlias

from enforcer.audit import AuditLog
from enforcer.capture import Capture, Captured, CaptureError, Capturer
from execray.errors import PeerError
from execray.guard import OwnProcesses, Refuse, judge_identity, judge_order, other_order, same_order
from execray.killer import Killer, Strike, boottime_ns, open_process
from execray.listener import Listener, ListenerStats, permits_uids, read_line, send
from execray.service import Peer
from execray.wire.orders import (
    MAX_LINE_BYTES,
    Action,
    Order,
    Outcome,
    Result,
    decode_order,
    encode_error,
    encode_outcome,
)

MAX_CONNECTIONS: Final = 8
MAX_UNDER_WAY: Final = 64  # orders of one connection; more of them wait unread
DRAIN_TIMEOUT_S: Final = 1.5

Deliver: TypeAlias = Callable[[Outcome], Awaitable[None]]


@dataclasses.dataclass(slots=True)
class _Begun:
    """A capture under way, and everybody who ordered it: a policyd that came back asks for it again."""

    order: Order
    deliver: list[Deliver]


class OrderServer:
    """Reads orders, has them carried out side by side, and writes down and answers what came of them."""

    def __init__(
        self,
        path: Path,
        group: str,
        uids: frozenset[int],
        killer: Killer,
        capturer: Capturer,
        audit: AuditLog,
        own: OwnProcesses,
        log: logging.Logger,
    ) -> None:
        """uids: who may order, besides root and our own account."""
        self.actions: Counter[str] = Counter()
        self.undelivered = 0
        self._killer = killer
        self._capturer = capturer
        self._audit = audit
        self._own = own
        self._log = log
        self._begun: dict[str, _Begun] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None
        self._listener = Listener(
            path,
            group,
            permits=permits_uids(*uids),
            serve=self._serve,
            refusal=self._refusal,
            max_connections=MAX_CONNECTIONS,
            max_line_bytes=MAX_LINE_BYTES,
        )

    @property
    def stats(self) -> ListenerStats:
        """Connections accepted, refused, bad and open."""
        return self._listener.stats

    async def open(self) -> None:
        """Binds the socket. Raises OperatorError."""
        await self._listener.open()

    async def run(self) -> None:
        """Serves until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            await self._listener.run()

    def close(self) -> None:
        """Takes no more connections."""
        self._listener.close()

    async def drain(self) -> None:
        """Takes no more connections, ends the captures, and waits, bounded, until every order under way is answered."""
        self.close()
        self._capturer.stop()
        if self._work:
            await asyncio.wait(self._work, timeout=DRAIN_TIMEOUT_S)

    def _refusal(self, reason: str, peer: Peer) -> bytes:
        self._log.warning("order peer refused", extra={"kv": {"reason": reason, "uid": peer.uid, "peer": peer.pid}})
        self._audit.refused_peer(peer, reason)
        return encode_error(reason)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
        entry = self._own.add(peer.pid)  # who may order is one of us
        mine: set[asyncio.Task[None]] = set()
        try:
            while (order := await self._next(reader, writer, peer)) is not None:
                while len(mine) >= MAX_UNDER_WAY:
                    await asyncio.wait(mine, return_when=asyncio.FIRST_COMPLETED)
                self._spawn(self._begin(order, peer, lambda outcome: self._deliver(writer, outcome)), mine)
            # It has closed its side, and may still read: what it ordered is answered before we close ours.
            if mine:
                await asyncio.wait(mine)
        finally:
            self._own.discard(entry)

    async def _next(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> Order | None:
        """Returns the next order, None at the end. Raises PeerError after answering a line that is none."""
        line = b""
        try:
            raw = await read_line(reader)
            if raw is None:
                return None
            line = raw
            return decode_order(line)
        except PeerError as error:
            self._log.warning("bad order", extra={"kv": {"reason": error, "uid": peer.uid, "peer": peer.pid}})
            self._audit.bad_line(peer, str(error), line)
            await send(writer, encode_error(str(error)))
            raise

    def _spawn(self, work: Coroutine[Any, Any, None], mine: set[asyncio.Task[None]]) -> None:
        """Runs an order in the server's group: it is carried out even when the one who gave it is gone."""
        assert self._group is not None
        task = self._group.create_task(work)
        for tasks in (self._work, mine):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    def _begin(self, order: Order, peer: Peer, deliver: Deliver) -> Coroutine[Any, Any, None]:
        """Does at once what can't wait, which is to kill, or to take hold of a process before it is; returns the rest."""
        self.actions[order.action.value] += 1
        if order.action is Action.KILL:
            # The signal before the record of the order: a kill must not wait for a disk.
            strike = self._killer.strike(order)
            self._audit.order(order, peer)
            return self._finish_kill(strike, deliver)
        self._audit.order(order, peer)
        return self._begin_capture(order, deliver)

    async def _finish_kill(self, strike: Strike, deliver: Deliver) -> None:
        await self._answer(await self._killer.finish(strike), deliver)

    def _begin_capture(self, order: Order, deliver: Deliver) -> Coroutine[Any, Any, None]:
        """Captures in either mode: recording harms nobody, and the kill that follows may be one that would be."""
        killer = self._killer
        begun = self._begun.get(order.order_id)
        joins = begun is not None and same_order(begun.order, order)
        known = other_order() if begun is not None and not joins else killer.memory.recall(order)
        if begun is not None and joins:
            begun.deliver.append(deliver)
        if isinstance(known, Outcome):
            return self._answer(known, deliver)
        if known is not None:
            return self._answer(killer.refused(order, known, remember=False), deliver)
        return self._answer(None) if joins else self._new_capture(order, deliver)

    def _new_capture(self, order: Order, deliver: Deliver) -> Coroutine[Any, Any, None]:
        killer = self._killer
        refusal = judge_order(order, killer.settings, boottime_ns())
        if refusal is not None:
            return self._answer(killer.refused(order, refusal), deliver)
        try:
            pidfd, facts = open_process(order.process.pid)
        except OSError:
            gone = killer.outcome(order, Result.GONE, None, "the process had ended before")
            return self._answer(killer.settle(order, gone), deliver)
        refusal = judge_identity(order.process, facts.start_ticks)
        if refusal is not None:
            os.close(pidfd)
            return self._answer(killer.refused(order, refusal), deliver)
        self._begun[order.order_id] = begun = _Begun(order, [deliver])
        return self._record(order, begun, pidfd)

    async def _record(self, order: Order, begun: _Begun, pidfd: int) -> None:
        began_ns = boottime_ns()
        try:
            capture = await self._capturer.begin(order)
            outcome = self._killer.outcome(order, Result.CAPTURING)
            outcome = dataclasses.replace(outcome, file=os.fspath(capture.file), took_ns=outcome.time_ns - began_ns)
            await self._answer(self._killer.settle(order, outcome), *begun.deliver)
            await self._answer(await self._finish(order, capture, pidfd), *begun.deliver)
        except CaptureError as error:
            self._log.warning("no capture", extra={"kv": {"order_id": order.order_id, "reason": error.text}})
            await self._answer(self._no_capture(order, error), *begun.deliver)
        finally:
            del self._begun[order.order_id]
            os.close(pidfd)

    async def _finish(self, order: Order, capture: Capture, pidfd: int) -> Outcome:
        began_ns = boottime_ns()
        done: Captured = await self._capturer.finish(capture, pidfd)
        outcome = self._killer.outcome(order, Result.CAPTURED, None, done.text)
        outcome = dataclasses.replace(
            outcome,
            took_ns=outcome.time_ns - began_ns,
            file=os.fspath(done.file),
            packets=done.packets,
            bytes=done.bytes,
        )
        return self._killer.settle(order, outcome)

    def _no_capture(self, order: Order, error: CaptureError) -> Outcome:
        if error.busy:
            return self._killer.refused(order, Refuse(error.code, error.text))
        return self._killer.settle(order, self._killer.outcome(order, Result.FAILED, error.code, error.text))

    async def _answer(self, outcome: Outcome | None, *deliver: Deliver) -> None:
        """Records and sends an outcome; None: it is still to come, by way of the capture that was joined."""
        if outcome is None:
            return
        self._audit.outcome(outcome)
        for each in deliver:
            await each(outcome)

    async def _deliver(self, writer: asyncio.StreamWriter, outcome: Outcome) -> None:
        try:
            if writer.is_closing():
                raise ConnectionResetError
            await send(writer, encode_outcome(outcome))
        except (OSError, TimeoutError):
            self.undelivered += 1
            writer.transport.abort()
