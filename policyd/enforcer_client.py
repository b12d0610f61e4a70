"""policyd's side of the order socket; and, where the enforcer doesn't answer in time, the direct kill.

The fallback is the enforcer's own guard and killer, run in this process with the same settings and budget.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from execray.config import Config
from execray.errors import PeerError
from execray.guard import Budget, OwnProcesses, Reason, settings_of
from execray.killer import Killer, Strike, boottime_ns
from execray.service import peer_of
from execray.wire.orders import MAX_LINE_BYTES, Mode, Order, Outcome, Result, decode_outcome, encode_order

BACKOFF_S: Final = (0.02, 0.05, 0.1, 0.2, 0.5)
CONNECT_TIMEOUT_S: Final = 1.0
#: A capture is answered when tcpdump records, for which the enforcer waits up to 2 s.
CAPTURE_TIMEOUT_S: Final = 3.0
#: How long a kill that found nobody any more waits to hear that it was the enforcer's doing. Within respond.OUTCOME_GRACE_S.
LATE_S: Final = 0.5
_SELF: Final = "policyd"  # in outcomes
#: Well within what a socket holds unread by default (about 160 orders of usual length).
MAX_UNDER_WAY: Final = 128


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
        self.fallback = Killer(settings_of(config), budget, self._own, _SELF)
        self._socket: socket.socket | None = None
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
                self._log.warning("no enforcer", extra={"kv": {"reason": reason}})
            attempt = 0 if self.stats.connects > connects else attempt + 1
            await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])

    def set_mode(self, mode: Mode) -> None:
        """Takes the host's mode for the fallback; the enforcer has its own."""
        self.fallback.settings = dataclasses.replace(self.fallback.settings, host_mode=mode)

    def spent(self, order: Order) -> None:
        """Counts a kill that the kernel did against the budget."""
        self.fallback.charge(order)

    def kill(self, order: Order) -> Coroutine[Any, Any, Outcome]:
        """Has the enforcer kill; directly where it isn't there, or sends no outcome within the configured bound.

        The order is with the enforcer, or carried out, when this returns; the coroutine waits for what came of it. Kills of
        the enforcer count against the budget of the direct ones, which is asked first: both together do no more than one
        alone may, also when the enforcer is another one by now and has forgotten what it did.
        """
        refused = self.fallback.over_budget(order)
        if refused is not None:
            self.stats.fallbacks += 1
            return _at_once(refused)
        try:
            asked = self._send(order)
        except _NoOutcome as error:
            return self._strike(order, error)
        return self._killed(order, asked)

    async def _killed(self, order: Order, asked: asyncio.Future[Outcome]) -> Outcome:
        try:
            outcome = await self._first_outcome(asked, self._timeout_s)
        except _NoOutcome as error:
            outcome = await self._strike(order, error)
            if outcome.result is Result.GONE:
                outcome = await self._whose_kill(asked, outcome)
            self.stats.late += asked.done() and asked.exception() is None
        finally:
            self._pending.pop(order.order_id, None)
        if outcome.result is Result.KILLED and outcome.by != _SELF:
            self.fallback.charge(order)
        return outcome

    @staticmethod
    async def _whose_kill(asked: asyncio.Future[Outcome], gone: Outcome) -> Outcome:
        """Returns the enforcer's outcome where it comes after all, and says that it killed whom the fallback found gone."""
        try:
            async with asyncio.timeout(LATE_S):
                late = await asyncio.shield(asked)
        except (TimeoutError, _NoOutcome):
            return gone
        return late if late.result is Result.KILLED else gone

    def _strike(self, order: Order, why: _NoOutcome) -> Coroutine[Any, Any, Outcome]:
        """Kills directly, at once; the coroutine waits for the end."""
        self.stats.fallbacks += 1
        return self._struck(self.fallback.strike(order), str(why))

    async def _struck(self, strike: Strike, why: str) -> Outcome:
        outcome = await self.fallback.finish(strike)
        return dataclasses.replace(outcome, text=f"{why}; {outcome.text}" if outcome.text else why)

    async def capture(self, order: Order) -> Outcome:
        """Has the enforcer capture, and returns when packets are being recorded, or why not. There is no fallback."""
        try:
            return await self._first_outcome(self._send(order), CAPTURE_TIMEOUT_S)
        except _NoOutcome as error:
            return Outcome(order.order_id, Result.FAILED, Reason.NO_ENFORCER.value, str(error), _SELF, boottime_ns())
        finally:
            self._pending.pop(order.order_id, None)

    async def _first_outcome(self, asked: asyncio.Future[Outcome], timeout_s: float) -> Outcome:
        """Waits for an order's first outcome. Raises _NoOutcome."""
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(asked)
        except TimeoutError as error:
            self.stats.timeouts += 1
            raise _NoOutcome(f"no outcome from the enforcer within {timeout_s * 1000:g} ms") from error

    def _send(self, order: Order) -> asyncio.Future[Outcome]:
        """Sends an order, unless it is under way already; returns its outcome to be. Raises _NoOutcome."""
        asked = self._pending.get(order.order_id)
        if asked is not None:
            return asked
        if self._socket is None:
            raise _NoOutcome("no enforcer")
        line = encode_order(order)
        try:
            # By the socket itself: a transport would write it at the end of the loop's turn, after all else that is ready.
            taken = self._socket.send(line) if len(self._pending) < MAX_UNDER_WAY else 0
        except BlockingIOError:
            taken = 0
        except OSError as error:
            raise _NoOutcome("the enforcer went away") from error
        if not taken:
            raise _NoOutcome("the enforcer is behind with its orders")
        if taken < len(line):
            self._socket.shutdown(socket.SHUT_RDWR)  # half an order: the reader sees the end, and connects anew
            raise _NoOutcome("the enforcer took half an order")
        self.stats.sent += 1
        asked = asyncio.get_running_loop().create_future()
        self._pending[order.order_id] = asked
        return asked

    async def _converse(self) -> None:
        """Connects and takes in outcomes until the enforcer closes. Raises OSError, PeerError or TimeoutError."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await loop.sock_connect(sock, os.fspath(self._path))
            entry = self._own.add(peer_of(sock).pid)
            self._socket = sock
            self.stats.connected = True
            self.stats.connects += 1
            unread = b""
            try:
                while data := await loop.sock_recv(sock, MAX_LINE_BYTES):
                    *lines, unread = (unread + data).split(b"\n")
                    for line in lines:
                        self._take(decode_outcome(line))
                    if len(unread) > MAX_LINE_BYTES:
                        raise PeerError("the line is too long")
            finally:
                self._disconnect()
                self._own.discard(entry)

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
        self._socket = None
        self.stats.connected = False
        self.stats.captures_cut += len(self._capturing)
        self._capturing.clear()
        for asked in self._pending.values():
            if not asked.done():
                asked.set_exception(_NoOutcome("the enforcer went away"))
                asked.exception()  # nobody may be waiting for it any more
        self._pending.clear()


async def _at_once(outcome: Outcome) -> Outcome:
    return outcome
