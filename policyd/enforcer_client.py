"""policyd's side of the order socket; and, where the enforcer doesn't answer in time, the direct kill.

The fallback is the enforcer's own guard and killer, run in this process with the same settings and budget.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from execray.config import Config
from execray.errors import PeerError
from execray.guard import Budget, OwnProcesses, Reason, settings_of
from execray.killer import Killer, boottime_ns
from execray.listener import read_line
from execray.service import close_writer, peer_of
from execray.wire.orders import MAX_LINE_BYTES, Order, Outcome, Result, decode_outcome, encode_order

BACKOFF_S: Final = (0.02, 0.05, 0.1, 0.2, 0.5)
CONNECT_TIMEOUT_S: Final = 1.0
#: A capture is answered when tcpdump records, for which the enforcer waits up to 2 s.
CAPTURE_TIMEOUT_S: Final = 3.0
MAX_UNDER_WAY: Final = 256
MAX_UNSENT_BYTES: Final = 256 * 1024


@dataclass(slots=True)
class ClientStats:
    """Counts since start."""

    connected: bool = False
    connects: int = 0
    sent: int = 0
    answered: int = 0
    timeouts: int = 0  # no outcome within the bound
    late: int = 0  # outcomes that came when the fallback had acted
    fallbacks: int = 0  # orders carried out, or refused, in this process
    captures_cut: int = 0  # captures whose end was not heard of, because the enforcer went away
    bad: int = 0  # lines that were no outcome, and refusals of the connection


class _NoOutcome(Exception):
    """The enforcer will not answer this order."""


class EnforcerClient:
    """Sends orders and returns their outcomes; never raises for an enforcer that is away."""

    def __init__(
        self,
        config: Config,
        log: logging.Logger,
        own: OwnProcesses | None = None,
        on_captured: Callable[[Outcome], None] | None = None,
    ) -> None:
        """own: ExecRay's processes, that the fallback spares. on_captured: called with the final outcome of a capture."""
        self.stats = ClientStats()
        self._path = config.order_socket
        self._timeout_s = config.policyd.order_timeout_ms / 1000
        self._log = log
        self._own = own or OwnProcesses()
        self._on_captured = on_captured
        budget = Budget(config.enforcer.kills_per_minute, config.enforcer.kills_per_minute_per_policy)
        self.fallback = Killer(settings_of(config), budget, self._own, "policyd")
        self._writer: asyncio.StreamWriter | None = None
        self._pending: dict[str, asyncio.Future[Outcome]] = {}
        self._capturing: set[str] = set()
        self._complained = ""

    async def run(self) -> None:
        """Keeps a connection to the enforcer until cancelled: reconnects after at most 0.5 s."""
        attempt = 0
        while True:
            connects = self.stats.connects
            try:
                await self._converse()
                reason = "the enforcer closed the connection"
            except (OSError, TimeoutError) as error:
                reason = str(error) or "no answer"
            except PeerError as error:
                self.stats.bad += 1
                connects = self.stats.connects  # one that was refused is no connection: back off
                reason = str(error)
            if reason != self._complained:
                self._complained = reason
                self._log.warning("no enforcer: kills go the direct way", extra={"kv": {"reason": reason}})
            attempt = 0 if self.stats.connects > connects else attempt + 1
            await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])

    async def kill(self, order: Order) -> Outcome:
        """Has the enforcer kill; directly where it isn't there, or sends no outcome within the configured bound.

        Its kills count against the budget of the direct ones, which is asked first: both together do no more than one alone
        may, also when the enforcer is another one by now and has forgotten what it did.
        """
        refused = self.fallback.over_budget(order)
        if refused is not None:
            self.stats.fallbacks += 1
            return refused
        try:
            outcome = await self._ask(order, self._timeout_s)
        except _NoOutcome as error:
            self.stats.fallbacks += 1
            outcome = await self.fallback.execute(order)
            text = f"{error}; {outcome.text}" if outcome.text else str(error)
            return dataclasses.replace(outcome, text=text)
        if outcome.result is Result.KILLED:
            self.fallback.charge(order)
        return outcome

    async def capture(self, order: Order) -> Outcome:
        """Has the enforcer capture, and returns when packets are being recorded, or why not. There is no fallback."""
        try:
            outcome = await self._ask(order, CAPTURE_TIMEOUT_S)
        except _NoOutcome as error:
            return Outcome(
                order.order_id, Result.FAILED, Reason.NO_ENFORCER.value, str(error), "policyd", boottime_ns()
            )
        return outcome

    async def _ask(self, order: Order, timeout_s: float) -> Outcome:
        """Sends an order and waits for its first outcome. Raises _NoOutcome."""
        asked = self._pending.get(order.order_id)
        if asked is None:
            asked = self._send(order)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(asked)
        except TimeoutError as error:
            self.stats.timeouts += 1
            raise _NoOutcome(f"no outcome from the enforcer within {timeout_s * 1000:g} ms") from error
        finally:
            self._pending.pop(order.order_id, None)

    def _send(self, order: Order) -> asyncio.Future[Outcome]:
        if self._writer is None:
            raise _NoOutcome("no enforcer")
        if len(self._pending) >= MAX_UNDER_WAY or self._writer.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            raise _NoOutcome("the enforcer is behind with its orders")
        self._writer.write(encode_order(order))
        self.stats.sent += 1
        asked: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._pending[order.order_id] = asked
        return asked

    async def _converse(self) -> None:
        """Connects and takes in outcomes until the enforcer closes. Raises OSError, PeerError or TimeoutError."""
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINE_BYTES)
        entry = self._own.add(peer_of(writer.get_extra_info("socket")).pid)
        self._writer = writer
        self.stats.connected = True
        self.stats.connects += 1
        try:
            while (line := await read_line(reader)) is not None:
                self._take(decode_outcome(line))
        finally:
            self._disconnect()
            self._own.discard(entry)
            await close_writer(writer)

    def _take(self, outcome: Outcome) -> None:
        self._complained = ""
        self.stats.answered += 1
        if outcome.result is Result.CAPTURING:
            self._capturing.add(outcome.order_id)
        asked = self._pending.pop(outcome.order_id, None)
        if asked is not None:
            if not asked.done():
                asked.set_result(outcome)
        elif outcome.order_id not in self._capturing:
            self.stats.late += 1
        if outcome.result is Result.CAPTURED and outcome.order_id in self._capturing:
            self._capturing.discard(outcome.order_id)
            if self._on_captured is not None:
                self._on_captured(outcome)

    def _disconnect(self) -> None:
        self._writer = None
        self.stats.connected = False
        self.stats.captures_cut += len(self._capturing)
        self._capturing.clear()
        for asked in self._pending.values():
            if not asked.done():
                asked.set_exception(_NoOutcome("the enforcer went away"))
                asked.exception()  # nobody may be waiting for it any more
        self._pending.clear()
