"""The order socket: takes orders from policyd's account and root only, and answers every one."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from enforcer.audit import AuditLog
from enforcer.capture import Capture, Captured, CaptureError, Capturer
from enforcer.intake import Intake
from execray.errors import PeerError
from execray.guard import OwnProcesses, Refuse, judge_identity, judge_order, other_order, same_order
from execray.killer import Killer, boottime_ns, ended_at_once, open_process
from execray.listener import Listener, ListenerStats, permits_uids, send
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
#: How long nothing else is done once a signal was sent, but for the record of the order, unless another order comes: whom it was
#: sent to may need this processor to end, and with what had to be done first it took twice as long from the signal to its exit.
GIVE_WAY_MS: Final = 1

Deliver: TypeAlias = Callable[[Outcome], Awaitable[None]]


@dataclasses.dataclass(slots=True)
class _Begun:
    """A capture under way, and everybody who ordered it: a policyd that came back asks for it again."""

    order: Order
    deliver: list[Deliver]


@dataclasses.dataclass(frozen=True, slots=True)
class _Desk:
    """One connection, and what was ordered over it and isn't answered."""

    intake: Intake
    writer: asyncio.StreamWriter
    peer: Peer
    fileno: int
    under_way: set[asyncio.Future[None]] = dataclasses.field(default_factory=set)

    def follow(self, work: asyncio.Future[None]) -> None:
        """Counts an order as under way until that is done."""
        self.under_way.add(work)
        work.add_done_callback(self._done)

    def _done(self, work: asyncio.Future[None]) -> None:
        self.under_way.discard(work)
        if len(self.under_way) == MAX_UNDER_WAY - 1:
            self.intake.resume()


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
        self._work: set[asyncio.Future[None]] = set()
        self._group: asyncio.TaskGroup | None = None
        self._listener = Listener(
            path,
            group,
            permits=permits_uids(*uids),
            serve=self._serve,
            refusal=self._refusal,
            max_connections=MAX_CONNECTIONS,
            max_line_bytes=MAX_LINE_BYTES,
            protocol=lambda reader, connected: Intake(reader, connected, MAX_LINE_BYTES),
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
        intake = writer.transport.get_protocol()
        assert isinstance(intake, Intake)
        desk = _Desk(intake, writer, peer, writer.get_extra_info("socket").fileno())
        try:
            await intake.serve(lambda line: self._take(line, desk))
            # It has closed its side, and may still read: what it ordered is answered before we close ours.
            while desk.under_way:
                await asyncio.wait(desk.under_way)
        except PeerError as error:
            self._log.warning("bad order", extra={"kv": {"reason": error, "uid": peer.uid, "peer": peer.pid}})
            self._audit.bad_line(peer, str(error), intake.refused)
            await send(writer, encode_error(str(error)))
            raise
        finally:
            intake.stop()
            self._own.discard(entry)

    def _take(self, line: bytes, desk: _Desk) -> bool:
        """Takes an order up; returns whether there is room for another. Raises PeerError for a line that is none.

        Does at once what can't wait, which is to kill, or to take hold of a process before it is.
        """
        order = decode_order(line)
        self.actions[order.action.value] += 1
        if order.action is not Action.KILL:
            self._audit.order(order, desk.peer, line)
            self._spawn(self._begin_capture(order, partial(self._deliver, desk.writer)), desk)
        else:
            self._kill(order, line, desk)
        return len(desk.under_way) < MAX_UNDER_WAY

    def _kill(self, order: Order, line: bytes, desk: _Desk) -> None:
        recorded = False

        def record() -> None:
            nonlocal recorded
            recorded = True
            self._audit.order(order, desk.peer, line)

        def sent(pidfd: int) -> bool:
            record()
            return not desk.intake.waits and ended_at_once(pidfd, desk.fileno, GIVE_WAY_MS)

        # The signal before the record of the order: a kill must not wait for a disk.
        strike = self._killer.strike(order, sent)
        if not recorded:
            record()
        if strike.pidfd is None:
            self._answer_now(strike.outcome, desk)
            return
        killed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._follow(killed, desk)

        def followed(outcome: Outcome) -> None:
            self._answer_now(outcome, desk)
            killed.set_result(None)

        self._killer.follow(strike, followed)

    def _answer_now(self, outcome: Outcome, desk: _Desk) -> None:
        self._audit.outcome(outcome)
        writer = desk.writer
        if writer.is_closing() or writer.transport.get_write_buffer_size():
            self._spawn(self._deliver(writer, outcome), desk)
        else:
            writer.write(encode_outcome(outcome))

    def _spawn(self, work: Coroutine[Any, Any, None], desk: _Desk) -> None:
        """Runs an order in the server's group: it is carried out even when the one who gave it is gone."""
        assert self._group is not None
        self._follow(self._group.create_task(work), desk)

    def _follow(self, work: asyncio.Future[None], desk: _Desk) -> None:
        self._work.add(work)
        work.add_done_callback(self._work.discard)
        desk.follow(work)

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
